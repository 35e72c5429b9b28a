"""A writer killed at any moment leaves the last published state, and the next writer goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa

from cdp_pipeline.lake import Lake, Mirror, Upsert, open_lake
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.crash.worker import (
    LOG,
    STATE,
    die_before_commit,
    last_stamp,
    publish_for_ever,
    stamped,
)
from cdp_pipeline_tests.processes import processes
from cdp_pipeline_tests.waiting import eventually

META = "__ducklake_metadata_lake"


def test_kill_9_at_random_moments_loses_tears_and_doubles_nothing(location: LakeLocation, tmp_path: Path) -> None:
    moments, kills = random.Random(7), 6 if location.path else 3
    acknowledged = tmp_path / "acknowledged"
    for kill in range(kills):
        with open_lake(location) as lake:
            before = last_stamp(lake)
        writer = processes.Process(target=publish_for_ever, args=(location, acknowledged))
        writer.start()
        _wait_for_more_than(before, acknowledged, writer)
        time.sleep(moments.uniform(0, 0.6))
        writer.kill()
        writer.join()
        with open_lake(location, read_only=True) as lake:
            # One publish may have been committed without having been acknowledged.
            assert last_stamp(lake) - last_line(acknowledged) in (0, 1), f"kill {kill}"
    with open_lake(location) as lake:
        lake.maintain(datetime.now(UTC) + timedelta(days=9), keep=timedelta(0))
        assert lost_files(lake, tmp_path) == set()
        assert last_stamp(lake) >= kills
    assert not [folder for folder in tmp_path.glob("lake/tmp/*") if not folder.name.startswith(f"{os.getpid()}-")]


def test_files_of_a_writer_killed_inside_its_transaction_are_removed_by_maintenance(
    location: LakeLocation, tmp_path: Path
) -> None:
    with open_lake(location) as lake:
        lake.publish(Mirror(STATE, stamped(1)), Upsert(LOG, pa.table({"stamp": [1]})))
        writer = processes.Process(target=die_before_commit, args=(location,))
        writer.start()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        lake.refresh()
        assert last_stamp(lake) == 1
        assert lost_files(lake, tmp_path)
        assert lake.maintain(datetime.now(UTC), keep=timedelta(days=1)).orphans_removed
        assert lost_files(lake, tmp_path) == set()
        lake.publish(Mirror(STATE, stamped(2)), Upsert(LOG, pa.table({"stamp": [2]})))
        assert last_stamp(lake) == 2


def last_line(acknowledged: Path) -> int:
    lines = acknowledged.read_text().split() if acknowledged.exists() else []
    return int(lines[-1]) if lines else 0


def lost_files(lake: Lake, folder: Path) -> set[str]:
    """Data files on disk that the catalog does not know."""
    known = lake.connection.execute(
        f"SELECT path FROM {META}.ducklake_data_file UNION ALL SELECT path FROM {META}.ducklake_delete_file "
        f"UNION ALL SELECT path FROM {META}.ducklake_files_scheduled_for_deletion"
    ).fetchall()
    return {file.name for file in folder.rglob("data/**/*.parquet")} - {Path(row[0]).name for row in known}


def _wait_for_more_than(stamp: int, acknowledged: Path, writer: BaseProcess) -> None:
    def published() -> bool:
        assert writer.is_alive(), "the writer failed by itself"
        return last_line(acknowledged) > stamp

    eventually(published, every=0.02)

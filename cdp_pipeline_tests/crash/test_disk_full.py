"""A full disk ends a publish with one clear message, leaves the lake as it was, and the next publish goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy
import pyarrow as pa
import pytest

from cdp_pipeline.lake import Column, Mirror, Table, Upsert, open_lake
from cdp_pipeline.lake.errors import LakeFullError
from cdp_pipeline.spec.project import LakeLocation

BLOBS = Table("shop.blobs", "Bulk.", {"item": Column("int64"), "bulk": Column("string")}, key=("item",))
SIZE = 16


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB, or a skip with the reason."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def bulk(items: int, each: int = 100) -> pa.Table:
    """Rows that do not compress."""
    noise = numpy.random.default_rng(items).bytes(items * each // 2).hex()
    return pa.table({"item": range(items), "bulk": [noise[i * each : (i + 1) * each] for i in range(items)]})


def test_a_publish_too_big_for_the_disk_changes_nothing_and_the_next_one_goes_on(small_disk: Path) -> None:
    with open_lake(LakeLocation(path=str(small_disk / "lake"))) as lake:
        lake.publish(Mirror(BLOBS, bulk(1000)))
        before = lake.latest()
        with pytest.raises(LakeFullError, match=r"No room left under .*disk/lake. Nothing was published"):
            lake.publish(Mirror(BLOBS, bulk(400_000)))
        assert lake.latest() == before
        assert lake.read(BLOBS).count().to_pyarrow().as_py() == 1000
        assert lake.publish(Upsert(BLOBS, bulk(1001))).snapshot == before + 1
        assert lake.read(BLOBS).count().to_pyarrow().as_py() == 1001


def test_a_catalog_that_cannot_grow_changes_nothing_and_goes_on_once_there_is_room(small_disk: Path) -> None:
    with open_lake(LakeLocation(path=str(small_disk / "lake"))) as lake:
        lake.publish(Mirror(BLOBS, bulk(1000)))
        before = lake.latest()
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(LakeFullError):
            lake.publish(Upsert(BLOBS, bulk(1100)))
        assert lake.read(BLOBS).count().to_pyarrow().as_py() == 1000
        filler.unlink()
        assert lake.publish(Upsert(BLOBS, bulk(1100))).snapshot == before + 1
    with open_lake(LakeLocation(path=str(small_disk / "lake")), read_only=True) as lake:
        assert lake.read(BLOBS).count().to_pyarrow().as_py() == 1100


def test_what_does_not_fit_in_memory_spills_into_the_lake_and_a_spill_too_big_is_a_full_disk(tmp_path: Path) -> None:
    with open_lake(LakeLocation(path=str(tmp_path / "lake"))) as lake:
        lake.connection.execute("SET threads = 2; SET memory_limit = '100MB'; SET max_temp_directory_size = '1MB'")
        rows = lake.ibis.sql(
            "SELECT range AS item, md5(range::VARCHAR) || md5((range + 1)::VARCHAR) AS bulk FROM range(800000)"
        )
        with pytest.raises(LakeFullError):
            lake.publish(Mirror(BLOBS, rows))
        assert not lake.exists(BLOBS.name)
        lake.connection.execute("SET max_temp_directory_size = '10GB'")
        assert lake.publish(Mirror(BLOBS, rows)).counts[BLOBS.name].inserted == 800_000
        assert [folder.name.split("-")[0] for folder in (tmp_path / "lake" / "tmp").iterdir()] == [str(os.getpid())]
    assert not list((tmp_path / "lake" / "tmp").iterdir())

"""Several processes read and write one lake at once: no error, nothing lost, doubled or torn."""

from __future__ import annotations

from pathlib import Path

from cdp_pipeline.lake import open_lake
from cdp_pipeline.lake.catalog import META
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.crash.worker import BATCH, BATCHES, EVENTS, append, look
from cdp_pipeline_tests.processes import processes
from cdp_pipeline_tests.waiting import eventually

WRITERS, READERS = 4, 2


def test_four_writers_and_two_readers_disturb_nobody(location: LakeLocation, tmp_path: Path) -> None:
    batches = 6 if location.path else 4
    with open_lake(location):
        pass  # readers need a lake
    enough, looked = tmp_path / "enough", [tmp_path / f"looked_{number}" for number in range(READERS)]
    readers = [processes.Process(target=look, args=(location, each, enough)) for each in looked]
    writers = [processes.Process(target=append, args=(location, writer, batches)) for writer in range(WRITERS)]
    for reader in readers:
        reader.start()
    # From the first to the last batch somebody looks.
    eventually(lambda: all(each.exists() for each in looked) or not all(reader.is_alive() for reader in readers))
    for each in looked:
        each.unlink()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    enough.touch()
    for reader in readers:
        reader.join()
    assert [worker.exitcode for worker in writers + readers] == [0] * (WRITERS + READERS)
    assert all(each.exists() for each in looked), "everybody got a turn"
    with open_lake(location, read_only=True) as lake:
        events = lake.read(EVENTS)
        counts = events.group_by("writer").agg(events=events.count())
        assert {row["writer"]: row["events"] for row in counts.to_pyarrow().to_pylist()} == dict.fromkeys(
            range(WRITERS), BATCH * batches
        )
        assert events.distinct().count().to_pyarrow().as_py() == BATCH * batches * WRITERS
        assert lake.read(BATCHES).count().to_pyarrow().as_py() == batches * WRITERS
        changes = lake.connection.execute(f"SELECT changes_made FROM {META}.ducklake_snapshot_changes").fetchall()
        assert any("merge_adjacent" in change for [change] in changes), "files were merged meanwhile"


def test_a_first_open_by_many_makes_one_lake(location: LakeLocation) -> None:
    workers = [processes.Process(target=append, args=(location, number, 1)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    with open_lake(location, read_only=True) as lake:
        assert lake.read(BATCHES).writer.nunique().to_pyarrow().as_py() == 4

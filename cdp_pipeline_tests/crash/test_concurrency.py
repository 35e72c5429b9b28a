"""Several processes read and write one lake at once: no error, nothing lost, doubled or torn."""

from __future__ import annotations

from pathlib import Path

from cdp_pipeline.lake import open_lake
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.crash.worker import BATCH, BATCHES, EVENTS, append, look
from cdp_pipeline_tests.processes import processes

WRITERS, READERS = 4, 2


def test_four_writers_and_two_readers_disturb_nobody(location: LakeLocation, tmp_path: Path) -> None:
    seconds = 15 if location.path else 6
    with open_lake(location):
        pass  # readers need a lake
    reports = [tmp_path / f"report_{number}" for number in range(WRITERS + READERS)]
    workers = [processes.Process(target=append, args=(location, w, seconds, reports[w])) for w in range(WRITERS)]
    workers += [processes.Process(target=look, args=(location, seconds, report)) for report in reports[WRITERS:]]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * len(workers)
    batches = [int(report.read_text()) for report in reports]
    assert all(batches), "everybody got a turn"
    with open_lake(location, read_only=True) as lake:
        events = lake.read(EVENTS)
        counts = events.group_by("writer").agg(events=events.count())
        assert {row["writer"]: row["events"] for row in counts.to_pyarrow().to_pylist()} == {
            writer: BATCH * batches[writer] for writer in range(WRITERS)
        }
        assert events.distinct().count().to_pyarrow().as_py() == BATCH * sum(batches[:WRITERS])
        assert lake.read(BATCHES).count().to_pyarrow().as_py() == sum(batches[:WRITERS])


def test_a_first_open_by_many_makes_one_lake(location: LakeLocation, tmp_path: Path) -> None:
    reports = [tmp_path / f"report_{number}" for number in range(4)]
    workers = [processes.Process(target=append, args=(location, number, 0.01, reports[number])) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    with open_lake(location, read_only=True) as lake:
        assert lake.read(BATCHES).writer.nunique().to_pyarrow().as_py() == 4

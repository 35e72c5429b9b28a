"""Who scores is decided in one transaction: by two at once, or by one who is killed, there is always one champion."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime

from cdp_pipeline.lake import Lake, open_lake
from cdp_pipeline.predictions.champions import decide, promoted
from cdp_pipeline.predictions.registry import MODELS
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.predictions.test_champions import BUYS, registered, reigning, trained
from cdp_pipeline_tests.processes import processes


def promote_by_turns(location: LakeLocation, versions: list[str]) -> None:
    with open_lake(location) as lake:
        for each in versions:
            decide(lake, lambda rows, each=each: promoted(rows, BUYS, each, datetime.now(UTC)))


def die_while_promoting(location: LakeLocation, each: str) -> None:
    """Write the rows but not the commit, and be killed."""
    from cdp_pipeline.lake import publish as module

    apply = module._apply

    def apply_and_die(lake: Lake, change: module._Change) -> None:
        apply(lake, change)
        os.kill(os.getpid(), signal.SIGKILL)

    module._apply = apply_and_die
    with open_lake(location) as lake:
        decide(lake, lambda rows: promoted(rows, BUYS, each, datetime.now(UTC)))


def test_two_who_promote_at_once_leave_one_champion_at_every_moment(location: LakeLocation) -> None:
    with open_lake(location) as lake:
        registered(lake, trained(4))
        first = lake.latest()
    turns = [["v0", "v1"] * 4, ["v2", "v3"] * 4]
    workers = [processes.Process(target=promote_by_turns, args=(location, turn)) for turn in turns]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    with open_lake(location, read_only=True) as lake:
        moments = range(first, lake.latest() + 1)
        assert len(moments) > 8, "they took turns"
        for moment in moments:
            assert len(reigning(lake.as_of(moment).read(MODELS).to_pyarrow().to_pylist())) == 1


def test_a_promotion_killed_before_it_is_committed_has_not_happened(location: LakeLocation) -> None:
    with open_lake(location) as lake:
        registered(lake, trained(2))
    worker = processes.Process(target=die_while_promoting, args=(location, "v0"))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    with open_lake(location) as lake:
        assert reigning(lake.read(MODELS).to_pyarrow().to_pylist()) == ["v1"]
        decide(lake, lambda rows: promoted(rows, BUYS, "v0", datetime.now(UTC)))
        assert reigning(lake.read(MODELS).to_pyarrow().to_pylist()) == ["v0"]

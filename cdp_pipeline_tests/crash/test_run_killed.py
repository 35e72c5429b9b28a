"""A `cdp run` killed at any moment: the next one ends where an undisturbed one does, and nothing is sent twice."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline_tests.cli.starter import installed, state
from cdp_pipeline_tests.destinations.servers import Receiver
from cdp_pipeline_tests.orchestration.commands import Cdp

pytestmark = pytest.mark.slow
KILLS = 5


def test_runs_killed_at_random_moments_leave_what_one_run_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = random.Random(11)
    alone = installed(tmp_path)
    killed = Cdp(alone.project, alone.data, tmp_path / "killed")
    with Receiver() as hook:
        monkeypatch.setenv("CRM_URL", hook.url)
        monkeypatch.setenv("CRM_DRY_RUN", "false")
        lasts = _seconds(alone, "run")
        delivering = _send(alone)
        expected, undisturbed = _computed(alone), _sent(hook)
        assert len(undisturbed) == 5
        hook.effects.clear()
        for _ in range(KILLS):
            _kill_after(moments.uniform(0.2, 1) * lasts, killed, "run")
        killed.run("run")
        assert _computed(killed) == expected
        for plan in killed.json("sync", "plan"):
            if plan["state"] == "held":
                killed.run("sync", "approve", plan["plan_id"])
        _kill_after(moments.uniform(0.5, 1) * delivering, killed, "run", "group:activation")
        # What the killed one held in mid-delivery is tried again, under its own id, when its lease is over.
        _end_leases(killed)
        while killed.run("run", "group:activation") and _due(killed):
            time.sleep(1)
        assert _sent(hook) == undisturbed


def _send(cdp: Cdp) -> float:
    """The first sync to a destination waits for somebody to look at it; how long it took then."""
    [plan] = cdp.json("sync", "plan")
    cdp.run("sync", "approve", plan["plan_id"])
    return _seconds(cdp, "run", "group:activation")


def _seconds(cdp: Cdp, *command: str) -> float:
    started = time.monotonic()
    cdp.run(*command)
    return time.monotonic() - started


def _end_leases(cdp: Cdp) -> None:
    """As if the minutes had passed in which nobody else may try."""
    with closing(sqlite3.connect(cdp.lake / "ledger.sqlite", timeout=60)) as ledger, ledger:
        ledger.execute("UPDATE claims SET lease_until = '2020-01-01 00:00:00.000000'")


def _computed(cdp: Cdp) -> dict[str, list[dict[str, Any]]]:
    return {name: rows for name, rows in state(cdp).items() if not name.startswith("activation.")}


def _sent(hook: Receiver) -> list[Any]:
    return sorted((effect["data"] for effect in hook.effects.values()), key=repr)


def _due(cdp: Cdp) -> list[dict[str, Any]]:
    return cdp.sql("select op_id from activation.outbox where state in ('pending', 'retry', 'inflight')")


def _kill_after(seconds: float, cdp: Cdp, *command: str) -> None:
    process = cdp.start(*command)
    time.sleep(seconds)
    process.kill()
    process.communicate()

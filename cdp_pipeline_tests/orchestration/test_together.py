"""Two processes that run everything they can and one that asks questions, all on one lake, for a minute."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cdp_pipeline_tests.cli.starter import installed, state
from cdp_pipeline_tests.orchestration.commands import Cdp

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("CDP_TOGETHER_SECONDS", "60"))

OF_ONE_LEDGER = ("op_id", "plan_id")
"""A ledger that was lost must not repeat the ids of the one before, so each has its own."""
LOOPS = (
    ("run", "group:sources or group:identity or group:profile"),
    ("run", "group:traits or group:audiences or group:activation"),
    ("sql", "select count(*) as n, count(distinct person_id) as people from traits.daily", "--json"),
)


def test_runs_and_questions_at_once_disturb_nobody(tmp_path: Path) -> None:
    alone = installed(tmp_path)
    alone.run("run")
    together = Cdp(alone.project, alone.data, tmp_path / "together")
    together.run("run")
    end = time.monotonic() + SECONDS

    def again_and_again(command: tuple[str, ...]) -> list[str]:
        said = [together.run(*command)]
        while time.monotonic() < end:
            said.append(together.run(*command))
        return said

    with ThreadPoolExecutor(len(LOOPS)) as threads:
        *_, answers = threads.map(again_and_again, LOOPS)
    assert len(set(answers)) == 1, "every question finds the whole table"
    assert state(together, OF_ONE_LEDGER) == state(alone, OF_ONE_LEDGER)

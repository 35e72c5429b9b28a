"""Two processes that run everything they can and one that asks questions, all on one lake at once."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from cdp_pipeline_tests.cli.starter import installed, state
from cdp_pipeline_tests.orchestration.commands import Cdp

pytestmark = pytest.mark.slow
ROUNDS = int(os.environ.get("CDP_TOGETHER_ROUNDS", "4"))

OF_ONE_LEDGER = ("op_id", "plan_id")
"""A ledger that was lost must not repeat the ids of the one before, so each has its own."""
RUNS = (
    ("run", "group:sources or group:identity or group:profile"),
    ("run", "group:traits or group:audiences or group:activation"),
)
QUESTION = ("sql", "select count(*) as n, count(distinct person_id) as people from traits.daily", "--json")


def test_runs_and_questions_at_once_disturb_nobody(tmp_path: Path) -> None:
    alone = installed(tmp_path)
    alone.run("run")
    together = Cdp(alone.project, alone.data, tmp_path / "together")
    shutil.copytree(alone.lake, together.lake)

    asked = Event()

    def again_and_again(command: tuple[str, ...]) -> None:
        rounds = 0
        # However unevenly a machine shares itself, there are runs for as long as questions are asked.
        while rounds < ROUNDS or not asked.is_set():
            together.run(*command)
            rounds += 1

    def answers(others: list[Future[None]]) -> list[str]:
        said = [together.run(*QUESTION)]
        try:
            while len(said) <= ROUNDS or not all(other.done() for other in others):
                time.sleep(0.5)
                said.append(together.run(*QUESTION))
                if len(said) > ROUNDS:
                    asked.set()
        finally:
            asked.set()
        return said

    with ThreadPoolExecutor(len(RUNS)) as threads:
        running = [threads.submit(again_and_again, command) for command in RUNS]
        said = answers(running)
        for each in running:
            each.result()
    assert len(set(said)) == 1, "every question finds the whole table"
    assert state(together, OF_ONE_LEDGER) == state(alone, OF_ONE_LEDGER)

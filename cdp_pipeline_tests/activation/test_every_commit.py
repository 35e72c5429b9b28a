"""Killed before or after a commit, whichever, a sync goes on as if nothing had been, or says what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdp_pipeline_tests.activation.every_commit import every_commit

STEP = 4


@pytest.mark.parametrize("line_is", ["hook", "once"])
def test_a_run_that_dies_at_any_commit_is_taken_up_where_it_was(
    ledger_address: str, tmp_path: Path, line_is: str
) -> None:
    # Each commit is one of four tests' (`benchmarks/crash.py --every-commit`: of all).
    first = 1 + 2 * (line_is == "once") + ledger_address.startswith("sqlite")
    assert every_commit(ledger_address, tmp_path, line_is, first, STEP) >= 5

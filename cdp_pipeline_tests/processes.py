"""Processes that start at once: forked from one per test worker that has imported everything and done nothing else.

A process still has memory, signals, an environment and files of its own, and can be killed; only the seconds in which
Python reads modules are spent once instead of hundreds of times. That `cdp` starts from nothing is tested where
`cdp dev` is.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from subprocess import TimeoutExpired

IMPORTED = (
    "cdp_pipeline_tests.fork_server",
    "cdp_pipeline.cli", "cdp_pipeline.orchestration.worker", "cdp_pipeline.orchestration.run",
    "cdp_pipeline.orchestration.status", "dagster._core.storage.event_log.sqlite", "sqlalchemy.dialects.sqlite",
    "ibis.backends.duckdb", "pandas", "cdp_pipeline_tests.processes", "cdp_pipeline_tests.crash.worker",
    "cdp_pipeline_tests.activation.crash", "cdp_pipeline_tests.activation.every_commit",
)  # fmt: skip
processes: ForkServerContext = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(list(IMPORTED))


class Command:
    """`cdp` under way, to be waited for or killed, with the words of subprocess.Popen."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._said = tempfile.TemporaryDirectory(prefix="cdp_said_")
        self._files = [Path(self._said.name) / name for name in ("out", "err")]
        self._process = processes.Process(
            target=_cdp, args=(list(arguments), dict(environment), str(Path.cwd()), *map(str, self._files))
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self._process.pid or 0, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed, once it has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired("cdp", timeout or 0)
        # Nothing is there if it was killed before it could open them.
        out, err = (file.read_text() if file.exists() else "" for file in self._files)
        self._said.cleanup()
        return out, err


def _cdp(arguments: list[str], environment: dict[str, str], folder: str, out: str, err: str) -> None:
    """What `python -m cdp_pipeline.cli` does, after its imports."""
    for number, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["cdp", *arguments]
    from cdp_pipeline.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out

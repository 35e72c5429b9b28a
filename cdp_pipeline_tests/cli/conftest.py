"""One small installation that every test of the commands looks at, and `cdp` called in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline.cli import main
from cdp_pipeline_tests.cli.starter import installed
from cdp_pipeline_tests.orchestration.commands import Cdp


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    out: str
    err: str
    code: int

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.out.splitlines() if line.strip()]


@dataclass(frozen=True)
class Here:
    """`cdp` in this process: a process of its own costs seconds, and these commands only read."""

    call: Callable[..., Said]

    def __call__(self, *arguments: str, code: int = 0) -> Said:
        said = self.call(*arguments)
        assert "Traceback" not in said.out + said.err
        assert said.code == code, f"cdp {' '.join(arguments)} ended with {said.code}\n{said.out}\n{said.err}"
        return said

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).out)

    def complaint(self, *arguments: str) -> str:
        """The one line in which a command says why it cannot be done."""
        said = self(*arguments, code=1)
        assert said.out == "" and len(said.err.splitlines()) == 1, said
        return said.err.strip()


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Cdp:
    """The starter project after its first `cdp run`. Tests that change anything make a copy."""
    cdp = installed(tmp_path_factory.mktemp("starter"))
    process = cdp.start("run")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, ""), err
    (cdp.lake.parent / "first_run.txt").write_text(out)
    return cdp


@pytest.fixture
def cdp(shop: Cdp, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Here]:
    for name, value in shop.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("COLUMNS", raising=False)
    yield Here(lambda *arguments: _called(monkeypatch, capfd, arguments))


def _called(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> Said:
    monkeypatch.setattr("sys.argv", ["cdp", *arguments])
    capfd.readouterr()
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capfd.readouterr()
    return Said(captured.out, captured.err, code)


@pytest.fixture
def copy(shop: Cdp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cdp: Here) -> Cdp:
    """The shop once more, to change; `cdp` speaks of it from now on."""
    other = Cdp(tmp_path / "shop", shop.data, tmp_path / "lake")
    shutil.copytree(shop.project, other.project)
    shutil.copytree(shop.lake, other.lake)
    for name, value in other.environment.items():
        monkeypatch.setenv(name, value)
    return other

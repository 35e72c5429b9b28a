"""`cdp` as a person runs it: a process of its own, with an environment of its own."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdp_pipeline_tests.processes import Command


@dataclass(frozen=True)
class Cdp:
    """One installation: a project, its data and its lake."""

    project: Path
    data: Path
    lake: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "CDP_PROJECT": str(self.project),
            "CDP_DATA": str(self.data),
            "CDP_LAKE": str(self.lake),
            "DAGSTER_HOME": str(self.lake / "dagster"),
        }

    def start(self, *arguments: str) -> Command:
        return Command(arguments, self.environment)

    def run(self, *arguments: str, code: int = 0) -> str:
        """What the command prints; an AssertionError with all it said if it ends otherwise than expected."""
        process = self.start(*arguments)
        out, err = process.communicate()
        assert process.returncode == code, f"cdp {' '.join(arguments)} ended with {process.returncode}\n{out}\n{err}"
        return out if code == 0 else out + err

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def sql(self, query: str) -> list[dict[str, Any]]:
        return self.json("sql", query)

"""What a run is given: the open lake and the clock. Both can be overridden, which is how tests hold time still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from cdp_pipeline.lake import Lake, open_lake
from cdp_pipeline.spec.project import Project

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def lake_of(project: Project, *, read_only: bool = False) -> Lake:
    """The project's lake, to be closed by the caller. Relative paths are relative to the current directory."""
    return open_lake(
        project.settings.lake, base=Path.cwd(), engine=project.settings.engine, read_only=read_only
    )


def lake_resource(project: Project) -> dg.ResourceDefinition:
    """The lake, opened once per run and pinned to the version it had then, so that all assets of a run see one."""

    @dg.resource(description="The lake: every table of the project, at one version per run.")
    def lake(_context: dg.InitResourceContext) -> Iterator[Lake]:
        with lake_of(project) as opened:
            yield opened

    return lake

"""The demo project over generated data: its sources loaded into a lake, and who is who."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import ibis
import pytest

from cdp_pipeline.identity.edges import edges
from cdp_pipeline.identity.people import Resolution, resolve
from cdp_pipeline.identity.seen import identifiers_seen, seen
from cdp_pipeline.lake import Lake, open_lake
from cdp_pipeline.sources.demo.feeds import FEEDS
from cdp_pipeline.sources.load import load
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec.load import DEMO, load_project
from cdp_pipeline.spec.project import LakeLocation, Project

NOW = datetime(2026, 1, 16, 6, tzinfo=UTC)


@dataclass(frozen=True)
class Company:
    """The demo project, its lake, the loaded sources that say who somebody is, and what identity made of them."""

    project: Project
    lake: Lake
    sources: Mapping[str, ibis.Table]
    found: Resolution


@contextmanager
def resolved(data: Path, place: Path) -> Iterator[Company]:
    """The company whose files lie in `data`, in a lake at `place`."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CDP_DATA", str(data))
        project = load_project(DEMO)
    with open_lake(LakeLocation(path=str(place))) as lake:
        named = {
            name: source for name, source in project.sources.items() if source.identifier_columns and name in FEEDS
        }
        for source in named.values():
            load(lake, source, project, None, NOW, "test")
        sources = {name: lake.read(source_table(source)) for name, source in named.items()}
        evidence = edges(sources, project).to_pyarrow()
        found = resolve(evidence, identifiers_seen(seen(sources, project)), None, None, project, NOW)
        yield Company(project, lake, sources, found)

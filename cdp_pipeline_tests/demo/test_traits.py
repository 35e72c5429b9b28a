"""What comes with the house finds the demo company's events and what they keep: nearly all of it tells something."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from cdp_pipeline.identity.edges import edges
from cdp_pipeline.identity.people import resolve
from cdp_pipeline.identity.seen import identifiers_seen, seen
from cdp_pipeline.lake import open_lake
from cdp_pipeline.profile.timeline import timeline
from cdp_pipeline.sources.demo import generate
from cdp_pipeline.sources.load import load
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec.load import DEMO, load_project
from cdp_pipeline.spec.project import LakeLocation, Project
from cdp_pipeline.traits.as_of import as_of

LAST = date(2026, 1, 15)
NOW = datetime(2026, 1, 16, 6, tzinfo=UTC)
RARE = {"complaints_365d", "unsubscribes_365d", "friends_referred", "days_since_last_referral"}
"""Too rare for a company of this size."""
DULL = {"spending_trend", "spending_direction", "spending_pace", "rfm_recency", "revenue_previous_90d",
        "orders_previous_90d", "order_overdue", "visit_trend", "visit_direction"}  # fmt: skip
"""What so young a company cannot tell yet."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, list[dict[str, Any]]]]:
    """The demo project, and its traits of everybody at the end of the last day."""
    company = generate(tmp_path_factory.mktemp("data"), 250, 40, seed=5, last_day=LAST)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CDP_DATA", str(company.folder))
        project = load_project(DEMO)
    with open_lake(LakeLocation(path=str(tmp_path_factory.mktemp("lake")))) as lake:
        named = {name: source for name, source in project.sources.items() if source.identifier_columns}
        for source in named.values():
            load(lake, source, project, None, NOW, "test")
        sources = {name: lake.read(source_table(source)) for name, source in named.items()}
        evidence = edges(sources, project).to_pyarrow()
        found = resolve(evidence, identifiers_seen(seen(sources, project)), None, None, project, NOW)
        events = lake.ibis.create_table("events", timeline(sources, found.identifiers, project).to_pyarrow(), temp=True)
        people = lake.ibis.create_table("everybody", found.people.select(["person_id"]), temp=True)
        yield project, as_of(events, people, [LAST], project).to_pyarrow().to_pylist()


def test_every_shipped_trait_tells_something_of_somebody(told: tuple[Project, list[dict[str, Any]]]) -> None:
    project, rows = told
    assert len(rows) > 250
    silent = {name for name in project.traits if len({repr(row[name]) for row in rows}) < 2}
    assert silent <= RARE | DULL, silent - RARE - DULL


def test_interests_are_those_of_the_articles(told: tuple[Project, list[dict[str, Any]]]) -> None:
    _, rows = told
    known = {
        name: {row[name] for row in rows} - {None} for name in ("favourite_brand", "favourite_size", "favourite_colour")
    }
    assert known["favourite_brand"] == {"Hearth", "Fenland", "Kestrel", "Oakbank"}
    assert known["favourite_size"] == {"S", "M", "L", "XL"}
    assert known["favourite_colour"] <= {"black", "white", "blue", "red", "green", "natural"}
    assert {"25 to 50", "50 to 100"} < {row["favourite_price_range"] for row in rows}

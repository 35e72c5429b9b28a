"""What comes with the house finds the demo company's events and what they keep: nearly all of it tells something."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from cdp_pipeline.profile.timeline import timeline
from cdp_pipeline.sources.demo import generate
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.demo.company import resolved

LAST = date(2026, 1, 15)
RARE = {"complaints_365d", "unsubscribes_365d", "friends_referred", "days_since_last_referral"}
"""Too rare for a company of this size."""
DULL = {"spending_trend", "spending_direction", "spending_pace", "rfm_recency", "revenue_previous_90d",
        "orders_previous_90d", "order_overdue", "visit_trend", "visit_direction"}  # fmt: skip
"""What so young a company cannot tell yet."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, list[dict[str, Any]]]]:
    """The demo project, and its traits of everybody at the end of the last day."""
    company = generate(tmp_path_factory.mktemp("data"), 250, 40, seed=5, last_day=LAST)
    with resolved(company.folder, tmp_path_factory.mktemp("lake")) as shop:
        project, found, tables = shop.project, shop.found, shop.lake.ibis
        told = timeline(shop.sources, found.identifiers, project).to_pyarrow()
        events = tables.create_table("events", told, temp=True)
        people = tables.create_table("everybody", found.people.select(["person_id"]), temp=True)
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

# ruff: noqa: T201
"""One more day of 120 traits in a lake against computing that day from everything, each in a process of its own.

    python benchmarks/traits_increment.py --rows 10000000 [--days 3]

A lake gets all events but the newest days and their traits from everything; then each further day comes in and is
computed from the day before. In the end the newest day is compared, person by person, with what everything says.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
from traits import DAY, THREADS, TRAITS, differing, measured, provide, traits

from cdp_pipeline.identity.people import PEOPLE
from cdp_pipeline.lake import Lake, Mirror, open_lake
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.project import LakeLocation, Project, ProjectSettings
from cdp_pipeline.spec.source import Source
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.daily import daily_table
from cdp_pipeline.traits.runs import FEW_EVENTS, steps

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def project() -> Project:
    said = {
        "kind": "source", "name": "shop", "description": "The shop.", "files": "shop.csv", "grain": ["id"],
        "occurred_at": "at",
        "columns": {
            "id": {"type": "string"}, "at": {"type": "timestamp"}, "price": {"type": "money"},
            "product": {"type": "string"}, "category": {"type": "string"},
        },
        "events": [
            {"event": event, "amount": "price", "product_id": "product", "category": "category"}
            for event in ("order_completed", "page_viewed", "product_viewed", "email_opened")
        ],
    }  # fmt: skip
    settings = ProjectSettings(
        kind="project", name="bench", description="A benchmark.", timezone="UTC", first_day=DAY,
        lake=LakeLocation(path="lake"),
    )  # fmt: skip
    nothing: dict[str, Any] = {}
    return Project(
        folder=Path(), settings=settings, sources={"shop": Source.model_validate(said)}, identifiers=nothing,
        matches=nothing, attributes=nothing, traits=traits(), predictions=nothing, audiences=nothing, triggers=nothing,
        destinations=nothing, syncs=nothing,
    )  # fmt: skip


@contextmanager
def opened(folder: Path) -> Iterator[Lake]:
    with open_lake(LakeLocation(path=str(folder / "lake"))) as lake:
        lake.connection.execute(f"SET threads = {THREADS}")
        yield lake


def add(folder: Path, back: int) -> None:
    """The events up to so many days before the newest; nothing is written of what is there."""
    table, day = timeline_table(project()), DAY - timedelta(days=back)
    with opened(folder) as lake:
        events = lake.ibis.read_parquet(folder / "events.parquet")
        rows = events.filter(events._day <= ibis.date(day))
        if lake.exists(table.name):
            days = [day]
            rows = rows.filter(rows._day == ibis.date(day))
            lake.publish(Mirror(table, rows, within={"_day": days}))
            return
        people = lake.ibis.read_parquet(folder / "people.parquet").mutate(
            kind=ibis.literal("known"), identifiers=ibis.literal(1), created_at=ibis.timestamp("2023-01-01"),
            merged_into=ibis.null("string"), absorbed_by=ibis.null("string"),
        )  # fmt: skip
        lake.publish(Mirror(table, rows), Mirror(PEOPLE, people))


def everything(folder: Path, back: int) -> None:
    _publish(folder, back, sys.maxsize)


def one_more_day(folder: Path, back: int) -> None:
    _publish(folder, back, 0)


def _publish(folder: Path, back: int, few_events: int) -> None:
    with opened(folder) as lake:
        for step in steps(lake, project(), [DAY - timedelta(days=back)], NOW, few_events):
            lake.publish(*step.writes)


def everything_unpublished(folder: Path, back: int) -> None:
    _compute(folder, back, sys.maxsize)


def one_more_day_unpublished(folder: Path, back: int) -> None:
    _compute(folder, back, 0)


def _compute(folder: Path, back: int, few_events: int) -> None:
    with opened(folder) as lake:
        for step in steps(lake, project(), [DAY - timedelta(days=back)], NOW, few_events):
            lake.held(step.writes[0].rows)


def check(folder: Path) -> dict[str, int]:
    """Per trait, of how many people the newest day differs from what everything says."""
    with opened(folder) as lake:
        shop = project()
        rows = lake.read(daily_table(shop))
        rows.filter(rows.day == ibis.date(DAY)).drop("_computed_at").to_parquet(folder / "increment.parquet")
        people = lake.read(PEOPLE).select("person_id")
        as_of(lake.read(timeline_table(shop)), people, [DAY], shop).to_parquet(folder / "full.parquet")
    return differing(folder, "increment", "full")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--computed", action="store_true", help="measure also without publishing")
    parser.add_argument("--events", type=Path, help="a folder with the events and people of traits.py --folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        provide(folder, given.rows, given.events)
        figures: dict[str, tuple[float, float, float]] = {}

        def measure(side: str, work: Callable[[Path, int], None], back: int) -> None:
            cpu, wall, memory = figures[side] = measured(work, folder, back)
            print(f"{side:30}{cpu:8.1f} CPU-s {wall:8.1f} s {memory:6.2f} GB", flush=True)

        measure("adding all events", add, given.days)
        if given.computed:
            measure("everything, computed only", everything_unpublished, given.days)
        measure("everything", everything, given.days)
        for back in reversed(range(given.days)):
            measure("adding a day", add, back)
            if given.computed:
                measure("one more day, computed only", one_more_day_unpublished, back)
            measure("one more day", one_more_day, back)
        for what in ("", ", computed only")[: 1 + given.computed]:
            ratio = figures["one more day" + what][0] / figures["everything" + what][0]
            print(f"one more day / everything{what}: {ratio:.2f}", flush=True)
        wrong = check(folder)
    print(f"{given.rows:,} events, {len(TRAITS)} traits (increments from {FEW_EVENTS:,} events on)")
    print("differ in " + str(wrong) if wrong else "the newest day is what everything says, of everybody")
    if wrong:
        sys.exit("the increment differs")


if __name__ == "__main__":
    main()

"""However many traits and days there are, they are found in few queries, each reading the events once."""

from __future__ import annotations

from datetime import date, timedelta
from zoneinfo import ZoneInfo

import ibis
import pytest

from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.cells import cell, cell_ends
from cdp_pipeline.traits.staged import stages
from cdp_pipeline_tests.traits.shop import DAYS, project, trait

TIMELINE = ibis.table(timeline_table(project()).schema, name="timeline")
PEOPLE = ibis.table({"person_id": "string"}, name="people")
WINDOWS = ("lifetime", "last 7 days", "last 90 days", "last 12 months", "this month", "between 60 and 30 days ago")


def many(number: int) -> list[Trait]:
    """Traits of all plain sorts and of the different values of two columns, over many windows and conditions."""
    sorts = [
        ("count", None), ("sum", "amount"), ("average", "amount"), ("max", "points"), ("days_since", None),
        ("last", "category"), ("unique_count", "category"), ("most_frequent", "category"), ("median", "amount"),
        ("happened", None),
    ]  # fmt: skip
    return [
        trait(
            f"t{place}", sorts[place % 10][0], value=sorts[place % 10][1], window=WINDOWS[place % 6],
            when=None if place % 3 else f"quantity > {place % 5}",
        )
        for place in range(number)
    ]  # fmt: skip


def compiled(traits: list[Trait], days: list[date]) -> str:
    return str(ibis.to_sql(as_of(TIMELINE, PEOPLE, days, project(*traits)), dialect="duckdb"))


@pytest.mark.parametrize("days", [DAYS[:1], DAYS], ids=["one day", "ten days"])
def test_three_hundred_traits_read_the_events_four_times_and_stay_short(days: list[date]) -> None:
    few, sql = compiled(many(30), days), compiled(many(300), days)
    assert sql.count('"timeline"') == few.count('"timeline"') == 4, "plain, newest, and each of two values"
    assert len(sql) < 1_000 * 300
    assert len(sql) < 10 * len(few)


def test_traits_over_one_condition_and_window_share_what_they_are_made_of() -> None:
    shared = [trait(name, name, value="amount", window="last 7 days") for name in ("sum", "average")]
    assert compiled(shared, DAYS[:1]).count("SUM(") == 1


def test_sessions_trends_and_what_is_to_come_are_asked_apart() -> None:
    traits = [
        *(trait(f"plain{n}", "count", window=window) for n, window in enumerate(WINDOWS)),
        *(trait(f"next{n}", "count", window=f"next {n + 1} days") for n in range(3)),
        *(trait(f"session{n}", name, window="last session") for n, name in enumerate(("count", "happened"))),
        *(
            trait(f"trend{n}", "trend", period="week", window="last 8 weeks", report=report)
            for n, report in enumerate(("slope", "standard_error", "direction"))
        ),
    ]
    found = stages(TIMELINE, DAYS, {one.name: one for one in traits}, ZoneInfo("UTC"))
    assert sorted(len(stage.members) for stage in found) == [2, 3, 3, 6]


def test_cells_end_where_any_window_begins_or_ends_and_hold_every_day() -> None:
    first, last = date(2024, 2, 20), date(2024, 3, 10)
    ends = cell_ends([(None, date(2024, 3, 1)), (date(2024, 2, 26), date(2024, 2, 28)), (date(2024, 2, 28), last)])
    assert ends == [date(2024, 2, 25), date(2024, 2, 27), date(2024, 2, 28), date(2024, 3, 1), last]
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    table = ibis.memtable({"day": days})
    found = dict(
        table.select("day", cell=cell(table.day, ends)).to_pyarrow().select(["day", "cell"]).to_pandas().values
    )
    assert {day: min(end for end in ends if end >= day) for day in days} == found

"""Incremental traits are the full traits: whatever was written, withdrawn, merged or redefined between two days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from math import isclose
from typing import Any

import ibis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_pipeline.identity.people import PEOPLE as PEOPLE_TABLE
from cdp_pipeline.lake import Lake, Mirror
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.daily import daily_table
from cdp_pipeline.traits.increment import KnownDay, one_more_day
from cdp_pipeline.traits.runs import RUNS, steps
from cdp_pipeline_tests.traits.shop import DAYS, PEOPLE, event, events, project, rows_table, timeline_rows, trait

Row = dict[str, Any]
TRAITS = (
    trait("orders", "count"),
    trait("visits", "count", event="visit", window="last 3 days"),
    trait("spent", "sum", value="amount", window="last 4 days", when="channel = 'web'"),
    trait("points", "average", value="points", window="last 2 days"),
    trait("spread", "stddev", value="points"),
    trait("least", "min", value="amount", window="last 5 days"),
    trait("most", "max", value="amount", window="this month"),
    trait("oldest", "first", value="category", window="last 3 days"),
    trait("newest", "last", value="category", event=["order", "visit"]),
    trait("categories", "unique_count", value="category", window="last 1 week"),
    trait("favourite", "most_frequent", value="category", window="last 6 days", half_life="2 days"),
    trait("three", "top", value="category"),
    trait("middle", "median", value="points", window="previous month"),
    trait("since", "days_since"),
    trait("since_visit", "days_since", event="visit", window="last 4 days"),
    trait("since_first", "days_since_first", window="last 5 days"),
    trait("between", "days_between"),
    trait("warm", "decayed", half_life="3 days"),
    trait("rising", "trend", period="day", window="last 4 days"),
    trait("weekly", "trend", period="week", window="last 25 days", value="amount"),
    trait("was_here", "happened", window="between 5 and 2 days ago"),
    trait("coming", "count", window="next 2 days"),
    trait("share", "ratio", numerator="orders", denominator="visits"),
)
SHOP = project(*TRAITS)
FEW = [
    t
    for t in TRAITS
    if t.name in ("orders", "spent", "points", "favourite", "since", "warm", "coming", "share", "visits")
]
SMALL_SHOP = project(*FEW)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    yield ibis.duckdb.connect()


def sorted_rows(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["day"], row["person_id"]))


def differences(found: Sequence[Row], expected: Sequence[Row]) -> list[str]:
    """Where two tables of traits differ, floats apart by more than a billionth."""
    if [(row["person_id"], row["day"]) for row in found] != [(row["person_id"], row["day"]) for row in expected]:
        return [f"{len(found)} rows of other people than the {len(expected)} expected"]
    return [
        f"{name} of {mine['person_id']} on {mine['day']}: {mine[name]!r}, not {full[name]!r}"
        for mine, full in zip(found, expected, strict=True)
        for name in full
        if mine[name] != full[name]
        and not (isinstance(full[name], float) and isinstance(mine[name], float)
                 and isclose(mine[name], full[name], rel_tol=1e-9, abs_tol=1e-9))
    ]  # fmt: skip


def changed(rows: list[Row], draw: Any) -> list[Row]:
    """Some rows withdrawn, some corrected, somebody merged into another and somebody split, some come late."""
    ids = [row["event_id"] for row in rows]
    gone = draw(st.sets(st.sampled_from(ids), max_size=3)) if ids else set()
    corrected = draw(st.sets(st.sampled_from(ids), max_size=3)) if ids else set()
    kept = [
        row | {"amount": None} if row["event_id"] in corrected else row for row in rows if row["event_id"] not in gone
    ]
    away, into = draw(st.sampled_from(PEOPLE)), draw(st.sampled_from(PEOPLE))
    split, new = draw(st.sampled_from(PEOPLE)), draw(st.sampled_from([*PEOPLE, "p_99"]))
    kept = [row | {"person_id": into} if row["person_id"] == away else row for row in kept]
    kept = [
        row | {"person_id": new} if row["person_id"] == split and int(row["event_id"][1:], 36) % 2 else row
        for row in kept
    ]
    late = [row | {"event_id": row["event_id"] + "z"} for row in draw(events(most=4))]
    return [*kept, *late]


def disturbed(before: list[Row], after: list[Row], day: date) -> list[str]:
    """Whoever an event of the day or earlier was written to or taken from."""
    old, new = ({tuple(sorted(row.items(), key=str)) for row in rows if row["_day"] <= day} for rows in (before, after))
    return sorted({dict(row)["person_id"] for row in old ^ new} - {None})


@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_one_more_day_is_the_day_computed_from_everything(engine: Any, data: st.DataObject) -> None:
    before = data.draw(events(least=20, most=60))
    after = changed(before, data.draw) if data.draw(st.booleans()) else before
    start = data.draw(st.integers(0, len(DAYS) - 2))
    known, day = DAYS[start], DAYS[start + data.draw(st.integers(0, min(5, len(DAYS) - 1 - start)))]
    redefined = set(data.draw(st.sets(st.sampled_from([t.name for t in TRAITS]), max_size=2)))
    old, new = (engine.create_table(name, timeline_rows(rows), overwrite=True)
                for name, rows in (("old", before), ("new", after)))  # fmt: skip
    firsts = dict(zip(PEOPLE, [DAYS[0]] * 6 + [day, day + timedelta(days=1)], strict=True)) | {"p_99": DAYS[0]}
    people = ibis.memtable([{"person_id": person, "first_day": first} for person, first in firsts.items()])
    rows = engine.create_table("known", engine.to_pyarrow(as_of(old, people, [known], SHOP)), overwrite=True)
    for name in redefined:
        rows = rows.mutate(**{name: ibis.null(rows[name].type())})
    moved = ibis.memtable({"person_id": disturbed(before, after, known)}, schema={"person_id": "string"})
    basis = KnownDay(known, rows, set(SHOP.traits) - redefined, moved)
    number = iter(range(100))

    def held(table: ibis.Table) -> ibis.Table:
        return engine.create_table(f"held_{next(number)}", engine.to_pyarrow(table), overwrite=True)

    found = engine.to_pyarrow(one_more_day(new, people, day, SHOP, basis, held)).to_pylist()
    expected = engine.to_pyarrow(as_of(new, people, [day], SHOP)).to_pylist()
    assert differences(sorted_rows(found), sorted_rows(expected)) == []


class Chain:
    """A lake whose traits are made step by step, as the asset makes them."""

    def __init__(self, lake: Lake, project: Project) -> None:
        self.lake, self.project = lake, project

    def told(self, rows: list[Row], people: Sequence[str] = PEOPLE) -> None:
        born = datetime.combine(DAYS[0], datetime.min.time())
        known = [{"person_id": person, "kind": "known", "identifiers": 1, "created_at": born} for person in people]
        self.lake.publish(
            Mirror(timeline_table(self.project), timeline_rows(rows)),
            Mirror(PEOPLE_TABLE, rows_table(PEOPLE_TABLE, known)),
        )

    def run(self, *days: date) -> list[str]:
        modes = []
        for step in steps(self.lake, self.project, days, datetime(2024, 4, 1, tzinfo=UTC), few_events=0):
            self.lake.publish(*step.writes)
            modes += [step.mode] * len(step.days)
        return modes

    def wrong(self, *days: date) -> list[str]:
        """Where traits.daily of these days is not what all events say now."""
        table = daily_table(self.project)
        found = self.lake.read(table).filter(ibis._.day.isin(days)).drop("_computed_at").to_pyarrow().to_pylist()
        people = self.lake.read(PEOPLE_TABLE).select("person_id")
        full = as_of(self.lake.read(timeline_table(self.project)), people, days, self.project)
        return differences(sorted_rows(found), sorted_rows(full.to_pyarrow().to_pylist()))


def history() -> list[Row]:
    """Events of 40 people on most days, so that what one of them does is a small part."""
    return [
        event(event_id=f"e{number}", person_id=f"p_{number % 40:02}", _day=DAYS[number % 7], points=number % 5 / 4,
              category="abc"[number % 3], event="order" if number % 4 else "visit")
        for number in range(160)
    ]  # fmt: skip


EVERYBODY = [f"p_{number:02}" for number in range(40)]
ONE_MORE, SOME, ALL = "one more day", "people of whom something changed", "everything"


def test_days_one_after_the_other_are_what_all_events_say(lake: Lake) -> None:
    chain, rows = Chain(lake, SMALL_SHOP), history()
    chain.told([row for row in rows if row["_day"] <= DAYS[3]], EVERYBODY)
    assert chain.run(DAYS[3]) == [ALL]
    chain.told(rows, EVERYBODY)
    assert chain.run(DAYS[4], DAYS[6]) == [ONE_MORE, ONE_MORE]
    assert chain.wrong(DAYS[3], DAYS[4], DAYS[6]) == []


def test_late_and_withdrawn_rows_restate_the_days_that_saw_them_for_their_people_only(lake: Lake) -> None:
    chain, rows = Chain(lake, SMALL_SHOP), history()
    chain.told(rows, EVERYBODY)
    chain.run(*DAYS[4:7])
    late = event(event_id="late", person_id="p_03", _day=DAYS[5], _loaded_at=datetime(2024, 3, 20))
    chain.told([*rows[1:], late], EVERYBODY)
    assert chain.run(DAYS[7]) == [SOME, SOME, ONE_MORE]
    assert chain.wrong(*DAYS[5:8]) == []
    stamps = lake.read(daily_table(SMALL_SHOP)).filter(ibis._.day == DAYS[6])
    stamped = stamps.filter(stamps._computed_at == datetime(2024, 3, 20)).person_id.to_pyarrow().to_pylist()
    assert sorted(stamped) == ["p_00", "p_03"]
    assert chain.run() == []  # nothing is stale any more


def test_a_merge_and_a_split_look_at_those_people_again(lake: Lake) -> None:
    chain, rows = Chain(lake, SMALL_SHOP), history()
    chain.told(rows, EVERYBODY)
    chain.run(DAYS[6])
    merged = [row | {"person_id": "p_01"} if row["person_id"] == "p_02" else row for row in rows]
    chain.told(merged, [person for person in EVERYBODY if person != "p_02"])
    assert chain.run(DAYS[7]) == [ONE_MORE]
    assert chain.run(DAYS[6]) == [SOME]
    assert chain.wrong(DAYS[6], DAYS[7]) == []
    chain.told(rows, EVERYBODY)
    assert chain.run(DAYS[7], DAYS[8]) == [SOME, ONE_MORE]
    assert chain.wrong(DAYS[7], DAYS[8]) == []


def test_only_a_trait_that_was_defined_anew_is_computed_from_everything(lake: Lake) -> None:
    chain = Chain(lake, SMALL_SHOP)
    chain.told(history(), EVERYBODY)
    chain.run(DAYS[5])
    other = [trait("spent", "sum", value="amount", window="last 6 days"), trait("fresh", "max", value="points")]
    chain.project = project(*(t for t in FEW if t.name != "spent"), *other)
    assert chain.run(DAYS[5], DAYS[6]) == [ONE_MORE, ONE_MORE]
    assert chain.wrong(DAYS[5], DAYS[6]) == []


def test_everything_is_looked_at_where_too_much_changed_or_the_lake_forgot(lake: Lake) -> None:
    chain, rows = Chain(lake, SMALL_SHOP), history()
    chain.told(rows, EVERYBODY)
    chain.run(DAYS[5])
    chain.told([row | {"amount": None} for row in rows], EVERYBODY)
    assert chain.run(DAYS[6]) == [ALL]
    chain.told(rows, EVERYBODY)
    lake.maintain(datetime(2050, 1, 1, tzinfo=UTC), timedelta(days=1))
    assert chain.run(DAYS[7]) == [ALL]
    assert chain.wrong(DAYS[6], DAYS[7]) != [] and chain.wrong(DAYS[7]) == []
    assert lake.read(RUNS).filter(ibis._.day == DAYS[7]).why.to_pyarrow().to_pylist() == [
        "the lake no longer remembers the last run"
    ]

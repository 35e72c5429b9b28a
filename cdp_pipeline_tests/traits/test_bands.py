"""Crossings against a state machine in plain Python, day by day, and however the days are cut into runs."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import ibis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.traits.bands import BANDS, crossings, state_after, state_before
from cdp_pipeline_tests.traits.shop import PEOPLE, project, trait

Row = dict[str, Any]
DAYS = [date(2024, 3, 29) + timedelta(days=number) for number in range(8)]  # the clocks change on the 31st
RISING = trait(
    "recency",
    "days_since",
    bands=[{"name": "ok"}, {"name": "watch", "above": 3, "exit": 1}, {"name": "alarm", "above": 5}],
)
FALLING = trait(
    "pace",
    "average",
    value="amount",
    bands=[{"name": "steady"}, {"name": "slowing", "below": 4, "exit": 6}, {"name": "stalled", "below": 2, "exit": 7}],
)
PHASE = trait("phase", "state", states=[{"name": "need", "when": "recency > 3"}, {"name": "pain", "when": "pace < 2"}])
SHOP = project(RISING, FALLING)


def next_band(one: Trait, at: int, values: list[Any]) -> int:
    """Climb while all values are past a higher threshold; fall while all are back at the exit of the band.

    States are wherever all values say.
    """
    if one.states:
        return one.band_names.index(values[0] or "none") if len(set(values)) == 1 else at

    def enters(number: int) -> bool:
        band = one.bands[number]
        return all(v is not None and (v > band.above if band.above is not None else v < band.below) for v in values)

    def leaves(number: int) -> bool:
        band = one.bands[number]
        back = band.exit if band.exit is not None else (band.above if band.above is not None else band.below)
        return all(v is not None and (v <= back if band.above is not None else v >= back) for v in values)

    for number in range(len(one.bands) - 1, at, -1):
        if enters(number):
            return number
    while at and leaves(at):
        at -= 1
    return at


def expected(rows: list[Row], whole: Project) -> list[tuple[Any, ...]]:
    found = []
    first = min((row["day"] for row in rows), default=None)
    for name, one in whole.traits.items():
        names, state, moved = one.band_names, dict[str, int](), dict[str, date]()
        dwell, rest = one.dwell or timedelta(days=1), one.cool_down or timedelta(days=1)
        values = {(row["person_id"], row["day"]): row[name] for row in rows}
        for row in sorted(rows, key=lambda row: (row["day"], row["person_id"])):
            person, day, before = row["person_id"], row["day"], state.get(row["person_id"], 0)
            recent = [(person, day - timedelta(days=age)) for age in range(1 if day == first else dwell.days)]
            after = before
            if all(one_day in values for one_day in recent) and day >= moved.get(person, date.min) + rest:
                after = next_band(one, before, [values[one_day] for one_day in recent])
            if day == first or after != before:
                left = None if day == first else names[before]
                numbers = [values.get((person, day - timedelta(days=1))), row[name]] if one.bands else [None, None]
                found.append((person, name, day, left, names[after], *numbers))
                state[person] = after
                if day != first:
                    moved[person] = day
    return sorted(found, key=str)


class Lake:
    """Two tables, and a run as the orchestration does it: the crossings of some days replace what those days had."""

    def __init__(self, rows: list[Row], whole: Project = SHOP) -> None:
        self.connection, self.project = ibis.duckdb.connect(), whole
        schema = ibis.schema(
            {"person_id": "string", "day": "date", "recency": "int64", "pace": "float64", "phase": "string"}
        )
        self.daily = self.connection.create_table("daily", schema=schema)
        self.bands = self.connection.create_table("bands", schema=BANDS.schema)
        self.compute(rows)

    def compute(self, rows: list[Row]) -> None:
        if rows:
            full = [{"phase": None} | row for row in rows]
            self.connection.insert("daily", ibis.memtable(full, schema=self.daily.schema()))

    def run(self, days: list[date]) -> None:
        found = crossings(self.daily, state_before(self.bands, min(days)), self.project, days).to_pyarrow()
        kept = self.bands.filter(~self.bands.day.isin(days)).to_pyarrow()
        self.bands = self.connection.create_table("bands", kept, overwrite=True)
        self.connection.insert("bands", found)

    def moves(self) -> list[tuple[Any, ...]]:
        columns = ["person_id", "trait", "day", "from_band", "to_band", "value_before", "value_after"]
        return sorted((tuple(row[c] for c in columns) for row in self.bands.to_pyarrow().to_pylist()), key=str)


@st.composite
def histories(draw: st.DrawFn) -> list[Row]:
    """Values on both sides of and upon every threshold, unknown ones, people who come later, days not computed."""
    value = st.none() | st.integers(0, 8)
    phase = st.sampled_from([None, "need", "pain"])
    values = st.lists(st.tuples(value, value, phase), min_size=len(DAYS), max_size=len(DAYS))
    gone = draw(st.sets(st.sampled_from(DAYS), max_size=2))
    return [
        {"person_id": person, "day": day, "recency": recency, "pace": pace and float(pace), "phase": phase}
        for person in PEOPLE[:6]
        for first in [draw(st.integers(0, 4))]
        for number, (day, (recency, pace, phase)) in enumerate(zip(DAYS, draw(values), strict=True))
        if number >= first and day not in gone
    ]


WAITS = st.sampled_from([None, timedelta(days=2), timedelta(days=3)])


@settings(max_examples=5)
@given(histories(), st.integers(1, 7), WAITS, WAITS)
def test_people_move_as_the_state_machine_does_whether_days_run_together_or_apart(
    rows: list[Row], cut: int, dwell: timedelta | None, cool_down: timedelta | None
) -> None:
    days = sorted({row["day"] for row in rows})
    patient = [one.model_copy(update={"dwell": dwell, "cool_down": cool_down}) for one in (RISING, FALLING, PHASE)]
    whole = project(*patient)
    wanted = expected(rows, whole)
    together, apart = Lake(rows, whole), Lake(rows, whole)
    together.run(days)
    assert together.moves() == wanted
    for some in (days[:cut], days[cut:]):
        if some:
            apart.run(some)
    assert apart.moves() == wanted
    apart.run(days[-1:])
    assert apart.moves() == wanted, "a day that ran before runs again"


def test_a_restated_day_moves_the_days_after_it_too() -> None:
    rows = [{"person_id": "p1", "day": day, "recency": 4, "pace": 9.0} for day in DAYS[:3]]
    lake = Lake(rows)
    lake.run(DAYS[:3])
    lake.connection.raw_sql(f"update daily set recency = 0 where day = date '{DAYS[1]}'")
    lake.run(DAYS[1:3])
    assert [(row[2], row[3], row[4]) for row in lake.moves() if row[1] == "recency"] == [
        (DAYS[0], None, "watch"), (DAYS[1], "watch", "ok"), (DAYS[2], "ok", "watch"),
    ]  # fmt: skip


def test_somebody_new_starts_calm_and_is_seen_to_move() -> None:
    rows = [{"person_id": "p1", "day": day, "recency": 0, "pace": 9.0} for day in DAYS[:2]]
    lake = Lake([*rows, {"person_id": "p2", "day": DAYS[1], "recency": 9, "pace": 9.0}])
    lake.run(DAYS[:1])
    lake.run(DAYS[1:2])
    assert [row[:5] for row in lake.moves() if row[0] == "p2"] == [("p2", "recency", DAYS[1], "ok", "alarm")]


def test_bands_that_are_new_move_nobody_but_note_where_everybody_is() -> None:
    rows = [
        {"person_id": person, "day": DAYS[0], "recency": value, "pace": 9.0} for person, value in (("p1", 9), ("p2", 0))
    ]
    lake = Lake(rows, project(RISING))
    lake.run(DAYS[:1])
    assert [(row[0], row[3], row[4]) for row in lake.moves()] == [("p1", None, "alarm"), ("p2", None, "ok")]


def test_a_band_with_another_name_moves_nobody() -> None:
    lake = Lake([{"person_id": "p1", "day": day, "recency": 9, "pace": 9.0} for day in DAYS[:3]], project(RISING))
    lake.run(DAYS[:1])
    renamed = [band.model_copy(update={"name": "red"}) if band.name == "alarm" else band for band in RISING.bands]
    lake.project = project(RISING.model_copy(update={"bands": renamed}))
    lake.run(DAYS[1:3])
    assert [(row[2], row[3], row[4]) for row in lake.moves()] == [(DAYS[0], None, "alarm"), (DAYS[1], None, "red")]


def test_days_end_when_their_clocks_say_so() -> None:
    lake = Lake(
        [{"person_id": "p1", "day": day, "recency": 9 * (n % 2), "pace": 9.0} for n, day in enumerate(DAYS[:4])]
    )
    lake.run(DAYS[:4])
    ends = {row["day"]: row["at"] for row in lake.bands.to_pyarrow().to_pylist()}
    assert ends[date(2024, 3, 29)] == datetime(2024, 3, 30, 0, 0)
    assert ends[date(2024, 3, 31)] == datetime(2024, 3, 31, 23, 0), "summer time has begun"


def test_the_state_of_a_day_is_the_last_band_entered_by_then() -> None:
    lake = Lake(
        [
            {"person_id": "p1", "day": day, "recency": value, "pace": 9.0}
            for day, value in zip(DAYS[:4], (0, 9, 9, 0), strict=True)
        ]
    )
    lake.run(DAYS[:4])

    def state(of: ibis.Table) -> str:
        return of.filter(of.trait == "recency").to_pyarrow().to_pylist()[0]["band"]

    assert [state(state_before(lake.bands, day)) for day in DAYS[1:4]] == ["ok", "alarm", "alarm"]
    assert state(state_after(lake.bands, DAYS[3])) == "ok"


@pytest.mark.parametrize("traits", [[], [trait("orders", "count")]])
def test_without_bands_there_are_no_crossings(traits: list[Trait]) -> None:
    lake = Lake([])
    found = crossings(lake.daily, state_before(lake.bands, DAYS[0]), project(*traits), DAYS)
    assert found.schema() == BANDS.schema
    assert found.count().execute() == 0

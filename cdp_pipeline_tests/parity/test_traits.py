"""Traits and bands are equal on every engine, and what plain Python says."""

from __future__ import annotations

import random
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.bands import BANDS, crossings, state_before
from cdp_pipeline.traits.daily import stale_days
from cdp_pipeline.traits.once import Once
from cdp_pipeline.traits.runs import RUNS
from cdp_pipeline_tests.parity.conftest import EngineUnderTest
from cdp_pipeline_tests.traits import test_bands
from cdp_pipeline_tests.traits.oracle import CONDITIONS, expected, same
from cdp_pipeline_tests.traits.shop import DAYS, PEOPLE, event, project, timeline_rows, trait
from cdp_pipeline_tests.traits.test_as_of import ASKED

Row = dict[str, Any]
WINDOWS = ("lifetime", "last 8 days", "previous month", "next 3 days", "last session")
FIELDS = [(name, fields) for name, every in ASKED.items() for fields in every]


def traits_asked(engine: str) -> list[Trait]:
    """Every evaluation, over one window and condition after the other."""
    found = []
    for number, (evaluation, fields) in enumerate(FIELDS):
        window = WINDOWS[number % 2 if evaluation in ("trend", "decayed") or "half_life" in fields else number % 5]
        window = "last 1 year" if evaluation == "trend" else window
        event = ["order", "visit"]
        # Every value and every window of a trend is a pass of its own, which costs seconds on Apache Spark.
        if engine != "spark" or fields.get("value") in (None, "amount", "category"):
            when = list(CONDITIONS)[number % 3]
            found.append(trait(f"t{number}", evaluation, window=window, when=when, event=event, **fields))
    return found


def history(seed: int = 7) -> list[Row]:
    chance = random.Random(seed)
    rows = []
    for number in range(120):
        day = chance.choice([*DAYS, DAYS[0] - timedelta(days=365), DAYS[0] - timedelta(days=366)])
        at = datetime.combine(day, time(chance.choice([0, 12])))
        rows.append(
            event(
                event_id=f"e{chance.randrange(10**6):06}{number}",
                person_id=chance.choice([*PEOPLE[:5], None]),
                event=chance.choice(["order", "order", "visit"]),
                occurred_at=at,
                _day=day,
                amount=chance.choice([None, Decimal("10.01"), Decimal("-3.5"), Decimal("0.3333")]),
                quantity=chance.choice([None, 1, 2]),
                points=chance.choice([None, 0.1, 1e6]),
                channel=chance.choice(["web", "store", None]),
                category=chance.choice(["tea", "cake", None]),
                gift=chance.choice([True, False, None]),
                due=day,
                seen_at=at,
                _loaded_at=chance.choice([datetime(2020, 1, 1), at]),
            )
        )
    return rows


def ids(people: tuple[str, ...]) -> pa.Table:
    return pa.table({"person_id": list(people)})


def test_every_evaluation_says_the_same_on_one_day_and_on_several(engine: EngineUnderTest) -> None:
    rows, people, traits = history(), PEOPLE[:6], traits_asked(engine.name)
    whole = project(
        *traits,
        trait("times", "count"),
        trait("spent", "sum", value="amount"),
        trait("share", "ratio", numerator="times", denominator="spent"),
        trait("grade", "expression", expression="case when share > 0.5 then 'a' else 'b' end"),
    )
    timeline, known = engine.table(timeline_rows(rows)), engine.table(ids(people))
    for days in ([DAYS[6]], [*DAYS[3:6], DAYS[9]]):
        found = engine.rows(as_of(timeline, known, days, whole))
        assert [(row["person_id"], row["day"]) for row in found] == [(person, day) for person in people for day in days]
        assert not [
            (one.evaluation, one.value, row["person_id"], row["day"], row[one.name], wanted)
            for row in found
            for one in traits
            if not same(row[one.name], wanted := expected(one, rows, row["person_id"], row["day"]), 1e-8)
        ]
        for row in found:
            share = None if not row["spent"] else float(f"{float(row['times']) / float(row['spent']):.9g}")
            assert (row["share"], row["grade"]) == (share, "a" if share is not None and share > 0.5 else "b")


def test_what_is_kept_for_several_is_read_as_it_was_computed(engine: EngineUnderTest) -> None:
    rows, days = history(), [DAYS[5], DAYS[8]]
    whole = project(trait("times", "count"), trait("spent", "sum", value="amount"), trait("seen", "last", value="due"))
    timeline, known, once = engine.table(timeline_rows(rows)), engine.table(ids(PEOPLE[:6])), Once(engine.port.kept)
    for wanted in (["times", "seen"], ["spent"]):
        found = once.as_of(timeline, known, days[:1], whole, wanted, days, list(whole.traits))
        assert engine.rows(found) == engine.rows(as_of(timeline, known, days[:1], whole, wanted))
    nobody = once.as_of(timeline, known.filter(known.person_id == "nobody"), days, whole, ["times"], (), ["times"])
    assert engine.rows(nobody) == [] and nobody.columns == ("person_id", "day", "times")


def test_crossings_say_the_same(engine: EngineUnderTest) -> None:
    chance = random.Random(3)
    paces = [None, 1.0, 3.0, 6.5, 9.0]
    values = [None, 0, 1, 2, 3, 4, 6, 8]
    daily = [
        {
            "person_id": person,
            "day": day,
            "recency": chance.choice(values),
            "pace": chance.choice(paces),
            "phase": chance.choice([None, "need", "pain"]),
        }
        for person in PEOPLE[:5]
        for day in test_bands.DAYS
    ]
    types = {"recency": pa.int64(), "pace": pa.float64(), "phase": pa.string()}
    schema = pa.schema({"person_id": pa.string(), "day": pa.date32(), **types})
    table = engine.table(pa.Table.from_pylist(daily, schema=schema))
    bands = engine.table(BANDS.schema.to_pyarrow().empty_table())
    slow = test_bands.RISING.model_copy(update={"cool_down": timedelta(days=3)})
    slower = test_bands.FALLING.model_copy(update={"dwell": timedelta(days=2)})
    whole = project(slow, slower, test_bands.PHASE)
    found = engine.rows(crossings(table, state_before(bands, DAYS[0]), whole, test_bands.DAYS))
    columns = ["person_id", "trait", "day", "from_band", "to_band", "value_before", "value_after"]
    assert sorted((tuple(row[c] for c in columns) for row in found), key=str) == [
        tuple(float(v) if isinstance(v, int) else v for v in row)
        for row in sorted(test_bands.expected(daily, whole), key=lambda row: str((*row[:5], *map(_float, row[5:]))))
    ]


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def test_stale_days_are_the_same(engine: EngineUnderTest) -> None:
    loaded = datetime(2024, 3, 10)
    rows = [
        event(_day=DAYS[2], _loaded_at=loaded),
        event(event_id="late", _day=DAYS[4], _loaded_at=loaded + timedelta(days=1)),
    ]
    daily = pa.table(
        {"day": pa.array(DAYS[2:7], pa.date32()), "_computed_at": pa.array([loaded] * 5, pa.timestamp("us"))}
    )
    runs = RUNS.schema.to_pyarrow().empty_table()
    found = engine.rows(stale_days(engine.table(timeline_rows(rows)), engine.table(daily), engine.table(runs)))
    assert [row["day"] for row in found] == [date(2024, 2, 29), *DAYS[5:7]]

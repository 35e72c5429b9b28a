"""Traits computed once for several who ask are what each would have computed alone."""

from __future__ import annotations

from datetime import date
from typing import Any

import duckdb
import ibis
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.lake.engines import DuckDBEngine
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.once import Once
from cdp_pipeline_tests.traits.shop import DAYS, PEOPLE, event, events, project, timeline_rows, trait

SHOP = project(
    trait("orders", "count"), trait("spent_3d", "sum", value="amount", window="last 3 days"),
    trait("days_since", "days_since"), trait("last_channel", "last", value="channel"),
)  # fmt: skip
NAMES = list(SHOP.traits)
EVERYBODY = ibis.memtable({"person_id": list(PEOPLE)}, schema={"person_id": "string"})


class Counting:
    """An engine that counts what it is asked to keep."""

    def __init__(self) -> None:
        self.engine, self.kept = DuckDBEngine(duckdb.connect()), 0

    def keep(self, rows: ibis.Table) -> ibis.Table:
        self.kept += 1
        return self.engine.kept(rows)

    def rows(self, table: ibis.Table) -> list[dict[str, Any]]:
        return sorted(self.engine.local.to_pyarrow(table).to_pylist(), key=lambda row: (row["person_id"], row["day"]))


@settings(max_examples=6)
@given(events(), st.lists(st.tuples(st.sets(st.sampled_from(DAYS), min_size=1), st.sets(st.sampled_from(NAMES))),
                          min_size=2, max_size=3))  # fmt: skip
def test_each_gets_what_they_would_have_computed_alone_and_it_is_computed_once(
    happened: list[dict[str, Any]], askers: list[tuple[set[date], set[str]]]
) -> None:
    timeline, counting = ibis.memtable(timeline_rows(happened)), Counting()
    once, all_days = Once(counting.keep), {day for days, _ in askers for day in days}
    for days, chosen in askers:
        names = [name for name in NAMES if name in chosen]
        found = once.as_of(timeline, EVERYBODY, sorted(days), SHOP, names, all_days, NAMES)
        assert found.columns == ("person_id", "day", *names)
        alone = as_of(timeline, EVERYBODY, sorted(days), SHOP, names)
        assert counting.rows(found) == counting.rows(alone)
    assert counting.kept == 1


def test_other_events_other_people_and_other_days_are_not_mixed_up() -> None:
    rows = [event(_day=DAYS[0]), event(_day=DAYS[3], event_id="later"), event(_day=DAYS[0], person_id=PEOPLE[1])]
    counting = Counting()
    once, whole = Once(counting.keep), ibis.memtable(timeline_rows(rows))
    past, one = whole.filter(whole._day <= DAYS[1]), EVERYBODY.filter(EVERYBODY.person_id == PEOPLE[1])

    def orders(timeline: ibis.Table, people: ibis.Table, day: date) -> list[int]:
        found = once.as_of(timeline, people, [day], SHOP, ["orders"], (), ["orders"])
        return [row["orders"] for row in counting.rows(found) if row["person_id"] in PEOPLE[:2]]

    assert orders(whole, EVERYBODY, DAYS[4]) == [2, 1]
    assert orders(past, EVERYBODY, DAYS[4]) == [1, 1], "what was known on a day is never read from what is known now"
    assert orders(whole, one, DAYS[4]) == [1]
    assert orders(whole, EVERYBODY, DAYS[1]) == [1, 1]
    assert orders(whole, EVERYBODY, DAYS[4]) == [2, 1]
    assert counting.kept == 4

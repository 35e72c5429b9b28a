"""Who entered, who left and how many there are, day by day, against plain set differences."""

from __future__ import annotations

from datetime import date
from typing import Any

import ibis
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.audiences.members import CHANGES, HELD, MEMBERS, SIZES, changes, held_now, members, sizes
from cdp_pipeline.audiences.reach import reach
from cdp_pipeline.audiences.rules import Scope
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.audiences.company import audience, rule
from cdp_pipeline_tests.traits.shop import DAYS, project, stored, trait

Row = dict[str, Any]
NAMES = ["buyers", "others"]
SHOP = project(
    trait("orders", "count"),
    audience("buyers", rule(trait="orders", op=">", value=0)),
    audience("others", rule(none=[{"audience": "buyers"}])),
)


class Lake:
    """The tables of a project's audiences, and a run as the orchestration does it."""

    def __init__(self, rows: list[Row], whole: Project = SHOP) -> None:
        self.connection, self.project = ibis.duckdb.connect(), whole
        daily = {"person_id": "string", "day": "date", "orders": "int64"}
        self.traits = self.connection.create_table("traits", ibis.memtable(rows, schema=ibis.schema(daily)))
        self.identifiers = self.connection.create_table(
            "identifiers", {"person_id": ["p1", "p2", "p2", "p9"], "type": ["email", "email", "phone", "phone"]}
        )
        self.tables = {
            table.name: self.connection.create_table(table.name.replace(".", "_"), schema=table.schema)
            for table in (MEMBERS, CHANGES, SIZES)
        }

    def run(self, days: list[date]) -> None:
        names = list(self.project.audiences)
        rows = members(self.project, names, Scope(self.traits), days).cache()
        reached = reach(self.project, rows, self.identifiers, None)
        self.store(MEMBERS.name, rows.to_pyarrow(), days)
        self.store(SIZES.name, sizes(rows, reached, names, days).to_pyarrow(), days)
        kept, counted = self.tables[MEMBERS.name], self.tables[SIZES.name]
        self.store(CHANGES.name, changes(kept, counted, self.traits, names, days).to_pyarrow(), days)

    def store(self, name: str, new: pa.Table, days: list[date]) -> None:
        kept = self.tables[name].filter(~self.tables[name].day.isin(days)).to_pyarrow()
        self.tables[name] = stored(self.connection, name.replace(".", "_"), pa.concat_tables([kept, new]))

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        table = self.tables[name].to_pyarrow()
        return sorted(tuple(row.values()) for row in table.to_pylist())


def expected(rows: list[Row], days: list[date]) -> list[tuple[Any, ...]]:
    found, there = [], dict[str, set[str]]()
    for number, day in enumerate(days):
        present = {row["person_id"] for row in rows if row["day"] == day}
        buyers = {row["person_id"] for row in rows if row["day"] == day and row["orders"] > 0}
        for name, inside in (("buyers", buyers), ("others", present - buyers)):
            before = there.get(name, set())
            for person in inside - before:
                found.append((name, person, day, "entered", "baseline" if number == 0 else "the conditions hold now"))
            for person in before - inside:
                cause = "the conditions hold no longer" if person in present else "merged"
                found.append((name, person, day, "left", cause))
            there[name] = inside
    return sorted(found)


HISTORIES = st.lists(
    st.fixed_dictionaries(
        {
            "person_id": st.sampled_from(["p1", "p2", "p3"]),
            "day": st.sampled_from(DAYS[:4]),
            "orders": st.integers(0, 1),
        }
    ),
    unique_by=lambda row: (row["person_id"], row["day"]),
    max_size=12,
)


@settings(max_examples=5)
@given(HISTORIES, st.integers(1, 4))
def test_moves_are_the_differences_of_days_whether_days_run_together_or_apart(rows: list[Row], cut: int) -> None:
    days = DAYS[:4]
    together, apart = Lake(rows), Lake(rows)
    together.run(days)
    assert together.rows(CHANGES.name) == expected(rows, days)
    for some in (days[:cut], days[cut:], days[3:]):
        if some:
            apart.run(some)
    assert [apart.rows(name) for name in apart.tables] == [together.rows(name) for name in together.tables]


def ordered(**orders: int) -> list[Row]:
    return [{"person_id": person, "day": DAYS[0], "orders": count} for person, count in orders.items()]


def test_an_empty_audience_has_a_size_and_whoever_comes_next_entered_it() -> None:
    rows = [*ordered(p1=0), {"person_id": "p1", "day": DAYS[1], "orders": 1}]
    lake = Lake(rows)
    lake.run(DAYS[:1])
    assert ("buyers", DAYS[0], 0, 0, 0) in lake.rows(SIZES.name)
    lake.run(DAYS[1:2])
    assert ("buyers", "p1", DAYS[1], "entered", "the conditions hold now") in lake.rows(CHANGES.name)


def test_a_size_says_how_many_can_be_reached_by_each_channel() -> None:
    lake = Lake(ordered(p1=1, p2=1, p3=1, p4=0))
    lake.run(DAYS[:1])
    assert lake.rows(SIZES.name) == [("buyers", DAYS[0], 3, 2, 1), ("others", DAYS[0], 1, 0, 0)]


def test_an_audience_declared_later_starts_with_a_baseline_of_its_own() -> None:
    lake = Lake(ordered(p1=1))
    lake.project = project(SHOP.traits["orders"], SHOP.audiences["buyers"])
    lake.run(DAYS[:1])
    lake.project = SHOP
    lake.traits = lake.traits.mutate(day=ibis.date(DAYS[1]))
    lake.run(DAYS[1:2])
    assert lake.rows(CHANGES.name) == [("buyers", "p1", DAYS[0], "entered", "baseline")]
    assert [row[0] for row in lake.rows(SIZES.name)] == ["buyers", "buyers", "others"]


def test_tables_have_the_columns_they_declare() -> None:
    lake = Lake(ordered(p1=1))
    rows = members(SHOP, NAMES, Scope(lake.traits), DAYS[:1])
    assert dict(rows.schema().items()) == dict(MEMBERS.schema.items())
    assert sizes(rows, reach(SHOP, rows, lake.identifiers, None), NAMES, DAYS[:1]).columns == tuple(SIZES.columns)
    moved = changes(rows, lake.tables[SIZES.name], lake.traits, NAMES, DAYS[:1])
    assert moved.columns == tuple(CHANGES.columns)


def test_a_day_on_which_an_audience_was_held_is_stepped_over() -> None:
    orders = {("p1", 0): 1, ("p1", 1): 0, ("p1", 2): 1, ("p2", 0): 0, ("p2", 1): 0, ("p2", 2): 1}
    rows = [{"person_id": person, "day": DAYS[at], "orders": count} for (person, at), count in orders.items()]
    lake = Lake(rows)
    lake.run(DAYS[:1])
    lake.run(DAYS[2:3])  # Nothing was published of the day between.
    assert [row[:4] for row in lake.rows(CHANGES.name) if row[0] == "buyers"] == [
        ("buyers", "p1", DAYS[0], "entered"), ("buyers", "p2", DAYS[2], "entered"),
    ]  # fmt: skip


def test_an_audience_is_held_until_a_day_is_good_again() -> None:
    good = [("buyers", DAYS[2]), ("others", DAYS[3])]
    held = [("buyers", DAYS[1]), ("buyers", DAYS[2]), ("others", DAYS[2]), ("new", DAYS[0])]
    sizes_, held_ = (
        pa.Table.from_pylist(
            [{"audience": name, "day": day, "people": 1, "because": f"because {day}"} for name, day in some],
            schema=table.schema.to_pyarrow(),
        )
        for table, some in ((SIZES, good), (HELD, held))
    )
    assert held_now(ibis.memtable(sizes_), ibis.memtable(held_)) == {
        "buyers": f"because {DAYS[2]}", "new": f"because {DAYS[0]}",
    }  # fmt: skip

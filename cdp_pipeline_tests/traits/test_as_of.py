"""Every evaluation, over every window and condition, against plain Python on generated histories."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import ibis
import pytest
from hypothesis import HealthCheck, example, given, settings

from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.daily import daily_table, trait_types
from cdp_pipeline_tests.traits.shop import DAYS, PEOPLE, event, events, project, stored, timeline_rows, trait

Row = dict[str, Any]
WINDOWS = {"lifetime": None, "last 1 days": 1, "last 8 days": 8, "last 366 days": 366}
CONDITIONS: dict[str | None, Callable[[Row], bool | None]] = {
    None: lambda row: True,
    "channel = 'web'": lambda row: row["channel"] == "web",
    "amount > 0 or gift": lambda row: (row["amount"] is not None and row["amount"] > 0) or row["gift"],
}
VALUES: dict[str, Callable[[Row], Any]] = {
    "amount": lambda row: row["amount"],
    "quantity": lambda row: row["quantity"],
    "points": lambda row: row["points"],
    "amount * quantity": lambda row: (
        None if None in (row["amount"], row["quantity"]) else row["amount"] * row["quantity"]
    ),
    "category": lambda row: row["category"],
    "gift": lambda row: row["gift"],
    "due": lambda row: row["due"],
    "seen_at": lambda row: row["seen_at"],
}
NUMBERS = ("amount", "quantity", "points", "amount * quantity")
ORDERED = ("amount", "points", "category", "due", "seen_at")
OF_VALUES = {
    "sum": NUMBERS, "average": NUMBERS, "stddev": NUMBERS, "min": ORDERED, "max": ORDERED,
    "first": VALUES, "last": VALUES, "unique_count": VALUES, "count": [None], "days_since": [None],
}  # fmt: skip


def every_trait() -> list[Trait]:
    combinations = [
        (evaluation, value, window, condition)
        for evaluation, values in OF_VALUES.items()
        for value in values
        for window in WINDOWS
        for condition in CONDITIONS
        # All windows and conditions over one value, and all values over one window and condition.
        if value in (None, "amount") or (window, condition) == ("last 8 days", "channel = 'web'")
    ]
    return [
        trait(f"t{number}", evaluation, value=value, window=window, when=condition,
              event=["order", "visit"] if number % 2 else "order")
        for number, (evaluation, value, window, condition) in enumerate(combinations)
    ]  # fmt: skip


def expected(one: Trait, rows: list[Row], person: str, day: date) -> Any:
    """What a trait is, spelled out."""
    oldest = date.min if (first := one.window.span(day)[0]) is None else first
    seen = [
        row
        for row in sorted(rows, key=lambda row: (row["occurred_at"], row["event_id"]))
        if row["person_id"] == person
        and row["event"] in one.event
        and oldest <= row["_day"] <= day
        and CONDITIONS[one.when](row)
    ]
    if one.evaluation == "count":
        return len(seen)
    if one.evaluation == "days_since":
        return min(((day - row["_day"]).days for row in seen), default=None)
    values = [value for row in seen if (value := VALUES[str(one.value)](row)) is not None]
    answers: dict[str, Callable[[], Any]] = {
        "sum": lambda: sum(values),
        "unique_count": lambda: len(set(values)),
        "average": lambda: float(sum(values)) / len(values),
        "stddev": lambda: statistics.stdev([float(value) for value in values]) if len(values) > 1 else None,
        "min": lambda: min(values),
        "max": lambda: max(values),
        "first": lambda: values[0],
        "last": lambda: values[-1],
    }
    return answers[one.evaluation]() if values or one.evaluation in ("sum", "unique_count") else None


def same(found: Any, wanted: Any, within: float = 1e-9) -> bool:
    if isinstance(found, float) and wanted is not None:
        return math.isclose(found, float(wanted), rel_tol=within, abs_tol=within)
    return found == wanted


class Shop:
    """All traits over a timeline whose rows change: the query is built once, and asked of every history."""

    def __init__(self, traits: list[Trait], days: list[date]) -> None:
        self.connection = ibis.duckdb.connect()
        self.project = project(*traits)
        people = self.connection.create_table("people", {"person_id": list(PEOPLE)})
        timeline = stored(self.connection, "timeline", timeline_rows([]))
        self.query = as_of(timeline, people, days, self.project)
        self.sql = ibis.to_sql(self.query, dialect="duckdb")

    def ask(self, rows: list[Row]) -> dict[tuple[str, date], Row]:
        stored(self.connection, "timeline", timeline_rows(rows))
        found = self.connection.con.sql(str(self.sql)).to_arrow_table().cast(self.query.schema().to_pyarrow())
        answers = {(row["person_id"], row["day"]): row for row in found.to_pylist()}
        assert len(answers) == found.num_rows
        return answers


SPANS = {
    "one day": [DAYS[6]],
    "several days, not all in a row": [*DAYS[2:6], DAYS[9]],
}
FEW = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.fixture(scope="module", params=SPANS)
def shop(request: pytest.FixtureRequest) -> tuple[Shop, list[date]]:
    return Shop(every_trait(), SPANS[request.param]), SPANS[request.param]


# Histories of real length, for hypothesis begins with short ones, in which no window has two edges.
@FEW
@given(rows=events(least=80))
@example(rows=[])
def test_every_trait_is_what_plain_python_says_on_every_day(shop: tuple[Shop, list[date]], rows: list[Row]) -> None:
    asked, days = shop
    answers = asked.ask(rows)
    assert answers.keys() == {(person, day) for person in PEOPLE for day in days}
    wrong = {
        (one.evaluation, one.value, str(one.window), one.when, person, day, answers[person, day][one.name], wanted)
        for one in asked.project.traits.values()
        for person, day in answers
        if not same(answers[person, day][one.name], wanted := expected(one, rows, person, day))
    }
    assert not wrong


@settings(FEW, max_examples=1)
@given(rows=events(least=80))
def test_what_happens_later_changes_no_day_before_it(shop: tuple[Shop, list[date]], rows: list[Row]) -> None:
    asked, days = shop
    full, cut = asked.ask(rows), asked.ask([row for row in rows if row["_day"] <= days[0]])
    for person in PEOPLE:
        for name in asked.project.traits:
            assert same(full[person, days[0]][name], cut[person, days[0]][name])


def test_types_of_the_table_are_those_of_the_query() -> None:
    asked = Shop(
        [
            *every_trait(),
            trait("a_ratio", "ratio", numerator="t0", denominator="t1"),
            trait("a_text", "expression", expression="case when t0 > 1 then 'many' else 'few' end"),
            trait("a_double", "expression", expression="t0 * 2"),
        ],
        [DAYS[0]],
    )
    queried = dict(asked.query.schema().items())
    declared = daily_table(asked.project).schema
    assert {name: str(type_) for name, type_ in queried.items()} == {
        name: str(type_) for name, type_ in declared.items() if name != "_computed_at"
    }
    assert trait_types(asked.project)["a_ratio"] == "float64"


def answer(traits: list[Trait], rows: list[Row], day: date = DAYS[5]) -> Row:
    return Shop(traits, [day]).ask(rows)[PEOPLE[0], day]


def test_a_person_has_rows_from_their_first_day_on() -> None:
    connection = ibis.duckdb.connect()
    people = connection.create_table("people", {"person_id": ["p_old", "p_new"], "first_day": [DAYS[0], DAYS[3]]})
    timeline = stored(connection, "timeline", timeline_rows([]))
    found = as_of(timeline, people, [DAYS[2], DAYS[3]], project(trait("orders", "count"))).to_pyarrow().to_pylist()
    assert sorted((row["person_id"], row["day"], row["orders"]) for row in found) == [
        ("p_new", DAYS[3], 0), ("p_old", DAYS[2], 0), ("p_old", DAYS[3], 0),
    ]  # fmt: skip


def test_a_ratio_over_nothing_is_unknown() -> None:
    traits = [
        trait("orders", "count"),
        trait("visits", "count", event="visit"),
        trait("per_visit", "ratio", numerator="orders", denominator="visits"),
    ]
    assert answer(traits, [event()])["per_visit"] is None
    visits = [event(event="visit", event_id=f"v{number}") for number in range(4)]
    assert answer(traits, [event(), *visits])["per_visit"] == 0.25


def test_traits_over_traits_are_computed_in_order_of_dependency_and_listed_as_declared() -> None:
    traits = [
        trait("grade", "expression", expression="case when share >= 0.5 then 'a' else 'b' end"),
        trait("share", "ratio", numerator="gifts", denominator="orders"),
        trait("gifts", "count", when="gift"),
        trait("orders", "count"),
    ]
    found = answer(traits, [event(gift=True), event(event_id="e2")])
    assert list(found) == ["person_id", "day", "grade", "share", "gifts", "orders"]
    assert (found["grade"], found["share"]) == ("a", 0.5)


def test_named_traits_alone_are_returned_though_others_are_needed_for_them() -> None:
    connection = ibis.duckdb.connect()
    people = connection.create_table("people", {"person_id": list(PEOPLE)})
    timeline = stored(connection, "timeline", timeline_rows([event(gift=True)]))
    whole = project(
        trait("share", "ratio", numerator="gifts", denominator="orders"),
        trait("gifts", "count", when="gift"),
        trait("orders", "count"),
    )
    found = as_of(timeline, people, [DAYS[5]], whole, ["share"])
    assert found.columns == ("person_id", "day", "share")
    assert found.filter(found.person_id == PEOPLE[0]).share.to_pyarrow().to_pylist() == [1.0]


def test_of_two_orders_at_one_instant_the_event_id_says_which_is_last() -> None:
    traits = [trait("last", "last", value="category"), trait("first", "first", value="category")]
    rows = [event(event_id="e2", category="cake"), event(event_id="e1", category="tea")]
    assert (answer(traits, rows)["first"], answer(traits, rows)["last"]) == ("tea", "cake")


def test_money_is_added_up_exactly() -> None:
    rows = [event(event_id=f"e{number}", amount=Decimal("0.1")) for number in range(1000)]
    assert answer([trait("spent", "sum", value="amount")], rows)["spent"] == Decimal("100")


def test_a_project_without_traits_still_lists_its_people() -> None:
    assert list(answer([], [event()])) == ["person_id", "day"]

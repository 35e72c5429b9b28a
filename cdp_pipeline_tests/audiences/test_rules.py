"""Generated trees of rules against plain Python, and the answers that are easily got wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

import ibis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cdp_pipeline.audiences.members import members
from cdp_pipeline.audiences.rules import Scope, ScopeError, column_of, gathered, leaves, matching
from cdp_pipeline.audiences.scope import named
from cdp_pipeline.spec.audience import Audience, Rule
from cdp_pipeline.spec.operators import LIKELY, OPERATORS, OperatorName
from cdp_pipeline.spec.versions import audience_versions
from cdp_pipeline_tests.audiences import oracle
from cdp_pipeline_tests.audiences.company import (
    ASKED,
    TEXTS,
    answers,
    audience,
    companies,
    company_project,
    rule,
    scope,
)
from cdp_pipeline_tests.traits.shop import DAYS, trait

Row = dict[str, Any]


def generated(examples: int) -> settings:
    """A query of many rules takes long: few examples of many rules each, none of them shrunk."""
    return settings(
        max_examples=examples * int(os.environ.get("CDP_TEST_EXAMPLES", "1")),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )


GENERATED = generated(3)


def mistakes(rules: Sequence[Rule], company: Row, days: Sequence[date] = ASKED) -> list[Any]:
    """The answers that differ from the oracle's: the rule, the person, the day, and what plain Python says."""
    whole = company_project()
    found = answers(rules, scope(company), whole, days).to_pyarrow().to_pylist()
    there = {(row["person_id"], row["day"]) for row in company["traits"] if row["day"] in days}
    assert {(row["person_id"], row["day"]) for row in found} == there and len(found) == len(there)
    return [
        (one.model_dump(exclude_unset=True), row["person_id"], row["day"], wanted)
        for row in found
        for number, one in enumerate(rules)
        if row[f"r{number}"] is not (wanted := oracle.holds(one, row["person_id"], row["day"], company, whole))
    ]


NUMBERS = st.sampled_from([-1, 0, 1, 2, 2.5, 19.99])
SUBJECTS = [
    ({"trait": "spent"}, NUMBERS),
    ({"trait": "orders"}, NUMBERS),
    ({"trait": "favourite"}, TEXTS),
    ({"attribute": "town"}, TEXTS),
    ({"attribute": "age"}, NUMBERS),
    ({"attribute": "vip"}, st.booleans()),
    ({"attribute": "born"}, st.sampled_from(["2000-02-29", "1999-12-31"])),
    ({"prediction": "churn"}, st.sampled_from([0, 0.5, 0.9])),
    ({"prediction": "churn", "field": "rank"}, st.sampled_from([1, 2])),
    ({"prediction": "churn", "field": "band"}, st.sampled_from(["high", "low"])),
]
WINDOWS = ["lifetime", "last 2 days", "last 5 days", "last 13 months", "this month", "between 4 and 2 days ago"]
ANY_WINDOW = [*WINDOWS, "previous month", "this week", "next 3 days", "last session"]
FIGURES = [
    ("sum", "amount", [-7.25, 0, 10, 20.5]), ("average", "amount", [0, 5, 10]), ("min", "amount", [-7.25, 0, 10]),
    ("max", "quantity", [1, 2]), ("distinct", "category", [0, 1, 2]),
]  # fmt: skip


@st.composite
def comparisons(draw: st.DrawFn) -> Row:
    subject, values = draw(st.sampled_from(SUBJECTS))
    text = subject.get("trait") == "favourite" or subject.get("attribute") == "town" or subject.get("field") == "band"
    operators = ["=", "!=", "<", "<=", ">", ">=", "in", "not_in", "between", "not_between", "is_null", "not_null"]
    op = draw(st.sampled_from(operators + (["contains", "starts_with"] if text else [])))
    if op in ("in", "not_in"):
        return subject | {"op": op, "value": draw(st.lists(values, min_size=1, max_size=3))}
    if op in ("between", "not_between"):
        return subject | {"op": op, "value": sorted([draw(values), draw(values)])}
    return subject | {"op": op} | ({} if op in ("is_null", "not_null") else {"value": draw(values)})


def by_chance(make: Callable[[random.Random], Row]) -> st.SearchStrategy[Row]:
    """Rows in which every choice is as likely as the others: hypothesis likes the first best, and repeats itself."""
    return st.integers(0, 10**9).map(lambda seed: make(random.Random(seed)))


def _change(chance: random.Random) -> Row:
    amount = chance.choice([{"by": 1}, {"by": 2.5}, {"percent": 20}, {"percent": 100}])
    return {
        "trait": chance.choice(["spent", "orders"]),
        "op": chance.choice(["increased_by", "decreased_by", "changed_by"]),
        "value": amount | {"over": chance.choice(["2 days", "4 days", "8 days"])},
    }


ORDERED = ["=", "!=", "<", "<=", ">", ">="]


def _two_traits(chance: random.Random) -> Row:
    one, other = chance.sample(["spent", "refunded", "orders"], 2)
    return {"trait": one, "op": chance.choice(ORDERED), "value": {"trait": other}}


EVENTS = ["order", "visit", ["visit", "order"]]
WHENS = [None, "amount > 0", "channel = 'web'"]
HOPS = [
    [{"source": "articles", "on": {"product_id": "sku"}, "when": "brand = 'x'"}],
    [{"source": "articles", "on": {"product_id": "sku"}},
     {"source": "makers", "on": {"maker": "id"}, "when": "country = 'de'"}],
]  # fmt: skip


def _happening(chance: random.Random) -> Row:
    one = chance.choice
    asked: Row = {"event": one(EVENTS), "did": one([True, False]), "window": one(ANY_WINDOW), "when": one(WHENS)}
    if one([True, False]):
        asked["count"] = one([1, 2, {"op": "between", "value": [1, 2]}, {"op": "=", "value": 0}])
    for figure, of, values in chance.sample(FIGURES, one([0, 1, 1, 2])):
        asked[figure] = {"of": of, "op": one(ORDERED), "value": one(values)}
    if one([True, False]):
        op = one(["before", "after", "within_last", "not_within_last"])
        value = one(["2024-02-28", "today", "2 days ago"]) if op in ("before", "after") else "2 days"
        asked[one(["first", "last"])] = {"op": op, "value": value}
    if one([True, False, False]):
        asked["related"] = one(HOPS)
    return {name: value for name, value in asked.items() if value is not None}


def _steps(chance: random.Random) -> Row:
    one = chance.choice
    steps = [{"event": one(EVENTS), "when": one(WHENS)} for _ in range(one([2, 3]))]
    for step in steps[1:]:
        if one([True, False]):
            step["within"] = one(["1 hour", "12 hours", "2 days"])
    asked: Row = {
        "sequence": steps,
        "window": one(WINDOWS),
        "did": one([True, True, False]),
        "within": one([None, None, "1 hour", "1 day", "3 days"]),
        "strict": one([True, False, False]),
        "same": one([None, None, "product_id"]),
    }
    if not asked["strict"]:
        asked["without"] = one([None, {"event": "visit"}, {"event": "order", "when": "channel = 'web'"}])
    return {name: value for name, value in asked.items() if value is not None}


changes, happenings, sequences = by_chance(_change), by_chance(_happening), by_chance(_steps)
pairs = by_chance(_two_traits)
OWN = st.sampled_from([
    {"related": [{"source": "claims"}]},
    {"related": [{"source": "claims"}], "count": 2},
    {"related": [{"source": "claims"}], "did": False},
    {"related": [{"source": "claims"}, {"source": "articles", "on": {"sku": "sku"}, "when": "brand = 'x'"}]},
    {"related": [{"source": "articles", "on": {"sku": "sku"}},
                 {"source": "makers", "on": {"maker": "id"}, "when": "country = 'de'"}]},
])  # fmt: skip


def accounts(inner: st.SearchStrategy[Row]) -> st.SearchStrategy[Row]:
    ways = [{}, {"have": "any"}, {"have": "all"}, {"have": "none"}, {"at_least": 2}, {"share": 0.5}, {"share": 0.34}]
    return st.builds(
        lambda group, way, rules: {"account": {"group": group, **way, "rules": rules}},
        st.sampled_from(["firm", "home"]), st.sampled_from(ways), st.lists(inner, min_size=1, max_size=2),
    )  # fmt: skip


def trees(names: list[str]) -> st.SearchStrategy[Row]:
    """Rules of any depth; over the audiences named so far."""
    single = [
        comparisons(), pairs, happenings, changes, sequences, OWN,
        st.sampled_from([{"band": "recency", "is": "ok"}, {"band": "recency", "is": "alarm"}]),
        st.sampled_from([{"identifier": "email"}, {"identifier": "phone"}, {"reachable": "email"}]),
        *([st.sampled_from([{"audience": name} for name in names])] if names else []),
    ]  # fmt: skip
    return st.recursive(
        st.one_of(single),
        lambda inner: st.one_of(
            st.builds(lambda kind, rules: {kind: rules}, st.sampled_from(["all", "any", "none"]),
                      st.lists(inner, min_size=1, max_size=3)),
            accounts(inner),
        ),
        max_leaves=4,
    )  # fmt: skip


@st.composite
def audiences(draw: st.DrawFn) -> list[Audience]:
    names = [f"a{number}" for number in range(8)]
    return [
        audience(name, *[rule(**tree) for tree in draw(st.lists(trees(names[:number]), min_size=1, max_size=2))])
        for number, name in enumerate(names)
    ]


def test_every_operator_there_is_can_be_written_and_has_its_meaning() -> None:
    assert len(OPERATORS) >= 30
    assert tuple(OPERATORS) == get_args(get_args(OperatorName)[0])
    assert not set(LIKELY) & set(OPERATORS) and set(LIKELY.values()) <= set(OPERATORS)
    assert {one.op for one in ONE_OF_EACH} == set(OPERATORS)


@GENERATED
@given(companies(), audiences())
def test_audiences_hold_whom_plain_python_says_on_every_day(company: Row, declared: list[Audience]) -> None:
    whole = company_project(*declared)
    found = members(whole, list(whole.audiences), scope(company), ASKED).to_pyarrow().to_pylist()
    assert sorted((row["audience"], row["person_id"], row["day"]) for row in found) == sorted(
        (one.name, row["person_id"], row["day"])
        for one in declared
        for row in company["traits"]
        if row["day"] in ASKED and all(oracle.holds(r, row["person_id"], row["day"], company, whole) for r in one.rules)
    )


def some(rows: st.SearchStrategy[Row], number: int) -> st.SearchStrategy[list[Rule]]:
    return st.lists(rows, min_size=number, max_size=number).map(lambda rows: [rule(**row) for row in rows])


@GENERATED
@given(companies(60), some(happenings, 12))
def test_events_are_counted_added_up_and_dated_as_plain_python_does(company: Row, rules: list[Rule]) -> None:
    assert mistakes(rules, company) == []


@generated(4)
@given(companies(60), some(sequences, 12))
def test_a_sequence_is_found_where_any_choice_of_events_makes_it(company: Row, rules: list[Rule]) -> None:
    assert mistakes(rules, company) == []


@generated(2)
@given(companies(0), some(accounts(st.one_of(comparisons(), accounts(comparisons()))), 12))
def test_of_an_account_all_its_people_are_asked_and_counted(company: Row, rules: list[Rule]) -> None:
    assert mistakes(rules, company) == []


@generated(2)
@given(companies(60), some(st.one_of(happenings, sequences, changes, OWN), 8))
def test_the_future_never_leaks_into_an_audience(company: Row, rules: list[Rule]) -> None:
    day = ASKED[0]
    known = {
        name: [row for row in rows if row.get("_day", row.get("day", day)) <= day] for name, rows in company.items()
    }
    wholes = [answers(rules, scope(data), company_project(), [day]) for data in (company, known)]
    one, other = (sorted(whole.to_pyarrow().to_pylist(), key=str) for whole in wholes)
    assert one == other


VALUES = {
    "age": [0, 1, 2, -7, None],
    "town": ["Bath", "bath spa", "BATH", "", "a%b_c", "Zürich", "x\ny", None],
    "vip": [True, False, None],
    "born": [date(2000, 2, 29), date(1990, 2, 28), date(1990, 3, 1), date(2024, 2, 29), date(2024, 3, 2),
             date(2024, 3, 12), date(2024, 3, 29), date(2024, 3, 30), date(2024, 3, 31), date(2024, 4, 1),
             date(2024, 4, 14), date(2024, 4, 15), date(1988, 12, 31), date(1987, 1, 1), None],
    "seen": [datetime(2024, 3, 30, 23, 59), datetime(2024, 3, 31, 0, 0), datetime(2024, 3, 31, 22, 59, 59, 999999),
             datetime(2024, 3, 31, 23, 0), datetime(2024, 4, 1, 22, 59), datetime(2024, 2, 29, 0, 0), None],
    "tags": [[], ["a"], ["a", "b"], ["b", "c", "A"], None],
    "lat": [51.5, 51.6, -90.0, 0.0, None],
    "lon": [-0.1, 0.3, 0.0, 179.9, None],
}  # fmt: skip
CALENDAR = [date(2023, 2, 20), date(2024, 2, 22), date(2024, 3, 31), date(2024, 12, 31), date(2025, 2, 27)]
ONE_OF_EACH = [
    rule(trait="orders", op=op, value=value)
    for op, values in {
        "=": [1, 1.0], "!=": [1], "<": [1], "<=": [1], ">": [0.5], ">=": [1], "between": [[0, 1]],
        "not_between": [[0, 1]], "in": [[0, 2]], "not_in": [[0, 2.0]], "is_null": [None], "not_null": [None],
    }.items()
    for value in values
] + [
    rule(attribute="town", op=op, value=value)
    for op, values in {
        "=": ["Bath", ""], "!=": ["Bath"], "<": ["Bath"], ">=": ["bath"], "in": [["Bath", "BATH"]],
        "not_in": [["Bath"]], "contains": ["ATH", "ü", "%"], "not_contains": ["ath"], "starts_with": ["ba", "Z"],
        "not_starts_with": ["ba"], "ends_with": ["TH", "CH"], "not_ends_with": ["spa"],
        "like": ["b_th", "%b%", "zü%", "x%y"], "not_like": ["bath%"], "matches": ["^bath$", "a.b", "[hc]$", r"\bspa"],
        "not_matches": ["^b"],
    }.items()
    for value in values
] + [
    rule(attribute="vip", op="is_true"), rule(attribute="vip", op="is_false"),
    rule(attribute="vip", op="=", value=True), rule(attribute="vip", op="!=", value=True),
] + [
    rule(attribute=name, op=op, value=value)
    for name in ("born", "seen")
    for op, values in {
        "before": ["2024-03-31", "today", "30 days ago", "in 2 days"], "after": ["2024-03-30", "2 weeks ago", "today"],
        "within_last": ["1 day", "2 days", "9 weeks"], "not_within_last": ["2 days"],
        "within_next": ["1 day", "2 weeks"],
    }.items()
    for value in values
] + [
    rule(attribute="born", op="anniversary_within", value=value) for value in ("1 day", "7 days", "10 days", "365 days")
] + [
    rule(attribute="tags", op=op, value=value)
    for op, values in {
        "contains": ["a"], "not_contains": ["a"], "has_any": [["a", "c"]], "has_all": [["a", "b"], ["a"]],
        "has_none": [["b", "z"]], "size_is": [0, 2], "size_at_least": [1], "size_at_most": [1],
    }.items()
    for value in values
] + [
    rule(attribute="lat", longitude="lon", op="within_km", value={"lat": lat, "lon": lon, "km": distance})
    for lat, lon, distance in ((51.5, -0.1, 0.001), (51.5, -0.1, 30), (0, -179.9, 25), (90, 0, 20_015))
] + [
    rule(trait="orders", op=op, value=value | {"over": "1 week"})
    for op in ("increased_by", "decreased_by", "changed_by")
    for value in ({"by": 1}, {"percent": 50})
]  # fmt: skip


def of_every_value() -> Row:
    """A company with one person for each value, and one of whom nothing is known."""
    people = [f"p_{number:02}" for number in range(max(map(len, VALUES.values())) + 1)]
    customers = [
        {"person_id": person, **{name: values[number % len(values)] for name, values in VALUES.items()}}
        for number, person in enumerate(people[:-1])
    ]
    traits = [
        {"person_id": person, "day": day, "orders": [None, 0, 1, 2, 4][(number * shift) % 5]}
        for number, person in enumerate(people)
        for shift, day in enumerate([*CALENDAR, *(oracle.the_day("1 week ago", day) for day in CALENDAR)], 1)
    ]
    return {"customers": customers, "traits": traits}


def test_every_operator_answers_as_plain_python_does_on_every_day_of_the_calendar() -> None:
    assert mistakes(ONE_OF_EACH, of_every_value(), CALENDAR) == []
    assert mistakes(ONE_OF_EACH, of_every_value(), CALENDAR[2:3]) == []


def people(rules: list[Rule], company: Row, day: date = DAYS[4]) -> list[str]:
    found = matching(company_project(), rules, scope(company), [day])
    return sorted(found.person_id.to_pyarrow().to_pylist())


ANN = {"person_id": "p_ann", "day": DAYS[4], "spent": Decimal("2.5"), "orders": 1, "favourite": None}


def test_without_rules_everybody_who_is_there_that_day_matches() -> None:
    assert people([], {"traits": [ANN, ANN | {"person_id": "p_bob", "day": DAYS[5]}]}) == ["p_ann"]


@pytest.mark.parametrize(("op", "value"), [("!=", "tea"), ("not_in", ["tea"]), ("=", "tea"), ("not_contains", "tea")])
def test_nothing_can_be_said_of_an_unknown_value(op: str, value: Any) -> None:
    asked = rule(trait="favourite", op=op, value=value)
    assert people([asked], {"traits": [ANN]}) == []
    assert people([rule(none=[asked])], {"traits": [ANN]}) == ["p_ann"]


def test_money_equals_the_number_it_is_written_as() -> None:
    rows = [ANN | {"spent": Decimal("19.99")}]
    assert people([rule(trait="spent", op="=", value=19.99)], {"traits": rows}) == ["p_ann"]


def test_money_is_compared_to_the_last_digit_however_much_of_it_there_is() -> None:
    """As floating-point numbers the two amounts are one, and 10.10 is not 0.10 more than 10.00."""
    rich = ANN | {"spent": Decimal("9007199254740.9301")}
    for op, value in (("=", 9007199254740.93), ("<=", 9007199254740.93), ("in", [9007199254740.93, 7])):
        assert people([rule(trait="spent", op=op, value=value)], {"traits": [rich]}) == []
    rows = [ANN | {"spent": Decimal("10.10")}, ANN | {"spent": Decimal("10.00"), "day": DAYS[2]}]
    assert people([rule(trait="spent", op="increased_by", value={"by": 0.1, "over": "2 days"})], {"traits": rows})
    rows = [ANN | {"spent": Decimal("15.92")}, ANN | {"spent": Decimal("19.90"), "day": DAYS[2]}]
    assert people([rule(trait="spent", op="decreased_by", value={"percent": 20, "over": "2 days"})], {"traits": rows})


def test_money_is_asked_for_more_digits_than_it_has() -> None:
    rows = [ANN | {"spent": Decimal("0.0001")}]
    assert people([rule(trait="spent", op=">", value=0.00005)], {"traits": rows}) == ["p_ann"]
    assert people([rule(trait="spent", op="<", value=0.00015)], {"traits": rows}) == ["p_ann"]
    assert people([rule(trait="spent", op=">", value=1e-30)], {"traits": rows}) == ["p_ann"]
    assert people([rule(trait="spent", op="<", value=1e30)], {"traits": rows}) == ["p_ann"]


def test_a_trait_is_compared_with_another_that_may_be_unknown() -> None:
    asked = rule(trait="spent", op=">", value={"trait": "refunded"})
    assert people([asked], {"traits": [ANN | {"refunded": Decimal("2.4999")}]}) == ["p_ann"]
    assert people([asked], {"traits": [ANN | {"refunded": Decimal("2.5")}]}) == []
    assert people([asked], {"traits": [ANN]}) == []
    assert people([rule(none=[asked])], {"traits": [ANN]}) == ["p_ann"]


@pytest.mark.parametrize(("days", "expected"), [(8, ["p_ann"]), (9, ["p_ann"]), (10, ["p_ann"]), (11, []), (7, [])])
def test_where_the_day_was_not_computed_the_newest_before_it_counts_up_to_a_quarter_older(
    days: int, expected: list[str]
) -> None:
    """Eight days ago is asked, values are there of so many days ago."""
    rows = [ANN | {"orders": 3}, ANN | {"day": DAYS[4] - timedelta(days=days), "orders": 1}]
    asked = rule(trait="orders", op="increased_by", value={"by": 2, "over": "8 days"})
    assert people([asked], {"traits": rows}) == expected


def test_a_day_that_was_computed_is_no_other_though_a_person_was_not_there_yet() -> None:
    then = DAYS[4] - timedelta(days=8)
    rows = [ANN | {"orders": 3}, ANN | {"person_id": "p_bob", "day": then}]
    rows.append(ANN | {"day": then - timedelta(days=1), "orders": 1})
    asked = rule(trait="orders", op="increased_by", value={"by": 2, "over": "8 days"})
    assert people([asked], {"traits": rows}) == []
    alone = scope({"traits": rows}).of_people(named(["p_ann"]))
    assert matching(company_project(), [asked], alone, [DAYS[4]]).count().to_pyarrow().as_py() == 0


def test_an_event_that_never_happened_to_anybody_was_not_done() -> None:
    assert people([rule(event="visit", did=False)], {"traits": [ANN]}) == ["p_ann"]
    assert people([rule(event="visit")], {"traits": [ANN]}) == []


def test_who_is_in_no_group_has_nobody_to_ask() -> None:
    asked = {"group": "firm", "have": "none", "rules": [{"trait": "orders", "op": "=", "value": 5}]}
    assert people([rule(account=asked)], {"traits": [ANN]}) == []


def test_equal_questions_are_asked_once_however_many_audiences_ask_them() -> None:
    asks = [
        rule(event="order", window="last 5 days"),
        rule(event="order", window="last 5 days", count={"op": "<", "value": 3}, did=False),
        rule(sequence=[{"event": "visit"}, {"event": "order"}]),
        rule(account={"group": "firm", "rules": [{"trait": "orders", "op": ">", "value": 1}]}),
        rule(account={"group": "firm", "have": "all", "rules": [{"trait": "orders", "op": ">", "value": 1}]}),
    ]
    whole = company_project(
        *[audience(f"a{number}", *asks, rule(attribute="age", op=">", value=number)) for number in range(9)]
    )
    table = gathered(whole, [rule(audience=name) for name in whole.audiences], scope({"traits": [ANN]}), ASKED)
    events = [column for column in table.columns if column.startswith("event_")]
    assert len(events) == len([column for column in table.columns if column.startswith("sequence_")]) == 1
    assert len([column for column in table.columns if column.startswith("account_")]) == 2
    assert {column_of(leaf) for leaf in leaves(asks)} <= set(table.columns)


def test_a_condition_over_a_table_that_was_not_given_says_which() -> None:
    traits = ibis.table({"person_id": "string", "day": "date"}, name="traits")
    with pytest.raises(ScopeError, match=r"'predictions\.churn'"):
        matching(company_project(), [rule(prediction="churn", op=">", value=0.5)], Scope(traits), [DAYS[4]])
    with pytest.raises(ScopeError, match=r"'sources\.claims'"):
        matching(company_project(), [rule(related=[{"source": "claims"}])], Scope(traits), [DAYS[4]])


def test_an_audience_is_another_when_the_trait_it_compares_with_is_defined_otherwise() -> None:
    asked = audience("asked", rule(trait="spent", op=">", value={"trait": "refunded"}))
    whole = company_project(asked)
    otherwise = replace(whole, traits=whole.traits | {"refunded": trait("refunded", "count")})
    assert audience_versions(whole) != audience_versions(otherwise)

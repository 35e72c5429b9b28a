"""Generated trees of rules against plain Python, and the answers that are easily got wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_pipeline.audiences.members import members
from cdp_pipeline.audiences.rules import Scope, ScopeError, matching
from cdp_pipeline.spec.audience import Audience, Rule
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.bands import BANDS
from cdp_pipeline_tests.traits.shop import DAYS, PEOPLE, events, project, stored, timeline_rows, trait

Row = dict[str, Any]
ASKED = [DAYS[4], DAYS[6]]
RECENCY = trait("recency", "days_since", bands=[{"name": "ok"}, {"name": "alarm", "above": 3}])
TRAITS = [trait("spent", "sum", value="amount"), trait("orders", "count"), trait("favourite", "last", value="category")]
CONDITIONS: dict[str | None, Callable[[Row], bool]] = {
    None: lambda row: True,
    "amount > 0": lambda row: row["amount"] is not None and row["amount"] > 0,
}


def rule(**fields: Any) -> Rule:
    return Rule.model_validate(fields)


def audience(name: str, *rules: Rule, **fields: Any) -> Audience:
    return Audience(kind="audience", name=name, description="An audience.", rules=list(rules), **fields)


NUMBERS = st.sampled_from([-1, 0, 1, 2, 2.5, 19.99])
TEXTS = st.sampled_from(["tea", "Tea", "cake", "a", ""])
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


@st.composite
def comparisons(draw: st.DrawFn) -> Row:
    subject, values = draw(st.sampled_from(SUBJECTS))
    text = subject.get("trait") == "favourite" or subject.get("attribute") == "town" or subject.get("field") == "band"
    operators = ["=", "!=", "<", "<=", ">", ">=", "in", "not_in", "between", "is_null", "not_null"]
    op = draw(st.sampled_from(operators + (["contains", "starts_with"] if text else [])))
    if op in ("in", "not_in"):
        return subject | {"op": op, "value": draw(st.lists(values, min_size=1, max_size=3))}
    if op == "between":
        return subject | {"op": op, "value": sorted([draw(values), draw(values)])}
    return subject | {"op": op} | ({} if op in ("is_null", "not_null") else {"value": draw(values)})


@st.composite
def happenings(draw: st.DrawFn) -> Row:
    return {
        "event": draw(st.sampled_from(["order", "visit"])),
        "did": draw(st.booleans()),
        "count": draw(st.integers(1, 2)),
        "window": draw(st.sampled_from(["lifetime", "last 2 days", "last 5 days"])),
        "when": draw(st.sampled_from(sorted(CONDITIONS, key=str))),
    }


def trees(names: list[str]) -> st.SearchStrategy[Row]:
    """Rules of any depth; over the audiences named so far."""
    leaves = [
        comparisons(),
        happenings(),
        st.sampled_from([{"band": "recency", "is": "ok"}, {"band": "recency", "is": "alarm"}]),
        st.sampled_from([{"identifier": "email"}, {"identifier": "phone"}]),
        *([st.sampled_from([{"audience": name} for name in names])] if names else []),
    ]
    return st.recursive(
        st.one_of(leaves),
        lambda inner: st.builds(lambda kind, rules: {kind: rules}, st.sampled_from(["all", "any", "none"]),
                                st.lists(inner, min_size=1, max_size=3)),
        max_leaves=5,
    )  # fmt: skip


@st.composite
def audiences(draw: st.DrawFn) -> list[Audience]:
    names = [f"a{number}" for number in range(12)]
    return [
        audience(name, *[rule(**tree) for tree in draw(st.lists(trees(names[:number]), min_size=1, max_size=2))])
        for number, name in enumerate(names)
    ]


@st.composite
def companies(draw: st.DrawFn) -> Row:
    """What the tables say: of some people, some things."""

    def some(rows: st.SearchStrategy[Row], days: list[date] | None = None) -> list[Row]:
        return [
            {"person_id": person, **({"day": day} if day else {}), **draw(rows)}
            for person in PEOPLE
            for day in days or [None]
            if draw(st.integers(0, 3))
        ]

    return {
        "traits": some(
            st.fixed_dictionaries({
                "spent": st.none() | st.sampled_from([Decimal("0"), Decimal("2.5"), Decimal("19.99"), Decimal("-1")]),
                "orders": st.none() | st.integers(0, 2),
                "favourite": st.none() | st.sampled_from(["tea", "cake", "Tea cake"]),
            }), [*ASKED, DAYS[5]],
        ),
        "customers": some(
            st.fixed_dictionaries({
                "town": st.none() | TEXTS,
                "age": st.none() | st.integers(-1, 2),
                "vip": st.none() | st.booleans(),
                "born": st.none() | st.sampled_from([date(2000, 2, 29), date(1999, 12, 31), date(2001, 1, 1)]),
            }),
        ),
        "churn": some(
            st.fixed_dictionaries({
                "score": st.sampled_from([0.0, 0.5, 0.9]), "rank": st.integers(1, 3),
                "band": st.sampled_from(["high", "low", None]),
            }), [*ASKED, DAYS[5]],
        ),
        "bands": some(
            st.fixed_dictionaries({"to_band": st.sampled_from(["ok", "alarm"])}), [DAYS[0], DAYS[4], DAYS[5]],
        ),
        "identifiers": some(st.fixed_dictionaries({"type": st.sampled_from(["email", "phone", "cookie"])})),
        "timeline": draw(events(most=40)),
    }  # fmt: skip


SCHEMAS = {
    "traits": {
        "person_id": "string",
        "day": "date",
        "spent": "decimal(18, 4)",
        "orders": "int64",
        "favourite": "string",
    },
    "customers": {"person_id": "string", "town": "string", "age": "int64", "vip": "boolean", "born": "date"},
    "churn": {"person_id": "string", "day": "date", "score": "float64", "rank": "int64", "band": "string"},
    "identifiers": {"person_id": "string", "type": "string"},
}


def scope(company: Row) -> Scope:
    connection = ibis.duckdb.connect()

    def table(name: str) -> ibis.Table:
        schema = ibis.schema(SCHEMAS[name]).to_pyarrow()
        return stored(connection, name, pa.Table.from_pylist(company.get(name, []), schema=schema))

    moves = [{"trait": "recency", **row} for row in company.get("bands", [])]
    return Scope(
        traits=table("traits"),
        customers=table("customers"),
        predictions={"churn": table("churn")},
        bands=stored(connection, "bands", pa.Table.from_pylist(moves, schema=BANDS.schema.to_pyarrow())),
        timeline=stored(connection, "timeline", timeline_rows(company.get("timeline", []))),
        identifiers=table("identifiers"),
    )


def compared(op: str, found: Any, value: Any) -> bool:
    if op in ("is_null", "not_null"):
        return (found is None) == (op == "is_null")
    if found is None:
        return False
    if isinstance(found, Decimal):
        found = float(found)
    if isinstance(found, date):
        value = [date.fromisoformat(v) for v in value] if isinstance(value, list) else date.fromisoformat(value)
    answers: dict[str, Callable[[], bool]] = {
        "=": lambda: found == value, "!=": lambda: found != value, "<": lambda: found < value,
        "<=": lambda: found <= value, ">": lambda: found > value, ">=": lambda: found >= value,
        "in": lambda: found in value, "not_in": lambda: found not in value,
        "between": lambda: value[0] <= found <= value[1],
        "contains": lambda: value.lower() in found.lower(),
        "starts_with": lambda: found.lower().startswith(value.lower()),
    }  # fmt: skip
    return answers[op]()


def holds(one: Rule, person: str, day: date, company: Row, whole: Project) -> bool:
    """The rule, spelled out for one person on one day."""

    def of(table: str, **where: Any) -> Row:
        wanted = {"person_id": person, **where}
        return next((row for row in company[table] if wanted.items() <= row.items()), {})

    def each(rules: list[Rule] | None) -> list[bool]:
        return [holds(inner, person, day, company, whole) for inner in rules or []]

    match one.subject:
        case "all":
            return all(each(one.all))
        case "any":
            return any(each(one.any))
        case "none":
            return not any(each(one.none))
        case "trait":
            return compared(str(one.op), of("traits", day=day).get(str(one.trait)), one.value)
        case "attribute":
            return compared(str(one.op), of("customers").get(str(one.attribute)), one.value)
        case "prediction":
            return compared(str(one.op), of("churn", day=day).get(one.field), one.value)
        case "band":
            moves = [row for row in company["bands"] if row["person_id"] == person and row["day"] <= day]
            return (max(moves, key=lambda row: row["day"])["to_band"] if moves else "ok") == one.is_
        case "identifier":
            return bool(of("identifiers", type=one.identifier))
        case "audience":
            return all(each(whole.audiences[str(one.audience)].rules))
    oldest = date.min if (first := one.window.span(day)[0]) is None else first
    times = sum(
        row["person_id"] == person and row["event"] in one.event and oldest <= row["_day"] <= day
        and CONDITIONS[one.when](row)
        for row in company["timeline"]
    )  # fmt: skip
    least = 1 if one.count is None else one.count.value
    return (times >= least) == one.did


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(companies(), audiences())
def test_audiences_hold_whom_plain_python_says_on_every_day(company: Row, declared: list[Audience]) -> None:
    whole = project(*TRAITS, RECENCY, *declared)
    found = members(whole, list(whole.audiences), scope(company), ASKED).to_pyarrow().to_pylist()
    assert sorted((row["audience"], row["person_id"], row["day"]) for row in found) == sorted(
        (one.name, row["person_id"], row["day"])
        for one in declared
        for row in company["traits"]
        if row["day"] in ASKED and all(holds(r, row["person_id"], row["day"], company, whole) for r in one.rules)
    )


def people(rules: list[Rule], company: Row, day: date = DAYS[4]) -> list[str]:
    found = matching(project(*TRAITS, RECENCY), rules, scope(company), [day])
    return sorted(found.person_id.to_pyarrow().to_pylist())


ANN = {"person_id": "p_ann", "day": DAYS[4], "spent": Decimal("2.5"), "orders": 1, "favourite": None}


def test_without_rules_everybody_who_is_there_that_day_matches() -> None:
    assert people([], {"traits": [ANN, ANN | {"person_id": "p_bob", "day": DAYS[5]}]}) == ["p_ann"]


@pytest.mark.parametrize(("op", "value"), [("!=", "tea"), ("not_in", ["tea"]), ("=", "tea"), ("contains", "tea")])
def test_nothing_can_be_said_of_an_unknown_value(op: str, value: Any) -> None:
    asked = rule(trait="favourite", op=op, value=value)
    assert people([asked], {"traits": [ANN]}) == []
    assert people([rule(none=[asked])], {"traits": [ANN]}) == ["p_ann"]


def test_money_equals_the_number_it_is_written_as() -> None:
    rows = [ANN | {"spent": Decimal("19.99")}]
    assert people([rule(trait="spent", op="=", value=19.99)], {"traits": rows}) == ["p_ann"]


def test_an_event_that_never_happened_to_anybody_was_not_done() -> None:
    assert people([rule(event="visit", did=False)], {"traits": [ANN]}) == ["p_ann"]
    assert people([rule(event="visit")], {"traits": [ANN]}) == []


def test_a_list_contains_its_items() -> None:
    connection = ibis.duckdb.connect()
    schema = pa.schema({"person_id": pa.string(), "tags": pa.list_(pa.string())})
    rows = [{"person_id": "p_ann", "tags": ["a", "b"]}, {"person_id": "p_bob", "tags": None}]
    customers = stored(connection, "customers", pa.Table.from_pylist(rows, schema=schema))
    traits = connection.create_table("traits", {"person_id": ["p_ann", "p_bob"], "day": [DAYS[4]] * 2})
    found = matching(project(), [rule(attribute="tags", op="contains", value="a")], Scope(traits, customers), [DAYS[4]])
    assert found.person_id.to_pyarrow().to_pylist() == ["p_ann"]


def test_a_condition_over_a_table_that_was_not_given_says_which() -> None:
    traits = ibis.table({"person_id": "string", "day": "date"}, name="traits")
    with pytest.raises(ScopeError, match=r"'predictions\.churn'"):
        matching(project(), [rule(prediction="churn", op=">", value=0.5)], Scope(traits), [DAYS[4]])

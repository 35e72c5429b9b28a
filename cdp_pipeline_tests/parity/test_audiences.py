"""Audiences, their moves and sizes are equal on every engine, and what plain Python says."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa

from cdp_pipeline.audiences.members import CHANGES, MEMBERS, SIZES, changes, members, sizes
from cdp_pipeline.audiences.reach import reach
from cdp_pipeline_tests.audiences import oracle
from cdp_pipeline_tests.audiences.company import (
    ASKED,
    answers,
    audience,
    company_project,
    rule,
    scope_with,
    some_company,
)
from cdp_pipeline_tests.audiences.test_rules import CALENDAR, ONE_OF_EACH, of_every_value
from cdp_pipeline_tests.parity.conftest import EngineUnderTest, normalised
from cdp_pipeline_tests.traits.shop import DAYS

Row = dict[str, Any]
DECLARED = [
    audience("rich", rule(trait="spent", op=">=", value=2.5), rule(trait="orders", op="between", value=[0, 2])),
    audience("tea", rule(trait="favourite", op="contains", value="TEA")),
    audience("strangers", rule(none=[{"audience": "rich"}, {"identifier": "email"}])),
    audience("active", rule(event="order", count=2, when="amount > 0", window="last 5 days")),
    audience(
        "asleep", rule(event="visit", did=False), rule(any=[{"band": "recency", "is": "alarm"}, {"audience": "tea"}])
    ),
    audience("locals", rule(attribute="town", op="in", value=["Ely", "York"]), rule(attribute="vip", op="is_true")),
    audience("born_late", rule(attribute="born", op="after", value="2000-02-29"), rule(reachable="email")),
    audience(
        "leaving", rule(prediction="churn", op=">", value=0.4), rule(prediction="churn", field="band", op="not_null")
    ),
    audience("nobody", rule(trait="orders", op="<", value=-1)),
    audience("among_friends", rule(account={"group": "firm", "at_least": 2, "rules": [{"audience": "tea"}]})),
]
SHOP = company_project(*DECLARED)
NAMES = list(SHOP.audiences)
COMPANY = some_company()
ARTICLE = {"source": "articles", "on": {"product_id": "sku"}, "when": "brand = 'x'"}
STEPS = [{"event": "visit"}, {"event": "order"}, {"event": ["order", "visit"]}]
QUESTIONS = [
    rule(event="order", count={"op": "between", "value": [1, 2]}, window="last 5 days"),
    rule(event=["order", "visit"], sum={"of": "amount", "op": ">", "value": 6.6}, window="this month"),
    rule(event="order", average={"of": "amount", "op": "<=", "value": 3},
         max={"of": "quantity", "op": "=", "value": 2}),
    rule(event="order", distinct={"of": "category", "op": ">=", "value": 2}, first={"op": "before", "value": "today"}),
    rule(event="visit", last={"op": "within_last", "value": "2 days"}, did=False),
    rule(event="order", related=[ARTICLE], window="last 13 months"),
    rule(event="order", related=[ARTICLE | {"when": "sku <> 's9'"},
                                 {"source": "makers", "on": {"maker": "id"}, "when": "country = 'de'"}]),
    rule(related=[{"source": "claims"}, {"source": "articles", "on": {"sku": "sku"}, "when": "brand = 'x'"}]),
    rule(related=[{"source": "articles", "on": {"sku": "sku"}}], did=False),
    rule(sequence=STEPS),
    rule(sequence=STEPS, within="3 days", window="last 5 days"),
    rule(sequence=[STEPS[0], STEPS[1] | {"within": "1 day"}], without={"event": "order", "when": "amount > 0"}),
    rule(sequence=STEPS[:2], strict=True),
    rule(sequence=STEPS[1:], same="product_id", did=False, window="lifetime"),
    *(rule(account={"group": group, **way, "rules": [{"trait": "orders", "op": ">=", "value": 2}]})
      for group in ("firm", "home")
      for way in ({}, {"have": "all"}, {"have": "none"}, {"at_least": 2}, {"share": 0.5})),
    rule(account={"group": "firm", "have": "all", "rules": [
        {"any": [{"account": {"group": "home", "rules": [{"event": "visit", "window": "last 2 days"}]}},
                 {"attribute": "vip", "op": "is_true"}]}]}),
    *(rule(trait="orders", op=op, value={"by": 2, "over": "2 days"}) for op in ("increased_by", "decreased_by")),
    rule(trait="spent", op="changed_by", value={"percent": 50, "over": "4 days"}),
    rule(trait="spent", op="decreased_by", value={"percent": 12.5, "over": "8 days"}),
    rule(trait="spent", op="increased_by", value={"by": 0.1, "over": "8 days"}),
    *(rule(trait="spent", op=op, value={"trait": other}) for op in ("=", "!=", "<", ">=")
      for other in ("refunded", "orders")),
    *(rule(trait="spent", op=op, value=value) for op, value in
      (("=", 19.99), (">", 19.98999), ("<", 2.50001), ("in", [2.5, -1]), ("between", [-1, 2.5]))),
]  # fmt: skip
oracle.CONDITIONS["sku <> 's9'"] = lambda row: row["sku"] is not None and row["sku"] != "s9"


def test_every_operator_says_the_same(engine: EngineUnderTest) -> None:
    same_answers(engine, ONE_OF_EACH, of_every_value(), CALENDAR)


def test_every_sort_of_condition_says_the_same(engine: EngineUnderTest) -> None:
    same_answers(engine, QUESTIONS, COMPANY, ASKED)


def same_answers(engine: EngineUnderTest, rules: list[Any], company: Row, days: list[date]) -> None:
    asked = scope_with(lambda name, rows: engine.table(rows), company)
    rows = engine.rows(answers(rules, asked, SHOP, days))
    assert len(rows) == sum(row["day"] in days for row in company["traits"])
    assert not [
        (one.model_dump(exclude_unset=True), row["person_id"], row["day"], wanted)
        for row in rows
        for number, one in enumerate(rules)
        if row[f"r{number}"] is not (wanted := oracle.holds(one, row["person_id"], row["day"], company, SHOP))
    ]


def inside(day: date) -> set[tuple[str, str]]:
    return {
        (name, row["person_id"])
        for name, one in SHOP.audiences.items()
        for row in COMPANY["traits"]
        if row["day"] == day and all(oracle.holds(r, row["person_id"], day, COMPANY, SHOP) for r in one.rules)
    }


def test_members_moves_and_sizes_say_the_same(engine: EngineUnderTest) -> None:
    asked = scope_with(lambda name, rows: engine.table(rows), COMPANY)
    found = members(SHOP, NAMES, asked, ASKED)
    rows = engine.rows(found)
    assert {(row["audience"], row["person_id"], row["day"]) for row in rows} == {
        (name, person, day) for day in ASKED for name, person in inside(day)
    }
    assert len(rows) == sum(len(inside(day)) for day in ASKED)

    kept = engine.table(pa.Table.from_pylist(rows, schema=MEMBERS.schema.to_pyarrow()))
    types = {row["person_id"]: row["type"] for row in COMPANY["identifiers"]}
    reached = reach(SHOP, kept, asked.identifiers, asked.customers)
    assert engine.rows(sizes(kept, reached, NAMES, ASKED)) == normalised(
        [
            {
                "audience": name,
                "day": day,
                "people": len(there := [person for other, person in inside(day) if other == name]),
                "reachable_email": sum(types.get(person) == "email" for person in there),
                "reachable_phone": sum(types.get(person) == "phone" for person in there),
            }
            for name in NAMES
            for day in ASKED
        ]
    )

    days = {name: [*ASKED, *([DAYS[3]] if name != "tea" else [])] for name in NAMES}
    counted = [{"audience": name, "day": day, "people": 0} for name, some in days.items() for day in some]
    computed = engine.table(pa.Table.from_pylist(counted, schema=SIZES.schema.to_pyarrow()))
    moved = engine.rows(changes(kept, computed, asked.traits, NAMES, ASKED))
    assert [set(row) for row in moved[:1]] == [set(CHANGES.columns)]
    first, second = inside(ASKED[0]), inside(ASKED[1])
    assert {(row["audience"], row["person_id"], row["day"], row["change"]) for row in moved} == {
        *((*one, ASKED[0], "entered") for one in first),
        *((*one, ASKED[1], "entered") for one in second - first),
        *((*one, ASKED[1], "left") for one in first - second),
    }
    assert {row["audience"] for row in moved if row["cause"] == "baseline"} == {"tea"}

"""An explanation agrees with the audience, at every condition, and shows what was found."""

from __future__ import annotations

from datetime import datetime, time
from decimal import Decimal
from typing import Any

import pytest

from cdp_pipeline.audiences.explain import Answer, explain, words
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline_tests.audiences import oracle
from cdp_pipeline_tests.audiences.company import ASKED, EARLIER, LONG_AGO, audience, company_project, rule, scope
from cdp_pipeline_tests.audiences.test_rules import ANN
from cdp_pipeline_tests.parity.test_audiences import COMPANY, SHOP
from cdp_pipeline_tests.traits.shop import DAYS, PEOPLE, event, project, trait


def agrees(answer: Answer, one: Rule, person: str) -> bool:
    inner: list[Rule] = list(
        SHOP.audiences[one.audience].rules if one.audience else one.all or one.any or one.none or []
    )
    if one.reachable:
        return answer.holds == all(part.holds for part in answer.inner)
    return answer.holds == oracle.holds(one, person, ASKED[0], COMPANY, SHOP) and all(
        agrees(part, of, person) for part, of in zip(answer.inner, inner, strict=True)
    )


@pytest.mark.parametrize("name", ["strangers", "active", "asleep", "leaving", "among_friends", "born_late"])
def test_every_condition_is_answered_as_the_audience_answers_it(name: str) -> None:
    asked = scope(COMPANY)
    there = {row["person_id"] for row in COMPANY["traits"] if row["day"] == ASKED[0]}
    for person in PEOPLE[:5]:
        answer = explain(SHOP, name, person, asked, ASKED[0])
        assert (answer is not None) == (person in there)
        assert answer is None or agrees(answer, Rule(audience=name), person)


def test_an_answer_reads_as_a_tree_with_what_was_found() -> None:
    whole = project(
        trait("spent", "sum", value="amount"),
        audience("rich", rule(trait="spent", op=">=", value=2.5)),
        audience("poor", rule(none=[{"audience": "rich"}]), rule(event="order", count=2, window="last 30 days")),
    )
    assert str(explain(whole, "poor", "p_ann", scope({"traits": [ANN]}), DAYS[4])) == "\n".join([
        "no   is in the audience poor",
        "  no   none of these holds",
        "    yes  is in the audience rich",
        "      yes  spent >= 2.5 (it is 2.5000)",
        "  no   did order at least 2 times, last 30 days (it is 0)",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"trait": "town", "op": "in", "value": ["a", "b"]}, "town is one of a and b"),
        ({"attribute": "age", "op": "is_null"}, "age is unknown"),
        ({"attribute": "born", "op": "anniversary_within", "value": "7 days"},
         "born has its anniversary within the next 7 days"),
        ({"attribute": "lat", "longitude": "lon", "op": "within_km", "value": {"lat": 51.5, "lon": -0.1, "km": 5}},
         "lat and lon is near 51.5, -0.1: at most 5 km away"),
        ({"trait": "spent", "op": "decreased_by", "value": {"percent": 20, "over": "30 days"}},
         "spent fell by at least 20 percent over 30 days"),
        ({"trait": "spent", "op": "<", "value": {"trait": "refunded"}}, "spent < refunded"),
        ({"prediction": "churn", "field": "band", "op": "=", "value": "high"}, "band of churn = high"),
        ({"event": "order", "did": False, "when": "amount > 3"}, "did not do order where amount > 3, lifetime"),
        ({"event": ["order", "visit"], "count": {"op": "<", "value": 3}, "window": "last 30 days"},
         "did order or visit so many times: < 3, last 30 days"),
        ({"event": "order", "sum": {"of": "amount", "op": ">=", "value": 100},
          "first": {"op": "before", "value": "30 days ago"}},
         "did order, lifetime, the sum of amount >= 100, the first time is before 30 days ago"),
        ({"event": "order", "related": [{"source": "articles", "on": {"product_id": "sku"}, "when": "brand = 'x'"}]},
         "did order with articles where brand = 'x', lifetime"),
        ({"related": [{"source": "claims"}, {"source": "articles", "on": {"sku": "sku"}}], "did": False},
         "does not have claims leading to articles"),
        ({"sequence": [{"event": "visit"}, {"event": "order", "within": "90 minutes"}], "same": "product_id",
          "without": {"event": "visit"}, "within": "2 days", "window": "last 30 days"},
         "did visit then order within 90 minutes, with the same product_id, without visit between, all within 2 days,"
         " last 30 days"),
        ({"account": {"group": "firm", "share": 0.5, "rules": [{"trait": "orders", "op": ">", "value": 1}]}},
         "for at least 50% of the people of the same firm: orders > 1"),
        ({"band": "recency", "is": "alarm"}, "recency is in the band alarm"),
        ({"identifier": "email"}, "has an identifier of type email"),
        ({"reachable": "email"}, "can be reached by email"),
    ],
)  # fmt: skip
def test_conditions_are_said_in_words(fields: dict[str, Any], said: str) -> None:
    assert words(rule(**fields)) == said


def row(person: str, **fields: Any) -> dict[str, Any]:
    return {"person_id": person, "day": ASKED[0], "spent": None, "orders": 1, "favourite": None} | fields


def test_what_was_found_is_told_of_every_sort_of_condition() -> None:
    whole = company_project(
        audience(
            "asked",
            rule(trait="orders", op="increased_by", value={"by": 1, "over": "2 days"}),
            rule(trait="orders", op="increased_by", value={"by": 1, "over": "8 days"}),
            rule(trait="orders", op="increased_by", value={"by": 1, "over": "20 days"}),
            rule(trait="orders", op=">", value={"trait": "refunded"}),
            rule(trait="favourite", op="=", value="tea"),
            rule(event="order", sum={"of": "amount", "op": ">", "value": 5}, last={"op": "after", "value": "today"}),
            rule(sequence=[{"event": "visit"}, {"event": "order"}, {"event": "visit", "when": "amount > 0"}]),
            rule(account={"group": "firm", "at_least": 2, "rules": [{"trait": "orders", "op": ">", "value": 1}]}),
            rule(account={"group": "home", "have": "none", "rules": [{"trait": "orders", "op": ">", "value": 1}]}),
            rule(related=[{"source": "articles", "on": {"sku": "sku"}}]),
            rule(reachable="email"),
        )
    )
    company = {
        "traits": [row("p_ann", orders=4, refunded=Decimal("2.5")), row("p_ann", day=EARLIER, orders=1),
                   row("p_ann", day=LONG_AGO, orders=0), row("p_bob", orders=3), row("p_eve")],
        "customers": [{"person_id": "p_ann", "sku": "s1"}],
        "articles": [{"sku": "s1"}],
        "groups": [{"kind": "firm", "group_id": "g1", "person_id": person} for person in ("p_ann", "p_bob", "p_eve")],
        "timeline": [
            event(event_id=f"e{number}", person_id="p_ann", event=name, _day=DAYS[number], amount=Decimal(amount),
                  occurred_at=datetime.combine(DAYS[number], time(12)))
            for number, (name, amount) in enumerate([("order", 9), ("visit", 0), ("order", 3), ("visit", 0)])
        ],
    }  # fmt: skip
    answer = explain(whole, "asked", "p_ann", scope(company), ASKED[0])
    assert str(answer).splitlines() == [
        "no   is in the audience asked",
        "  yes  orders rose by at least 1 over 2 days (it is 4, 2 days before it was 1)",
        "  yes  orders rose by at least 1 over 8 days"
        " (it is 4, 9 days before it was 0 (8 days before was not computed))",
        "  no   orders rose by at least 1 over 20 days (it is 4; of them nothing was computed 20 to 25 days before)",
        "  yes  orders > refunded (it is 4, refunded is 2.5000)",
        "  no   favourite = tea (it is unknown)",
        "  no   did order, lifetime, the sum of amount > 5, the last time is after today"
        " (the sum of amount is 12.0000, the last time is 2024-02-27)",
        "  no   did visit then order then visit where amount > 0, lifetime"
        " (reached step 2 of 3, not visit where amount > 0)",
        "  yes  for at least 2 people of the same firm: orders > 1 (2 of 3)",
        "  no   for nobody of the same home: orders > 1 (it is in no home)",
        "  yes  has articles (it is 1)",
        "  no   can be reached by email",
        "    no   has an identifier of type email",
    ]

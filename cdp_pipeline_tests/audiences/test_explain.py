"""An explanation agrees with the audience, at every condition, and shows what was found."""

from __future__ import annotations

from typing import Any

import pytest

from cdp_pipeline.audiences.explain import Answer, explain, words
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline_tests.audiences import oracle
from cdp_pipeline_tests.audiences.company import ASKED, audience, rule, scope
from cdp_pipeline_tests.audiences.test_rules import ANN
from cdp_pipeline_tests.parity.test_audiences import COMPANY, SHOP
from cdp_pipeline_tests.traits.shop import DAYS, PEOPLE, project, trait


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
        ({"prediction": "churn", "field": "band", "op": "=", "value": "high"}, "band of churn = high"),
        ({"event": "order", "did": False, "when": "amount > 3"}, "did not do order where amount > 3, lifetime"),
        ({"band": "recency", "is": "alarm"}, "recency is in the band alarm"),
        ({"identifier": "email"}, "has an identifier of type email"),
    ],
)
def test_conditions_are_said_in_words(fields: dict[str, Any], said: str) -> None:
    assert words(rule(**fields)) == said

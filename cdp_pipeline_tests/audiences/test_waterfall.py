"""Waterfalls of generated audiences against plain Python: the steps add up, and a closest miss fails one condition."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from cdp_pipeline.audiences.rules import gathered
from cdp_pipeline.audiences.waterfall import Waterfall, conditions, misses, sentence, waterfalls
from cdp_pipeline.spec.audience import Audience, Rule
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.audiences.company import ASKED, audience, companies, company_project, rule, scope
from cdp_pipeline_tests.audiences.oracle import Row, holds
from cdp_pipeline_tests.audiences.test_rules import ANN, GENERATED, audiences
from cdp_pipeline_tests.traits.shop import DAYS


def one_by_one(rules: list[Rule]) -> list[Rule]:
    """The conditions that must all hold, spelled out once more."""
    found = []
    for one in rules:
        if one.all:
            found += one_by_one(one.all)
        elif one.none:
            found += [rule(none=[inner]) for inner in one.none]
        else:
            found.append(one)
    return found


def expected(one: Audience, company: Row, whole: Project) -> list[tuple[int, ...]]:
    """Of each step: for how many it holds, how many are left, how many it removes, how many fail only it."""
    rules = one_by_one(one.rules)
    day = ASKED[0]
    there = [row["person_id"] for row in company["traits"] if row["day"] == day]
    answers = [[holds(inner, person, day, company, whole) for inner in rules] for person in there]
    left = [len(there), *(sum(all(row[: i + 1]) for row in answers) for i in range(len(rules)))]
    return [
        (
            sum(row[i] for row in answers),
            left[i + 1],
            left[i] - left[i + 1],
            sum(not row[i] and row.count(False) == 1 for row in answers),
        )
        for i in range(len(rules))
    ]


def steps(found: Waterfall) -> list[tuple[int, ...]]:
    return [(step.holds_for, step.left, step.removed, step.fail_only_this) for step in found.steps]


@settings(GENERATED, max_examples=3)
@given(companies(), audiences())
def test_every_step_is_what_plain_python_counts_and_the_steps_add_up(company: Row, declared: list[Audience]) -> None:
    whole = company_project(*declared)
    names = [one.name for one in declared]
    table = gathered(whole, [Rule(audience=name) for name in names], scope(company), ASKED[:1])
    for one, found in zip(declared, waterfalls(whole, names, table, ASKED[0]), strict=True):
        assert (found.audience, found.day) == (one.name, ASKED[0])
        assert steps(found) == expected(one, company, whole)
        assert found.everybody - sum(step.removed for step in found.steps) == found.members
        assert found.members == sum(
            all(holds(inner, row["person_id"], ASKED[0], company, whole) for inner in one.rules)
            for row in company["traits"]
            if row["day"] == ASKED[0]
        )


def fall(*rules: Rule, people: list[Row]) -> Waterfall:
    whole = company_project(audience("asked", *rules))
    table = gathered(whole, [Rule(audience="asked")], scope({"traits": people}), [DAYS[4]])
    return waterfalls(whole, ["asked"], table, DAYS[4])[0]


def test_the_closest_miss_is_the_condition_that_alone_keeps_most_people_out() -> None:
    people = [
        ANN | {"person_id": f"p{orders}{favourite}", "orders": orders, "favourite": favourite}
        for orders in (0, 1, 2)
        for favourite in ("tea", "cake")
    ]
    found = fall(rule(trait="orders", op=">=", value=2), rule(trait="favourite", op="=", value="tea"), people=people)
    assert steps(found) == [(2, 2, 4, 2), (3, 1, 1, 1)]
    assert found.closest is found.steps[0] and found.members == 1
    assert [row["left of everybody"] for row in found.rows()] == ["100.0%", "33.3%", "16.7%"]
    assert found.as_json()["steps"][0] == {
        "condition": "orders >= 2", "holds_for": 2, "left": 2, "removed": 4, "fail_only_this": 2,
    }  # fmt: skip


def test_the_closest_misses_are_named_with_the_one_condition_they_fail() -> None:
    people = [ANN | {"person_id": f"p{n}", "orders": n % 3, "favourite": "tea" if n % 2 else None} for n in range(8)]
    whole = company_project(
        audience("asked", rule(trait="orders", op=">=", value=2), rule(trait="favourite", op="=", value="tea"))
    )
    table = gathered(whole, [Rule(audience="asked")], scope({"traits": people}), [DAYS[4]])
    tea, often = "favourite = tea", "orders >= 2"
    assert [tuple(row.values()) for row in misses(whole, "asked", table, 3)] == [
        ("p1", often), ("p2", tea), ("p3", often),
    ]  # fmt: skip
    assert [row["person_id"] for row in misses(whole, "asked", table, 99)] == ["p1", "p2", "p3", "p7"]


def test_where_nobody_is_there_nothing_is_divided_by_nothing() -> None:
    found = fall(rule(trait="orders", op=">", value=0), people=[])
    assert (found.everybody, found.members, found.closest) == (0, 0, None)
    assert [row["left of everybody"] for row in found.rows()] == ["", ""]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"all": [{"trait": "a", "op": ">", "value": 1}, {"audience": "b"}]}, ["a > 1", "is in the audience b"]),
        ({"none": [{"audience": "a"}, {"audience": "b"}]},
         ["not (is in the audience a)", "not (is in the audience b)"]),
        ({"any": [{"audience": "a"}, {"all": [{"audience": "b"}, {"audience": "c"}]}]},
         ["is in the audience a or (is in the audience b and is in the audience c)"]),
    ],
)  # fmt: skip
def test_conditions_stand_on_a_line_each(fields: dict[str, Any], said: list[str]) -> None:
    assert [sentence(one) for one in conditions([rule(**fields)])] == said

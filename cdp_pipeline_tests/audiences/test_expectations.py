"""Every test of an audience on days made by hand: what passes, what is held, and for how long."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any

import ibis
import pyarrow as pa
import pytest

from cdp_pipeline.audiences.expectations import (
    USUAL,
    AcceptanceError,
    Facts,
    Outcome,
    accepted_changes,
    expectations,
    facts,
    judge,
    usual_size,
)
from cdp_pipeline.audiences.members import MEMBERS, SIZES
from cdp_pipeline.spec.audience import AudienceTests
from cdp_pipeline_tests.audiences.company import audience, rule
from cdp_pipeline_tests.traits.shop import DAYS, project, trait

ORDERS = trait("orders", "count")
ONE = DAYS[0]


def one(name: str, *rules: Any, **tests: Any) -> Any:
    return audience(name, *(rules or [rule(trait="orders", op=">", value=0)]), tests=AudienceTests(**tests))


def told(**given: Any) -> Facts:
    return Facts(**{"sizes": {}, "shared": {}, "shares": {}, "right": {}, "before": {}} | given)


def outcomes(tested: Any, found: Facts, day: date = ONE) -> dict[str, tuple[bool, str]]:
    verdicts = judge(project(ORDERS, tested), [tested.name], [day], found, unasked={}, held_before={})
    return {
        outcome.test: (outcome.passed, "" if outcome.passed else outcome.because)
        for outcome in verdicts.outcomes[tested.name, day]
    }


@pytest.mark.parametrize(
    ("tests", "found", "test", "because"),
    [
        ({"min_size": 3}, {"sizes": {("a", ONE): 2}}, "size_as_expected", "2 people, fewer than 3"),
        ({"max_size": 3}, {"sizes": {("a", ONE): 4}}, "size_as_expected", "4 people, more than 3"),
        ({"max_change": 0.5}, {"sizes": {("a", ONE): 4}, "before": {"a": {ONE - timedelta(9): 10}}},
         "size_as_expected", "4 people, 10 the good day before"),
        ({"must_include": ["email:x", "email:y"]}, {"right": {("a", ONE): (1, 0)}}, "right_people",
         "1 of 2 people who must be in it are not"),
        ({"must_exclude": ["email:x"]}, {"right": {("a", ONE): (0, 1)}}, "right_people",
         "1 of 1 people who must not be in it are"),
        ({"disjoint_from": ["b"]}, {"shared": {("a", "b", ONE): 2}}, "disjoint_from_b", "2 are in 'b' as well"),
        ({"subset_of": ["b"]}, {"sizes": {("a", ONE): 5}, "shared": {("a", "b", ONE): 3}}, "subset_of_b",
         "2 are not in 'b'"),
        ({"share_with": {"email": 0.5}}, {"sizes": {("a", ONE): 4}, "shares": {("a", "email", ONE): 1}},
         "share_with_email", "email reaches 25.0%, not 50%"),
    ],
)  # fmt: skip
def test_a_test_that_fails_says_why_and_holds(tests: Any, found: Any, test: str, because: str) -> None:
    assert outcomes(one("a", **tests), told(**found))[test] == (False, because)
    verdicts = judge(project(ORDERS, one("a", **tests)), ["a"], [ONE], told(**found), unasked={}, held_before={})
    assert verdicts.held == {("a", ONE): because}


@pytest.mark.parametrize(
    ("tests", "found"),
    [
        ({"min_size": 2, "max_size": 2, "max_change": 0.5}, {"sizes": {("a", ONE): 2}}),
        ({"max_change": 0.5}, {"sizes": {("a", ONE): 15}, "before": {"a": {ONE - timedelta(1): 10}}}),
        ({"must_include": ["email:x"], "must_exclude": ["email:y"]}, {"right": {("a", ONE): (1, 0)}}),
        ({"disjoint_from": ["b"], "subset_of": ["c"]},
         {"sizes": {("a", ONE): 2}, "shared": {("a", "c", ONE): 2}}),
        ({"share_with": {"email": 0.5}}, {}),
    ],
)  # fmt: skip
def test_on_the_edge_it_passes_and_nobody_is_held(tests: Any, found: Any) -> None:
    assert {passed for passed, _ in outcomes(one("a", **tests), told(**found)).values()} == {True}


def test_every_audience_has_two_tests_and_those_it_declares_are_said_in_words() -> None:
    assert [each.name for each in expectations(one("a"))] == ["usual_size", "sound_ground"]
    tested = one("a", min_size=1, max_change=0.5, must_exclude=["email:x"], subset_of=["b"], share_with={"vip": 1.0})
    assert [each.says for each in expectations(tested)][:4] == [
        "The audience has at least 1 member, a size that changed by at most 50% in a day.",
        "Of the people named in its tests, 0 known to belong in it are, 1 known not to are not.",
        "Everybody is in 'b' as well.",
        "Of its people, vip is true of at least 100%.",
    ]
    assert not any("email" in each.says for each in expectations(tested)), "no personal data"


def test_what_builds_on_a_held_audience_is_held_with_it_and_nothing_else_is() -> None:
    whole = project(
        ORDERS,
        one("base", min_size=5),
        one("over", rule(audience="base")),
        one("far", rule(none=[{"audience": "over"}])),
        one("apart"),
    )
    names, sizes = ["apart", "base", "far", "over"], {(name, ONE): 1 for name in whole.audiences}
    verdicts = judge(whole, names, [ONE], told(sizes=sizes), unasked={}, held_before={})
    assert verdicts.held == {
        ("base", ONE): "1 people, fewer than 5",
        ("over", ONE): "it builds on 'base', which is held",
        ("far", ONE): "it builds on 'over', which is held",
    }
    # Computed at another cadence, and held then; what lies between is not computed now.
    verdicts = judge(
        whole, ["apart", "far"], [ONE], told(sizes=sizes), unasked={}, held_before={("base", ONE): "too few"}
    )
    assert verdicts.held == {("far", ONE): "it builds on 'over', which is held"}


def test_a_size_is_compared_with_the_last_good_day_and_not_with_one_that_was_held() -> None:
    sizes = {("a", day): size for day, size in zip(DAYS[:5], (10, 30, 30, 12, 30), strict=True)}
    verdicts = judge(project(ORDERS, one("a", max_change=0.5)), ["a"], DAYS[:5], told(sizes=sizes), unasked={},
                     held_before={})  # fmt: skip
    assert {day: why for (_, day), why in verdicts.held.items()} == {
        DAYS[1]: "30 people, 10 the good day before",
        DAYS[2]: "30 people, 10 the good day before",
        DAYS[4]: "30 people, 12 the good day before",
    }


def test_an_audience_that_cannot_be_asked_is_held_and_says_what_is_missing() -> None:
    verdicts = judge(
        project(ORDERS, one("a", min_size=1), one("b", rule(audience="a"))), ["a", "b"], [ONE],
        told(sizes={("b", ONE): 1}), unasked={"a": "it asks churn"}, held_before={},
    )  # fmt: skip
    assert verdicts.held == {("a", ONE): "it asks churn", ("b", ONE): "it builds on 'a', which is held"}
    assert [each.test for each in verdicts.outcomes["a", ONE]] == ["sound_ground"]


def test_a_size_drifts_when_it_leaves_the_median_by_more_than_chance_and_holds_nothing() -> None:
    assert usual_size(1_000, [10] * 6).passed, "less than a week is no history"
    assert [usual_size(size, [1_000] * 7).passed for size in (700, 699, 1_300, 1_301)] == [True, False, True, False]
    assert usual_size(20, [4] * 14 + [400]).passed is False
    assert usual_size(14, [4] * 14).passed, "small counts vary by chance"
    assert [usual_size(size, [0] * 14).passed for size in (0, 5, 6)] == [True, True, False]
    history = {"a": {ONE - timedelta(n): 1_000 for n in range(1, 9)}}
    verdicts = judge(project(ORDERS, one("a")), ["a"], [ONE], told(sizes={("a", ONE): 5}, before=history), unasked={},
                     held_before={})  # fmt: skip
    drift = next(each for each in verdicts.outcomes["a", ONE] if each.test == USUAL)
    assert drift == Outcome(USUAL, False, {"people": 5, "usual": 1000.0, "allowed difference": 300.0},
                            "5 people, usually 1000")  # fmt: skip
    assert verdicts.held == {}


def test_facts_are_counted_by_audience_and_day() -> None:
    whole = project(
        ORDERS,
        one("a", disjoint_from=["b"], share_with={"email": 0.5, "vip": 0.5}, must_include=["email:x", "email:y"]),
        one("b", must_exclude=["email:x"]),
    )
    inside = {("a", 0): "p1 p2", ("a", 1): "p2 p3", ("b", 0): "p2", ("b", 1): "p1"}
    members = pa.Table.from_pylist(
        [{"audience": a, "person_id": p, "day": DAYS[n]} for (a, n), people in inside.items() for p in people.split()],
        schema=MEMBERS.schema.to_pyarrow(),
    )
    past = [{"audience": "a", "day": ONE - timedelta(n), "people": n} for n in (1, 40, 50)]
    sizes = [{"audience": a, "day": DAYS[n], "people": len(people.split())} for (a, n), people in inside.items()]
    found = facts(
        whole, ["a", "b"], DAYS[:2], ibis.memtable(members),
        ibis.memtable(pa.Table.from_pylist(sizes, schema=SIZES.schema.to_pyarrow())),
        ibis.memtable(pa.Table.from_pylist(past, schema=SIZES.schema.to_pyarrow())),
        ibis.memtable({"person_id": ["p1", "p2", "p3"], "email": [True, True, False], "phone": [False] * 3}),
        ibis.memtable({"person_id": ["p1", "p3"], "vip": [True, None]}),
        {"email:x": "p1"},
    )  # fmt: skip
    assert found.sizes == {("a", DAYS[0]): 2, ("a", DAYS[1]): 2, ("b", DAYS[0]): 1, ("b", DAYS[1]): 1}
    assert found.shared == {("a", "b", DAYS[0]): 1}
    assert found.shares == {
        ("a", "email", DAYS[0]): 2, ("a", "vip", DAYS[0]): 1, ("a", "email", DAYS[1]): 1, ("a", "vip", DAYS[1]): 0,
    }  # fmt: skip
    assert found.right == {
        ("a", DAYS[0]): (1, 0), ("a", DAYS[1]): (0, 0), ("b", DAYS[0]): (0, 0), ("b", DAYS[1]): (0, 1),
    }  # fmt: skip
    assert found.before == {"a": {ONE - timedelta(1): 1}}


def test_after_a_long_pause_the_last_good_day_is_still_known() -> None:
    past = pa.Table.from_pylist(
        [{"audience": "a", "day": ONE - timedelta(n), "people": n} for n in (40, 50)], schema=SIZES.schema.to_pyarrow()
    )
    nobody = ibis.memtable(MEMBERS.schema.to_pyarrow().empty_table())
    none = ibis.memtable(SIZES.schema.to_pyarrow().empty_table())
    whole = project(ORDERS, one("a", max_change=0.5))
    found = facts(whole, ["a"], [ONE], nobody, none, ibis.memtable(past), nobody, None, {})
    assert found.before == {"a": {ONE - timedelta(40): 40}}


def test_a_change_that_somebody_accepts_for_its_day_holds_nothing_and_the_next_day_is_held_against_it() -> None:
    sizes = {("a", day): size for day, size in zip(DAYS[:4], (10, 30, 30, 90), strict=True)}
    whole = project(ORDERS, one("a", max_change=0.5, min_size=5))
    verdicts = judge(whole, ["a"], DAYS[:4], told(sizes=sizes), unasked={}, held_before={}, accepted={("a", DAYS[1])})
    assert verdicts.held == {("a", DAYS[3]): "90 people, 30 the good day before"}
    of_day = {
        day: next(each for each in verdicts.outcomes["a", day] if each.test == "size_as_expected") for day in DAYS[:4]
    }
    assert [(each.passed, each.accepted) for each in of_day.values()] == [
        (True, False), (False, True), (True, False), (False, False),
    ]  # fmt: skip
    assert of_day[DAYS[3]].found["if it is meant to be so"] == (
        f"CDP_ACCEPT_CHANGE=a@{DAYS[3]} cdp run audiences/a --day {DAYS[3]}"
    )


def test_accepting_a_change_does_not_accept_a_size_beyond_its_bounds() -> None:
    found = told(sizes={("a", ONE): 2}, before={"a": {ONE - timedelta(1): 10}})
    verdicts = judge(
        project(ORDERS, one("a", max_change=0.5, min_size=5)), ["a"], [ONE], found, unasked={}, held_before={},
        accepted={("a", ONE)},
    )  # fmt: skip
    assert verdicts.held == {("a", ONE): "2 people, fewer than 5; 2 people, 10 the good day before"}
    assert "if it is meant to be so" not in verdicts.outcomes["a", ONE][0].found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a", "CDP_ACCEPT_CHANGE: should be audience@day, such as vip@2026-03-01, got 'a'"),
        ("a@yesterday", "CDP_ACCEPT_CHANGE: should be audience@day, such as vip@2026-03-01, got 'a@yesterday'"),
        ("buyer@2026-03-01", "CDP_ACCEPT_CHANGE: unknown audience 'buyer', did you mean 'buyers'?"),
    ],
)
def test_what_is_accepted_and_cannot_be_meant_is_said(text: str, said: str) -> None:
    with pytest.raises(AcceptanceError, match=re.escape(said)):
        accepted_changes(text, project(ORDERS, one("buyers")))


def test_several_changes_are_accepted_at_once() -> None:
    whole = project(ORDERS, one("a"), one("b"))
    assert accepted_changes("a@2026-03-01, b@2026-03-01 a@2026-03-02", whole) == {
        ("a", date(2026, 3, 1)), ("b", date(2026, 3, 1)), ("a", date(2026, 3, 2)),
    }  # fmt: skip
    assert accepted_changes(None, whole) == accepted_changes("", whole) == set()

"""What is held back before anybody sees it: crowds taken for one person, people lost, ids that move."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pytest

from cdp_pipeline.identity.guard import breaches, guard
from cdp_pipeline_tests.identity.shop import UNPROTECTED, Row, project, resolved

SOUND: dict[str, Any] = {
    "people": 100_000, "largest_person": 60, "ten_largest_share": 0.001, "identifiers_owned": 500_000,
    "identifiers_known": 500_000, "identifiers_moved": 900, "churn": 0.0018,
}  # fmt: skip
TODAY = date(2026, 3, 1)


def broken(before: dict[str, Any], **after: Any) -> list[str]:
    return [breach.figure for breach in breaches(before, SOUND | after, budget=0.02)]


def test_a_usual_day_passes_and_so_does_the_first() -> None:
    assert broken(SOUND) == broken({}) == []


@pytest.mark.parametrize(
    ("after", "figure"),
    [
        ({"largest_person": 228_005}, "largest_person"),
        ({"ten_largest_share": 0.2}, "ten_largest_share"),
        ({"people": 80_000}, "people"),
        ({"identifiers_moved": 11_000}, "identifiers_moved"),
        ({"precision": 0.4}, "precision"),
    ],
)
def test_each_bound_holds_identity_back(after: dict[str, Any], figure: str) -> None:
    assert broken(SOUND, **after) == [figure]


def test_what_is_published_already_is_not_held_back_until_it_gets_worse() -> None:
    published = SOUND | {"largest_person": 400, "ten_largest_share": 0.1}
    assert broken(published, largest_person=420, ten_largest_share=0.105) == []
    assert broken(published, largest_person=500) == ["largest_person"]


def test_of_a_few_people_many_may_change_by_chance() -> None:
    small = {"people": 30, "largest_person": 5, "ten_largest_share": 0.6, "identifiers_owned": 90}
    after = {"identifiers_known": 90, "identifiers_moved": 7, "churn": 7 / 90}
    assert breaches(small, small | after | {"people": 25}, budget=0.02) == ()
    assert breaches(small, small | after | {"people": 9}, budget=0.02) != ()


def test_a_crowd_that_one_value_would_tie_together_is_held_back_with_what_to_do() -> None:
    crowd = [Row("web", place, 0, mail=f"person{place}@example.com") for place in range(120)]
    before = resolved(crowd)
    tied = [Row("till", 200 + place, 1, mail=row.mail, cookie="tablet") for place, row in enumerate(crowd)]
    after = resolved([*crowd, *tied], before, project(UNPROTECTED))
    verdict = guard(before.identifiers, before.people, after.identifiers, after.people, budget=0.02)
    assert {breach.check for breach in verdict.breaches} == {"no_collapse", "ids_stable"}
    said = str(verdict.withheld(None, TODAY))
    assert "120 people became 1" in said and "119 of 120 identifiers (99.2%) moved" in said
    assert "cdp identity simulate" in said and "CDP_ACCEPT_IDENTITY=2026-03-01" in said
    assert "@" not in said
    assert verdict.withheld("2026-02-28", TODAY) is not None
    assert verdict.withheld("2026-03-01", TODAY) is None


def test_strangers_to_each_other_pass_with_their_figures() -> None:
    before = resolved([Row("web", 1, 0, customer=1)])
    after = resolved([Row("web", 1, 0, customer=1), Row("web", 2, 1, customer=2, mail="bo@example.com")], before)
    truth = pa.table({"type": ["customer_id", "email"], "value": ["2", "bo@example.com"], "person": ["B", "B"]})
    verdict = guard(before.identifiers, before.people, after.identifiers, after.people, 0.0, truth)
    assert verdict.breaches == ()
    assert (verdict.figures["people"], verdict.figures["churn"], verdict.figures["precision"]) == (2, 0.0, 1.0)
    assert verdict.withheld(None, TODAY) is None


def test_rows_that_changed_are_judged_like_the_whole() -> None:
    some = [Row("web", place, 0, customer=place, mail=f"person{place}@example.com") for place in range(40)]
    before = resolved(some)
    after = resolved([*some, Row("till", 100, 1, customer=7, cookie="k1"), Row("till", 101, 1, cookie="k2")], before)
    truth = pa.table({"type": ["customer_id", "email"], "value": ["7", "person7@example.com"], "person": ["A", "A"]})
    changed = [
        pa.Table.from_pylist([row for row in now.to_pylist() if row not in was.to_pylist()], schema=now.schema)
        for was, now in ((before.identifiers, after.identifiers), (before.people, after.people))
    ]
    assert [rows.num_rows for rows in changed] == [3, 2]
    whole = guard(before.identifiers, before.people, after.identifiers, after.people, 0.02, truth)
    assert guard(before.identifiers, before.people, *changed, 0.02, truth) == whole
    assert whole.figures["people"] == 41 and whole.figures["precision"] == 1.0

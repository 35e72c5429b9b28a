"""What the checks on identity say, and to whom: in words, with figures, and stopping only what does harm."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import ibis
import pytest

from cdp_pipeline.identity.guard import Verdict, breaches
from cdp_pipeline.identity.history import QUALITY, figures_before, figures_of_day
from cdp_pipeline.orchestration import checks
from cdp_pipeline_tests.identity.shop import attribute, project
from cdp_pipeline_tests.identity.test_guard import SOUND

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIGURES: dict[str, Any] = {
    "people": 10_000, "one_in_thousand_has": 30, "largest_people": [40, 35], "largest_component": 80, "links": 40_000,
    "links_refused": 100, "limits": {"a person has at most 5 email": 100}, "hang_by_one_link": 20,
    "owned": {"email": 10_000, "phone": 30}, "alone": {"email": 0.2, "phone": 0.5},
    "blocked": {"email": 10}, "shared": {"phone": 4}, "precision": 0.999, "recall": 0.8, "recall_reachable": 0.98,
    "judged_identifiers": 30_000,
}  # fmt: skip


def with_truth() -> Any:
    shop = project()
    return dataclasses.replace(shop, settings=shop.settings.model_copy(update={"truth": "truth"}))


def flat(figures: dict[str, Any]) -> dict[str, float]:
    rows = figures_of_day(figures, NOW, project()).to_pylist()
    return {row["figure"]: row["value"] for row in rows}


def failed(before: dict[str, float] | None = None, **changed: Any) -> list[str]:
    results = list(checks.quality_results(FIGURES | changed, flat(FIGURES) if before is None else before, with_truth()))
    assert [one.check_name for one in results] == [one.name for one in checks.quality_specs(with_truth())]
    assert {one.severity for one in results} == {dg.AssetCheckSeverity.WARN}, "they stop nothing"
    return [str(one.check_name) for one in results if not one.passed]


def test_a_usual_day_passes_and_so_does_the_first() -> None:
    assert failed() == failed(before={}) == []


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        ({"one_in_thousand_has": 90}, "few_very_large_people"),
        ({"largest_component": 5_000}, "no_hidden_crowd"),
        ({"links_refused": 3_000}, "limits_seldom_refuse"),
        ({"alone": {"email": 0.4, "phone": 0.5}}, "as_many_alone_as_usual"),
        ({"blocked": {"email": 60}}, "as_many_set_aside_as_usual"),
        ({"shared": {"phone": 4, "anonymous_id": 30}}, "as_many_set_aside_as_usual"),
        ({"hang_by_one_link": 300}, "few_hang_by_one_link"),
        ({"precision": 0.9}, "right_people_together"),
        ({"recall_reachable": 0.9}, "people_found_whole"),
    ],
)
def test_what_is_unusual_fails_the_check_that_says_so(changed: dict[str, Any], check: str) -> None:
    assert failed(**changed) == [check]


def test_of_a_few_identifiers_many_may_be_alone_by_chance() -> None:
    assert failed(alone={"email": 0.2, "phone": 0.7}) == []


def test_where_no_truth_is_known_nothing_is_held_against_it() -> None:
    assert {"right_people_together", "people_found_whole"}.isdisjoint(
        one.name for one in checks.quality_specs(project())
    )
    known = ("precision", "recall", "recall_reachable", "judged_identifiers")
    without = {name: value for name, value in FIGURES.items() if name not in known}
    assert all(one.passed for one in checks.quality_results(without, {}, with_truth()))


def test_the_figures_of_the_last_day_are_found_under_their_names() -> None:
    days = [NOW - timedelta(days=days) for days in (0, 2, 5)]
    histories = [figures_of_day(FIGURES | {"people": place}, day, project()) for place, day in enumerate(days)]
    before = figures_before(ibis.union(*map(ibis.memtable, histories)), NOW, project())
    assert before["people"] == 1 and before["alone.email"] == 0.2 and before["blocked.email"] == 10
    assert figures_before(ibis.memtable([], schema=QUALITY.schema), NOW, project()) == {}


def guarded(withheld: bool, **figures: Any) -> list[dg.AssetCheckResult]:
    after = SOUND | {"largest_people": [60], "identifiers_recognised": 3} | figures
    verdict = Verdict(after, breaches(SOUND, after, budget=0.02))
    return list(checks.guard_results(verdict, withheld=withheld))


def test_a_collapse_stops_what_comes_after_unless_it_was_accepted() -> None:
    assert all(spec.blocking for spec in checks.guard_specs(project()))
    collapse, stable = guarded(True, largest_person=9_000)
    assert (collapse.passed, collapse.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "one person has 9,000 identifiers" in collapse.metadata["found"].value and stable.passed
    accepted, _ = guarded(False, largest_person=9_000)
    assert (accepted.passed, accepted.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert accepted.metadata["accepted for today"].value is True


def test_ids_that_move_stop_what_comes_after() -> None:
    collapse, stable = guarded(True, identifiers_moved=20_000, churn=0.04)
    assert collapse.passed and not stable.passed
    assert "20,000 of 500,000 identifiers (4.0%) moved" in stable.metadata["found"].value


def test_people_with_too_many_values_are_counted_and_found_by_a_query() -> None:
    shop = project(attributes={"name": attribute("name", sources=[{"source": "web", "column": "name"}], at_most=3)})
    [spec] = checks.attribute_specs(shop)
    assert spec.name == "name_at_most_3" and not spec.blocking
    for people, over, passed in ((100_000, 11, True), (100_000, 12, False), (100, 0, True), (100, 1, False)):
        [found] = checks.attribute_results({"name": (people, over)}, shop)
        assert found.passed == passed, (people, over)
        assert ("to see them" in found.metadata) == (over > 0)

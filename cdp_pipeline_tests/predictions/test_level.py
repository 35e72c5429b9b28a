"""The level of a day: the season against a loop over events, and a planted move that probabilities must follow."""

from __future__ import annotations

from datetime import date, timedelta
from math import exp, log
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cdp_pipeline.predictions.level import FURTHEST, USUAL_MOVE, Level, log_odds, looked_at, seasons, sigmoid
from cdp_pipeline_tests.predictions.people import prediction
from cdp_pipeline_tests.traits.shop import event, timeline_rows

START = date(2023, 1, 1)


def buyers(per_day: dict[date, int]) -> list[dict[str, Any]]:
    return [event(person_id=f"p_{n:02}", _day=day) for day, count in per_day.items() for n in range(count)]


def season_by_hand(per_day: dict[date, int], day: date, horizon: int) -> float:
    known = {one: count for one, count in per_day.items() if one <= day and count}
    recent = min(28, horizon)
    lately = [day - timedelta(days=ago) for ago in range(recent)]
    now = sum(known.get(one, 0) for one in lately)
    then = sum(known.get(one - timedelta(days=364), 0) for one in lately)
    oldest = min(known, default=day)
    compared = min(lately) - timedelta(days=364) >= oldest and then > 0
    growth = now / then if compared else 1
    ahead, expected = 0, 0.0
    for step in range(1, horizon + 1):
        year_ago = day + timedelta(days=step - 364)
        ahead += known.get(year_ago, 0)
        expected += known.get(year_ago, 0) * growth if year_ago >= oldest else now / recent
    if not (now and ahead and expected):
        return 1.0
    chance = 1 / ahead + 1 / (then if compared else now)
    move = log(expected / horizon / (now / recent)) * USUAL_MOVE**2 / (USUAL_MOVE**2 + chance)
    return exp(max(-log(FURTHEST), min(log(FURTHEST), move)))


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.integers(0, 480), st.integers(1, 6)), max_size=60),
    st.lists(st.integers(0, 480), min_size=1, max_size=3),
    st.sampled_from([7, 30, 60]),
)
@example([(0, 1), (358, 1)], [364], 7)
def test_the_season_is_what_a_loop_over_days_says(hits: list[tuple[int, int]], asked: list[int], horizon: int) -> None:
    per_day = {START + timedelta(days=at): count for at, count in hits}
    days = [START + timedelta(days=at) for at in asked]
    table = seasons(ibis.memtable(timeline_rows(buyers(per_day))), prediction(horizon=f"{horizon} days"), days)
    found = {row["day"]: row["_season"] for row in table.to_pyarrow().to_pylist()}
    assert found == {day: pytest.approx(season_by_hand(per_day, day, horizon), abs=2e-6) for day in days}


def test_a_year_with_a_busy_december_expects_the_next_and_nothing_where_no_year_is_known() -> None:
    busy = {START + timedelta(days=n): 8 if n >= 334 else 4 for n in range(365)}
    quiet = {START + timedelta(days=n): 4 for n in range(365, 365 + 334)}
    eve = date(2024, 11, 29)
    timeline = ibis.memtable(timeline_rows(buyers(busy | quiet)))
    rows = seasons(timeline, prediction(horizon="30 days"), [eve, date(2023, 11, 30)]).to_pyarrow().to_pylist()
    season = {row["day"]: row["_season"] for row in rows}
    assert 1.7 < season[eve] < 2.0
    assert season[date(2023, 11, 30)] == 1.0


@pytest.mark.parametrize("happens", [True, False])
@pytest.mark.parametrize("planted", [-0.8, 0.0, 0.5])
def test_probabilities_follow_a_level_that_moved(happens: bool, planted: float) -> None:
    random = np.random.default_rng(4)

    def draw(moved: float, people: int = 6000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        odds = random.normal(-0.5, 1.2, people)
        soon = random.random(people) < sigmoid(0.8 * odds - 0.7 + moved)
        return odds, soon.astype(float), random.random(people) < sigmoid(odds + moved)

    odds, soon, _ = draw(0.0, 30_000)
    level = Level.fit(odds, soon, happens)
    moved = level.moved(*draw(planted)[:2])
    assert moved == pytest.approx(planted, abs=0.12)
    odds, _, label = draw(planted)
    said = level.probability(odds, moved, np.ones(len(odds)))
    assert said.mean() == pytest.approx(label.mean(), abs=0.03)


def test_few_people_move_the_level_little_and_nobody_not_at_all() -> None:
    level, odds = Level(True), np.zeros(4)
    assert level.moved(odds[:0], odds[:0]) == 0
    few = level.moved(odds, np.ones(4))
    many = level.moved(np.zeros(4000), np.ones(4000))
    assert 0 < few < 0.5 < 4 < many


def test_a_season_multiplies_the_rate_at_which_things_happen() -> None:
    odds, twice = log_odds(np.array([0.1, 0.5])), np.array([2.0, 2.0])
    assert Level(True).probability(odds, 0.0, twice) == pytest.approx([1 - 0.9**2, 1 - 0.5**2])
    assert Level(False).probability(odds, 0.0, twice) == pytest.approx([0.1**2, 0.5**2])


def test_the_draw_of_people_is_the_same_in_any_order() -> None:
    people = pa.table({"person_id": [f"p_{n}" for n in range(50)]})
    first = looked_at(ibis.memtable(people)).to_pyarrow()["person_id"].to_pylist()
    assert first == looked_at(ibis.memtable(people.take(list(range(49, -1, -1))))).to_pyarrow()["person_id"].to_pylist()

"""Drift against the formula by hand, and a planted move that is named while healthy people are not."""

from __future__ import annotations

from math import log

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.predictions.drift import MOVED, Reference, watched
from cdp_pipeline.predictions.model import Scorer, train
from cdp_pipeline_tests.predictions.people import prediction, to_score, training


def by_hand(then: list[float], now: list[float], edges: tuple[float, ...]) -> float:
    def shares(values: list[float]) -> list[float]:
        counts = [0.5] * (len(edges) + 2)
        for value in values:
            counts[len(edges) + 1 if value != value else sum(edge <= value for edge in edges)] += 1
        return [count / sum(counts) for count in counts]

    chance = (len(edges) + 1) * (1 / len(then) + 1 / len(now))
    return max(0, sum((b - a) * log(b / a) for a, b in zip(shares(then), shares(now), strict=True)) - chance)


VALUES = st.lists(st.floats(-100, 100) | st.just(float("nan")), min_size=1, max_size=40)


@settings(max_examples=60)
@given(VALUES, VALUES)
def test_the_index_is_its_formula(then: list[float], now: list[float]) -> None:
    reference = Reference.of(np.array(then))
    assert reference.index(np.array(now)) == pytest.approx(by_hand(then, now, reference.edges))
    assert reference.index(np.array(then)) == pytest.approx(0)


def test_what_swings_by_itself_is_not_watched() -> None:
    random = np.random.default_rng(1)
    windows = [{"still": random.normal(size=4000), "swings": random.normal(shift, size=4000)} for shift in (0, 1, 0)]
    assert set(watched(windows)) == {"still"}


def test_people_in_another_currency_are_noticed_and_others_are_not() -> None:
    scorer = train(training(people=3000), prediction()).scorer
    assert isinstance(scorer, Scorer)
    assert {"signal", "noise", "_score"} <= set(scorer.usual)
    people = to_score(3000)
    assert max(scorer.drift(people).values()) < MOVED / 2
    times_hundred = pc.multiply(people["noise"], 100.0)
    moved = scorer.drift(people.set_column(people.column_names.index("noise"), "noise", times_hundred))
    assert next(iter(moved)) == "noise" and moved["noise"] > 1
    assert scorer.drift(people.slice(0, 0)) == {}

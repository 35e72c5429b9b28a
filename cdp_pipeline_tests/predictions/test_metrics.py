"""Metrics against scikit-learn, against formulas by hand, and against pairs counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.predictions.metrics import average_precision, calibration_error, gains, lift, measure, ranking

SCORED = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1)), min_size=2
).filter(lambda rows: len({label for label, _ in rows}) == 2)


def columns(rows: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([float(label) for label, _ in rows]), np.array([score for _, score in rows])


@settings(max_examples=40)
@given(SCORED)
def test_ranking_and_precision_are_those_of_scikit_learn(rows: list[tuple[bool, float]]) -> None:
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    label, score = columns(rows)
    assert ranking(label, score) == pytest.approx(roc_auc_score(label, score))
    assert average_precision(label, score) == pytest.approx(average_precision_score(label, score))
    measured = measure(label, score, {"same": score}, seed=0)
    assert measured["brier"] == pytest.approx(brier_score_loss(label, score))
    assert measured["log_loss"] == pytest.approx(log_loss(label, np.clip(score, 1e-6, 1 - 1e-6)))
    assert measured["gain_over_same"] == measured["gain_over_same_low"] == measured["gain_over_same_high"] == 0


def test_calibration_error_is_the_mean_distance_between_promise_and_outcome() -> None:
    label = np.array([1, 0, 0, 0, 1, 1.0])
    score = np.array([0.15, 0.15, 0.15, 0.15, 0.85, 0.95])
    by_hand = (4 * abs(0.15 - 0.25) + 1 * abs(0.85 - 1) + 1 * abs(0.95 - 1)) / 6
    assert calibration_error(label, score) == pytest.approx(by_hand)
    assert calibration_error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0


def test_lift_compares_the_best_tenth_with_everybody_and_draws_ties() -> None:
    label = np.array([1.0, 1.0] + [0.0] * 17 + [1.0])
    score = np.linspace(1, 0, 20)
    assert lift(label, score) == pytest.approx(1 / (3 / 20))
    assert lift(label, np.full(20, 0.3)) == pytest.approx(1)
    assert gains(label, score)[1] == pytest.approx(2 / 3)
    assert gains(label, score)[-1] == pytest.approx(1)


def test_the_bootstrap_interval_holds_the_area_and_narrows_with_people() -> None:
    random, width = np.random.default_rng(0), {}
    for people in (200, 5000):
        score = random.random(people)
        measured = measure((random.random(people) < score).astype(float), score, {}, seed=0)
        assert measured["auc_low"] < measured["auc"] < measured["auc_high"]
        width[people] = measured["auc_high"] - measured["auc_low"]
    assert width[5000] < width[200] / 3

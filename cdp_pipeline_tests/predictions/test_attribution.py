"""What trees lean on for one person, against Shapley's definition written out over every set of features."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from cdp_pipeline.predictions.attribution import pair_points, points, tree_contributions
from cdp_pipeline.predictions.model import train
from cdp_pipeline_tests.predictions import test_affinity, test_response
from cdp_pipeline_tests.predictions.people import prediction, to_score, training

FEATURES = 4


@pytest.fixture(scope="module")
def grown() -> tuple[Any, np.ndarray]:
    """Trees that lean on features together, with unknown values."""
    random = np.random.default_rng(4)
    values = random.normal(size=(900, FEATURES))
    values[random.random(values.shape) < 0.15] = np.nan
    filled = np.nan_to_num(values)
    odds = filled[:, 0] * 2 + np.where(filled[:, 1] > 0, filled[:, 2], -filled[:, 2]) + np.isnan(values[:, 3])
    label = random.random(900) < 1 / (1 + np.exp(-odds))
    return HistGradientBoostingClassifier(max_iter=6, max_leaf_nodes=9, random_state=1).fit(values, label), values


def expected(nodes: np.ndarray, row: np.ndarray, known: tuple[int, ...], place: int = 0) -> float:
    """What a tree says where only some features are known: elsewhere both branches, by their share of training."""
    node = nodes[place]
    if node["is_leaf"]:
        return float(node["value"])
    left, right = int(node["left"]), int(node["right"])
    if node["feature_idx"] in known:
        value = row[node["feature_idx"]]
        goes_left = node["missing_go_to_left"] if np.isnan(value) else value <= node["num_threshold"]
        return expected(nodes, row, known, left if goes_left else right)
    parts = (expected(nodes, row, known, child) * float(nodes[child]["count"]) for child in (left, right))
    return sum(parts) / float(node["count"])


def shapley(trees: Any, row: np.ndarray, feature: int) -> float:
    others, total = [name for name in range(FEATURES) if name != feature], 0.0
    for size in range(FEATURES):
        weight = factorial(size) * factorial(FEATURES - 1 - size) / factorial(FEATURES)
        for known in combinations(others, size):
            for [tree] in trees._predictors:
                with_it, without = expected(tree.nodes, row, (*known, feature)), expected(tree.nodes, row, known)
                total += weight * (with_it - without)
    return total


def test_each_feature_gets_its_shapley_value(grown: tuple[Any, np.ndarray]) -> None:
    trees, values = grown
    given, _ = tree_contributions(trees, values[:12])
    for row, of_row in zip(values[:12], given, strict=True):
        assert of_row == pytest.approx([shapley(trees, row, feature) for feature in range(FEATURES)], abs=1e-9)


def test_the_parts_sum_to_what_the_trees_say(grown: tuple[Any, np.ndarray]) -> None:
    trees, values = grown
    given, base = tree_contributions(trees, values)
    assert given.sum(axis=1) + base == pytest.approx(trees.decision_function(values), abs=1e-9)


def test_the_points_of_all_features_are_what_lies_between_the_average_person_and_this_one() -> None:
    scorer = train(training(people=400), prediction()).scorer
    model, people = replace(scorer.model, trees_heard=0.4), to_score(200)
    values = model.inputs(people)
    given, base = points(model, values)
    linear, grown = model.linear.probability(values), model.trees.predict_proba(values)[:, 1]
    assert base + given.sum(axis=1) == pytest.approx(0.6 * linear + 0.4 * grown, abs=1e-9)
    by_size = dict(zip([*model.features, "_rhythm"], np.abs(given).mean(axis=0), strict=True))
    assert min(by_size["signal"], by_size["curve"]) > 3 * by_size["noise"], "what was planted counts most"


@pytest.mark.parametrize("learned", [test_response.learned, test_affinity.learned], ids=["response", "affinity"])
def test_points_of_a_person_and_item_sum_to_the_score_less_the_average(learned: Any) -> None:
    rows, trained = learned()
    of_day = rows.filter(pc.equal(rows["day"], max(rows["day"].to_pylist())))
    scorer = trained.scorer
    names, values, given = pair_points(scorer, of_day)
    assert given.shape == values.shape == (of_day.num_rows, len(names))
    average = 1 / (1 + np.exp(-scorer.logistic.intercept))
    assert given.sum(axis=1) + average == pytest.approx(scorer.contributions(of_day)[0])
    best = given[int(np.argmax(given.sum(axis=1)))]
    most = names[int(np.argmax(best))]
    assert most in ("own habit", "answered", "rate"), "who is likeliest owes it to what they did so far"

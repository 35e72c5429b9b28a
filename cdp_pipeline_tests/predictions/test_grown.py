"""Trees as tables say what scikit-learn says, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier

from cdp_pipeline.predictions.grown import grown_odds


@settings(max_examples=10)
@given(st.integers(2, 14), st.sampled_from([0.0, 0.3]), st.integers(0, 1000))
def test_odds_of_small_and_large_trees_with_and_without_unknown_values(leaves: int, unknown: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = np.round(random.normal(size=(600, 4)), 1)
    label = (values[:, 0] * values[:, 1] + random.normal(size=600) > 0).astype(int)
    values[random.random(values.shape) < unknown] = np.nan
    trees = HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=leaves, random_state=0).fit(values, label)
    asked = np.vstack([values, np.full((1, 4), np.nan), [[0.0, -0.0, np.inf, -np.inf]]])
    assert np.array_equal(grown_odds(trees, asked), trees.decision_function(asked))


@pytest.mark.parametrize("rows", [0, 1])
def test_trees_that_never_ask_and_rows_that_are_not_there(rows: int) -> None:
    trees = HistGradientBoostingClassifier(max_iter=3).fit(np.ones((30, 2)), np.arange(30) % 3 == 0)
    assert np.array_equal(grown_odds(trees, np.ones((rows, 2))), np.full(rows, trees._baseline_prediction.item()))

"""What each feature adds to what a model says of a person: all of it, none left over. Estimators belong to model.py.

Of boosted trees these are exact Shapley values, in plain numpy, of the kind that needs no background sample: features
not asked about follow both branches, as many of each as in training (path-dependent TreeSHAP, Lundberg et al. 2020).
"""

from __future__ import annotations

from math import factorial
from typing import TYPE_CHECKING, Any

from cdp_pipeline.predictions.answers import Answers
from cdp_pipeline.predictions.habits import GROUPS, Habits
from cdp_pipeline.predictions.logistic import sigmoid

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.predictions.model import Model


def points(model: Model, values: np.ndarray) -> tuple[np.ndarray, float]:
    """(people x features, base): what each feature adds to the probability, against the average person's.

    Log-odds are exact for both parts of the model; what they come to as a probability is shared among the features in
    proportion (the rescale rule of DeepLIFT, Shrikumar et al. 2017). Before the level of now and the season.
    """
    import numpy as np

    parts = (
        (1 - model.trees_heard, model.linear.contributions(values), model.linear.intercept),
        (model.trees_heard, *tree_contributions(model.trees, values)),
    )
    total, average = np.zeros(values.shape), 0.0
    for heard, given, base in parts:
        total += heard * _shared(given, base)
        average += heard * float(sigmoid(np.array(base)))
    return total, average


def pair_points(scorer: Answers | Habits, rows: pa.Table) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """(names, values, points): what each of the names adds to the probability of each row, against the average row's.

    `rows` are those of a person with all items, as the scorer's type makes them. A habit is several figures together
    and has no single value: its values are unknown. Points of a row sum to its score less the average row's.
    """
    import numpy as np

    given = scorer.contributions(rows)[1]
    added = _shared(given, scorer.logistic.intercept)
    if isinstance(scorer, Answers):
        return scorer.columns, scorer.values(rows), added
    return tuple(GROUPS), np.full(given.shape, np.nan), added


def _shared(given: np.ndarray, base: float) -> np.ndarray:
    import numpy as np

    odds, average = given.sum(axis=1), sigmoid(np.array(base))
    steep = average * (1 - average)
    safe = np.where(np.abs(odds) < 1e-9, 1, odds)
    return given * np.where(np.abs(odds) < 1e-9, steep, (sigmoid(odds + base) - average) / safe)[:, None]


def tree_contributions(trees: Any, values: np.ndarray) -> tuple[np.ndarray, float]:
    """(people x features, base): what each feature adds to the log-odds of a HistGradientBoosting binary classifier.

    Contributions and base sum to the classifier's log-odds. Costs some milliseconds a tree, whatever the people.
    """
    import numpy as np

    given, base = np.zeros(values.shape), float(np.ravel(trees._baseline_prediction)[0])
    for [tree] in trees._predictors:
        for value, share, path in _leaves(tree.nodes):
            base += value * share
            _add(given, values, value, path)
    return given, base


def _leaves(nodes: np.ndarray) -> list[tuple[float, float, list[tuple[int, list[tuple[float, bool, bool]], float]]]]:
    """Per leaf its value, its share of training, and per feature on the way: the tests, and the share that passes.

    A test is (threshold, whether at most that goes on, whether the unknown goes on).
    """
    found = []
    waiting: list[tuple[int, float, dict[int, tuple[list[Any], float]]]] = [(0, 1.0, {})]
    while waiting:
        place, share, path = waiting.pop()
        node = nodes[place]
        if node["is_leaf"]:
            found.append((float(node["value"]), share, [(name, *way) for name, way in path.items()]))
            continue
        name = int(node["feature_idx"])
        tests, passing = path.get(name, ([], 1.0))
        for child, left in ((int(node["left"]), True), (int(node["right"]), False)):
            part = float(nodes[child]["count"]) / float(node["count"])
            test = (float(node["num_threshold"]), left, bool(node["missing_go_to_left"]) == left)
            waiting.append((child, share * part, path | {name: ([*tests, test], passing * part)}))
    return found


def _add(given: np.ndarray, values: np.ndarray, value: float, path: list[Any]) -> None:
    """Share one leaf's value among the features on the way to it: those that lead there, and those that lead away."""
    import numpy as np

    count = len(path)
    if not count:
        return
    goes = np.ones((count, len(values)))
    for place, (name, tests, _) in enumerate(path):
        column = values[:, name]
        for threshold, left, unknown in tests:
            goes[place] *= np.where(np.isnan(column), unknown, (column <= threshold) == left)
    shares = [share for _, _, share in path]
    weight = [factorial(size) * factorial(count - 1 - size) / factorial(count) for size in range(count)]
    for place, (name, _, share) in enumerate(path):
        # by_size[s]: over the sets of s other features, how much of the leaf is reached with just these known.
        by_size = [np.ones(len(values)), *(np.zeros(len(values)) for _ in range(count - 1))]
        for other in range(count):
            if other == place:
                continue
            for size in range(count - 1, 0, -1):
                by_size[size] = by_size[size] * shares[other] + by_size[size - 1] * goes[other]
            by_size[0] = by_size[0] * shares[other]
        reached = sum(part * sized for part, sized in zip(weight, by_size, strict=True))
        given[:, name] += value * (goes[place] - share) * reached

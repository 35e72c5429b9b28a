"""What each feature adds to what boosted trees say of a person: exact Shapley values, in plain numpy.

Of the kind that needs no background sample: features not asked about follow both branches, as many of each as in
training (path-dependent TreeSHAP, Lundberg et al. 2020). Estimators belong to model.py.
"""

from __future__ import annotations

from math import factorial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


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

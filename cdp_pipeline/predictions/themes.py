"""The estimator of interests: people × items taken apart into a few topics, each person a mixture of them.

Non-negative matrix factorisation of faded, logarithmic frequencies; topics.py is the path of its scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ALIKE = 0.5
"""Cosine above which a topic is the one an earlier model knew, and keeps its name."""
ROUNDS = 100


@dataclass(frozen=True)
class Themes:
    """names: each topic by its foremost items. weight: topics × items, rows of length one. reach: see below."""

    items: tuple[str, ...]
    names: tuple[str, ...]
    weight: np.ndarray
    reach: np.ndarray

    @staticmethod
    def fit(taken: np.ndarray, items: tuple[str, ...], topics: int, seed: int, before: Themes | None = None) -> Themes:
        """From people × items (non-negative); topics that `before` knew keep place and name."""
        import numpy as np
        from sklearn.decomposition import NMF

        reach = inverse_reach(taken)
        model = NMF(topics, init="nndsvda", random_state=seed, max_iter=400, tol=1e-4)
        model.fit(_rows(taken, reach))
        weight = model.components_ / np.maximum(np.linalg.norm(model.components_, axis=1, keepdims=True), 1e-12)
        order = np.argsort(-_loadings(_rows(taken, reach), weight).sum(axis=0), kind="stable")
        weight = weight[order]
        names = [_name(row, items) for row in weight]
        if before is not None:
            names = _inherited(weight, items, names, before)
        return Themes(items, tuple(_told_apart(names)), weight, reach)

    def shares(self, taken: np.ndarray) -> np.ndarray:
        """How much of each person's taste is each topic; rows sum to 1, evenly where nothing is known."""
        import numpy as np

        found = _loadings(_rows(taken, self.reach), self.weight)
        total = found.sum(axis=1, keepdims=True)
        return np.where(total > 0, found / np.maximum(total, 1e-12), 1 / len(self.names))


def inverse_reach(taken: np.ndarray) -> np.ndarray:
    """What everybody takes says little of anybody: log of people over people who take it, per item."""
    import numpy as np

    return np.log((1 + len(taken)) / (1 + (taken > 0).sum(axis=0))) + 0.1


def _rows(taken: np.ndarray, reach: np.ndarray) -> np.ndarray:
    import numpy as np

    scaled = np.log1p(taken) * reach
    return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)


def _loadings(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Non-negative least squares of rows on topics, by multiplicative steps from an even start."""
    import numpy as np

    found = np.full((len(rows), len(weight)), 1.0)
    wanted, gram = rows @ weight.T, weight @ weight.T
    for _ in range(ROUNDS):
        found = found * wanted / np.maximum(found @ gram, 1e-12)
    return found


def _name(row: np.ndarray, items: tuple[str, ...]) -> str:
    import numpy as np

    return " + ".join(items[place] for place in np.argsort(-row, kind="stable")[:2])


def _inherited(weight: np.ndarray, items: tuple[str, ...], names: list[str], before: Themes) -> list[str]:
    """Names, where a topic is one that was known before: its old name. Each old topic is inherited at most once."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    place = {item: number for number, item in enumerate(before.items)}
    old = np.zeros((len(before.names), len(items)))
    for number, item in enumerate(items):
        if item in place:
            old[:, number] = before.weight[:, place[item]]
    likeness = weight @ (old / np.maximum(np.linalg.norm(old, axis=1, keepdims=True), 1e-12)).T
    kept = list(names)
    for new, known in zip(*linear_sum_assignment(-likeness), strict=True):
        if likeness[new, known] >= ALIKE:
            kept[new] = before.names[known]
    return kept


def _told_apart(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    told = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return told

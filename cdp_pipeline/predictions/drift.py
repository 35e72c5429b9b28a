"""Whether the people to be scored are still like those a model was proven on: the population stability index.

Only what hardly moved between a model's own windows is watched: how long ago the last order was swings by itself (.4 in
a healthy winter), how large orders are does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PARTS = 10
STILL = 0.02
"""Most a watched figure moved between the model's own windows. So watched, nothing moved by more than .02 in eight
healthy months of Online Retail II, and by .23 with a month's amounts x 100. At .05 orders_90d would be watched, which
moves by .24 after Christmas."""
MOVED = 0.1
"""Beyond this, what is watched is no longer what the model learned from."""


@dataclass(frozen=True)
class Reference:
    """The tenths of a figure on the window a model was tested on: their edges, and the share of people in each."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    people: int

    @staticmethod
    def of(values: np.ndarray) -> Reference:
        import numpy as np

        known = values[~np.isnan(values)]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, PARTS + 1)[1:-1])) if len(known) else np.array([])
        return Reference(tuple(edges.tolist()), tuple(_shares(values, edges).tolist()), len(values))

    def index(self, values: np.ndarray) -> float:
        """Sum over the tenths (and the unknown) of (share now - share then) x ln(share now / share then).

        0 where nothing moved; .1 is usually called a small shift, .25 a large one. Half a person is added to each
        part, so that an empty one does not weigh without end, and what chance alone gives among so few is taken off.
        """
        import numpy as np

        if len(values) == 0:
            return 0.0
        then, now = np.array(self.shares), _shares(values, np.array(self.edges))
        by_chance = (len(now) - 1) * (1 / max(self.people, 1) + 1 / len(values))
        return max(0.0, float(((now - then) * np.log(now / then)).sum()) - by_chance)


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    import numpy as np

    unknown = np.isnan(values)
    counts = np.bincount(np.searchsorted(edges, values[~unknown], side="right"), minlength=len(edges) + 1)
    people = np.append(counts, unknown.sum()) + 0.5
    return people / people.sum()


def watched(windows: list[Mapping[str, np.ndarray]]) -> dict[str, Reference]:
    """References on the newest of a model's own windows (oldest first), of the figures that are still over them all."""
    *earlier, newest = windows
    references = {name: Reference.of(values) for name, values in newest.items()}
    return {
        name: reference
        for name, reference in references.items()
        if earlier and max(reference.index(window[name]) for window in earlier) <= STILL
    }


def drift(references: Mapping[str, Reference], now: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The index of every watched figure, most moved first."""
    found = {name: reference.index(now[name]) for name, reference in references.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))

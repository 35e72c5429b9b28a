"""The estimator of the best hour: a person's own hours, drawn towards everybody's and smoothed around the clock.

Plain numpy over people × 24 counts; where they come from is timing.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PULLS, WIDTHS = (1.0, 2.5, 5.0, 10.0, 20.0), (0.75, 1.0, 1.5, 2.0)
"""How many events of everybody's stand behind a person's own; how many hours wide an event is smoothed."""


@dataclass(frozen=True)
class Hours:
    """usual: everybody's share per hour. memory: which of the counts are heard, by how fast they fade."""

    usual: np.ndarray
    memory: str
    pull: float
    width: float

    @staticmethod
    def fit(counts: dict[str, np.ndarray], happened: np.ndarray, newest: np.ndarray) -> Hours:
        """The memory, pull and width under which what `happened` (people × 24) had been least of a surprise.

        `counts` are the people's events before, per memory, the fastest to fade last. What is usual is told by the
        rows that `newest` marks: first without what happened, to choose; then with it, for the days ahead.
        """
        fastest = next(reversed(counts.values()))[newest].sum(axis=0)
        usual = _shares(fastest)
        best = min(
            (surprise(Hours(usual, memory, pull, width).probability(past), happened), memory, pull, width)
            for (memory, past), pull, width in product(counts.items(), PULLS, WIDTHS)
        )
        return Hours(_shares(fastest + happened[newest].sum(axis=0)), *best[1:])

    def probability(self, counts: np.ndarray) -> np.ndarray:
        """The chance that a person's next event falls into each hour; rows sum to 1.

        Both own and usual counts are smoothed, and their ratio is laid on what is usual, unsmoothed: a shop that closes
        at eight stays closed, however wide the smoothing.
        """
        kernel = around_the_clock(self.width)
        near = self.usual @ kernel
        times_usual = (counts @ kernel + self.pull * near) / ((counts.sum(axis=1, keepdims=True) + self.pull) * near)
        chance = self.usual * times_usual
        return chance / chance.sum(axis=1, keepdims=True)


def _shares(counts: np.ndarray) -> np.ndarray:
    return (counts + 0.5) / (counts + 0.5).sum()


def around_the_clock(width: float) -> np.ndarray:
    """A 24 × 24 matrix that spreads a count over its neighbouring hours as a bell of this width; 23 is beside 0."""
    import numpy as np

    apart = np.minimum(np.arange(24), 24 - np.arange(24))
    bell = np.exp(-0.5 * (apart / width) ** 2)
    return np.stack([np.roll(bell / bell.sum(), hour) for hour in range(24)])


def surprise(chance: np.ndarray, happened: np.ndarray) -> float:
    """Mean log-loss per event."""
    import numpy as np

    return float(-(happened * np.log(chance)).sum() / happened.sum())


def hit(chance: np.ndarray, happened: np.ndarray, best: int) -> float:
    """The share of events that fall into the person's `best` likeliest hours."""
    import numpy as np

    top = np.argsort(-chance, axis=1, kind="stable")[:, :best]
    return float(np.take_along_axis(happened, top, axis=1).sum() / happened.sum())

"""What levels of agreement are worth, and the weight of evidence of pairs: arithmetic on numbers, no engine.

Weights are in bits, log2 of the odds of a match: 0 is even, 10 a thousand to one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FLOOR = 1e-6
"""The least m of a level: nothing is impossible."""


def chance(bits: np.ndarray) -> np.ndarray:
    """Probability of a match from its weight in bits."""
    import numpy as np

    return 1 / (1 + np.exp2(-np.clip(bits, -60, 60)))


GRADES = {5: 0.001, 4: 0.01, 3: 0.05, 2: 0.2, 1: 0.5}
"""Grade → the share of false matches it may hold: 5 is certain, 1 likelier than not."""


def grade(bits: np.ndarray) -> np.ndarray:
    """5 to 1 by the chance of a false match; 0 for what is likelier not a match."""
    import numpy as np

    least = sorted(math.log2((1 - false) / false) for false in GRADES.values())
    return np.where(bits > 0, np.searchsorted(least, bits, side="right"), 0)


@dataclass(frozen=True)
class Worth:
    """m and u of every comparison by level (0 is different, the highest the same), and the share of matches."""

    m: Sequence[np.ndarray]
    u: Sequence[np.ndarray]
    share: float

    @staticmethod
    def of(settings: Mapping[str, Any]) -> Worth:
        import numpy as np

        m, u = (
            [np.array([level[name] for level in one["comparison_levels"][:0:-1]]) for one in settings["comparisons"]]
            for name in ("m_probability", "u_probability")
        )
        return Worth(m, u, settings["probability_two_random_records_match"])

    @property
    def prior(self) -> float:
        """The share of matches in bits."""
        return math.log2(self.share / (1 - self.share))

    @staticmethod
    def bits(m: np.ndarray, u: np.ndarray) -> list[float]:
        """The weight of each level, before rarity."""
        import numpy as np

        return np.log2(m / u).tolist()

    def ordered(self) -> Worth:
        """No closer agreement counts less than a farther one: levels out of order are taken together (Ayer 1955)."""
        import numpy as np

        ms = []
        for m, u in zip(self.m, self.u, strict=True):
            groups: list[list[int]] = []
            for level in range(len(m)):
                groups.append([level])
                while len(groups) > 1 and _ratio(m, u, groups[-2]) > _ratio(m, u, groups[-1]):
                    last = groups.pop()
                    groups[-1] += last
            ms.append(np.concatenate([u[group] * _ratio(m, u, group) for group in groups]))
        return replace(self, m=ms)

    def into(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Splink's settings with these numbers, rounded so that the order in which they were summed does not show."""
        comparisons = [
            one | {
                "comparison_levels": [
                    one["comparison_levels"][0],
                    *(
                        level | {"m_probability": float(f"{m:.6g}"), "u_probability": float(f"{u:.6g}")}
                        for level, m, u in zip(one["comparison_levels"][1:], ms[::-1], us[::-1], strict=True)
                    ),
                ]
            }
            for one, ms, us in zip(settings["comparisons"], self.m, self.u, strict=True)
        ]  # fmt: skip
        share = float(f"{self.share:.6g}")
        return {**settings, "comparisons": comparisons, "probability_two_random_records_match": share}


def _ratio(m: np.ndarray, u: np.ndarray, levels: list[int]) -> float:
    return float(m[levels].sum() / u[levels].sum())


@dataclass(frozen=True)
class Patterns:
    """Pairs of rows; per comparison their level (-1: not known) and, where rarity counts, log2(1/frequency)."""

    left: np.ndarray
    right: np.ndarray
    level: Sequence[np.ndarray]
    rarity: Sequence[np.ndarray]

    def evidence(self, worth: Worth) -> np.ndarray:
        """Pairs × comparisons in bits: log2(m/u), or log2(m/frequency) where rarity counts; NaN where not known."""
        import numpy as np

        columns = []
        for level, rarity, m, u in zip(self.level, self.rarity, worth.m, worth.u, strict=True):
            # One value more at the end, for level -1.
            common, rare = np.r_[np.log2(m / u), np.nan][level], np.r_[np.log2(m), np.nan][level] + rarity
            columns.append(np.where(np.isnan(rarity), common, rare).astype(np.float32))
        return np.column_stack(columns)

    def weight(self, worth: Worth) -> np.ndarray:
        """The evidence and the prior together, in bits."""
        import numpy as np

        return np.asarray(np.nansum(self.evidence(worth), axis=1, dtype=np.float64) + worth.prior)

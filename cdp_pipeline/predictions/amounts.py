"""How good foreseen amounts are, in plain numpy: ranking by Gini, total, and whether intervals hold.

Absolute error is shown and never judged by: most people bring nothing, so foreseeing nothing would win it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_pipeline.predictions.metrics import RESAMPLES

if TYPE_CHECKING:
    import numpy as np


class Concentration:
    """People in the order of a score, sorted once, so that its Gini can be had for many weightings of them."""

    def __init__(self, amount: np.ndarray, score: np.ndarray) -> None:
        import numpy as np

        self.order = np.argsort(-score, kind="stable")
        self.amount, score = amount[self.order], score[self.order]
        self.starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])

    def area(self, weight: np.ndarray) -> float:
        """Between the curve of the amount found (best scores first, equal ones together) and a random order."""
        import numpy as np

        weight = weight[self.order]
        people = np.add.reduceat(weight, self.starts)
        amount = np.add.reduceat(weight * self.amount, self.starts)
        found = np.cumsum(amount)
        return float((people * (found - amount / 2)).sum() / (people.sum() * found[-1]) - 0.5)


def gini(amount: np.ndarray, score: np.ndarray) -> float:
    """How well a score ranks people by what they brought: 0 at random, 1 as the amounts themselves."""
    import numpy as np

    everybody = np.ones(len(amount))
    best = Concentration(amount, amount).area(everybody)
    return Concentration(amount, score).area(everybody) / best if best > 0 else float("nan")


def captured(amount: np.ndarray, score: np.ndarray, share: float) -> float:
    """The part of the whole amount that the best `share` of people bring."""
    import numpy as np

    best = np.argsort(-score, kind="stable")[: max(1, round(len(score) * share))]
    return float(amount[best].sum() / amount.sum())


def calibration(amount: np.ndarray, score: np.ndarray, groups: int = 10) -> list[tuple[float, float, int]]:
    """(mean foreseen, mean that came, people) per tenth of people, lowest scores first."""
    import numpy as np

    tenths = np.array_split(np.argsort(score, kind="stable"), min(groups, len(score)))
    return [(float(score[g].mean()), float(amount[g].mean()), len(g)) for g in tenths]


def realised(label: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """How good the amounts foreseen on a day proved to be; what needs an amount only where something came."""
    import numpy as np

    figures = {"mean_amount": float(label.mean()), "mae": float(np.abs(label - score).mean())}
    if label.sum() > 0:
        figures |= {
            "total_ratio": float(score.sum() / label.sum()),
            "gini": gini(label, score),
            "captured_10": captured(label, score, 0.1),
        }
    return figures


def measure_amounts(
    amount: np.ndarray, score: np.ndarray, low: np.ndarray, high: np.ndarray, rivals: dict[str, np.ndarray], seed: int
) -> dict[str, float]:
    """Every metric of `score` on one window, beside rivals; `*_low` and `*_high` are 95 % bootstrap bounds.

    `total_ratio` is what was foreseen over what came, `coverage` the share of people within [low, high].
    """
    import numpy as np

    total = amount.sum()
    measured = {
        "people": float(len(amount)),
        "mean_amount": float(amount.mean()),
        "mean_score": float(score.mean()),
        "total_ratio": float(score.sum() / total),
        "gini": gini(amount, score),
        "captured_10": captured(amount, score, 0.1),
        "mae": float(np.abs(amount - score).mean()),
        "coverage": float(((amount >= low) & (amount <= high)).mean()),
        "interval_width": float((high - low).mean()),
    }
    random = np.random.default_rng(seed)
    best, own = Concentration(amount, amount), Concentration(amount, score)
    others = {rival: Concentration(amount, other) for rival, other in rivals.items()}
    resampled: dict[str, list[float]] = {
        name: [] for name in ("gini", "total_ratio", *(f"gain_over_{rival}" for rival in rivals))
    }
    for _ in range(RESAMPLES):
        weight = np.bincount(random.integers(0, len(amount), len(amount)), minlength=len(amount)).astype(float)
        whole = best.area(weight)
        resampled["gini"].append(own.area(weight) / whole)
        resampled["total_ratio"].append(float((weight * score).sum() / (weight * amount).sum()))
        for rival, other in others.items():
            resampled[f"gain_over_{rival}"].append(resampled["gini"][-1] - other.area(weight) / whole)
    for rival, other_score in rivals.items():
        measured[f"{rival}_gini"] = gini(amount, other_score)
        measured[f"{rival}_total_ratio"] = float(other_score.sum() / total)
        measured[f"gain_over_{rival}"] = measured["gini"] - measured[f"{rival}_gini"]
    for name, values in resampled.items():
        measured[f"{name}_low"], measured[f"{name}_high"] = (float(v) for v in np.nanquantile(values, (0.025, 0.975)))
    return measured

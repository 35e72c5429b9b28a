"""What contacting people in some order brings, in plain numpy: Qini, effects and how sure we are of them.

`treated` and `label` are 0 or 1 per row; rows of both arms come from one randomised draw. Estimators are in effects.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 300
SHARE = 0.3
"""The share of people of whom targeting is asked whether it brings more per contact than contacting everybody."""


class Order:
    """Rows from the best score to the worst, sorted once, so that their Qini can be had for many weightings."""

    def __init__(self, label: np.ndarray, treated: np.ndarray, score: np.ndarray) -> None:
        import numpy as np

        self.order = np.argsort(-score, kind="stable")
        self.treated, self.hits = treated[self.order], label[self.order]
        score = score[self.order]
        self.ends = np.flatnonzero(np.r_[score[1:] != score[:-1], True])

    def curve(self, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(people contacted, what it brought more than no contact), from nobody to all; equal scores go together.

        Among the k best it is treated hits - control hits × treated / control (Radcliffe 2007, as scikit-uplift has
        it: 0 where nobody is in control).
        """
        import numpy as np

        weight = np.ones(len(self.order)) if weight is None else weight[self.order]
        people, given = np.cumsum(weight)[self.ends], np.cumsum(weight * self.treated)[self.ends]
        both = np.cumsum(weight * self.hits)[self.ends]
        hits = np.cumsum(weight * self.hits * self.treated)[self.ends]
        left = people - given
        gained = hits - (both - hits) * np.divide(given, left, out=np.zeros(len(left)), where=left > 0)
        return np.r_[0, people], np.r_[0, gained]


def over_random(people: np.ndarray, gained: np.ndarray) -> float:
    """Area between a curve and the straight line to its end."""
    import numpy as np

    return float(np.trapezoid(gained, people) - people[-1] * gained[-1] / 2)


class Qini:
    """The Qini of one ranking: its area over a random order, as a share of what a perfect order would have.

    Perfect is to contact first who were treated and did it, last who did it untreated (scikit-uplift's
    `qini_auc_score` with negative effects). 0 is random; below it people are contacted in the wrong order.
    """

    def __init__(self, label: np.ndarray, treated: np.ndarray, score: np.ndarray) -> None:
        self.own = Order(label, treated, score)
        self.perfect = Order(label, treated, label * (2 * treated - 1))

    def of(self, weight: np.ndarray | None = None) -> float:
        best = over_random(*self.perfect.curve(weight))
        return over_random(*self.own.curve(weight)) / best if best else float("nan")


def effect(label: np.ndarray, treated: np.ndarray, weight: np.ndarray) -> float:
    """How much likelier it is among the treated than among control, rows weighted."""
    return _rate(label, weight * treated) - _rate(label, weight * (1 - treated))


def best(score: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Which rows are the best `share`, 0 or 1; at its edge equal scores count in part, as a random draw of them."""
    import numpy as np

    size = len(score) * share
    edge = np.partition(score, len(score) - max(1, round(size)))[len(score) - max(1, round(size))]
    above, at = score > edge, score == edge
    return above + at * max(0.0, size - above.sum()) / at.sum()


def measure_effects(
    label: np.ndarray, treated: np.ndarray, score: np.ndarray, people: np.ndarray, rivals: dict[str, np.ndarray],
    seed: int,
) -> dict[str, float]:  # fmt: skip
    """effect (of contacting everybody), qini, gain_best (effect on the best SHARE beyond that on everybody), and Qini
    beside that of rivals; `*_low` and `*_high` are 95 % bounds of a bootstrap of people (`people`: a number for each).
    """
    import numpy as np

    rankings = {"qini": Qini(label, treated, score)}
    rankings |= {f"{name}_qini": Qini(label, treated, other) for name, other in rivals.items()}
    first = best(score)

    def figures(weight: np.ndarray) -> dict[str, float]:
        found = {"effect": effect(label, treated, weight)}
        found["gain_best"] = effect(label, treated, weight * first) - found["effect"]
        found |= {name: ranking.of(weight) for name, ranking in rankings.items()}
        return found | {f"gain_over_{name}": found["qini"] - found[f"{name}_qini"] for name in rivals}

    random, count = np.random.default_rng(seed), int(people.max()) + 1
    drawn = [
        figures(np.bincount(random.integers(0, count, count), minlength=count)[people].astype(float))
        for _ in range(RESAMPLES)
    ]
    measured = figures(np.ones(len(label)))
    for name in list(measured):
        low, high = np.nanquantile([one[name] for one in drawn], (0.025, 0.975))
        measured |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return measured | {"mean_score": float(score.mean()), "rows": float(len(label)), "people": float(count)}


def together(found: list[dict[str, float]]) -> dict[str, float]:
    """Figures of several splits of the same people as one: their means; bounds know of the luck of the splits too.

    Variance within a split (its interval) and between splits add up as Rubin (1987) adds those of imputations.
    """
    import numpy as np

    names = [name for name in found[0] if not name.endswith(("_low", "_high"))]
    joined = {name: float(np.mean([one[name] for one in found])) for name in names}
    for name in names:
        if f"{name}_low" not in found[0]:
            continue
        between = (1 + 1 / len(found)) * float(np.var([one[name] for one in found], ddof=1))
        for end in ("low", "high"):
            away = float(np.mean([one[f"{name}_{end}"] - one[name] for one in found]))
            joined[f"{name}_{end}"] = joined[name] + float(np.sign(away) * np.hypot(away, 1.96 * np.sqrt(between)))
    return joined


def sample_ratio(treated: np.ndarray, share: float) -> float:
    """How likely a share of treated so far from the one meant comes by chance (chi-square with one degree)."""
    from math import erfc, sqrt

    away = abs(float(treated.sum()) - len(treated) * share)
    return erfc(away / sqrt(2 * len(treated) * share * (1 - share)))


def chance_area(treated: np.ndarray) -> float:
    """Standard deviation of the AUC of a score that knows nothing of the arm (Mann-Whitney)."""
    given = float(treated.sum())
    left = len(treated) - given
    return float(((given + left + 1) / (12 * given * left)) ** 0.5)


def _rate(label: np.ndarray, weight: np.ndarray) -> float:
    total = weight.sum()
    return float((weight * label).sum() / total) if total else float("nan")

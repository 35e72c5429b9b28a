"""How good probabilities are, in plain numpy: ranking, calibration, lift, and how sure we are of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 200


def ranking(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: how often somebody for whom it happened is ranked above one for whom it did not."""
    import numpy as np

    return Ranking(label, score).area(np.ones(len(label)))


class Ranking:
    """A ranking sorted once, so that its area can be had for many weightings of the same people."""

    def __init__(self, label: np.ndarray, score: np.ndarray) -> None:
        import numpy as np

        self.order = np.argsort(score, kind="stable")
        self.label, score = label[self.order], score[self.order]
        self.starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])

    def area(self, weight: np.ndarray) -> float:
        import numpy as np

        weight = weight[self.order]
        positive = np.add.reduceat(weight * self.label, self.starts)
        negative = np.add.reduceat(weight * (1 - self.label), self.starts)
        pairs = positive.sum() * negative.sum()
        below = np.cumsum(negative) - negative
        return float((positive * (below + negative / 2)).sum() / pairs) if pairs else float("nan")


def average_precision(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the precision-recall curve, equal scores taken together."""
    import numpy as np

    order = np.argsort(-score, kind="stable")
    score, label = score[order], label[order]
    ends = np.flatnonzero(np.r_[score[1:] != score[:-1], True])
    hits = np.cumsum(label)[ends]
    gained = np.diff(np.r_[0, hits])
    return float((gained * hits / (ends + 1)).sum() / label.sum())


def reliability(label: np.ndarray, score: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean score, share for whom it happened, people) per tenth of the score's range; empty ones left out."""
    import numpy as np

    which = np.minimum((score * bins).astype(int), bins - 1)
    groups = ((which == b) for b in range(bins))
    return [(float(score[g].mean()), float(label[g].mean()), int(g.sum())) for g in groups if g.any()]


def calibration_error(label: np.ndarray, score: np.ndarray) -> float:
    """Expected calibration error: how far off a promised probability is, on average over people."""
    return sum(people * abs(said - was) for said, was, people in reliability(label, score)) / len(label)


def chance_error(score: np.ndarray, bins: int = 10) -> float:
    """The calibration error that probabilities which are exactly right have all the same, among so few people."""
    import numpy as np

    which = np.minimum((score * bins).astype(int), bins - 1)
    groups = [score[which == b] for b in range(bins) if (which == b).any()]
    # The mean of |x| of a normal x is sqrt(2 / pi) times its standard deviation.
    return float(sum(np.sqrt(2 / np.pi * (g * (1 - g)).sum()) for g in groups) / len(score))


def sliced(
    label: np.ndarray, score: np.ndarray, values: list[str | None], least: int = 300
) -> dict[str, dict[str, float]]:
    """AUC and calibration of each value that at least `least` people have; largest first."""
    import numpy as np

    kept, of_each = np.array([str(value) for value in values], dtype=object), {}
    for value in set(values) - {None}:
        of_it = kept == value
        if of_it.sum() >= least:
            of_each[str(value)] = {
                "people": float(of_it.sum()),
                "auc": ranking(label[of_it], score[of_it]),
                "ece": calibration_error(label[of_it], score[of_it]),
                "ece_by_chance": chance_error(score[of_it]),
            }
    return dict(sorted(of_each.items(), key=lambda item: (-item[1]["people"], item[0])))


def lift(label: np.ndarray, score: np.ndarray, share: float = 0.1) -> float:
    """How many times the overall rate the top `share` of people reach; ties at its edge count as a random draw."""
    import numpy as np

    size = max(1, round(len(label) * share))
    edge = np.partition(score, len(score) - size)[len(score) - size]
    above, at = score > edge, score == edge
    hits = label[above].sum() + (size - above.sum()) * label[at].mean()
    return float(hits / size / label.mean())


def gains(label: np.ndarray, score: np.ndarray) -> list[float]:
    """The share of all positives found in the best 5 %, 10 %, … 100 % of people."""
    return [lift(label, score, step / 20) * max(1, round(len(label) * step / 20)) / len(label) for step in range(1, 21)]


def measure(label: np.ndarray, score: np.ndarray, rivals: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    """Every metric of `score` on one window, beside rivals; `*_low` and `*_high` are 95 % bootstrap bounds."""
    import numpy as np

    safe = np.clip(score, 1e-6, 1 - 1e-6)
    measured = {
        "people": float(len(label)),
        "positive_rate": float(label.mean()),
        "mean_score": float(score.mean()),
        "auc": ranking(label, score),
        "pr_auc": average_precision(label, score),
        "brier": float(((score - label) ** 2).mean()),
        "log_loss": float(-(label * np.log(safe) + (1 - label) * np.log(1 - safe)).mean()),
        "ece": calibration_error(label, score),
        "lift_10": lift(label, score),
    }
    random = np.random.default_rng(seed)
    own, others = Ranking(label, score), {rival: Ranking(label, other) for rival, other in rivals.items()}
    resampled: dict[str, list[float]] = {name: [] for name in ("auc", *(f"gain_over_{rival}" for rival in rivals))}
    for _ in range(RESAMPLES):
        weight = np.bincount(random.integers(0, len(label), len(label)), minlength=len(label)).astype(float)
        resampled["auc"].append(own.area(weight))
        for rival, other in others.items():
            resampled[f"gain_over_{rival}"].append(resampled["auc"][-1] - other.area(weight))
    for rival in rivals:
        measured[f"{rival}_auc"] = ranking(label, rivals[rival])
        measured[f"gain_over_{rival}"] = measured["auc"] - measured[f"{rival}_auc"]
    for name, values in resampled.items():
        measured[f"{name}_low"], measured[f"{name}_high"] = (float(v) for v in np.nanquantile(values, (0.025, 0.975)))
    return measured


def realised(label: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """How good probabilities proved: rate, auc, ece, lift_10, brier; those that need both outcomes only with both."""
    figures = {
        "rate": float(label.mean()),
        "ece": calibration_error(label, score),
        "brier": float(((score - label) ** 2).mean()),
    }
    if 0 < label.mean() < 1:
        figures |= {"auc": ranking(label, score), "lift_10": lift(label, score)}
    return figures

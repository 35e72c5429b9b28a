"""A regularised logistic regression by Newton's method in plain numpy: the same weights on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

STEPS, ENOUGH = 25, 1e-7


@dataclass(frozen=True)
class Logistic:
    """Log-odds as a weighted sum of standardised features; a constant one has no weight."""

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    intercept: float

    @staticmethod
    def fit(values: np.ndarray, label: np.ndarray, penalty: float) -> Logistic:
        """Least log-loss plus penalty / 2 × the squared weights; the intercept is free. Labels are 0 or 1, of both."""
        import numpy as np

        mean, scale = values.mean(axis=0), values.std(axis=0)
        scale[scale < 1e-9] = np.inf
        wide = np.column_stack([(values - mean) / scale, np.ones(len(values))])
        ridge = np.diag(np.r_[np.full(values.shape[1], penalty), 0.0])
        rate = label.mean()
        weight = np.r_[np.zeros(values.shape[1]), np.log(rate / (1 - rate))]
        loss = _loss(wide, label, weight, ridge)
        for _ in range(STEPS):
            chance = sigmoid(wide @ weight)
            slope = wide.T @ (chance - label) + ridge @ weight
            curve = (wide * (chance * (1 - chance))[:, None]).T @ wide + ridge
            step = np.linalg.lstsq(curve, slope, rcond=None)[0]
            # Halved until it helps: a full step may overshoot where the classes are nearly apart.
            while (better := _loss(wide, label, weight - step, ridge)) > loss + 1e-12 and np.abs(step).max() > ENOUGH:
                step = step / 2
            weight, loss = weight - step, better
            if np.abs(step).max() < ENOUGH:
                break
        return Logistic(mean, scale, weight[:-1], float(weight[-1]))

    def contributions(self, values: np.ndarray) -> np.ndarray:
        """What each feature adds to the log-odds, against the average row."""
        return (values - self.mean) / self.scale * self.weight

    def probability(self, values: np.ndarray) -> np.ndarray:
        return sigmoid((values - self.mean) / self.scale @ self.weight + self.intercept)


def sigmoid(odds: np.ndarray) -> np.ndarray:
    import numpy as np

    return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))


def _loss(wide: np.ndarray, label: np.ndarray, weight: np.ndarray, ridge: np.ndarray) -> float:
    import numpy as np

    odds = wide @ weight
    return float(np.logaddexp(0, odds).sum() - label @ odds + weight @ ridge @ weight / 2)

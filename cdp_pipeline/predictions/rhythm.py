"""BG/NBD (Fader, Hardie, Lee 2005): what a person's own buying rhythm says, from recency, frequency and age alone.

It needs no labels, so it is both a feature of every model and a baseline that models should beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

WEEK = 7.0


@dataclass(frozen=True)
class Rhythm:
    """While active, people act at rates ~ Gamma(r, alpha) per week; after each act they stop for good ~ Beta(a, b)."""

    r: float
    alpha: float
    a: float
    b: float

    @staticmethod
    def fit(recency: np.ndarray, times: np.ndarray, since_first: np.ndarray) -> Rhythm:
        """Maximum likelihood, from days since the last act, number of acts, and days since the first (NaN: never)."""
        import numpy as np
        from scipy.optimize import minimize

        acted = ~np.isnan(recency)
        x, last, age = _counts(recency[acted], times[acted], since_first[acted])
        # People with the same history are one row with a weight: thousands instead of millions.
        history, people = np.unique(np.column_stack([x, last, age]), axis=0, return_counts=True)
        x, last, age = history.T

        if len(history) == 0:
            return Rhythm(1.0, 1.0, 1.0, 1.0)

        def loss(logs: np.ndarray) -> float:
            r, alpha, a, b = np.exp(logs)
            # A mild pull towards 1 keeps parameters finite where the data leave them open.
            return -float((people * _log_likelihood(x, last, age, r, alpha, a, b)).mean()) + 1e-4 * float(logs @ logs)

        found = minimize(loss, np.zeros(4), method="L-BFGS-B", bounds=[(-7, 7)] * 4)
        return Rhythm(*(float(value) for value in np.exp(found.x)))

    def probability(
        self, recency: np.ndarray, times: np.ndarray, since_first: np.ndarray, *, horizon_days: int
    ) -> np.ndarray:
        """That the person acts at least once within the horizon; 0 for those who never did."""
        import numpy as np

        x, last, age = _counts(recency, times, since_first)
        grown = self.r + x
        odds_gone = np.where(x > 0, self.a / (self.b + np.maximum(x, 1) - 1), 0) * np.exp(
            grown * np.log((self.alpha + age) / (self.alpha + last))
        )
        silent = ((self.alpha + age) / (self.alpha + age + horizon_days / WEEK)) ** grown
        return np.where(np.isnan(recency), 0.0, (1 - silent) / (1 + odds_gone))


def _counts(
    recency: np.ndarray, times: np.ndarray, since_first: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Repeat acts, and the weeks from the first to the last act and to now."""
    import numpy as np

    age = np.nan_to_num(since_first) / WEEK
    return np.maximum(np.nan_to_num(times) - 1, 0), age - np.nan_to_num(recency) / WEEK, age


def _log_likelihood(
    x: np.ndarray, last: np.ndarray, age: np.ndarray, r: float, alpha: float, a: float, b: float
) -> np.ndarray:
    import numpy as np
    from scipy.special import betaln, gammaln

    rate = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    stays = betaln(a, b + x) - betaln(a, b) - (r + x) * np.log(alpha + age)
    repeat = np.maximum(x, 1)
    stops = np.where(x > 0, betaln(a + 1, b + repeat - 1) - betaln(a, b) - (r + x) * np.log(alpha + last), -np.inf)
    return rate + np.logaddexp(stays, stops)

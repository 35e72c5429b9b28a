"""How often people act, from the days of their acts alone: BG/NBD (Fader, Hardie, Lee 2005), Pareto/NBD (Schmittlein,
Morrison, Colombo 1987). No labels needed, so each is a feature of models and a baseline that they should beat.

What an act is worth is spend.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

WEEK = 7.0
PULL = 1e-7
"""Pull of log-parameters towards 0, per person: far below what data say, it keeps finite what they leave open."""


@dataclass(frozen=True)
class Rhythm:
    """BG/NBD: while active, people act at rates ~ Gamma(r, alpha) per week; after each act they stop ~ Beta(a, b)."""

    r: float
    alpha: float
    a: float
    b: float

    @staticmethod
    def fit(recency: np.ndarray, times: np.ndarray, since_first: np.ndarray) -> Rhythm:
        """Maximum likelihood, from days since the last act, number of acts, and days since the first (NaN: never)."""
        return Rhythm(*_most_likely(recency, times, since_first, _log_likelihood))

    def log_likelihood(self, recency: np.ndarray, times: np.ndarray, since_first: np.ndarray) -> np.ndarray:
        return _log_likelihood(*_counts(recency, times, since_first), self.r, self.alpha, self.a, self.b)

    def active(self, recency: np.ndarray, times: np.ndarray, since_first: np.ndarray) -> np.ndarray:
        """The chance that the person has not stopped for good; 0 for those who never acted."""
        import numpy as np

        x, last, age = _counts(recency, times, since_first)
        odds_gone = np.where(x > 0, self.a / (self.b + np.maximum(x, 1) - 1), 0) * np.exp(
            (self.r + x) * np.log((self.alpha + age) / (self.alpha + last))
        )
        return np.where(np.isnan(recency), 0.0, 1 / (1 + odds_gone))

    def probability(
        self, recency: np.ndarray, times: np.ndarray, since_first: np.ndarray, *, horizon_days: float
    ) -> np.ndarray:
        """That the person acts at least once within the horizon; 0 for those who never did."""
        x, _, age = _counts(recency, times, since_first)
        silent = ((self.alpha + age) / (self.alpha + age + horizon_days / WEEK)) ** (self.r + x)
        return self.active(recency, times, since_first) * (1 - silent)

    def expected(
        self, recency: np.ndarray, times: np.ndarray, since_first: np.ndarray, *, horizon_days: float | np.ndarray
    ) -> np.ndarray:
        """How many acts within the horizon, of all or of each (equation 10 of the paper); 0 for who never acted."""
        import numpy as np
        from scipy.special import hyp2f1

        x, _, age = _counts(recency, times, since_first)
        # The formula divides by a - 1 and has a pole at a + b + x = 1; both can be lifted, so we step beside them.
        a = self.a + (1e-5 if abs(self.a - 1) < 1e-5 else 0)
        c = a + self.b + x - 1
        c = np.where(np.abs(c) < 1e-5, 1e-5, c)
        weeks = horizon_days / WEEK
        z = weeks / (self.alpha + age + weeks)
        # Euler's transformation of the paper's 2F1: nothing in it grows with the number of acts.
        rest = (1 - z) ** (a - 1) * hyp2f1(c - self.r - x, a - 1, c, z)
        return self.active(recency, times, since_first) * c / (a - 1) * (1 - rest)


@dataclass(frozen=True)
class ParetoRhythm:
    """Pareto/NBD: people act at rates ~ Gamma(r, alpha) per week and stop at any moment, at rates ~ Gamma(s, beta)."""

    r: float
    alpha: float
    s: float
    beta: float

    @staticmethod
    def fit(recency: np.ndarray, times: np.ndarray, since_first: np.ndarray) -> ParetoRhythm:
        """Maximum likelihood, from the same three histories as Rhythm."""
        return ParetoRhythm(*_most_likely(recency, times, since_first, _pareto_log_likelihood))

    def log_likelihood(self, recency: np.ndarray, times: np.ndarray, since_first: np.ndarray) -> np.ndarray:
        return _pareto_log_likelihood(*_counts(recency, times, since_first), self.r, self.alpha, self.s, self.beta)

    def active(self, recency: np.ndarray, times: np.ndarray, since_first: np.ndarray) -> np.ndarray:
        """The chance that the person has not stopped for good; 0 for those who never acted."""
        import numpy as np

        x, last, age = _counts(recency, times, since_first)
        shared = _pareto_shared(x, self.r, self.alpha)
        going_on = (self.r + x) * np.log(self.alpha + age) + self.s * np.log(self.beta + age)
        alive = shared + self.s * np.log(self.beta) - going_on
        whole = _pareto_log_likelihood(x, last, age, self.r, self.alpha, self.s, self.beta)
        return np.where(np.isnan(recency), 0.0, np.exp(np.minimum(alive - whole, 0)))

    def expected(
        self, recency: np.ndarray, times: np.ndarray, since_first: np.ndarray, *, horizon_days: float
    ) -> np.ndarray:
        """How many acts within the horizon (Fader and Hardie 2005, "A note on deriving the Pareto/NBD model")."""
        import numpy as np

        x, _, age = _counts(recency, times, since_first)
        s = self.s + (1e-5 if abs(self.s - 1) < 1e-5 else 0)
        shrinks = np.log((self.beta + age) / (self.beta + age + horizon_days / WEEK))
        weeks_active = (self.beta + age) / (s - 1) * -np.expm1((s - 1) * shrinks)
        return self.active(recency, times, since_first) * (self.r + x) / (self.alpha + age) * weeks_active


def _most_likely(
    recency: np.ndarray, times: np.ndarray, since_first: np.ndarray, log_likelihood: Callable[..., np.ndarray]
) -> tuple[float, ...]:
    """The four positive parameters under which these histories are most likely."""
    import numpy as np
    from scipy.optimize import minimize

    acted = ~np.isnan(recency)
    # People with the same history are one row with a weight: thousands instead of millions.
    history, people = np.unique(
        np.column_stack(_counts(recency[acted], times[acted], since_first[acted])), axis=0, return_counts=True
    )
    if len(history) == 0:
        return (1.0, 1.0, 1.0, 1.0)
    share = people / people.sum()

    def loss(logs: np.ndarray) -> float:
        return -float(share @ log_likelihood(*history.T, *np.exp(logs))) + PULL * float(logs @ logs)

    exact = {"ftol": 1e-14, "gtol": 1e-8}
    found = minimize(loss, np.zeros(4), method="L-BFGS-B", bounds=[(-7, 7)] * 4, options=exact)
    return tuple(float(value) for value in np.exp(found.x))


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
    """Of one person each under BG/NBD (equation 6 of the paper)."""
    import numpy as np
    from scipy.special import betaln, gammaln

    rate = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    stays = betaln(a, b + x) - betaln(a, b) - (r + x) * np.log(alpha + age)
    repeat = np.maximum(x, 1)
    stops = np.where(x > 0, betaln(a + 1, b + repeat - 1) - betaln(a, b) - (r + x) * np.log(alpha + last), -np.inf)
    return rate + np.logaddexp(stays, stops)


def _pareto_shared(x: np.ndarray, r: float, alpha: float) -> np.ndarray:
    import numpy as np
    from scipy.special import gammaln

    return gammaln(r + x) - gammaln(r) + r * np.log(alpha)


def _pareto_log_likelihood(
    x: np.ndarray, last: np.ndarray, age: np.ndarray, r: float, alpha: float, s: float, beta: float
) -> np.ndarray:
    """Of one person each under Pareto/NBD (Fader and Hardie 2005, equations 20 to 22)."""
    import numpy as np
    from scipy.special import hyp2f1

    total = r + s + x
    upper = max(alpha, beta)
    b = s + 1 if alpha >= beta else r + x

    def tail(weeks: np.ndarray) -> np.ndarray:
        """The integral over every moment of stopping after `weeks`, up to a shared factor."""
        return np.log(hyp2f1(total, b, total + 1, abs(alpha - beta) / (upper + weeks))) - total * np.log(upper + weeks)

    stopped, never = tail(last), -(r + x) * np.log(alpha + age) - s * np.log(beta + age)
    between = stopped + np.log1p(-np.exp(np.minimum(tail(age) - stopped, -1e-12)))
    ended = np.where(age > last, np.log(s / total) + between, -np.inf)
    return _pareto_shared(x, r, alpha) + s * np.log(beta) + np.logaddexp(never, ended)

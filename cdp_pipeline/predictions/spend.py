"""Gamma-Gamma (Fader, Hardie, Lee 2005): what one act of a person is worth, from how many they made and their mean.

The fewer acts, the more the answer is everybody's mean. How often people act is rhythm.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_pipeline.predictions.rhythm import PULL

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Spend:
    """Amounts ~ Gamma(p, nu) around a person's own mean, with nu ~ Gamma(q, gamma) among people."""

    p: float
    q: float
    gamma: float

    @staticmethod
    def fit(times: np.ndarray, mean: np.ndarray) -> Spend:
        """Maximum likelihood, from the number of acts and their mean amount; people with none or nothing are unseen."""
        import numpy as np
        from scipy.optimize import minimize

        seen = (times > 0) & (mean > 0)
        if not seen.any():
            return Spend(1.0, 2.0, 0.0)
        x, unit = times[seen], float(np.median(mean[seen]))
        z = mean[seen] / unit

        def loss(logs: np.ndarray) -> float:
            p, q, gamma = np.exp(logs)
            return -float(_log_likelihood(x, z, p, q, gamma).mean()) + PULL * float(logs @ logs)

        start, exact = np.log([2.0, 3.0, 1.0]), {"ftol": 1e-14, "gtol": 1e-8}
        found = minimize(loss, start, method="L-BFGS-B", bounds=[(-7, 7)] * 3, options=exact)
        p, q, gamma = (float(value) for value in np.exp(found.x))
        return Spend(p, q, gamma * unit)

    def expected(self, times: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """The mean amount of a person's coming acts (equation 5 of the note on the model, 2013); without acts of
        their own, everybody's. Where the spread among people is too wide for a mean (q <= 1) it is as of q = 1.05."""
        import numpy as np

        acts, spread = np.nan_to_num(times) * self.p, max(self.q, 1.05) - 1
        return self.p * (self.gamma + np.nan_to_num(times) * np.nan_to_num(mean)) / (spread + acts)


def _log_likelihood(x: np.ndarray, z: np.ndarray, p: float, q: float, gamma: float) -> np.ndarray:
    """Of one person each: the mean `z` of `x` acts (equation 1a of the note)."""
    import numpy as np
    from scipy.special import betaln

    px = p * x
    return -betaln(px, q) + q * np.log(gamma) + (px - 1) * np.log(z) + px * np.log(x) - (px + q) * np.log(gamma + x * z)

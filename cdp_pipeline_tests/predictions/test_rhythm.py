"""BG/NBD against the parameters its authors published, and against its own meaning."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from cdp_pipeline.predictions.rhythm import Rhythm, _counts, _log_likelihood

CDNOW = Path(os.environ.get("CDP_SHARED_DATA", "../shared/data")) / "CDNOW_sample.txt"


@pytest.mark.skipif(not CDNOW.exists(), reason=f"the CDNOW sample is not at {CDNOW} (set CDP_SHARED_DATA)")
def test_the_fit_on_cdnow_is_the_published_one() -> None:
    """Fader, Hardie and Lee (2005): r .243, alpha 4.414, a .793, b 2.426, log-likelihood -9582.4."""
    acts: dict[str, set[date]] = {}
    for line in CDNOW.read_text().splitlines():
        _, person, day, *_ = line.split()
        acts.setdefault(person, set()).add(date(int(day[:4]), int(day[4:6]), int(day[6:])))
    end = date(1997, 9, 30)
    seen = [{day for day in days if day <= end} for days in acts.values()]
    recency = np.array([(end - max(days)).days for days in seen], dtype=float)
    since_first = np.array([(end - min(days)).days for days in seen], dtype=float)
    times = np.array([len(days) for days in seen], dtype=float)
    fitted = Rhythm.fit(recency, times, since_first)
    assert (fitted.r, fitted.alpha, fitted.a, fitted.b) == pytest.approx((0.243, 4.414, 0.793, 2.426), rel=0.02)
    likelihood = _log_likelihood(*_counts(recency, times, since_first), fitted.r, fitted.alpha, fitted.a, fitted.b)
    assert likelihood.sum() == pytest.approx(-9582.4, abs=0.1)


def test_probabilities_follow_the_rhythm() -> None:
    model = Rhythm(r=0.5, alpha=5.0, a=0.8, b=2.4)

    def again(recency: float, times: float, since_first: float, days: int = 60) -> float:
        return float(model.probability(*(np.array([v]) for v in (recency, times, since_first)), horizon_days=days)[0])

    assert 0 < again(10, 5, 200, 30) < again(10, 5, 200, 60) < 1
    assert again(10, 5, 200) > again(100, 5, 200)
    assert again(10, 5, 200) > again(10, 2, 200)
    assert again(np.nan, 0, np.nan) == 0
    # Once only: nobody who never repeated can have stopped after a repeat, so only the rate speaks.
    age = 200 / 7
    assert again(200, 1, 200) == pytest.approx(1 - ((5 + age) / (5 + age + 60 / 7)) ** 0.5)


def test_people_who_never_acted_are_no_obstacle() -> None:
    never = np.full(5, np.nan)
    assert Rhythm.fit(never, np.zeros(5), never) == Rhythm(1.0, 1.0, 1.0, 1.0)

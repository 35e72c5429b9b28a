"""BG/NBD, Pareto/NBD and Gamma-Gamma against the parameters their authors published, and against their own meaning."""

from __future__ import annotations

import os
from dataclasses import astuple
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from cdp_pipeline.predictions.rhythm import ParetoRhythm, Rhythm
from cdp_pipeline.predictions.spend import Spend

CDNOW = Path(os.environ.get("CDP_SHARED_DATA", "../shared/data")) / "CDNOW_sample.txt"
on_cdnow = pytest.mark.skipif(not CDNOW.exists(), reason=f"the CDNOW sample is not at {CDNOW} (set CDP_SHARED_DATA)")
WEEKS_39 = date(1997, 9, 30)


@pytest.fixture(scope="module")
def amounts() -> list[dict[date, float]]:
    """Per customer: what they spent on each day, the purchases of one day taken together."""
    found: dict[str, dict[date, float]] = {}
    for line in CDNOW.read_text().splitlines():
        _, person, digits, _, amount = line.split()
        day, spent = date(int(digits[:4]), int(digits[4:6]), int(digits[6:])), found.setdefault(person, {})
        spent[day] = spent.get(day, 0) + float(amount)
    return list(found.values())


@pytest.fixture(scope="module")
def histories(amounts: list[dict[date, float]]) -> tuple[np.ndarray, ...]:
    """Days since the last purchase, days with one, days since the first, after 39 weeks."""
    seen = [sorted(day for day in spent if day <= WEEKS_39) for spent in amounts]
    rows = [((WEEKS_39 - days[-1]).days, len(days), (WEEKS_39 - days[0]).days) for days in seen]
    return tuple(np.array(rows, dtype=float).T)


@pytest.fixture(scope="module")
def later(amounts: list[dict[date, float]]) -> np.ndarray:
    """Purchase days in the 39 weeks after."""
    return np.array([sum(day > WEEKS_39 for day in spent) for spent in amounts])


@on_cdnow
def test_bg_nbd_on_cdnow_is_the_published_one(histories: tuple[np.ndarray, ...], later: np.ndarray) -> None:
    """Fader, Hardie and Lee (2005), table 2: r .243, alpha 4.414, a .793, b 2.426, log-likelihood -9582.4."""
    fitted = Rhythm.fit(*histories)
    assert astuple(fitted) == pytest.approx((0.243, 4.414, 0.793, 2.426), abs=0.005)
    assert fitted.log_likelihood(*histories).sum() == pytest.approx(-9582.4, abs=0.05)
    foreseen = fitted.expected(*histories, horizon_days=39 * 7)
    assert np.corrcoef(foreseen, later)[0, 1] == pytest.approx(0.626, abs=0.001)


@on_cdnow
def test_pareto_nbd_on_cdnow_is_the_published_one(histories: tuple[np.ndarray, ...], later: np.ndarray) -> None:
    """The same table: r .553, alpha 10.578, s .606, beta 11.669, log-likelihood -9595.0."""
    fitted = ParetoRhythm.fit(*histories)
    assert astuple(fitted) == pytest.approx((0.553, 10.578, 0.606, 11.669), abs=0.005)
    assert fitted.log_likelihood(*histories).sum() == pytest.approx(-9595.0, abs=0.05)
    foreseen = fitted.expected(*histories, horizon_days=39 * 7)
    assert np.corrcoef(foreseen, later)[0, 1] == pytest.approx(0.630, abs=0.001)


@on_cdnow
def test_gamma_gamma_on_cdnow_is_the_published_one(amounts: list[dict[date, float]]) -> None:
    """Fader and Hardie (2013): p 6.25, q 3.74, gamma 15.44 from the repeat purchases of 946 customers."""
    repeats = [[spent[day] for day in sorted(spent) if day <= WEEKS_39][1:] for spent in amounts]
    times = np.array([len(spent) for spent in repeats], dtype=float)
    mean = np.array([np.mean(spent) if spent else np.nan for spent in repeats])
    assert (mean > 0).sum() == 946
    fitted = Spend.fit(times, mean)
    assert astuple(fitted) == pytest.approx((6.25, 3.74, 15.44), abs=0.005)


def one(*numbers: float) -> tuple[np.ndarray, ...]:
    return tuple(np.array([number]) for number in numbers)


def test_probabilities_follow_the_rhythm() -> None:
    model = Rhythm(r=0.5, alpha=5.0, a=0.8, b=2.4)

    def again(recency: float, times: float, since_first: float, days: int = 60) -> float:
        return float(model.probability(*one(recency, times, since_first), horizon_days=days)[0])

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
    assert ParetoRhythm.fit(never, np.zeros(5), never) == ParetoRhythm(1.0, 1.0, 1.0, 1.0)
    for model in (Rhythm(1.0, 1.0, 1.0, 1.0), ParetoRhythm(1.0, 1.0, 1.0, 1.0)):
        assert model.expected(never, np.zeros(5), never, horizon_days=90).tolist() == [0] * 5
    assert Spend.fit(np.zeros(5), never).expected(np.zeros(5), never).tolist() == [0] * 5


@pytest.mark.parametrize(("recency", "times", "age"), [(3.0, 300.0, 600.0), (5.0, 4.0, 300.0), (200.0, 1.0, 200.0)])
@pytest.mark.parametrize("model", [Rhythm(0.24, 4.4, 0.8, 2.4), Rhythm(0.7, 8, 0.1, 0.3), Rhythm(1.2, 10, 1.0, 1.5)])
def test_bg_nbd_expects_what_people_drawn_from_it_do(model: Rhythm, recency: float, times: float, age: float) -> None:
    """Given what was seen, rates are Gamma(r + x, alpha + T) and chances to stop Beta(a, b + x), if still active."""
    random, weeks = np.random.default_rng(1), 90 / 7
    rate = random.gamma(model.r + times - 1, 1 / (model.alpha + age / 7), 200_000)
    stops = np.maximum(random.beta(model.a, model.b + times - 1, 200_000), 1e-300)
    acts = -np.expm1(-rate * stops * weeks) / stops
    foreseen = model.expected(*one(recency, times, age), horizon_days=90)
    assert foreseen == pytest.approx(acts.mean() * model.active(*one(recency, times, age)), rel=0.02)


def test_pareto_nbd_recovers_the_people_it_was_drawn_from() -> None:
    random, people, weeks = np.random.default_rng(2), 4000, 52.0
    rate, until = random.gamma(0.8, 1 / 6, people), random.exponential(1 / random.gamma(1.5, 1 / 20, people))
    recency, times, later = np.full(people, weeks), np.ones(people), np.zeros(people)
    for person in range(people):
        days = np.cumsum(random.exponential(1 / rate[person], 400))
        days = days[days < min(until[person], 2 * weeks)]
        before = days[days <= weeks]
        times[person] += len(before)
        later[person] = len(days) - len(before)
        recency[person] -= before[-1] if len(before) else 0
    since_first = np.full(people, weeks * 7)
    fitted = ParetoRhythm.fit(recency * 7, times, since_first)
    assert (fitted.r, fitted.alpha) == pytest.approx((0.8, 6), rel=0.15)
    active = fitted.active(recency * 7, times, since_first)
    assert active.mean() == pytest.approx((until > weeks).mean(), abs=0.03)
    foreseen = fitted.expected(recency * 7, times, since_first, horizon_days=weeks * 7)
    assert foreseen.sum() == pytest.approx(later.sum(), rel=0.08)


def test_gamma_gamma_recovers_the_amounts_it_was_drawn_from() -> None:
    random, people = np.random.default_rng(3), 5000
    scale = random.gamma(4.0, 1 / 20, people)
    times = random.integers(1, 8, people).astype(float)
    mean = random.gamma(5 * times, 1 / scale) / times
    fitted = Spend.fit(times, mean)
    assert astuple(fitted) == pytest.approx((5, 4, 20), rel=0.2)
    coming = fitted.expected(times, mean)
    assert coming.sum() == pytest.approx((5 / scale).sum(), rel=0.02)
    everybody = float(fitted.expected(np.zeros(1), np.zeros(1))[0])
    assert everybody == pytest.approx((5 / scale).mean(), rel=0.05)
    # A single large act is pulled towards everybody; many are believed.
    few, many = fitted.expected(np.array([1.0, 50.0]), np.full(2, 10 * everybody))
    assert everybody < few < many < 10 * everybody

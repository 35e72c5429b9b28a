"""How much of a target there is just now, and how much of it there will be: what moves every probability of a day.

Who is likelier than whom belongs to the estimators; this is only about how likely people are on the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.predictions.logistic import sigmoid
from cdp_pipeline.predictions.targets import at_each, target_events
from cdp_pipeline.spec.prediction import Features
from cdp_pipeline.traits.cells import days_table

if TYPE_CHECKING:
    import numpy as np

YEAR = 364
"""52 weeks: the same day of the week a year ago."""
LATELY = 28
"""Four whole weeks: long enough not to see the days of the week, short enough to be of now."""
LOOKED_AT = 20_000
"""People among whom the level of now is measured: of so many, a rate is known to .004."""
USUAL_MOVE = 0.35
"""How far levels usually move (in logarithms); what moves by chance alone is believed the less, the likelier that is.
Between the training windows of Online Retail II of 2010 they moved by .1 to .5."""
FURTHEST = 5.0


def lately(horizon: timedelta) -> int:
    """Days over which the level of now is measured: as long as the horizon, at most LATELY."""
    return min(LATELY, horizon.days)


def seasons(timeline: ibis.Table, prediction: Features, days: Sequence[date]) -> ibis.Table:
    """(day, _season): how much more of the target each day's horizon will see, per day, than the days just before it.

    A day ahead is expected to be like the same day of last year, times what the last LATELY days are of the same days
    of last year (1 where that year began later); where there was none, like the days just before. Counted in people
    per day. Few events are believed little. One row per day, from rows up to that day only.
    """
    horizon, recent = min(prediction.horizon.days, YEAR), lately(prediction.horizon)
    hits = target_events(timeline, prediction).group_by("_day").agg(people=lambda t: t.person_id.nunique())
    past = at_each(hits, days).mutate(ago=lambda t: t.day.delta(t._day, unit="day")).filter(lambda t: t.ago >= 0)

    def people(table: ibis.Table, newest: int, length: int) -> ibis.Value:
        within = (table.ago >= newest) & (table.ago < newest + length)
        return table.people.sum(where=within).fill_null(0).cast("float64")

    sums = past.group_by("day").agg(
        now=people(past, 0, recent),
        then=people(past, YEAR, recent),
        ahead=people(past, YEAR - horizon, horizon),
        oldest=past.ago.max(),
    )
    known = ibis.greatest(0, ibis.least(horizon, sums.oldest - (YEAR - horizon) + 1)).cast("float64")
    compared = (sums.oldest >= YEAR + recent - 1) & (sums.then > 0)
    growth = ibis.ifelse(compared, sums.now / sums.then.nullif(0), 1.0)
    expected = (sums.ahead * growth + (horizon - known) * sums.now / recent) / horizon
    by_chance = 1 / sums.ahead.nullif(0) + 1 / ibis.ifelse(compared, sums.then, sums.now).nullif(0)
    believed = USUAL_MOVE**2 / (USUAL_MOVE**2 + by_chance)
    move = (expected * recent / sums.now.nullif(0)).nullif(0).ln() * believed
    bounded = ibis.greatest(ibis.least(move.fill_null(0.0), ibis.literal(FURTHEST).ln()), -ibis.literal(FURTHEST).ln())
    found = sums.select("day", seen=bounded.exp())
    asked = days_table("day", sorted(set(days)))
    return asked.left_join(found, "day").select("day", _season=lambda t: t.seen.fill_null(1.0).round(6))


def looked_at(people: ibis.Table, most: int = LOOKED_AT) -> ibis.Table:
    """Those among whom the level is measured: everybody, or a draw that is the same on every engine."""
    return people.order_by(people.person_id.hexdigest("md5"), "person_id").limit(most)


@dataclass(frozen=True)
class Level:
    """What log-odds of the horizon mean for the first LATELY days of it, as it was in the training windows."""

    happens: bool
    slope: float = 1.0
    shift: float = 0.0

    @staticmethod
    def fit(odds: np.ndarray, soon: np.ndarray, happens: bool) -> Level:
        """From log-odds of the horizon, and whether the label was true after LATELY days already."""
        from sklearn.linear_model import LogisticRegression

        if min(soon.sum(), (1 - soon).sum()) < 1:
            return Level(happens)
        fitted = LogisticRegression(C=1e6).fit(odds[:, None], soon)
        return Level(happens, float(fitted.coef_[0][0]), float(fitted.intercept_[0]))

    def moved(self, odds: np.ndarray, soon: np.ndarray) -> float:
        """How far log-odds of the day LATELY days ago lay from what then came: what to add to those of today.

        A level wanders: the best guess of the next is the newest, as far as it is no play of chance.
        """
        if len(odds) == 0:
            return 0.0
        said = self.slope * odds + self.shift
        chance = sigmoid(said)
        certain = USUAL_MOVE**2 * float((chance * (1 - chance)).sum())
        rate = min(max(float(soon.mean()), 0.5 / len(soon)), 1 - 0.5 / len(soon))
        return shift_to(said, rate) * certain / (certain + 1)

    def probability(self, odds: np.ndarray, moved: float, season: np.ndarray) -> np.ndarray:
        """Log-odds at the level of now, and then with as much more as the season brings, as rates multiply."""
        chance = sigmoid(odds + moved)
        return 1 - (1 - chance) ** season if self.happens else chance**season


def log_odds(probability: np.ndarray) -> np.ndarray:
    import numpy as np

    safe = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(safe / (1 - safe))


def shift_to(odds: np.ndarray, rate: float) -> float:
    """What must be added to log-odds for their mean probability to be `rate`."""
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(odds + middle).mean() < rate else (low, middle)
    return (low + high) / 2

"""The one estimator of amounts: a log-linear rate and boosted trees rank people, the own rhythm and amounts of all of
them (BG/NBD x Gamma-Gamma) set the level, last year's same days set the season.

Trains and applies; what is learned from, its gates and its scores are in value.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cdp_pipeline.predictions.model import Linear, known_somewhere, log_scaled, matrix
from cdp_pipeline.predictions.rhythm import Rhythm
from cdp_pipeline.predictions.spend import Spend

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BOUGHT = ("_recency_clock", "_times", "_since_first_clock")
BUYING = ("_expected", "_worth", "_value", "_own")
QUARTER = 91
REFERENCE, DRAWS, GROUPS = 2000, 100, 20
WORTH_THREADS = 50_000
"""Rows below which threads cost more than they bring: they spin while others use the cores."""


@dataclass(frozen=True)
class Buying:
    """BG/NBD x Gamma-Gamma: how often people act and what an act brings, from their days and amounts alone."""

    rhythm: Rhythm
    spend: Spend

    @staticmethod
    def fit(rows: pa.Table) -> Buying:
        times, mean = _times_and_mean(rows)
        return Buying(Rhythm.fit(*matrix(rows, BOUGHT).T), Spend.fit(times, mean))

    def columns(self, rows: pa.Table, days: float) -> np.ndarray:
        """The columns BUYING: acts expected within so many average days, what one brings, both multiplied, and with the
        own mean in place of the expected amount."""
        import numpy as np

        times, mean = _times_and_mean(rows)
        acts = self.rhythm.expected(*matrix(rows, BOUGHT).T, horizon_days=days)
        each = self.spend.expected(times, mean)
        return np.column_stack([acts, each, acts * each, acts * mean])

    def amount(self, rows: pa.Table) -> np.ndarray:
        """What people bring within the labelled days ahead, going by the season."""
        times, mean = _times_and_mean(rows)
        acts = self.rhythm.expected(*matrix(rows, BOUGHT).T, horizon_days=matrix(rows, ("_ahead",))[:, 0])
        return acts * self.spend.expected(times, mean)

    def later(self, rows: pa.Table, after: int, days: int, discount: float) -> np.ndarray:
        """What people bring between the day `after` and the last of `days`, all of them average days; a year later it
        is worth 1 / (1 + discount) as much."""
        import numpy as np

        times, mean = _times_and_mean(rows)
        history, total = matrix(rows, BOUGHT).T, np.zeros(rows.num_rows)
        ends = sorted({*range(after, days, QUARTER), days})
        before = self.rhythm.expected(*history, horizon_days=after)
        for begin, end in pairwise(ends):
            acts = self.rhythm.expected(*history, horizon_days=end)
            total += (acts - before) * present(discount, (begin + end) / 2)
            before = acts
        return total * self.spend.expected(times, mean)

    def draws(self, rows: pa.Table, days: np.ndarray, seed: int) -> np.ndarray:
        """What such people would bring within so many average days, DRAWS times each: (draw, person)."""
        import numpy as np

        random, shape = np.random.default_rng(seed), (DRAWS, rows.num_rows)
        recency, times, since_first = matrix(rows, BOUGHT).T
        times, mean = _times_and_mean(rows)
        rhythm, spend, repeats = self.rhythm, self.spend, np.maximum(times - 1, 0)
        active = random.random(shape) < rhythm.active(recency, times, since_first)
        rate = random.gamma(rhythm.r + repeats, 1 / (rhythm.alpha + np.nan_to_num(since_first) / 7), shape)
        stops = np.clip(random.beta(rhythm.a, rhythm.b + repeats, shape), 1e-12, 1)
        acts = active * np.minimum(random.poisson(rate * days / 7), random.geometric(stops))
        scale = random.gamma(spend.q + spend.p * times, 1 / (spend.gamma + times * mean), shape)
        return np.where(acts > 0, random.gamma(np.maximum(spend.p * acts, 1e-9)) / scale, 0.0)


def by_calendar(rows: pa.Table, days: int) -> np.ndarray:
    """BG/NBD x Gamma-Gamma as it is published, fitted on these rows: a rival that needs no labels."""
    times, mean = _times_and_mean(rows)
    history = matrix(rows, ("_recency", "_times", "_since_first")).T
    acts = Rhythm.fit(*history).expected(*history, horizon_days=days)
    return acts * Spend.fit(times, mean).expected(times, mean)


def present(discount: float, days: float) -> float:
    """What one unit after so many days is worth now."""
    return float((1 + discount) ** (-days / 365))


def _times_and_mean(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Acts and their mean amount; 0 for those who never acted."""
    import numpy as np

    times, amount = (np.nan_to_num(column) for column in matrix(rows, ("_times", "_amount")).T)
    return times, np.maximum(amount, 0) / np.maximum(times, 1)


@dataclass(frozen=True)
class LogLinear(Linear):
    """A regularised Poisson rate over signed logarithms: what a feature adds multiplies the amount."""

    highest: float = 30.0

    @staticmethod
    def of_amounts(values: np.ndarray, amount: np.ndarray, features: tuple[str, ...]) -> LogLinear:
        import numpy as np
        from sklearn.linear_model import PoissonRegressor

        scaled, fill, mean, scale = log_scaled(values)
        unit = amount.mean()
        fitted = PoissonRegressor(alpha=0.3, max_iter=1000, tol=1e-7).fit(scaled, amount / unit)
        intercept = float(fitted.intercept_ + np.log(unit))
        highest = float((scaled @ fitted.coef_).max() + intercept)
        return LogLinear(features, fill, mean, scale, fitted.coef_, intercept, highest)

    def amount(self, values: np.ndarray) -> np.ndarray:
        """Never more than the highest it has learned from: a power law reaches too far beyond what was seen."""
        import numpy as np

        return np.exp(np.minimum(self.contributions(values).sum(axis=1) + self.intercept, self.highest))


@dataclass(frozen=True)
class Bounds:
    """What a score means for people who have it: low and high as multiples of it, between knots of scores."""

    score: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @staticmethod
    def fit(score: np.ndarray, draws: np.ndarray) -> Bounds:
        """Of possible totals (draw, person) of people with these scores: 80 % of them lie within. Where a tenth or
        more bring nothing, the interval begins at 0 and ends where 80 % are reached."""
        import numpy as np

        knots = []
        for group in np.array_split(np.argsort(score, kind="stable"), min(GROUPS, len(score))):
            middle = max(float(score[group].mean()), 1e-9)
            share = np.sort((draws[:, group] / np.maximum(score[group], 1e-9)).ravel())
            nothing = float((share <= 0).mean()) >= 0.1
            low, high = np.quantile(share, (0.0, 0.8) if nothing else (0.1, 0.9))
            knots.append((middle, float(low), float(high)))
        return Bounds(*np.array(knots).T)

    def of(self, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        low, high = (score * np.interp(score, self.score, multiple) for multiple in (self.low, self.high))
        return low, high


@dataclass(frozen=True)
class Worth:
    """A trained pair of estimators of amounts, their level, and what its scores mean for people."""

    features: tuple[str, ...]
    labelled_days: int
    horizon_days: int
    discount: float
    buying: Buying
    linear: LogLinear
    trees: Any
    level: float = 1.0
    bounds: Bounds | None = None

    @staticmethod
    def fit(
        past: pa.Table, now: pa.Table, features: tuple[str, ...], labelled_days: int, horizon_days: int,
        discount: float, seed: int,
    ) -> Worth:  # fmt: skip
        """Learn from `past` (with label); `now` holds the newest people, of whom no label is looked at."""
        import numpy as np
        from sklearn.ensemble import HistGradientBoostingRegressor

        parts = [(Buying.fit(rows), rows) for rows in by_day(past)]
        values = np.vstack(
            [np.column_stack([matrix(rows, features), fit.columns(rows, labelled_days)]) for fit, rows in parts]
        )
        # Amounts as they would have been in an average season.
        label = np.maximum(np.concatenate([matrix(rows, ("label",))[:, 0] / _season(rows, labelled_days)
                                           for _, rows in parts]), 0)  # fmt: skip
        linear = LogLinear.of_amounts(values, label, (*features, *BUYING))
        trees = HistGradientBoostingRegressor(
            loss="poisson", max_iter=100, max_leaf_nodes=15, learning_rate=0.05, min_samples_leaf=50,
            l2_regularization=10.0, max_features=0.5, early_stopping=False, random_state=seed,
        )  # fmt: skip
        model = Worth(
            features,
            labelled_days,
            horizon_days,
            discount,
            Buying.fit(now),
            linear,
            trees.fit(known_somewhere(values), label),
        )
        return model._levelled(now)._bounded(now, seed)

    def _levelled(self, now: pa.Table) -> Worth:
        """With the level of what the own rhythm of all who ever acted makes expect: that of a few windows is mostly
        their season, and rhythm is learned from all days there are. (On nine early windows of Online Retail II its
        totals were off by .19 in logarithms; moved to the level of the newest 28 days, by .30.)"""
        acted = now.filter(_acted(now))
        values = self.inputs(acted)
        learned, foreseen = self.learned(values).sum(), self.buying.columns(acted, self.labelled_days)[:, 2].sum()
        return replace(self, level=float(foreseen / learned)) if learned > 0 and foreseen > 0 else self

    def _bounded(self, now: pa.Table, seed: int) -> Worth:
        import numpy as np

        acted = now.filter(_acted(now))
        if acted.num_rows == 0:
            return self
        chosen = np.random.default_rng(seed).permutation(acted.num_rows)[:REFERENCE]
        people = acted.take(np.sort(chosen))
        score, expected = self.amount(people, self.inputs(people)), self.buying.amount(people)
        days = matrix(people, ("_ahead",))[:, 0] + self.horizon_days - self.labelled_days
        if self.horizon_days > self.labelled_days:
            expected = expected + self.buying.later(people, self.labelled_days, self.horizon_days, 0.0)
        draws = self.buying.draws(people, days, seed) * (score / np.maximum(expected, 1e-6))
        return replace(self, bounds=Bounds.fit(score, draws))

    def inputs(self, rows: pa.Table) -> np.ndarray:
        import numpy as np

        return np.column_stack([matrix(rows, self.features), self.buying.columns(rows, self.labelled_days)])

    def learned(self, values: np.ndarray) -> np.ndarray:
        """What comes within the labelled days of an average season, before the level: the geometric mean of both
        estimators and, for those who have acted, of what their own rhythm says. Of rows as `inputs` makes them.

        With a few months known the estimators rank people better, with years their rhythm does.
        """
        import numpy as np
        from threadpoolctl import threadpool_limits

        with threadpool_limits(None if len(values) >= WORTH_THREADS else 1):
            grown = self.trees.predict(values)
        own = values[:, -len(BUYING) + BUYING.index("_value")]
        both = np.sqrt(self.linear.amount(values) * grown)
        return np.where(own > 0, np.cbrt(both**2 * own), both)

    def amount(self, rows: pa.Table, values: np.ndarray) -> np.ndarray:
        """What is foreseen over the whole horizon: the labelled days as learned, the rest by the own rhythm."""
        first = self.learned(values) * self.level * _season(rows, self.labelled_days)
        if self.horizon_days == self.labelled_days:
            return first * present(self.discount, self.labelled_days / 2)
        rest = self.buying.later(rows, self.labelled_days, self.horizon_days, self.discount)
        return first * present(self.discount, self.labelled_days / 2) + rest

    def scores(self, rows: pa.Table, values: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(amount, low, high) of each row; `values` are the inputs of the rows, where they are at hand."""
        score = self.amount(rows, self.inputs(rows) if values is None else values)
        low, high = self.bounds.of(score) if self.bounds is not None else (score, score)
        return score, low, high

    def within(self, rows: pa.Table, seed: int) -> Worth:
        """The same model asked only for the days it has labels of, to be measured against them."""
        if self.horizon_days == self.labelled_days and not self.discount:
            return self
        short = replace(self, horizon_days=self.labelled_days, discount=0.0)
        return short._bounded(rows, seed)


def _season(rows: pa.Table, days: int) -> np.ndarray:
    """How many average days each of the days ahead is worth."""
    return matrix(rows, ("_ahead",))[:, 0] / days


def by_day(rows: pa.Table) -> Sequence[pa.Table]:
    import pyarrow.compute as pc

    return [rows.filter(pc.equal(rows["day"], day)) for day in sorted(set(rows["day"].to_pylist()))]


def _acted(rows: pa.Table) -> Any:
    import pyarrow.compute as pc

    return pc.greater(pc.fill_null(rows["_times"], 0), 0)

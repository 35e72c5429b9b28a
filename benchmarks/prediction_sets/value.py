"""What customers bring within 90 days: Online Retail II

Gini says who brings more than whom, the total ratio whether the sum is right; absolute error would be won by zero.
The test windows are not untouched: they were looked at four times while the season and the blend were worked out. What
was changed was chosen on earlier windows; first look: Gini .8222 against .8243, totals 1.44 and 1.08.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from cdp_pipeline.predictions.amounts import Concentration, gini
from cdp_pipeline.predictions.clock import CLOCK
from cdp_pipeline.predictions.model import matrix
from cdp_pipeline.predictions.value import KEYS, train
from cdp_pipeline.predictions.worth import Buying, by_calendar, by_day
from cdp_pipeline.spec.prediction import Value
from prediction_sets import windows
from prediction_sets.row import Row
from prediction_sets.shops import online_retail

RESAMPLES = 500
OURS, RHYTHM = "ours", "BG/NBD x Gamma-Gamma"


@dataclass(frozen=True)
class Window:
    """One test window: what came, what everybody said, and how many people lay within our interval."""

    day: date
    label: np.ndarray
    said: Mapping[str, np.ndarray]
    covered: np.ndarray


def rows(data: Path, days: Sequence[date] = windows.VALUE_90D) -> Iterator[Row]:
    shop = online_retail(data)
    prediction = shop.project.predictions["value_90d"]
    assert isinstance(prediction, Value)
    yield from compared([window(shop.training_set(prediction, day), prediction, day) for day in days])


def window(training: pa.Table, prediction: Value, day: date) -> Window:
    """Train ours and the rivals on the same rows and ask them about the same people."""
    trained = train(training, prediction)
    assert trained.scorer is not None, trained.missing
    past, test = (
        training.filter(pc.equal(training["split"], split)).sort_by("person_id") for split in ("train", "test")
    )
    label, horizon = matrix(test, ("label",))[:, 0], prediction.horizon.days
    score, low, high = trained.scorer.scores(test)
    amount, since_first, recent = np.nan_to_num(matrix(test, ("_amount", "_since_first", "revenue_90d"))).T
    said = {
        OURS: score,
        RHYTHM: by_calendar(test, horizon),
        "spend of the last 90 days": recent,
        "spend per day so far": amount / np.maximum(since_first, 30) * horizon,
    }
    names = tuple(name for name in training.column_names if name not in (*KEYS, *CLOCK))
    parts = [(rows, Buying.fit(rows)) for rows in (*by_day(past), test)]
    known, asked = np.vstack([matrix(rows, names) for rows, _ in parts[:-1]]), matrix(test, names)
    values = [np.column_stack([matrix(rows, names), fit.columns(rows, horizon)]) for rows, fit in parts]
    came = np.concatenate([matrix(rows, ("label",))[:, 0] for rows, _ in parts[:-1]])
    for name, learned, tested in (
        ("HistGB Poisson", known, asked),
        ("HistGB Poisson, with BG/NBD x Gamma-Gamma", np.vstack(values[:-1]), values[-1]),
    ):
        trees = HistGradientBoostingRegressor(
            loss="poisson", learning_rate=0.05, max_leaf_nodes=15, early_stopping=False, random_state=0
        )
        with threadpool_limits(1):
            said[name] = trees.fit(learned, came).predict(tested)
    return Window(day, label, said, (label >= low) & (label <= high))


def compared(tests: Sequence[Window]) -> Iterator[Row]:
    """Gini against every rival as the mean over windows, people drawn anew in each; then totals and intervals."""
    days = " and ".join(str(one.day) for one in tests)
    drawn: dict[str, list[list[float]]] = {name: [] for name in tests[0].said}
    totals: list[list[float]] = []
    for seed, one in enumerate(tests):
        random, count = np.random.default_rng(seed), len(one.label)
        weights = [
            np.bincount(random.integers(0, count, count), minlength=count).astype(float) for _ in range(RESAMPLES)
        ]
        best = Concentration(one.label, one.label)
        whole = [best.area(weight) for weight in weights]
        for name, score in one.said.items():
            order = Concentration(one.label, score)
            drawn[name].append([order.area(weight) / of for weight, of in zip(weights, whole, strict=True)])
        totals.append([float((w * one.said[OURS]).sum() / (w * one.label).sum()) for w in weights])
    mean = {name: float(np.mean([gini(one.label, one.said[name]) for one in tests])) for name in drawn}
    best_rival = max((name for name in mean if name != OURS), key=mean.__getitem__)
    for name in sorted(mean, key=mean.__getitem__, reverse=True):
        if name != OURS:
            low, high = np.quantile(np.mean(drawn[OURS], axis=0) - np.mean(drawn[name], axis=0), (0.025, 0.975))
            held = name in (RHYTHM, best_rival)
            demanded, met = ("not below", mean[OURS] >= mean[name]) if held else (None, None)
            yield Row("value_90d", days, "Gini", mean[OURS], name, mean[name], float(low), float(high), demanded, met)
    for one, resampled in zip(tests, totals, strict=True):
        ratio, theirs = (float(one.said[name].sum() / one.label.sum()) for name in (OURS, RHYTHM))
        low, high = (float(bound) for bound in np.quantile(resampled, (0.025, 0.975)))
        yield Row(
            "value_90d", str(one.day), "total foreseen / came (interval: of ours)", ratio, RHYTHM, theirs, low, high,
            "0.85 to 1.15", 0.85 <= ratio <= 1.15,
        )  # fmt: skip
        share = float(one.covered.mean())
        error = 1.96 * (share * (1 - share) / len(one.covered)) ** 0.5
        yield Row(
            "value_90d", str(one.day), "people within their 80 % interval", share, low=share - error,
            high=share + error, demanded="0.75 to 0.85", met=0.75 <= share <= 0.85,
        )  # fmt: skip

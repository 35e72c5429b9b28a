"""What scores of people × items are measured against. Of people drawn again all pairs are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cdp_pipeline.predictions.item_metrics import codes, within
from cdp_pipeline.predictions.metrics import Ranking, calibration_error, ranking
from cdp_pipeline.predictions.model import matrix
from prediction_sets.row import Row

RESAMPLES = 200
LOGISTIC, TREES = "logistic of the same columns", "HistGB of the same columns"


@dataclass(frozen=True)
class Pairs:
    """One test window: what happened to each pair, what ours and the rivals said."""

    window: str
    test: pa.Table
    ours: np.ndarray
    rivals: Mapping[str, np.ndarray]


def halves(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    rows = rows.sort_by([(name, "ascending") for name in ("day", "person_id", "item")])
    return rows.filter(pc.equal(rows["split"], "train")), rows.filter(pc.equal(rows["split"], "test"))


def plain_estimators(
    past: pa.Table, test: pa.Table, names: tuple[str, ...], most: int = 600_000, trees: bool = True
) -> dict[str, np.ndarray]:
    """A logistic on logarithms and HistGB as they come, taught the same rows (of very many, every second)."""
    some = past if past.num_rows <= most else past.take(np.arange(0, past.num_rows, 2))
    label = matrix(some, ("label",))[:, 0]

    def logs(rows: pa.Table) -> np.ndarray:
        values = np.nan_to_num(matrix(rows, names), nan=400.0)
        return np.sign(values) * np.log1p(np.abs(values))

    with threadpool_limits(1):
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(logs(some), label)
        said = {LOGISTIC: linear.predict_proba(logs(test))[:, 1]}
        if trees:
            grown = HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=15, random_state=0)
            said[TREES] = grown.fit(matrix(some, names), label).predict_proba(matrix(test, names))[:, 1]
    return said


def compared(what: str, pairs: Pairs, best: bool = True) -> Iterator[Row]:
    """AUC beside each rival; ours has to be at or above the best of them, as far as people drawn again can tell."""
    label, people = matrix(pairs.test, ("label",))[:, 0], codes(pairs.test["person_id"])
    mine = Ranking(label, pairs.ours)
    strongest = max(pairs.rivals, key=lambda name: ranking(label, pairs.rivals[name]))
    random, count = np.random.default_rng(0), int(people.max()) + 1
    draws = [
        np.bincount(random.integers(0, count, count), minlength=count)[people].astype(float) for _ in range(RESAMPLES)
    ]
    areas = [mine.area(draw) for draw in draws]
    for name, said in pairs.rivals.items():
        rival = Ranking(label, said)
        low, high = np.nanquantile([a - rival.area(d) for a, d in zip(areas, draws, strict=True)], (0.025, 0.975))
        ours, theirs = ranking(label, pairs.ours), ranking(label, said)
        demanded = "≥ the best rival" if best and name == strongest else None
        met = None if demanded is None else ours >= theirs
        yield Row(what, pairs.window, "AUC", ours, name, theirs, float(low), float(high), demanded, met)


def calibrated(what: str, pairs: Pairs) -> Iterator[Row]:
    label = matrix(pairs.test, ("label",))[:, 0]
    error = calibration_error(label, pairs.ours)
    yield Row(what, pairs.window, "ECE", error, demanded="≤ .05", met=error <= 0.05)
    items = codes(pairs.test["item"])
    if items.max() > 0:
        yield Row(what, pairs.window, "AUC within an item", within(label, pairs.ours, items))

"""Interest topics: does a household's taste last? Complete Journey

Found in the baskets up to 30 April 2017 and asked again of those after it alone, so that no basket counts twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF
from threadpoolctl import threadpool_limits

from cdp_pipeline.predictions.topics import inputs, taken, train
from cdp_pipeline.spec.prediction import Topics
from prediction_sets.row import Row
from prediction_sets.shops import Shop, complete_journey

HALF, END, RESAMPLES = date(2017, 4, 30), date(2017, 8, 31), 500


def rows(data: Path) -> Iterator[Row]:
    shop = complete_journey(data)
    prediction = shop.project.predictions["interests"]
    assert isinstance(prediction, Topics)
    trained = train(shop.training_set(prediction, HALF), prediction)
    scorer = trained.scorer
    assert scorer is not None, trained.missing
    then, people = taken(_inputs(shop, prediction, HALF), scorer.items)
    later = Shop(shop.project, shop.timeline.filter(shop.timeline._day > ibis.date(HALF)))
    now, others = taken(_inputs(later, prediction, END), scorer.items)
    place = {person: number for number, person in enumerate(others)}
    both = [(number, place[person]) for number, person in enumerate(people) if person in place]
    then, now = (side[[pair[which] for pair in both]] for which, side in enumerate((then, now)))
    old, new = scorer.shares(then), scorer.shares(now)
    window = f"{HALF} and after ({len(both):,} households)"

    rivals = {"6 hard clusters (KMeans)": _clusters(then, now), "NMF of logarithms": _plain(then, now)}
    drawn = np.random.default_rng(0).integers(0, len(old), (RESAMPLES, len(old)))
    mine, demanded = old.argmax(axis=1) == new.argmax(axis=1), "≥ the rival"
    for name, (before, after) in rivals.items():
        kept = before.argmax(axis=1) == after.argmax(axis=1)
        low, high = np.quantile(mine[drawn].mean(axis=1) - kept[drawn].mean(axis=1), (0.025, 0.975))
        ours, theirs = float(mine.mean()), float(kept.mean())
        yield Row(
            "interests", window, "same main topic", ours, name, theirs, float(low), float(high), demanded,
            ours >= theirs,
        )  # fmt: skip
    ours, theirs = _alike(old, new), _alike(*rivals["NMF of logarithms"])
    yield Row("interests", window, "rank correlation of shares", ours, "NMF of logarithms", theirs)


def _inputs(shop: Shop, prediction: Topics, day: date) -> pa.Table:
    rows = inputs(shop.known(prediction), prediction, shop.project, day)
    return rows.order_by("person_id", "item").to_pyarrow()


def _alike(then: np.ndarray, now: np.ndarray) -> float:
    """Mean over topics of the rank correlation of people's shares."""
    return float(np.mean([spearmanr(then[:, topic], now[:, topic])[0] for topic in range(then.shape[1])]))


def _length_one(values: np.ndarray) -> np.ndarray:
    logs = np.log1p(values)
    return logs / np.maximum(np.linalg.norm(logs, axis=1, keepdims=True), 1e-12)


def _clusters(then: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which cluster a household is in, as a share of one, and which one later."""
    with threadpool_limits(1):
        found = KMeans(6, n_init=10, random_state=0).fit(_length_one(then))
        return np.eye(6)[found.labels_], np.eye(6)[found.predict(_length_one(now))]


def _plain(then: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with threadpool_limits(1):
        found = NMF(6, init="nndsvda", random_state=0, max_iter=400).fit(_length_one(then))
        both = (found.transform(_length_one(values)) for values in (then, now))
        old, new = (values / np.maximum(values.sum(axis=1, keepdims=True), 1e-12) for values in both)
    return old, new

"""What probabilities of events are measured against: older rules and plain estimators, taught the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from cdp_pipeline.predictions.binary import train
from cdp_pipeline.predictions.metrics import calibration_error, lift
from cdp_pipeline.predictions.model import NOT_FEATURES, RHYTHM, Scorer, matrix, splits
from cdp_pipeline.predictions.rhythm import Rhythm
from cdp_pipeline.spec.prediction import Binary
from prediction_sets.row import Row

RFM = ("_recency", "_times", "_amount")
RESAMPLES = 500
OURS = "ours"


@dataclass(frozen=True)
class Window:
    """One test window: what happened, and what everybody said."""

    day: date
    label: np.ndarray
    said: Mapping[str, np.ndarray]
    level_moved: float
    season: float


def window(rows: pa.Table, prediction: Binary, day: date) -> Window:
    """Train ours and the rivals on the same rows and ask them about the same people."""
    trained = train(rows, prediction)
    assert isinstance(trained.scorer, Scorer), trained.missing
    past, before, test = splits(rows, prediction)
    label, tested = matrix(past, ("label",))[:, 0], matrix(test, ("label",))[:, 0]
    newest = past.filter(pa.compute.equal(past["day"], pa.compute.max(past["day"])))
    rhythm, horizon = Rhythm.fit(*matrix(newest, RHYTHM).T), prediction.horizon.days
    again = {name: rhythm.probability(*matrix(t, RHYTHM).T, horizon_days=horizon) for name, t in
             (("past", past), ("test", test))}  # fmt: skip
    sign = 1 if prediction.target.happens else -1
    said = {
        OURS: trained.scorer.probability(test, trained.scorer.moved(before))[0],
        "recency": -sign * np.nan_to_num(matrix(test, ("_recency",))[:, 0], nan=1e6),
        "RFM quintiles": sign * _quintiles(matrix(test, RFM)),
        "BG/NBD": again["test"] if prediction.target.happens else 1 - again["test"],
    }
    names = tuple(name for name in past.column_names if name not in NOT_FEATURES)
    every = {part: np.column_stack([matrix(t, names), again[part]]) for part, t in (("past", past), ("test", test))}
    for name, estimator, known, asked in (
        ("RFM logistic", _logistic(), matrix(past, RFM), matrix(test, RFM)),
        ("RFM logistic on logarithms", _logistic(logs=True), matrix(past, RFM), matrix(test, RFM)),
        ("logistic, all features + BG/NBD", _logistic(), every["past"], every["test"]),
        ("random forest, all + BG/NBD", _forest(), every["past"], every["test"]),
        ("HistGB, all + BG/NBD", HistGradientBoostingClassifier(random_state=0), every["past"], every["test"]),
        (
            "HistGB 100 x 15 leaves, all + BG/NBD",
            HistGradientBoostingClassifier(learning_rate=0.05, max_leaf_nodes=15, random_state=0),
            every["past"],
            every["test"],
        ),
    ):
        with threadpool_limits(1):
            said[name] = estimator.fit(known, label).predict_proba(asked)[:, 1]
    blended = ("logistic, all features + BG/NBD", "HistGB 100 x 15 leaves, all + BG/NBD")
    said["blend of logistic and HistGB"] = np.mean([said[name] for name in blended], axis=0)
    return Window(day, tested, said, trained.metrics["level_moved"], trained.metrics["season"])


def compared(what: str, windows: Sequence[Window], must_beat: Sequence[str]) -> Iterator[Row]:
    """Ranking against every rival, as the mean over windows; the interval draws people anew in each window."""
    days = " and ".join(str(one.day) for one in windows)
    weights = [_draws(len(one.label), seed) for seed, one in enumerate(windows)]
    drawn = {name: [_areas(one, name, w) for one, w in zip(windows, weights, strict=True)] for name in windows[0].said}
    area = {name: float(np.mean([roc_auc_score(one.label, one.said[name]) for one in windows])) for name in drawn}
    best = max((name for name in area if name != OURS), key=area.__getitem__)
    for name in sorted(area, key=area.__getitem__, reverse=True):
        if name == OURS:
            continue
        low, high = np.quantile(np.mean(drawn[OURS], axis=0) - np.mean(drawn[name], axis=0), (0.025, 0.975))
        demanded = "surely better" if name in must_beat else "not below the best" if name == best else None
        met = low > 0 if name in must_beat else area[OURS] >= area[name] if name == best else None
        yield Row(what, days, "AUC", area[OURS], name, area[name], float(low), float(high), demanded, met)
    for one in windows:
        top, theirs = lift(one.label, one.said[OURS]), lift(one.label, one.said[best])
        yield Row(what, str(one.day), "lift of the best tenth", top, best, theirs)


def told_apart(what: str, windows: Sequence[Window], rivals: Sequence[str]) -> Iterator[Row]:
    """Ranking and logarithmic loss (minus: more is better) beside a few rivals, over more windows at once."""
    days = f"{len(windows)} windows, {windows[0].day} to {windows[-1].day}"
    weights = [_draws(len(one.label), seed) for seed, one in enumerate(windows)]
    for name in rivals:
        for measure, drawn in (("AUC", _areas), ("- log loss", _told)):
            whole = {
                who: float(np.mean([drawn(one, who, np.ones((1, len(one.label)), int)) for one in windows]))
                for who in (OURS, name)
            }
            each = {who: [drawn(one, who, w) for one, w in zip(windows, weights, strict=True)] for who in whole}
            low, high = np.quantile(np.mean(each[OURS], axis=0) - np.mean(each[name], axis=0), (0.025, 0.975))
            wanted = "surely better"
            yield Row(what, days, measure, whole[OURS], name, whole[name], float(low), float(high), wanted, low > 0)


def _told(one: Window, name: str, weights: np.ndarray) -> np.ndarray:
    """Minus the logarithmic loss of every draw."""
    said = np.clip(one.said[name], 1e-6, 1 - 1e-6)
    gained = one.label * np.log(said) + (1 - one.label) * np.log(1 - said)
    return (weights * gained).sum(1) / weights.sum(1)


def calibrated(what: str, windows: Sequence[Window], rival: str, most: float = 0.05) -> Iterator[Row]:
    """How far off probabilities are, window by window, beside a rival that knows no level; and the level by chance."""
    for one in windows:
        ours, theirs = (calibration_error(one.label, one.said[name]) for name in (OURS, rival))
        yield Row(what, str(one.day), "calibration error", ours, rival, theirs, None, None, f"≤ {most:g}", ours <= most)


def _logistic(logs: bool = False) -> object:
    turned = FunctionTransformer(lambda x: np.sign(x) * np.log1p(np.abs(x)) if logs else x)
    parts = (turned, SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler())
    return make_pipeline(*parts, LogisticRegression(max_iter=1000))


def _forest() -> object:
    forest = RandomForestClassifier(200, min_samples_leaf=20, random_state=0)
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=-1), forest)


def _quintiles(rfm: np.ndarray) -> np.ndarray:
    recency, times, amount = np.nan_to_num(rfm, nan=-1).T
    return sum(np.searchsorted(np.quantile(one, (0.2, 0.4, 0.6, 0.8)), one) for one in (-recency, times, amount))


def _draws(people: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.array([np.bincount(random.integers(0, people, people), minlength=people) for _ in range(RESAMPLES)])


def _areas(one: Window, name: str, weights: np.ndarray) -> np.ndarray:
    """The AUC of every draw."""
    order = np.argsort(one.said[name], kind="stable")
    score, label, weights = one.said[name][order], one.label[order], weights[:, order].astype(float)
    starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
    positive = np.add.reduceat(weights * label, starts, axis=1)
    negative = np.add.reduceat(weights * (1 - label), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    return (positive * (below + negative / 2)).sum(1) / (positive.sum(1) * negative.sum(1))

"""The one estimator of binary predictions: boosted trees and a logistic, blended, calibrated inside training windows.

Trains and applies; what a model must prove is in gates.py, where it is kept in registry.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cdp_pipeline.predictions.drift import Reference, drift, watched
from cdp_pipeline.predictions.grown import grown_odds
from cdp_pipeline.predictions.kind import Trained
from cdp_pipeline.predictions.level import Level, lately, log_odds, shift_to
from cdp_pipeline.predictions.logistic import sigmoid
from cdp_pipeline.predictions.metrics import gains, measure, ranking, reliability, sliced
from cdp_pipeline.predictions.rhythm import Rhythm
from cdp_pipeline.predictions.training import SLICE
from cdp_pipeline.predictions.windows import card_of, halves, lacking
from cdp_pipeline.spec.prediction import Binary

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BASELINE = ("_recency", "_times", "_amount")
RHYTHM = ("_recency", "_times", "_since_first")
NEW_DAYS, NEW_EVENTS = 30, 2
"""Seen for fewer days with fewer active ones: nothing personal can be said (measured AUC .58)."""
PRIOR_WEIGHT = 20
SAMPLE = 20_000
"""People looked at for drift."""
NOT_FEATURES = ("person_id", "day", "split", "label", "_soon", "_season")
TREES_HEARD = (0.0, 0.25, 0.5, 0.75, 1.0)
RECIPE = "logistic+trees+rhythm+level/4"
"""Part of every version id: raise it when training changes, so that models are trained anew."""


def matrix(table: pa.Table, names: tuple[str, ...]) -> np.ndarray:
    """The named columns as floats, unknown as NaN."""
    import numpy as np

    return np.column_stack(_columns(table, names)) if names else np.empty((table.num_rows, 0))


def _columns(table: pa.Table, names: tuple[str, ...]) -> list[np.ndarray]:
    import pyarrow as pa

    return [table.column(name).cast(pa.float64()).to_numpy() for name in names]


def is_new(table: pa.Table) -> np.ndarray:
    """Who is too new for a personal score."""
    tenure, active = matrix(table, ("_tenure", "_active_days")).T
    return (tenure < NEW_DAYS) & (active < NEW_EVENTS)


@dataclass(frozen=True)
class Linear:
    """A regularised logistic over signed logarithms; an unknown value has a weight of its own."""

    features: tuple[str, ...]
    fill: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    intercept: float

    @staticmethod
    def fit(values: np.ndarray, label: np.ndarray, features: tuple[str, ...]) -> Linear:
        from sklearn.linear_model import LogisticRegression

        scaled, fill, mean, scale = log_scaled(values)
        fitted = LogisticRegression(C=100 / len(label), max_iter=1000).fit(scaled, label)
        return Linear(features, fill, mean, scale, fitted.coef_[0], float(fitted.intercept_[0]))

    def contributions(self, values: np.ndarray) -> np.ndarray:
        """What each feature adds to the log-odds, against the average person."""
        import numpy as np

        count = len(self.features)
        slope, average = self.weight / self.scale, self.mean * self.weight / self.scale
        given, unknown = _signed_log(values), np.isnan(values)
        given *= slope[:count]
        # Where the value is unknown, the weights of the usual value and of not knowing stand in for it.
        np.copyto(given, self.fill * slope[:count] + slope[count:], where=unknown)
        given -= average[:count] + average[count:]
        return given

    def probability(self, values: np.ndarray) -> np.ndarray:
        return self.probability_of(self.contributions(values))

    def probability_of(self, contributions: np.ndarray) -> np.ndarray:
        return sigmoid(contributions.sum(axis=1) + self.intercept)


def log_scaled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Signed logarithms beside what is unknown, scaled; and what they were filled, centred and scaled with."""
    import numpy as np

    logs = _signed_log(values)
    fill = np.array([np.median(column[~np.isnan(column)]) if (~np.isnan(column)).any() else 0 for column in logs.T])
    wide = _with_unknown(logs, fill)
    mean, scale = wide.mean(axis=0), wide.std(axis=0)
    scale[scale < 1e-9] = np.inf  # A constant column says nothing: its weight is zero.
    return (wide - mean) / scale, fill, mean, scale


def scaled_as(values: np.ndarray, fill: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The same for other rows, as `log_scaled` filled, centred and scaled."""
    return (_with_unknown(_signed_log(values), fill) - mean) / scale


def _signed_log(values: np.ndarray) -> np.ndarray:
    import numpy as np

    logs = np.abs(values)
    return np.copysign(np.log1p(logs, out=logs), values, out=logs)


def _with_unknown(logs: np.ndarray, fill: np.ndarray) -> np.ndarray:
    import numpy as np

    unknown = np.isnan(logs)
    return np.hstack([np.where(unknown, fill, logs), unknown.astype(float)])


def known_somewhere(values: np.ndarray) -> np.ndarray:
    """The same with 0 in columns of which nothing is known: a young company's last year, which trees cannot cut."""
    import numpy as np

    return np.where(np.isnan(values).all(axis=0), 0.0, values)


@dataclass(frozen=True)
class Model:
    """A trained pair of estimators and its calibration: log-odds × slope + shift."""

    features: tuple[str, ...]
    horizon_days: int
    rhythm: Rhythm
    linear: Linear
    trees: Any
    trees_heard: float = 0.5
    slope: float = 1.0
    shift: float = 0.0

    @staticmethod
    def fit(past: pa.Table, features: tuple[str, ...], horizon_days: int, seed: int) -> Model:
        import pyarrow.compute as pc
        from sklearn.ensemble import HistGradientBoostingClassifier

        newest = past.filter(pc.equal(past["day"], pc.max(past["day"])))
        rhythm = Rhythm.fit(*matrix(newest, RHYTHM).T)
        # Chosen on early windows of Online Retail II (AUC beside the logistic .7683; 100 trees of 15 leaves: .7672).
        leaf = max(20, min(100, past.num_rows // 50))
        trees = HistGradientBoostingClassifier(
            max_iter=80, max_leaf_nodes=6, learning_rate=0.05, min_samples_leaf=leaf, l2_regularization=10.0,
            max_features=0.5, early_stopping=False, random_state=seed,
        )  # fmt: skip
        values, label = inputs(past, features, rhythm, horizon_days), matrix(past, ("label",))[:, 0]
        linear = Linear.fit(values, label, (*features, "_rhythm"))
        return Model(features, horizon_days, rhythm, linear, trees.fit(known_somewhere(values), label))

    def inputs(self, rows: pa.Table) -> np.ndarray:
        return inputs(rows, self.features, self.rhythm, self.horizon_days)

    def odds(self, values: np.ndarray, contributions: np.ndarray | None = None) -> np.ndarray:
        """Log-odds of rows as `inputs` makes them, at the level of the training windows.

        `contributions` is what the linear part says of them, where that is known already.
        """
        from scipy.special import expit

        if contributions is None:
            contributions = self.linear.contributions(values)
        grown = expit(grown_odds(self.trees, values))
        blend = (1 - self.trees_heard) * self.linear.probability_of(contributions) + self.trees_heard * grown
        return self.slope * log_odds(blend) + self.shift


def inputs(rows: pa.Table, features: tuple[str, ...], rhythm: Rhythm, horizon_days: int) -> np.ndarray:
    """The features, and beside them what the person's own rhythm says."""
    import numpy as np

    said = rhythm.probability(*_columns(rows, RHYTHM), horizon_days=horizon_days)
    return np.column_stack([*_columns(rows, features), said])


@dataclass(frozen=True)
class Scorer:
    """Turns features into probabilities: the model's, or the rate of newcomers for those who are too new for it."""

    model: Model
    rate_new: float
    level: Level
    usual: Mapping[str, Reference] = field(default_factory=dict)

    def odds(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """(log-odds at the level of the training windows, whether it is a prior) per row."""
        return self.explained(rows)[:2]

    def explained(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(log-odds, whether it is a prior, values, what each adds to the linear part's log-odds) per row."""
        import numpy as np

        new, values = is_new(rows), self.model.inputs(rows)
        given = self.model.linear.contributions(values)
        odds = np.where(new, log_odds(np.array([self.rate_new])), self.model.odds(values, given))
        return odds, new, values, given

    def figures(self, rows: pa.Table) -> dict[str, np.ndarray]:
        """What is watched for drift, as far as it is still: the features, and log-odds at the level of training."""
        return {name: matrix(rows, (name,))[:, 0] for name in self.model.features} | {"_score": self.odds(rows)[0]}

    def drift(self, rows: pa.Table) -> dict[str, float]:
        """How far each watched figure of people to be scored has moved since the model was proven (drift.py)."""
        import pyarrow.compute as pc

        today = rows.filter(pc.is_null(rows["_soon"])).slice(0, SAMPLE)
        return drift(self.usual, self.figures(today)) if today.num_rows else {}

    def moved(self, before: pa.Table) -> float:
        """How far the level has moved since training, by rows of some days ago of which `_soon` is known."""
        return self.level.moved(self.odds(before)[0], matrix(before, ("_soon",))[:, 0]) if before.num_rows else 0.0

    def probability(self, rows: pa.Table, moved: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(probability, whether it is a prior) per row, where the level has moved so far since training."""
        odds, new = self.odds(rows)
        return self.level.probability(odds, moved, matrix(rows, ("_season",))[:, 0]), new


def splits(training: pa.Table, prediction: Binary) -> tuple[pa.Table, pa.Table, pa.Table]:
    """What is learned from, what the level at the test cut-off is measured on, and what is tested on."""
    import pyarrow.compute as pc

    past, test = halves(training, prediction)
    before = training.filter(pc.is_valid(training["_soon"])).sort_by([("day", "ascending"), ("person_id", "ascending")])
    if test.num_rows:
        before = before.filter(pc.equal(before["day"], test["day"][0].as_py() - timedelta(lately(prediction.horizon))))
    return past, before, test


def train(training: pa.Table, prediction: Binary, seed: int = 0, champion: Scorer | None = None) -> Trained:
    """Learn from the split 'train', measure on the untouched split 'test', beside the champion where there is one.

    With less than the declared minimum there is no model: `missing` names the number that lacks, and the prior is the
    rate known so far.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import sklearn.ensemble  # noqa: F401 - brings the thread pool that is limited below
    from threadpoolctl import threadpool_limits

    past, before, test = splits(training, prediction)
    card = card_of(past, test, seed, RECIPE, pc.sum(past["label"]).as_py() or 0)
    missing = _missing(past, test, prediction)
    if missing:
        known = matrix(pa.concat_tables([past, test]), ("label",))
        rate = float((known.sum() + 0.5) / (len(known) + 1))
        return Trained(None, {}, missing, card, {"rate": rate})
    # One thread: the same model on every machine, and no spinning where cores are shared (measured 10 times slower).
    with threadpool_limits(1):
        scorer = _learn(past, prediction, seed)
        days = sorted(set(past["day"].to_pylist()))
        own = [*(past.filter(pc.equal(past["day"], day)) for day in days), test]
        scorer = replace(scorer, usual=watched([scorer.figures(rows) for rows in own]))
        metrics, evidence = _prove(scorer, past, before, test, prediction, seed, champion)
    return Trained(scorer, metrics, None, card | evidence, {"rate": float(matrix(past, ("label",)).mean())})


def _learn(past: pa.Table, prediction: Binary, seed: int) -> Scorer:
    import numpy as np

    listed = (name for name in past.column_names if name not in NOT_FEATURES and not name.startswith(SLICE))
    names = tuple(name for name in listed if len(np.unique(matrix(past, (name,)))) > 1)
    model = Model.fit(past, names, prediction.horizon.days, seed)
    label, new = matrix(past, ("label",))[:, 0], is_new(past)
    rate = float(label.mean())
    rate_new = float((label[new].sum() + PRIOR_WEIGHT * rate) / (new.sum() + PRIOR_WEIGHT))
    scorer = Scorer(_calibrated(model, past, prediction.horizon, seed), rate_new, Level(prediction.target.happens))
    level = Level.fit(scorer.odds(past)[0], matrix(past, ("_soon",))[:, 0], prediction.target.happens)
    return replace(scorer, level=level)


def _prove(
    scorer: Scorer,
    past: pa.Table,
    before: pa.Table,
    test: pa.Table,
    prediction: Binary,
    seed: int,
    champion: Scorer | None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics on the test window beside simpler rivals, and what the charts are drawn from."""
    model, label, horizon = scorer.model, matrix(test, ("label",))[:, 0], prediction.horizon.days
    moved = scorer.moved(before)
    score, _ = scorer.probability(test, moved)
    baseline = Linear.fit(matrix(past, BASELINE), matrix(past, ("label",))[:, 0], BASELINE)
    again = model.rhythm.probability(*matrix(test, RHYTHM).T, horizon_days=horizon)
    rivals = {
        "baseline": baseline.probability(matrix(test, BASELINE)),
        "rhythm": again if prediction.target.happens else 1 - again,
    }
    if champion is not None:
        rivals["champion"] = champion.probability(test, champion.moved(before))[0]
    evidence = {
        "features": list(model.features),
        "reliability": reliability(label, score),
        "gains": gains(label, score),
        "importance": _importance(model, test, label, seed),
        "slices": {name: sliced(label, score, test[SLICE + name].to_pylist()) for name in prediction.slices},
    }
    metrics = measure(label, score, rivals, seed)
    return metrics | {"level_moved": moved, "season": float(matrix(test, ("_season",)).mean())}, evidence


def _missing(past: pa.Table, test: pa.Table, prediction: Binary) -> str | None:
    """The first number that is too small to learn from, in words."""
    import pyarrow.compute as pc

    least, label, test_label = prediction.minimum, matrix(past, ("label",)), matrix(test, ("label",))
    have = {
        "people in the training windows": (pc.count_distinct(past["person_id"]).as_py(), least.people),
        "people there for whom it happened": (int(label.sum()), least.positives),
        "people there for whom it did not happen": (int((1 - label).sum()), least.positives),
        "people in the test window for whom it happened": (int(test_label.sum()), 1),
        "people in the test window for whom it did not happen": (int((1 - test_label).sum()), 1),
    }
    return lacking(have)


def _calibrated(model: Model, past: pa.Table, horizon: timedelta, seed: int) -> Model:
    """The model with its estimators weighed and its log-odds made true, as far as the training windows can tell.

    How much the trees are heard, and how far log-odds are stretched, is what would have been best for an earlier model,
    of cut-offs fully labelled by then, on the newest training cut-off. The level is that of all training windows; what
    has become of it since is level.py's.
    """
    import pyarrow.compute as pc
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    newest = pc.max(past["day"]).as_py()
    before = past.filter(pc.less_equal(past["day"], newest - horizon))
    held = past.filter(pc.equal(past["day"], newest))
    if min(_rarer(before), _rarer(held)) >= 20:
        earlier, label = Model.fit(before, model.features, model.horizon_days, seed), matrix(held, ("label",))[:, 0]
        values, losses = earlier.inputs(held), {}
        for weight in TREES_HEARD:
            odds = replace(earlier, trees_heard=weight).odds(values)[:, None]
            fitted = LogisticRegression(C=1e6).fit(odds, label)
            losses[log_loss(label, fitted.predict_proba(odds)[:, 1])] = weight, float(fitted.coef_[0][0])
        weight, slope = losses[min(losses)]
        # A slope near or below zero would flatten or reverse the ranking; the gates judge a model that bad.
        model = replace(model, trees_heard=weight, slope=min(slope, 5.0) if slope > 0.1 else 1.0)
    odds = model.odds(model.inputs(past))
    return replace(model, shift=shift_to(odds, matrix(past, ("label",)).mean()))


def _rarer(rows: pa.Table) -> int:
    """How many rows the rarer label has."""
    label = matrix(rows, ("label",))
    return int(min(label.sum(), (1 - label).sum()))


def _importance(model: Model, test: pa.Table, label: np.ndarray, seed: int) -> dict[str, float]:
    """How much AUC is lost when one feature is shuffled among people, most important first."""
    import numpy as np

    random, names = np.random.default_rng(seed), model.linear.features
    rows = random.choice(len(label), min(len(label), 20_000), replace=False)
    values, label = model.inputs(test)[rows], label[rows]
    whole = ranking(label, model.odds(values))
    lost = {}
    for i, name in enumerate(names):
        shuffled = values.copy()
        shuffled[:, i] = random.permutation(shuffled[:, i])
        lost[name] = whole - ranking(label, model.odds(shuffled))
    return dict(sorted(lost.items(), key=lambda item: -item[1]))

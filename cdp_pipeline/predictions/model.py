"""The one estimator of binary predictions: boosted trees and a logistic averaged, calibrated inside training windows.

Trains and applies; what a model must prove is in gates.py, where it is kept in registry.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from cdp_pipeline.predictions.metrics import measure, reliability
from cdp_pipeline.predictions.training import Cutoffs, LeakageError
from cdp_pipeline.spec.prediction import Prediction

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BASELINE = ("_recency", "_times", "_amount")
NEW_DAYS, NEW_EVENTS = 30, 2
"""Seen for fewer days with fewer active ones: nothing personal can be said (measured AUC .58)."""
PRIOR_WEIGHT = 20
RECIPE = "logistic+trees/1"
"""Part of every version id: raise it when training changes, so that models are trained anew."""


def matrix(table: pa.Table, names: tuple[str, ...]) -> np.ndarray:
    """The named columns as floats, unknown as NaN."""
    import numpy as np
    import pyarrow as pa

    columns = [table.column(name).cast(pa.float64()).to_numpy() for name in names]
    return np.column_stack(columns) if columns else np.empty((table.num_rows, 0))


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
    def fit(values: np.ndarray, label: np.ndarray, features: tuple[str, ...], penalty: float = 1.0) -> Linear:
        import numpy as np
        from sklearn.linear_model import LogisticRegression

        logs = _signed_log(values)
        fill = np.array([np.median(column[~np.isnan(column)]) if (~np.isnan(column)).any() else 0 for column in logs.T])
        wide = _with_unknown(logs, fill)
        mean, scale = wide.mean(axis=0), wide.std(axis=0)
        scale[scale < 1e-9] = np.inf  # A constant column says nothing: its weight is zero.
        fitted = LogisticRegression(C=1 / penalty, max_iter=1000).fit((wide - mean) / scale, label)
        return Linear(features, fill, mean, scale, fitted.coef_[0], float(fitted.intercept_[0]))

    def contributions(self, values: np.ndarray) -> np.ndarray:
        """What each feature adds to the log-odds, against the average person."""
        wide = (_with_unknown(_signed_log(values), self.fill) - self.mean) / self.scale * self.weight
        count = len(self.features)
        return wide[:, :count] + wide[:, count:]

    def probability(self, values: np.ndarray) -> np.ndarray:
        return _sigmoid(self.contributions(values).sum(axis=1) + self.intercept)


def _signed_log(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.sign(values) * np.log1p(np.abs(values))


def _with_unknown(logs: np.ndarray, fill: np.ndarray) -> np.ndarray:
    import numpy as np

    unknown = np.isnan(logs)
    return np.hstack([np.where(unknown, fill, logs), unknown.astype(float)])


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    import numpy as np

    return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))


def _log_odds(probability: np.ndarray) -> np.ndarray:
    import numpy as np

    safe = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(safe / (1 - safe))


@dataclass(frozen=True)
class Model:
    """A trained pair of estimators and its calibration: log-odds × slope + shift."""

    linear: Linear
    trees: Any
    slope: float = 1.0
    shift: float = 0.0

    @property
    def features(self) -> tuple[str, ...]:
        return self.linear.features

    @staticmethod
    def fit(values: np.ndarray, label: np.ndarray, features: tuple[str, ...], seed: int) -> Model:
        from sklearn.ensemble import HistGradientBoostingClassifier

        trees = HistGradientBoostingClassifier(
            max_iter=100, max_leaf_nodes=15, learning_rate=0.05, min_samples_leaf=40, l2_regularization=1.0,
            early_stopping=False, random_state=seed,
        )  # fmt: skip
        return Model(Linear.fit(values, label, features), trees.fit(values, label))

    def probability(self, values: np.ndarray) -> np.ndarray:
        blend = (self.linear.probability(values) + self.trees.predict_proba(values)[:, 1]) / 2
        return _sigmoid(self.slope * _log_odds(blend) + self.shift)


@dataclass(frozen=True)
class Scorer:
    """Turns features into probabilities: the model's, or a known rate for those it can say nothing personal about."""

    model: Model | None
    rate: float
    rate_new: float

    def probability(self, features: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """(probability, whether it is a prior) per row."""
        import numpy as np

        if self.model is None:
            return np.full(features.num_rows, self.rate), np.ones(features.num_rows, dtype=bool)
        new = is_new(features)
        return np.where(new, self.rate_new, self.model.probability(matrix(features, self.model.features))), new


@dataclass(frozen=True)
class Trained:
    """What training gave: a scorer (without a model where data were too few), its metrics, and its card."""

    scorer: Scorer
    metrics: dict[str, float]
    missing: str | None
    card: dict[str, Any] = field(default_factory=dict)


def train(training: pa.Table, prediction: Prediction, seed: int = 0, champion: Scorer | None = None) -> Trained:
    """Learn from the split 'train', measure on the untouched split 'test', beside the champion where there is one.

    With less than the declared minimum there is no model: `missing` names the number that lacks, and the scorer
    gives everybody the rate known so far.
    """
    import numpy as np
    import pyarrow.compute as pc

    training = training.sort_by([("day", "ascending"), ("person_id", "ascending")])
    past = training.filter(pc.equal(training["split"], "train"))
    test = training.filter(pc.equal(training["split"], "test"))
    _check_days(past, test, prediction)
    label, test_label = matrix(past, ("label",))[:, 0], matrix(test, ("label",))[:, 0]
    names = tuple(name for name in training.column_names if name not in ("person_id", "day", "split", "label"))
    card: dict[str, Any] = {
        "train_cutoffs": [str(day) for day in sorted(set(past["day"].to_pylist()))],
        "test_cutoff": str(max(test["day"].to_pylist())) if test.num_rows else None,
        "train_rows": past.num_rows, "train_people": pc.count_distinct(past["person_id"]).as_py(),
        "train_positives": int(label.sum()), "seed": seed, "recipe": RECIPE,
    }  # fmt: skip
    missing = _missing(past, label, test_label, prediction)
    if missing:
        known = np.concatenate([label, test_label])
        rate = float((known.sum() + 0.5) / (len(known) + 1))
        return Trained(Scorer(None, rate, rate), {}, missing, card | {"features": []})

    values = matrix(past, names)
    kept = [i for i in range(len(names)) if len(np.unique(values[:, i])) > 1]
    names, values = tuple(names[i] for i in kept), values[:, kept]
    slope, shift = _calibration(values, label, names, np.array(past["day"].to_pylist()), prediction.horizon, seed)
    fitted = Model.fit(values, label, names, seed)
    model = Model(fitted.linear, fitted.trees, slope, shift)
    new, rate = is_new(past), float(label.mean())
    rate_new = float((label[new].sum() + PRIOR_WEIGHT * rate) / (new.sum() + PRIOR_WEIGHT))
    scorer = Scorer(model, rate, rate_new)

    score, _ = scorer.probability(test)
    baseline = Linear.fit(matrix(past, BASELINE), label, BASELINE)
    rivals = {"baseline": baseline.probability(matrix(test, BASELINE))}
    if champion is not None:
        rivals["champion"] = champion.probability(test)[0]
    metrics = measure(test_label, score, rivals, seed)
    card |= {
        "features": list(names),
        "reliability": reliability(test_label, score),
        "gains": _gains(test_label, score),
        "importance": _importance(scorer, test, test_label, metrics["auc"], seed),
    }
    return Trained(scorer, metrics, None, card)


def _check_days(past: pa.Table, test: pa.Table, prediction: Prediction) -> None:
    if test.num_rows:
        test_days = sorted(set(test["day"].to_pylist()))
        if len(test_days) > 1:
            raise LeakageError(f"the test split holds {len(test_days)} cut-offs; it is one untouched window")
        Cutoffs(tuple(sorted(set(past["day"].to_pylist()))), test_days[0], prediction.horizon).check_embargo()


def _missing(past: pa.Table, label: np.ndarray, test_label: np.ndarray, prediction: Prediction) -> str | None:
    """The first number that is too small to learn from, in words."""
    import pyarrow.compute as pc

    least = prediction.minimum
    have = {
        "people in the training windows": (pc.count_distinct(past["person_id"]).as_py(), least.people),
        "people there for whom it happened": (int(label.sum()), least.positives),
        "people there for whom it did not happen": (int((1 - label).sum()), least.positives),
        "people in the test window for whom it happened": (int(test_label.sum()), 1),
        "people in the test window for whom it did not happen": (int((1 - test_label).sum()), 1),
    }
    for what, (count, needed) in have.items():
        if count < needed:
            return f"needs {needed} {what}, has {count}"
    return None


def _calibration(
    values: np.ndarray, label: np.ndarray, names: tuple[str, ...], days: np.ndarray, horizon: timedelta, seed: int
) -> tuple[float, float]:
    """Slope and shift of the log-odds, from the newest training cut-off as seen by a model of those that were already
    labelled by then. With too few of these the model is taken at its word (1, 0)."""
    from sklearn.linear_model import LogisticRegression

    newest: date = days.max()
    before, held = days + horizon <= newest, days == newest
    if min(label[before].sum(), (1 - label[before]).sum(), label[held].sum(), (1 - label[held]).sum()) < 20:
        return 1.0, 0.0
    odds = _log_odds(Model.fit(values[before], label[before], names, seed).probability(values[held]))
    fitted = LogisticRegression(C=1e6).fit(odds[:, None], label[held])
    slope = float(fitted.coef_[0][0])
    # A negative slope would turn the ranking round: then only the level is trusted.
    return (slope, float(fitted.intercept_[0])) if slope > 0 else (1.0, 0.0)


def _gains(label: np.ndarray, score: np.ndarray) -> list[float]:
    """The share of all positives found in the best 5 %, 10 %, … 100 % of people."""
    import numpy as np

    found = np.cumsum(label[np.argsort(-score, kind="stable")]) / label.sum()
    return [float(found[max(0, round(len(label) * step / 20) - 1)]) for step in range(1, 21)]


def _importance(scorer: Scorer, test: pa.Table, label: np.ndarray, auc: float, seed: int) -> dict[str, float]:
    """How much AUC is lost when one feature is shuffled among people, most important first."""
    import numpy as np

    from cdp_pipeline.predictions.metrics import ranking

    assert scorer.model is not None
    random, names = np.random.default_rng(seed), scorer.model.features
    rows = random.choice(len(label), min(len(label), 20_000), replace=False)
    values, label = matrix(test, names)[rows], label[rows]
    whole = ranking(label, scorer.model.probability(values))
    lost = {}
    for i, name in enumerate(names):
        shuffled = values.copy()
        shuffled[:, i] = random.permutation(shuffled[:, i])
        lost[name] = whole - ranking(label, scorer.model.probability(shuffled))
    return dict(sorted(lost.items(), key=lambda item: -item[1]))

"""The estimators of what a contact changes: four learners, of which the one is taken that orders unseen people best.

Learners see standardised features (signed logarithms beside what is unknown). How they are judged is in qini.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdp_pipeline.predictions.item_metrics import codes
from cdp_pipeline.predictions.logistic import Logistic
from cdp_pipeline.predictions.model import known_somewhere, log_scaled, matrix, scaled_as
from cdp_pipeline.predictions.qini import Qini

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PENALTY = 30.0
"""Of the logistics' weights: features are standardised, so it is worth so many people's information on each."""
FOLDS, REPEATS = 2, 3


@dataclass(frozen=True)
class TLogistic:
    """A logistic for either arm; what a contact changes is the difference of their probabilities."""

    treated: Logistic
    control: Logistic

    @staticmethod
    def fit(values: np.ndarray, label: np.ndarray, treated: np.ndarray, seed: int) -> TLogistic:
        given = treated == 1
        return TLogistic(
            Logistic.fit(values[given], label[given], PENALTY), Logistic.fit(values[~given], label[~given], PENALTY)
        )

    def change(self, values: np.ndarray) -> np.ndarray:
        return self.treated.probability(values) - self.control.probability(values)

    def contributions(self, values: np.ndarray) -> np.ndarray:
        """What each column adds to the change of the log-odds."""
        return self.treated.contributions(values) - self.control.contributions(values)


@dataclass(frozen=True)
class SLogistic:
    """One logistic over features, the contact, and the features of the contacted: their weights are drawn to none."""

    logistic: Logistic

    @staticmethod
    def fit(values: np.ndarray, label: np.ndarray, treated: np.ndarray, seed: int) -> SLogistic:
        return SLogistic(Logistic.fit(_with_contact(values, treated - 0.5), label, PENALTY))

    def change(self, values: np.ndarray) -> np.ndarray:
        with_, without = (self.logistic.probability(_with_contact(values, _all(values, arm))) for arm in (0.5, -0.5))
        return with_ - without

    def contributions(self, values: np.ndarray) -> np.ndarray:
        with_, without = (self.logistic.contributions(_with_contact(values, _all(values, arm))) for arm in (0.5, -0.5))
        return (with_ - without)[:, -values.shape[1] :]


@dataclass(frozen=True)
class TTrees:
    """Boosted trees for either arm."""

    treated: Any
    control: Any

    @staticmethod
    def fit(values: np.ndarray, label: np.ndarray, treated: np.ndarray, seed: int) -> TTrees:
        given = treated == 1
        return TTrees(
            _trees(int(given.sum()), seed).fit(known_somewhere(values[given]), label[given]),
            _trees(int((~given).sum()), seed).fit(known_somewhere(values[~given]), label[~given]),
        )

    def change(self, values: np.ndarray) -> np.ndarray:
        return self.treated.predict_proba(values)[:, 1] - self.control.predict_proba(values)[:, 1]


@dataclass(frozen=True)
class Transformed:
    """Boosted trees for one class: treated and did it, or untreated and did not (Jaskowski and Jaroszewicz 2012).

    Both arms weigh the same, so twice its probability less one is the change.
    """

    trees: Any

    @staticmethod
    def fit(values: np.ndarray, label: np.ndarray, treated: np.ndarray, seed: int) -> Transformed:
        import numpy as np

        share = treated.mean()
        weight = np.where(treated == 1, 0.5 / share, 0.5 / (1 - share))
        return Transformed(
            _trees(len(label), seed).fit(known_somewhere(values), label == treated, sample_weight=weight)
        )

    def change(self, values: np.ndarray) -> np.ndarray:
        return 2 * self.trees.predict_proba(values)[:, 1] - 1


Learner = Callable[..., Any]
LEARNERS: dict[str, Learner] = {
    "logistic of each arm": TLogistic.fit,
    "logistic with interactions": SLogistic.fit,
    "trees of each arm": TTrees.fit,
    "trees of the transformed class": Transformed.fit,
}


@dataclass(frozen=True)
class Effects:
    """A trained uplift: what is known of a person → how much likelier a contact makes it."""

    features: tuple[str, ...]
    fill: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    learner: str
    model: Any
    chosen_by: dict[str, float]
    """The cross-fitted Qini of each learner on what was learned from."""

    @staticmethod
    def fit(past: pa.Table, features: tuple[str, ...], seed: int, repeats: int = REPEATS) -> Effects:
        """Rows have treated and label, 0 or 1; the learner is the best by Qini, cross-fitted `repeats` times."""
        values, fill, mean, scale = log_scaled(matrix(past, features))
        label, treated = matrix(past, ("label", "treated")).T
        people = codes(past["person_id"])
        found = {
            name: _cross_fitted(learner, values, label, treated, people, seed, repeats)
            for name, learner in LEARNERS.items()
        }
        learner = max(found, key=lambda name: found[name])
        model = LEARNERS[learner](values, label, treated, seed)
        return Effects(features, fill, mean, scale, learner, model, found)

    def change(self, rows: pa.Table) -> np.ndarray:
        """How much likelier a contact makes it, per row: -1 to 1."""
        return self.model.change(self._inputs(rows))

    def contributions(self, rows: pa.Table) -> np.ndarray | None:
        """What each feature adds to the change of the log-odds; None of trees, which tell no such thing."""
        if not hasattr(self.model, "contributions"):
            return None
        given = self.model.contributions(self._inputs(rows))
        count = len(self.features)
        return given[:, :count] + given[:, count:]

    def _inputs(self, rows: pa.Table) -> np.ndarray:
        return scaled_as(matrix(rows, self.features), self.fill, self.mean, self.scale)


def _cross_fitted(
    learner: Learner, values: np.ndarray, label: np.ndarray, treated: np.ndarray, people: np.ndarray, seed: int,
    repeats: int,
) -> float:  # fmt: skip
    """Mean Qini of what a learner says of people it has not seen."""

    def said(fold: np.ndarray) -> np.ndarray:
        return learner(values[~fold], label[~fold], treated[~fold], seed).change(values[fold])

    found = [unseen(said, people, seed * 1000 + repeat) for repeat in range(repeats)]
    return sum(Qini(label, treated, scores).of() for scores in found) / repeats


def unseen(said: Callable[[np.ndarray], np.ndarray], people: np.ndarray, seed: int) -> np.ndarray:
    """A figure for every row: `said` gives those of the rows of a fold (a mask), learned from the other rows.

    All rows of a person (`people`: a number for each) fall into one fold.
    """
    import numpy as np

    folds = np.random.default_rng(seed).permutation(int(people.max()) + 1)[people] % FOLDS
    found = np.empty(len(people))
    for number in range(FOLDS):
        found[folds == number] = said(folds == number)
    return found


def _with_contact(values: np.ndarray, arm: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.column_stack([values, arm, values * arm[:, None]])


def _all(values: np.ndarray, arm: float) -> np.ndarray:
    import numpy as np

    return np.full(len(values), arm)


def _trees(rows: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    # Small and slow: what a contact changes is a small difference of two large numbers.
    return HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=4, learning_rate=0.05, min_samples_leaf=max(20, min(200, rows // 50)),
        l2_regularization=10.0, max_features=0.5, early_stopping=False, random_state=seed,
    )  # fmt: skip

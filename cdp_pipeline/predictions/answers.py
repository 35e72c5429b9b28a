"""The estimator of responses: a logistic over how they answered so far, who they are, and how others answer.

Its penalty is chosen by leaving out whole training windows. Where the columns come from is contacts.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_pipeline.predictions.contacts import CONTACTS
from cdp_pipeline.predictions.logistic import Logistic
from cdp_pipeline.predictions.model import matrix

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0)
PULL = 5.0
"""How many contacts of everybody's stand behind a person's own rate of answers."""
LONG_AGO = 400.0
HISTORY = ("contacted", "answered", "contacted_all", "answered_all", "rate", "rate_all", "usual")
AGES = ("_contact_recency", "_answer_recency", "_answer_recency_all")


def rate(answered: np.ndarray, contacted: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """The share of contacts answered, drawn towards what is usual."""
    return (answered + PULL * usual) / (contacted + PULL)


def shrunk_rates(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(by this item, at all): how often they answered so far, drawn towards everybody's answers to the item."""
    values = {name: matrix(rows, (name,))[:, 0] for name in CONTACTS}
    at_all = rate(values["_answered_all"], values["_contacted_all"], values["_usual"])
    return rate(values["_answered"], values["_contacted"], at_all), at_all


@dataclass(frozen=True)
class Answers:
    """A trained response: what is known of a person and an item → the chance that a contact is answered."""

    features: tuple[str, ...]
    fill: np.ndarray
    logistic: Logistic

    @staticmethod
    def fit(past: pa.Table, features: tuple[str, ...]) -> Answers:
        import numpy as np

        wide = matrix(past, features)
        logs = np.sign(wide) * np.log1p(np.abs(wide))
        known = (column[~np.isnan(column)] for column in logs.T)
        fill = np.array([np.median(values) if len(values) else 0.0 for values in known])
        values, label = _design(past, features, fill), matrix(past, ("label",))[:, 0]
        return Answers(features, fill, Logistic.fit(values, label, _penalty(values, label, past)))

    def contributions(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """(probability, what each of `columns` adds to the log-odds) per row; being unknown counts with its trait."""
        import numpy as np

        values = _design(rows, self.features, self.fill)
        each, count = self.logistic.contributions(values), len(self.features)
        given = np.hstack([each[:, :count] + each[:, count : 2 * count], each[:, 2 * count :]])
        return self.logistic.probability(values), given

    def values(self, rows: pa.Table) -> np.ndarray:
        """The `columns` of each row as people would say them, unknown as NaN."""
        import numpy as np

        counts = matrix(rows, ("_contacted", "_answered", "_contacted_all", "_answered_all"))
        rates = np.column_stack([*shrunk_rates(rows), matrix(rows, ("_usual",))])
        return np.column_stack([matrix(rows, self.features), counts, rates, matrix(rows, AGES)])

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.features, *HISTORY, *AGES)


def _design(rows: pa.Table, features: tuple[str, ...], fill: np.ndarray) -> np.ndarray:
    """Traits on a signed logarithmic scale, whether each is unknown, then HISTORY and AGES."""
    import numpy as np

    wide = matrix(rows, features)
    logs, unknown = np.sign(wide) * np.log1p(np.abs(wide)), np.isnan(wide)
    counts = np.log1p(matrix(rows, ("_contacted", "_answered", "_contacted_all", "_answered_all")))
    by_item, at_all = shrunk_rates(rows)
    odds = [_odds(share) for share in (by_item, at_all, matrix(rows, ("_usual",))[:, 0])]
    ages = np.log1p(np.nan_to_num(matrix(rows, AGES), nan=LONG_AGO))
    return np.column_stack([np.where(unknown, fill, logs), unknown, counts, *odds, ages])


def _odds(share: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.log((share + 1e-3) / (1 + 1e-3 - share))


def _penalty(values: np.ndarray, label: np.ndarray, past: pa.Table) -> float:
    """The penalty that foresees best a training window that was left out; with one window only, the middle one."""
    import numpy as np

    days = past["day"].combine_chunks().dictionary_encode().indices.to_numpy()
    losses = dict.fromkeys(PENALTIES, 0.0)
    for day in np.unique(days):
        held = days == day
        if not 0 < label[~held].sum() < (~held).sum():
            continue
        for penalty in PENALTIES:
            chance = Logistic.fit(values[~held], label[~held], penalty).probability(values[held])
            losses[penalty] -= float(np.log(np.where(label[held] == 1, chance, 1 - chance)).sum())
    if not any(losses.values()):
        return PENALTIES[len(PENALTIES) // 2]
    return min(losses, key=lambda penalty: losses[penalty])

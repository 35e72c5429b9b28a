"""All ways of recommending weighed together: a logistic over what each says of a person and an item.

Its weights are learned on earlier windows; its score is the probability that the person has the item in the horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_pipeline.predictions.recommend import neighbours, own
from cdp_pipeline.predictions.recommend.history import History, cells
from cdp_pipeline.predictions.recommend.voices import Voice

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from scipy.sparse import csr_matrix

CANDIDATES = 150
"""Items not had yet that are weighed per person: the best by EASE times what sells, beside all that were looked at."""
TREND = 0.3
PENALTY = 0.1
"""Strength of the logistic's regularisation, as scikit-learn's C (chosen on older windows; flat from .03 to 1)."""
SMALL = 0.01


class Evidence:
    """What a history says of pairs of people and items; made once per history, asked about many people."""

    def __init__(self, history: History, had: str) -> None:
        self.history, self.had = history, had
        made = history.made
        self.near, self.wide = made(neighbours.ease), made(neighbours.gf_cf)
        self.beside, self.seen_beside = made(neighbours.bought_together), made(neighbours.viewed_together)
        self.following, self.again, self.look = made(own.category_next), made(own.again), made(own.looked_at)
        self.week, self.month, self.quarter = (history.people_within(0, days) for days in (7, 30, 90))

    def candidates(self, people: np.ndarray) -> np.ndarray:
        """(people, items): which items are weighed at all: what they had ('again'), others ('new'), or both ('any')."""
        import numpy as np

        mine = self.history.owned[people].toarray() > 0
        if self.had == "again":
            return mine
        found = self.history.looks[people].toarray() > 0
        if self.history.items:
            quick = np.where(mine, -1, (self.near.scores(people) + SMALL**2) * (self.month + 0.1) ** TREND)
            most = min(CANDIDATES, self.history.items)
            np.put_along_axis(found, np.argpartition(-quick, most - 1, axis=1)[:, :most], True, axis=1)
        return found | mine if self.had == "any" else found & ~mine

    def pairs(self, people: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """(row, item, features) of the candidates of these people; `row` counts within `people`."""
        import numpy as np

        h, log = self.history, np.log1p
        row, item = np.nonzero(self.candidates(people))

        def of(matrix: csr_matrix) -> np.ndarray:
            return matrix[people].toarray()[row, item]

        def said(voice: Voice, least: float = SMALL) -> np.ndarray:
            return np.log(voice.scores(people)[row, item] + least)

        times, owned = of(h.times), of(h.owned)
        last, first = (np.maximum(of(days) - 1, 0) for days in (h.last, h.first))
        gap = np.maximum((first - last) / np.maximum(times - 1, 1), 7)
        days, lately, since, tenure = h.active[people[row]].T
        like, wide = said(self.near), self.wide.scores(people)
        average = np.maximum(wide.mean(axis=1), 1e-9)
        found = {
            "owned": owned,
            "times": log(times),
            "share": log(times) - log(days),
            "last": log(last),
            "once": times == 1,
            "due": np.where(times > 1, np.abs(np.log(np.maximum(last, 1) / gap)), 0),
            "like": like,
            "like_owned": like * owned,
            "wide": np.log(wide[row, item] / average[row] + 0.1),
            "together": said(self.beside),
            "category": said(self.following, SMALL**2),
            "looks": log(of(h.looks)),
            "look_beside": said(self.seen_beside),
            "week": log(self.week[item]),
            "month": log(self.month[item]),
            "quarter": log(self.quarter[item]),
            "ever": log(h.reach[item]),
            "month_owned": log(self.month[item]) * owned,
            "days": log(days),
            "days_lately": log(lately),
            "since": log(since),
            "tenure": log(tenure),
        }
        return row, item, {name: np.asarray(values, dtype=np.float32) for name, values in found.items()}


@dataclass(frozen=True)
class Weights:
    """How much each feature counts: the log-odds are the standardised features times `weight`, plus `intercept`."""

    features: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    intercept: float
    had: str

    def probability(self, values: np.ndarray) -> np.ndarray:
        import numpy as np

        odds = (values - self.mean) / self.scale @ self.weight + self.intercept
        return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))


def learn(history: History, days: Sequence[int], horizon: int, had: str, most_people: int = 20_000) -> Weights:
    """Weights from what people had in the horizon after each of these days, seen from that day.

    `had` is that of chain.Wanted. Everybody seen by then counts; of more than `most_people` every n-th, by number.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    tables: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    names: tuple[str, ...] = ()
    for day in days:
        then = history.at(day)
        people = then.seen[:: len(then.seen) // most_people + 1]
        happened, evidence = history.following(day, horizon), Evidence(then, had)
        for start in range(0, len(people), 500):
            some = people[start : start + 500]
            row, item, found = evidence.pairs(some)
            tables.append(np.column_stack(list(found.values())))
            labels.append(happened[some].toarray()[row, item] > 0)
            names = tuple(found)
    values, label = np.concatenate(tables).astype(np.float64), np.concatenate(labels)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale[scale < 1e-9] = np.inf
    fitted = LogisticRegression(C=PENALTY, max_iter=500).fit((values - mean) / scale, label)
    return Weights(names, mean, scale, fitted.coef_[0], float(fitted.intercept_[0]), had)


@dataclass(frozen=True)
class Weighed:
    """The learned way of recommending: probabilities of the candidates."""

    weights: Weights
    evidence: Evidence

    def scores(self, people: np.ndarray) -> np.ndarray:
        import numpy as np

        scores = np.zeros((len(people), self.evidence.history.items), dtype=np.float32)
        row, item, found = self.evidence.pairs(people)
        scores[row, item] = self.weights.probability(np.column_stack(list(found.values())))
        return scores

    def because(self, person: np.ndarray, item: np.ndarray, names: pa.Array) -> pa.Array:
        """The plainest true thing: that they had it, else that they looked at it, else what it goes with."""
        import pyarrow as pa
        import pyarrow.compute as pc

        history = self.evidence.history
        had, looked = (cells(matrix, person, item) > 0 for matrix in (history.times, history.looks))
        own_words, look_words, like_words = (
            voice.because(person, item, names)
            for voice in (self.evidence.again, self.evidence.look, self.evidence.near)
        )
        return pc.if_else(pa.array(had), own_words, pc.if_else(pa.array(looked), look_words, like_words))


def learned(history: History, weights: Weights) -> Weighed:
    return Weighed(weights, Evidence(history, weights.had))

"""The estimator of affinities: a logistic over a person's own habit, the item's reach, and what else the person takes.

Trains on and applies to the columns of items.KNOWN; where they come from is items.py, the path of scores affinity.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_pipeline.predictions.logistic import Logistic
from cdp_pipeline.predictions.model import matrix

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


PENALTY = 1.0
NEIGHBOUR_RIDGE = 5.0
PULL = 5.0
"""How many days of a person's own are worth as much as what is usual for the item."""
MOST_ROWS = 1_000_000
GROUPS = {
    "own habit": (
        "times", "decayed", "slow", "recent", "recency", "has", "rate", "rate_slow", "expected", "overdue", "repeated",
        "gap",
    ),
    "how active they are": (
        "person_times", "person_recent", "person_decayed", "person_recency", "items", "items_recent",
    ),
    "how many others take it": ("share", "share_recent"),
    "what else they take": ("neighbours",),
}  # fmt: skip
"""What a score is made of, in words, and the columns of the design that say it."""
COLUMNS = tuple(name for names in GROUPS.values() for name in names)


@dataclass(frozen=True)
class Neighbours:
    """What taking one item says about each other: item × item weights, zero on the diagonal.

    The closed form of EASE (Steck 2019) on people's rows of slowly fading logarithmic frequencies, each of length one.
    """

    items: tuple[str, ...]
    weight: np.ndarray

    @staticmethod
    def fit(rows: pa.Table) -> Neighbours:
        import numpy as np

        items = tuple(sorted(set(rows["item"].to_pylist())))
        taken, _ = _taken(rows, items)
        inverse = np.linalg.inv(taken.T @ taken + NEIGHBOUR_RIDGE * np.eye(len(items)))
        weight = -inverse / np.diag(inverse)[None, :]
        np.fill_diagonal(weight, 0.0)
        return Neighbours(items, weight)

    def pull(self, rows: pa.Table) -> np.ndarray:
        """How much what each row's person takes else speaks for the row's item; rows of a person and day together."""
        import numpy as np

        taken, (person, place) = _taken(rows, self.items)
        found = (taken @ self.weight)[person, np.maximum(place, 0)]
        return np.where(place < 0, 0.0, found)


def _taken(rows: pa.Table, items: tuple[str, ...]) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """People × items, each person's row of length one; and of each row its person's and item's place (-1: none)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    person = rows["person_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    if "day" in rows.column_names:
        days = rows["day"].combine_chunks().dictionary_encode().indices.to_numpy()
        person = np.unique(person.astype(np.int64) * (int(days.max(initial=0)) + 1) + days, return_inverse=True)[1]
    place = pc.fill_null(pc.index_in(rows["item"], pa.array(items, pa.string())), -1).to_numpy().astype(np.int64)
    known = place >= 0
    taken = np.zeros((int(person.max(initial=-1)) + 1, len(items)))
    taken[person[known], place[known]] = np.log1p(matrix(rows, ("_slow",))[known, 0])
    return taken / np.maximum(np.linalg.norm(taken, axis=1, keepdims=True), 1e-9), (person, place)


def design(rows: pa.Table, neighbours: Neighbours) -> np.ndarray:
    """The columns COLUMNS of each row, from what is known of its person and item."""
    import numpy as np

    def raw(name: str) -> np.ndarray:
        return matrix(rows, (name,))[:, 0]

    log, times, person = np.log1p, raw("_times"), raw("_person_times")
    has, repeated = times > 0, times > 1
    recency = np.nan_to_num(raw("_recency"), nan=400.0)
    first = np.nan_to_num(raw("_since_first"), nan=400.0)
    gap = np.where(repeated, (first - recency) / np.maximum(times - 1, 1), 0.0)
    usual = np.maximum(raw("_item_rate"), 1e-6)
    rate = (times + PULL * usual) / (person + PULL)
    rate_slow = (raw("_slow") + PULL * usual) / (raw("_person_slow") + PULL)
    columns = {
        "times": log(times),
        "decayed": log(raw("_decayed")),
        "slow": log(raw("_slow")),
        "recent": log(raw("_recent")),
        "recency": log(recency),
        "has": has,
        "rate": np.log(rate),
        "rate_slow": np.log(rate_slow),
        "expected": np.log(rate_slow * (raw("_person_recent") + 0.3)),
        "overdue": np.where(repeated, np.log((recency + 1) / (gap + 1)), 0.0),
        "repeated": repeated,
        "gap": log(gap),
        "person_times": log(person),
        "person_recent": log(raw("_person_recent")),
        "person_decayed": log(raw("_person_decayed")),
        "person_recency": log(np.nan_to_num(raw("_person_recency"), nan=400.0)),
        "items": log(raw("_person_items")),
        "items_recent": log(raw("_person_items_recent")),
        "share": _odds(raw("_item_share")),
        "share_recent": _odds(raw("_item_share_recent")),
        "neighbours": neighbours.pull(rows),
    }
    return np.column_stack([columns[name] for name in COLUMNS])


def _odds(share: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.log((share + 1e-4) / (1 + 1e-4 - share))


@dataclass(frozen=True)
class Habits:
    """A trained affinity: what is known of a pair → the chance that it happens within the horizon."""

    neighbours: Neighbours
    logistic: Logistic

    @staticmethod
    def fit(past: pa.Table, seed: int) -> Habits:
        """Learn from labelled rows, day after day; of very many, from those of people drawn by `seed`."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        newest = past.filter(pc.equal(past["day"], pc.max(past["day"])))
        neighbours = Neighbours.fit(newest)
        if past.num_rows > MOST_ROWS:
            people = np.array(sorted(set(past["person_id"].to_pylist())))
            some = np.random.default_rng(seed).choice(people, int(len(people) * MOST_ROWS / past.num_rows), False)
            past = past.filter(pc.is_in(past["person_id"], pa.array(some)))
        return Habits(neighbours, Logistic.fit(design(past, neighbours), matrix(past, ("label",))[:, 0], PENALTY))

    def contributions(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """(probability, what each of GROUPS adds to the log-odds) per row; all rows of a person and day together."""
        import numpy as np

        values = design(rows, self.neighbours)
        each, place, parts = self.logistic.contributions(values), 0, []
        for names in GROUPS.values():
            parts.append(each[:, place : place + len(names)].sum(axis=1))
            place += len(names)
        return self.logistic.probability(values), np.column_stack(parts)

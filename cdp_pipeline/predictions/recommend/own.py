"""What a person's own past says: bought again, due again, looked at, and the category that comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_pipeline.predictions.recommend.history import History, cells, visits
from cdp_pipeline.predictions.recommend.voices import said, whole

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from scipy.sparse import csr_matrix

GAP_DOUBT = 2.0
"""A person's own interval between two purchases of an item counts against so many intervals of everybody's."""


@dataclass(frozen=True)
class Own:
    """A strength for items of the person's own, and words with a number from their own past."""

    strength: csr_matrix
    number: csr_matrix
    words: str

    def scores(self, people: np.ndarray) -> np.ndarray:
        return self.strength[people].toarray()

    def because(self, person: np.ndarray, item: np.ndarray, names: pa.Array) -> pa.Array:

        return said(self.words, whole(cells(self.number, person, item)))


def again(history: History) -> Own:
    """By on how many days the person had the item; of equals, what more people had in the last 30 days."""
    lately = history.people_within(0, 30)
    strength = history.times.copy()
    strength.data = strength.data + lately[strength.indices] / (lately.max(initial=0) + 1)
    return Own(strength, history.times, "had before (×{})")


def looked_at(history: History) -> Own:
    """By how much the person looked at the item lately."""
    import numpy as np

    ago = history.last_look.copy()
    ago.data = np.maximum(ago.data - 1, 0)
    return Own(history.looks, ago, "looked at {} days ago")


def replenishment(history: History) -> Own:
    """Items that are due: strongest when as much time has passed as usually lies between two purchases.

    The usual interval is the person's own mean of intervals, pulled by two of the item's (mean over all people).
    With u days until due, strength is exp(-|u| / interval); an item nobody bought twice has none.
    """
    import numpy as np

    times, last, first = history.times, history.last, history.first
    person = np.repeat(np.arange(history.people), np.diff(times.indptr))
    item = times.indices
    gaps = times.data - 1
    elapsed = cells(last, person, item) - 1
    span = cells(first, person, item) - 1 - elapsed
    of_item, spans = (np.bincount(item, weights=each, minlength=history.items) for each in (gaps, span))
    usual = np.where(of_item > 0, spans / np.maximum(of_item, 1), np.nan)
    gap = np.maximum((span + GAP_DOUBT * usual[item]) / (gaps + GAP_DOUBT), 1)
    known = ~np.isnan(gap) & (gaps > 0)
    strength, interval = times.copy(), times.copy()
    strength.data = np.where(known, np.exp(-np.abs(gap - elapsed) / np.where(known, gap, 1)), 0).astype(np.float32)
    interval.data = np.where(known, gap, 0).astype(np.float32)
    return Own(strength, interval, "due: usually every {} days")


@dataclass(frozen=True)
class CategoryNext:
    """The categories people turn to after the person's newest day of buying, and in each what sells."""

    chance: np.ndarray
    visits: csr_matrix
    newest: np.ndarray
    category: np.ndarray
    share: np.ndarray

    def scores(self, people: np.ndarray) -> np.ndarray:
        import numpy as np

        newest = self.newest[people]
        found = np.zeros((len(people), len(self.category)), dtype=np.float32)
        known = newest >= 0
        if known.any():
            there = self.visits[newest[known]].toarray()
            there /= there.sum(axis=1, keepdims=True)
            found[known] = (there @ self.chance)[:, self.category] * self.share
        return found

    def because(self, person: np.ndarray, item: np.ndarray, names: pa.Array) -> pa.Array:
        import pyarrow as pa

        return pa.array(["of a category that usually comes next"] * len(person), pa.string())


def category_next(history: History) -> CategoryNext:
    """How often a category is had on the next day of buying after another one, times the item's share of its category.

    The share is of people in the last 30 days. Transitions are counted person by person between consecutive days and
    smoothed with ten observations of the categories' overall shares.
    """
    import numpy as np
    from scipy.sparse import csr_matrix

    category = history.category
    count = max(int(category.max(initial=-1)) + 1, 1)
    rows = history.had.where(category[history.had.item] >= 0)
    person, _, visit = visits(rows)
    ones = np.ones(len(rows), dtype=np.float32)
    there = csr_matrix((ones, (visit, category[rows.item])), shape=(len(person), count)).sign()
    newest = np.full(history.people, -1)
    newest[person] = np.arange(len(person))  # sorted by day: the last one stays
    followed = np.flatnonzero(person[1:] == person[:-1])
    counts = (there[followed].T @ there[followed + 1]).toarray()
    overall = np.asarray(there.sum(axis=0)).ravel()
    overall = overall / max(overall.sum(), 1)
    chance = (counts + 10 * overall) / (counts.sum(axis=1, keepdims=True) + 10)
    lately = history.people_within(0, 30) * (category >= 0)
    of_category = np.bincount(np.maximum(category, 0), weights=lately, minlength=count)
    share = lately / np.maximum(of_category[np.maximum(category, 0)], 1)
    return CategoryNext(chance, there, newest, category, share)

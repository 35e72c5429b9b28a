"""Lists of items for people: what is allowed first, then one way of recommending after another until they are full."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_pipeline.predictions.recommend import neighbours, own, popularity
from cdp_pipeline.predictions.recommend.history import History, cells
from cdp_pipeline.predictions.recommend.voices import Voice

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

CELLS = 4_000_000
"""People are taken in chunks of so many cells people x items: flat memory, whatever their number."""

VOICES: dict[str, Callable[[History], Voice]] = {
    "popular": popularity.popular,
    "bestselling": popularity.bestselling,
    "trending": popularity.trending,
    "new": popularity.new,
    "bought_together": neighbours.bought_together,
    "viewed_together": neighbours.viewed_together,
    "session": neighbours.session,
    "ease": neighbours.ease,
    "gf_cf": neighbours.gf_cf,
    "again": own.again,
    "looked_at": own.looked_at,
    "replenishment": own.replenishment,
    "category_next": own.category_next,
}
"""Every way of recommending that needs no weights, by the word a chain names it with."""


@dataclass(frozen=True)
class Wanted:
    """Which items may be on a person's list. Looked at before anything is ranked.

    allowed: one truth per item. had: 'again' for what the person had before, 'new' for what they never had, 'any'.
    rest: what they had within so many days is left out; 0 leaves out nothing.
    """

    allowed: np.ndarray
    had: str = "any"
    rest: int = 0

    def of(self, history: History, people: np.ndarray) -> np.ndarray:
        """(people, items): whether the item may be on the person's list."""
        import numpy as np

        may = np.tile(self.allowed, (len(people), 1))
        if self.had != "any":
            mine = history.owned[people].toarray() > 0
            may &= mine if self.had == "again" else ~mine
        if self.rest:
            last = history.last[people].toarray()  # days ago plus one; 0 where never
            may &= (last == 0) | (last > self.rest)
        return may

    def relevant(self, history: History, after: csr_matrix) -> csr_matrix:
        """Of what people known by the day had afterwards, what could have been on their list."""
        import numpy as np
        from scipy.sparse import csr_matrix

        person, item = after.nonzero()
        kept = self.allowed[item] & np.isin(person, history.seen)
        if self.had != "any":
            kept &= (cells(history.owned, person, item) > 0) == (self.had == "again")
        if self.rest:
            last = cells(history.last, person, item)
            kept &= (last == 0) | (last > self.rest)
        ones = np.ones(int(kept.sum()), dtype=np.float32)
        return csr_matrix((ones, (person[kept], item[kept])), shape=after.shape)


@dataclass(frozen=True)
class Lists:
    """Everybody's list in long form, best first per person: the level counts in the chain's order, from 0."""

    person: np.ndarray
    item: np.ndarray
    place: np.ndarray
    level: np.ndarray
    strength: np.ndarray


def fill(chain: Mapping[str, Voice], history: History, people: np.ndarray, wanted: Wanted, top: int) -> Lists:
    """At most `top` items for each of these people: of the first way all it has to say, then the next one's."""
    import numpy as np

    size = max(1, CELLS // max(history.items, 1))
    parts = [
        _filled(chain, history, people[start : start + size], wanted, top) for start in range(0, len(people), size)
    ]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.zeros(0, int)] * 5
    return Lists(*columns)


def _filled(
    chain: Mapping[str, Voice], history: History, people: np.ndarray, wanted: Wanted, top: int
) -> tuple[np.ndarray, ...]:
    import numpy as np

    free, asked, top = wanted.of(history, people), top, min(top, history.items)
    room = np.full(len(people), asked)
    found = []
    for level, voice in enumerate(chain.values()):
        open_ = np.flatnonzero(room > 0)
        if not len(open_) or not top:
            break
        scores = np.where(free[open_], voice.scores(people[open_]), 0)
        best = np.argpartition(-scores, top - 1, axis=1)[:, :top]
        best.sort(axis=1)  # of equal strength, the item with the lower number
        strength = np.take_along_axis(scores, best, axis=1)
        order = np.argsort(-strength, axis=1, kind="stable")
        best, strength = (np.take_along_axis(each, order, axis=1) for each in (best, strength))
        taken = (strength > 0) & (np.arange(top) < room[open_][:, None])
        row, place = np.nonzero(taken)
        person = open_[row]
        free[person, best[row, place]] = False
        before = (asked - room)[person]
        found.append((person, best[row, place], before + place + 1, np.full(len(row), level), strength[row, place]))
        room[open_] -= taken.sum(axis=1)
    columns = [np.concatenate(column) for column in zip(*found, strict=True)] if found else [np.zeros(0, int)] * 5
    order = np.lexsort((columns[2], columns[0]))
    return (people[columns[0][order]], *(column[order] for column in columns[1:]))

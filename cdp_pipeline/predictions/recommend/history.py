"""Who had and who looked at what, up to a day, as arrays: the one thing every way of recommending reads.

No way of recommending, and nothing of where rows come from, belongs here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

T = TypeVar("T")
FORGET_DAYS = 180.0
"""Half-life of what somebody had, where it stands for their taste (chosen among 60 to 240 on older windows)."""
FORGET_LOOKS_DAYS = 14.0


def cells(matrix: np.ndarray | csr_matrix, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The values of a matrix, sparse or not, at these places."""
    import numpy as np

    return np.asarray(matrix[row, column]).ravel() if len(row) else np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class Rows:
    """One row per person, item and day; people and items are numbered from 0, days from any origin."""

    person: np.ndarray
    item: np.ndarray
    day: np.ndarray

    def where(self, keep: np.ndarray) -> Rows:
        return Rows(self.person[keep], self.item[keep], self.day[keep])

    def __len__(self) -> int:
        return len(self.person)


def visits(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(person, day) of every day a person has rows on, in order; and which of these each row belongs to."""
    import numpy as np

    first = int(rows.day.min(initial=0))
    span = int(rows.day.max(initial=0)) - first + 1
    keys, which = np.unique(rows.person.astype(np.int64) * span + (rows.day - first), return_inverse=True)
    return keys // span, keys % span + first, which.ravel()


@dataclass(frozen=True)
class History:
    """What is known at the end of `day`: rows of later days are left out when it is made.

    had: rows of the target event. looked: rows of the views. category: a number per item, -1 unknown.
    """

    day: int
    people: int
    items: int
    had: Rows
    looked: Rows
    category: np.ndarray

    @cached_property
    def _made(self) -> dict[Any, Any]:
        return {}

    def made(self, way: Callable[[History], T]) -> T:
        """What a way of recommending makes of this history; made once."""
        if way not in self._made:
            self._made[way] = way(self)
        return self._made[way]

    def at(self, day: int) -> History:
        """The same as it was at the end of an earlier day."""
        had, looked = (rows.where(rows.day <= day) for rows in (self.had, self.looked))
        return replace(self, day=day, had=had, looked=looked)

    def following(self, day: int, days: int) -> csr_matrix:
        """people x items: 1 where the person had the item in (day, day + days]."""
        rows = self.had.where((self.had.day > day) & (self.had.day <= day + days))
        return self._counted(rows).sign()

    def weighted(self, rows: Rows, forget: float) -> csr_matrix:
        """people x items: every row counts 1, and half after `forget` days."""
        return self._counted(rows, 0.5 ** ((self.day - rows.day) / forget))

    def _counted(self, rows: Rows, weight: np.ndarray | None = None) -> csr_matrix:
        import numpy as np
        from scipy.sparse import csr_matrix

        values = np.ones(len(rows), dtype=np.float32) if weight is None else weight.astype(np.float32)
        return csr_matrix((values, (rows.person, rows.item)), shape=(self.people, self.items))

    @cached_property
    def times(self) -> csr_matrix:
        """people x items: on how many days."""
        return self._counted(self.had)

    @cached_property
    def owned(self) -> csr_matrix:
        """people x items: 1 for what they ever had."""
        return self.times.sign()

    @cached_property
    def taste(self) -> csr_matrix:
        """people x items: at most 1, less for what was had long ago."""
        return self.weighted(self.had, FORGET_DAYS).minimum(1).tocsr()

    @cached_property
    def looks(self) -> csr_matrix:
        """people x items: looks, of which old ones count less."""
        return self.weighted(self.looked, FORGET_LOOKS_DAYS)

    @cached_property
    def last(self) -> csr_matrix:
        """people x items: days since they last had it, plus one (so that what is absent is never had)."""
        import numpy as np

        return self._one_of_each(self.had.where(np.argsort(-self.had.day, kind="stable")))

    @cached_property
    def last_look(self) -> csr_matrix:
        """people x items: days since they last looked at it, plus one."""
        import numpy as np

        return self._one_of_each(self.looked.where(np.argsort(-self.looked.day, kind="stable")))

    @cached_property
    def first(self) -> csr_matrix:
        """people x items: days since they first had it, plus one."""
        import numpy as np

        return self._one_of_each(self.had.where(np.argsort(self.had.day, kind="stable")))

    def _one_of_each(self, rows: Rows) -> csr_matrix:
        """Days ago plus one of the row of each person and item that comes first in this order."""
        import numpy as np
        from scipy.sparse import csr_matrix

        pair = rows.person.astype(np.int64) * self.items + rows.item
        _, where = np.unique(pair, return_index=True)
        ago = (self.day - rows.day[where] + 1).astype(np.float32)
        return csr_matrix((ago, (rows.person[where], rows.item[where])), shape=(self.people, self.items))

    @cached_property
    def since(self) -> np.ndarray:
        """Days since each item was first seen; NaN where it never was."""
        import numpy as np

        first = np.full(self.items, np.inf)
        for rows in (self.had, self.looked):
            np.minimum.at(first, rows.item, rows.day)
        return np.where(np.isinf(first), np.nan, self.day - first)

    def people_within(self, newest: int, oldest: int) -> np.ndarray:
        """How many different people had each item between `newest` (included) and `oldest` (not) days ago."""
        import numpy as np

        ago = self.day - self.had.day
        rows = self.had.where((ago >= newest) & (ago < oldest))
        pair = np.unique(rows.item.astype(np.int64) * self.people + rows.person)
        return np.bincount(pair // self.people, minlength=self.items).astype(np.float32)

    @cached_property
    def reach(self) -> np.ndarray:
        """How many people ever had each item."""
        import numpy as np

        return np.asarray(self.owned.sum(axis=0), dtype=np.float32).ravel()

    @cached_property
    def seen(self) -> np.ndarray:
        """Who had or looked at anything by the day, in order."""
        import numpy as np

        return np.unique(np.concatenate([self.had.person, self.looked.person]))

    @cached_property
    def active(self) -> np.ndarray:
        """(people, 4): days with a row, such days of the last 90, days since the last, days since the first row."""
        import numpy as np

        person, day, _ = visits(self.had)
        ago = self.day - day
        days, lately = (np.bincount(person[kept], minlength=self.people) for kept in (ago >= 0, ago < 90))
        last, first = np.full(self.people, 9999.0), np.zeros(self.people)
        np.minimum.at(last, person, ago)
        np.maximum.at(first, person, ago)
        return np.column_stack([days, lately, last, first]).astype(np.float32)

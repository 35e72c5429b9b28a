"""What everybody has: popular, trending and new items. They know nothing of the person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_pipeline.predictions.recommend.history import History
from cdp_pipeline.predictions.recommend.voices import said, whole

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LATELY = 30
BEFORE = 120
NEW_DAYS = 60


@dataclass(frozen=True)
class ForEverybody:
    """The same strengths for everybody, and the words for them."""

    strength: np.ndarray
    count: np.ndarray
    words: str

    def scores(self, people: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.tile(self.strength.astype(np.float32), (len(people), 1))

    def because(self, person: np.ndarray, item: np.ndarray, names: pa.Array) -> pa.Array:
        return said(self.words, whole(self.count[item]))


def popular(history: History) -> ForEverybody:
    """By how many people ever had the item."""
    return ForEverybody(history.reach, history.reach, "popular: {} people had it")


def bestselling(history: History) -> ForEverybody:
    """By how many people had the item in the last 30 days."""
    lately = history.people_within(0, LATELY)
    return ForEverybody(lately, lately, f"sells well: {{}} people in {LATELY} days")


def trending(history: History) -> ForEverybody:
    """By how far the people of the last 30 days exceed what the 90 days before promised, in standard deviations.

    Counts are taken for Poisson: (seen - expected) / sqrt(expected + 1). What falls has no strength.
    """
    import numpy as np

    lately = history.people_within(0, LATELY)
    expected = history.people_within(LATELY, BEFORE) * (LATELY / (BEFORE - LATELY))
    rise = np.maximum((lately - expected) / np.sqrt(expected + 1), 0)
    return ForEverybody(rise, lately, f"rising: {{}} people in {LATELY} days, more than before")


def new(history: History) -> ForEverybody:
    """Items first seen in the last 60 days, newest first; of one age those that more people had."""
    import numpy as np

    age = np.nan_to_num(history.since, nan=NEW_DAYS)
    tie = history.reach / (history.reach.max(initial=0) + 1)
    strength = np.where(age < NEW_DAYS, NEW_DAYS - age + tie, 0)
    return ForEverybody(strength, age, "new: first seen {} days ago")

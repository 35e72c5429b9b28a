"""How good lists are, on what people had afterwards: recall, NDCG, hit rate, coverage and novelty, and how sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_pipeline.predictions.recommend.chain import Lists
from cdp_pipeline.predictions.recommend.history import cells

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

RESAMPLES = 500


@dataclass(frozen=True)
class Judged:
    """Of each person who had something afterwards (`people`): NDCG and recall of their list; and of all lists
    together: the share of people with a hit, the share of items that appear, and the surprise of an item in bits."""

    people: np.ndarray
    ndcg: np.ndarray
    recall: np.ndarray
    hit_rate: float
    coverage: float
    novelty: float


def judged(lists: Lists, after: csr_matrix, reach: np.ndarray, allowed: np.ndarray, top: int) -> Judged:
    """Lists against `after` (people x items, 1 for what was had), for everybody who had anything of it.

    NDCG: hits discounted by 1 / log2(place + 1), over the best list possible. Recall: hits over all that was had.
    Coverage: different items in the lists over the allowed items. Novelty: mean -log2 of the share of people who ever
    had the item (an item nobody had counts as had by one).
    """
    import numpy as np

    count = np.asarray(after.sum(axis=1)).ravel()
    people = np.flatnonzero(count > 0)
    kept = (lists.place <= top) & (count[lists.person] > 0)
    person, item, place = lists.person[kept], lists.item[kept], lists.place[kept]
    hit = cells(after, person, item) > 0
    discount = 1 / np.log2(np.arange(2, top + 2))
    gained = np.bincount(person, weights=hit * discount[place - 1], minlength=len(count))[people]
    hits = np.bincount(person, weights=hit, minlength=len(count))[people]
    ideal = np.cumsum(discount)[np.minimum(count[people], top).astype(int) - 1]
    share = np.maximum(reach[item], 1) / max(len(count), 1)
    return Judged(
        people,
        gained / ideal,
        hits / count[people],
        float((hits > 0).mean()) if len(people) else 0.0,
        len(np.unique(item)) / max(int(allowed.sum()), 1),
        float(-np.log2(share).mean()) if len(item) else 0.0,
    )


def difference(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of ours minus theirs, person by person: a paired bootstrap's 95 % interval."""
    import numpy as np

    random, apart = np.random.default_rng(seed), ours - theirs
    means = [apart[random.integers(0, len(apart), len(apart))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(apart.mean()), float(low), float(high)

"""Who among alike people is one: average linkage of the evidence, so that a chain of likenesses joins nobody.

Row numbers and weights only; where weights come from is scores.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BOUND = 15.0
"""Bits beyond which evidence for or against counts no more: one blunder (a shared birth date) must not outweigh all."""
LARGEST = 1000
"""Rows of a component that are linked at once; a larger one is cut at stronger evidence until its parts are small."""


def components(left: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """The connected component of each of `count` rows, named by its smallest row."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    adjacency = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    _, component = connected_components(adjacency, directed=False)
    _, first, of = np.unique(component, return_index=True, return_inverse=True)
    return first[of]


def parts(left: np.ndarray, right: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """The components of pairs whose evidence is for (weight > 0), none larger than LARGEST.

    A larger one is taken apart at 1, 2, 4 … bits; what still holds more than LARGEST together at BOUND joins nobody:
    so many who are so alike are a fault in the data, not people.
    """
    import numpy as np

    part = components(left[weight > 0], right[weight > 0], count)
    least = 1.0
    while (sizes := np.bincount(part, minlength=count)).max(initial=0) > LARGEST:
        large = sizes[part] > LARGEST
        if least > BOUND:
            return np.where(large, np.arange(count), part)
        inside = large[left] & (part[left] == part[right]) & (weight > least)
        again = components(left[inside], right[inside], count)
        part, least = np.where(large, again, part), least * 2
    return part


def cut(left: np.ndarray, right: np.ndarray, evidence: np.ndarray, prior: float, part: np.ndarray) -> np.ndarray:
    """The cluster of each row, named by its smallest row: the two likeliest join, again and again, while it is likely.

    left, right: every pair inside a part, once. evidence: pairs × comparisons in bits, NaN where one of the two is not
    known. Average linkage (Sokal and Michener 1958), comparison by comparison: what two clusters say of a comparison is
    the mean over their pairs that know it, bounded to ±BOUND; the prior is added once. So rows that know little are no
    evidence against, and a chain of likenesses joins only what agrees on the whole.
    """
    import numpy as np

    of = np.arange(len(part))
    if not len(left):
        return of
    order = np.lexsort((right, left, part[left]))
    left, right, evidence = left[order], right[order], np.clip(evidence[order], -BOUND, BOUND).astype(np.float32)
    starts = np.flatnonzero(np.r_[True, part[left][1:] != part[left][:-1]])
    for start, end in zip(starts.tolist(), np.r_[starts[1:], len(left)].tolist(), strict=True):
        if end - start == 1:
            if np.nansum(evidence[start]) + prior > 0:
                of[right[start]] = left[start]
            continue
        members = np.union1d(left[start:end], right[start:end])
        ends = np.searchsorted(members, left[start:end]), np.searchsorted(members, right[start:end])
        of[members] = members[_joined(*ends, evidence[start:end], prior, len(members))]
    return of


def _joined(left: np.ndarray, right: np.ndarray, evidence: np.ndarray, prior: float, count: int) -> np.ndarray:
    """For rows 0..count-1 the smallest row of their cluster. On a tie the smaller rows join first."""
    import numpy as np

    known = ~np.isnan(evidence)
    total = np.zeros((count, count, evidence.shape[1]), np.float32)
    pairs = np.zeros_like(total)
    total[left, right] = total[right, left] = np.where(known, evidence, 0)
    pairs[left, right] = pairs[right, left] = known
    # Rounded, so that equal means are equal however they were summed.
    weight = np.round((total / np.maximum(pairs, 1)).sum(axis=2) + prior, 4)
    np.fill_diagonal(weight, -np.inf)
    of = np.arange(count)
    while True:
        one, other = divmod(int(weight.argmax()), count)
        if not weight[one, other] > 0:
            return of
        one, other = min(one, other), max(one, other)
        of[of == other] = one
        for sums in (total, pairs):
            sums[one] += sums[other]
            sums[:, one] = sums[one]
        gone = np.isneginf(weight[one]) | np.isneginf(weight[other])
        joined = np.round((total[one] / np.maximum(pairs[one], 1)).sum(axis=1) + prior, 4)
        weight[one] = weight[:, one] = np.where(gone, -np.inf, joined)
        weight[other] = weight[:, other] = -np.inf

"""Person ids that stay: which cluster keeps which old id, and new ids that are opaque, sortable and never reused.

Integer codes only; who is in a cluster is decided in clusters.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import numpy as np

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # base 32 that sorts as its numbers do


def claim(
    cluster: np.ndarray, old: np.ndarray, weight: np.ndarray, elder: np.ndarray, began: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Which clusters take which old ids: the heaviest overlap first, on a tie the elder id, each at most once.

    One row per member: its cluster, the id it votes for, the weight of its vote; `elder` ranks ids by age, 0 eldest.
    `began`: whether the member began with that id; of equal parts of a person, that of the beginning keeps the id.
    """
    import numpy as np

    if not len(cluster):
        return cluster, old
    span = int(old.max()) + 1
    pairs, inverse = np.unique(cluster * span + old, return_inverse=True)
    overlap = np.zeros(len(pairs), np.int64)
    np.add.at(overlap, inverse, weight)
    clusters, olds = pairs // span, pairs % span
    native = np.zeros(len(pairs), np.int64)
    if began is not None:
        np.add.at(native, inverse, weight * began)

    # Almost always a cluster and an id have only each other; the few others are settled one by one.
    _, at_cluster, of_cluster = np.unique(clusters, return_inverse=True, return_counts=True)
    _, at_old, of_old = np.unique(olds, return_inverse=True, return_counts=True)
    alone = (of_cluster[at_cluster] == 1) & (of_old[at_old] == 1)
    contested = np.flatnonzero(~alone)
    order = (clusters[contested], -native[contested], elder[olds[contested]], -overlap[contested])
    contested = contested[np.lexsort(order)]
    won, served, taken = [], set(), set()
    for pair, one, id_ in zip(contested.tolist(), clusters[contested].tolist(), olds[contested].tolist(), strict=True):
        if one not in served and id_ not in taken:
            won.append(pair)
            served.add(one)
            taken.add(id_)
    winners = np.concatenate([np.flatnonzero(alone), np.array(won, np.int64)])
    return clusters[winners], olds[winners]


def mint(first_seen: np.ndarray, hashes: np.ndarray, taken: Callable[[list[str]], Collection[str]]) -> list[str]:
    """New ids from when the person was first seen (microseconds) and the id of their first identifier.

    The same history gives the same ids. One that exists already (`taken` tells which) is made again until it is new.
    """
    import numpy as np

    ids = _ids(first_seen, hashes.astype(np.uint64))
    used = set(taken(ids))
    if not used and len(set(ids)) == len(ids):
        return ids
    given: set[str] = set()
    for position, id_ in enumerate(ids):
        salt = hashes[position : position + 1].astype(np.uint64)
        while id_ in given or id_ in used or (id_ != ids[position] and taken([id_])):
            salt = salt * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)  # wraps around, by intent
            id_ = _ids(first_seen[position : position + 1], salt)[0]
        given.add(id_)
        ids[position] = id_
    return ids


def _ids(first_seen: np.ndarray, hashes: np.ndarray) -> list[str]:
    """'p', ten characters of time in milliseconds, thirteen of hash: 24 in all."""
    import numpy as np

    alphabet = np.frombuffer(_CROCKFORD.encode(), np.uint8)
    moments = np.maximum(first_seen // 1000, 0).astype(np.uint64)
    text = np.empty((len(hashes), 24), np.uint8)
    text[:, 0] = ord("p")
    for place in range(10):
        text[:, 10 - place] = alphabet[((moments >> np.uint64(5 * place)) & np.uint64(31)).astype(np.intp)]
    for place in range(13):
        text[:, 23 - place] = alphabet[((hashes >> np.uint64(5 * place)) & np.uint64(31)).astype(np.intp)]
    return text.view("S24").ravel().astype(str).tolist()


def heaviest(of: np.ndarray, choice: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each distinct `of`: the choice with the greatest total weight, the smaller choice on a tie."""
    import numpy as np

    if not len(of):
        return of, choice
    span = int(choice.max()) + 1
    pairs, inverse = np.unique(of * span + choice, return_inverse=True)
    total = np.zeros(len(pairs), np.int64)
    np.add.at(total, inverse, weight)
    best_first = np.lexsort((pairs % span, -total, pairs // span))
    of_sorted, first = np.unique((pairs // span)[best_first], return_index=True)
    return of_sorted, (pairs % span)[best_first][first]

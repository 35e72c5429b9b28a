"""Items that go with items: EASE, GF-CF, bought together, viewed together, and the visitor's own session.

Each is a matrix items x items, applied to what a person had or looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdp_pipeline.predictions.recommend.history import History, Rows, cells, visits
from cdp_pipeline.predictions.recommend.voices import said

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from scipy.sparse import csr_matrix

EASE_ITEMS = 8_000
"""EASE inverts a matrix of items x items: of more items, those most people had (8,000 take half a gigabyte)."""
EASE_PENALTY = 200.0
FACTORS = 64
FACTORS_HEARD = 0.3
DOUBT = 10.0
"""Two items had together by few people are taken for less alike: the cosine is shrunk by people / (people + this)."""
SESSION_DAYS = 2
OWN_SHOWN = 40


@dataclass(frozen=True)
class Neighbours:
    """What goes with what (items x items), asked about what each person had or looked at (people x items)."""

    given: csr_matrix
    alike: np.ndarray | csr_matrix
    words: str

    def scores(self, people: np.ndarray) -> np.ndarray:
        import numpy as np

        found = self.given[people] @ self.alike
        dense = found if isinstance(found, np.ndarray) else found.toarray()
        return np.maximum(dense, 0, dtype=np.float32)

    def because(self, person: np.ndarray, item: np.ndarray, names: pa.Array) -> pa.Array:
        """Names the item of theirs that speaks loudest for it."""
        import numpy as np
        import pyarrow as pa

        if not len(person):
            return pa.array([], pa.string())
        who, row = np.unique(person, return_inverse=True)
        own, weight = strongest(self.given[who], OWN_SHOWN)
        own, weight = own[row.ravel()], weight[row.ravel()]
        near = cells(self.alike, own.ravel(), np.repeat(item, own.shape[1]))
        loud = near.reshape(own.shape) * weight
        best = own[np.arange(len(own)), loud.argmax(axis=1)]
        return said(self.words, names.take(pa.array(best)))


def quick(alike: csr_matrix) -> np.ndarray | csr_matrix:
    """In the form that is applied fastest: dense where much of it is filled and it is not large."""
    return alike.toarray() if alike.shape[0] <= EASE_ITEMS and alike.nnz > alike.shape[0] ** 2 / 20 else alike


def strongest(given: csr_matrix, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns and values of each row's largest values, at most so many; filled up with weight 0."""
    import numpy as np

    row = np.repeat(np.arange(given.shape[0]), np.diff(given.indptr))
    order = np.lexsort((given.indices, -given.data, row))
    place = np.arange(len(order)) - given.indptr[row]
    kept = place < most
    width = max(int(place[kept].max(initial=0)) + 1, 1)
    columns, values = np.zeros((given.shape[0], width), dtype=np.int64), np.zeros((given.shape[0], width))
    columns[row[kept], place[kept]] = given.indices[order][kept]
    values[row[kept], place[kept]] = given.data[order][kept]
    return columns, values


def ease(history: History, penalty: float = EASE_PENALTY) -> Neighbours:
    """Steck 2019: the item weights that best rebuild who had what, in closed form, none on itself.

    B = I - P / diag(P) with P = (X'X + penalty I)^-1 and X people x items, 1 where had. Asked about `taste`.
    """
    import numpy as np
    from scipy.linalg import lapack

    chosen = np.sort(np.argsort(-history.reach, kind="stable")[:EASE_ITEMS])
    chosen = chosen[history.reach[chosen] > 0]
    had = history.owned[:, chosen]
    gram = (had.T @ had).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    weights = np.zeros((0, 0), dtype=np.float32)
    if len(chosen):
        factor, failed = lapack.dpotrf(gram, lower=1, overwrite_a=1)
        inverse, failed_too = lapack.dpotri(factor, lower=1, overwrite_c=1)
        assert not failed and not failed_too, "a Gram matrix with a penalty has an inverse"
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        weights = (-inverse / np.diag(inverse)).astype(np.float32)
        np.fill_diagonal(weights, 0)
    return Neighbours(history.taste, _placed(weights, chosen, history.items), "goes with {}")


def _placed(weights: np.ndarray, chosen: np.ndarray, items: int) -> np.ndarray | csr_matrix:
    """The weights of chosen items among all items."""
    import numpy as np
    from scipy.sparse import csr_matrix

    if len(chosen) == items:
        return weights
    if items <= EASE_ITEMS:
        whole = np.zeros((items, items), dtype=np.float32)
        whole[np.ix_(chosen, chosen)] = weights
        return whole
    rows, columns = (axis.ravel() for axis in np.meshgrid(chosen, chosen, indexing="ij"))
    return csr_matrix((weights.ravel(), (rows, columns)), shape=(items, items))


@dataclass(frozen=True)
class Filtered:
    """GF-CF: neighbours, and the same seen through the strongest factors only."""

    near: Neighbours
    left: np.ndarray
    right: np.ndarray

    def scores(self, people: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.maximum(self.near.scores(people) + (self.near.given[people] @ self.left) @ self.right, 0)

    def because(self, person: np.ndarray, item: np.ndarray, names: pa.Array) -> pa.Array:
        return self.near.because(person, item, names)


def gf_cf(history: History, factors: int = FACTORS) -> Filtered:
    """Shen et al. 2021: what somebody had, through N'N and through the ideal low-pass of its strongest factors.

    N = D_people^-1/2 X D_items^-1/2; score = t (N'N + 0.3 D_items^-1/2 V V' D_items^1/2). Sparse: any number of items.
    """
    import numpy as np
    from scipy.sparse import diags
    from scipy.sparse.linalg import svds

    had = history.owned
    per_person = np.asarray(had.sum(axis=1)).ravel()
    by_person, by_item = (1 / np.sqrt(np.maximum(count, 1)) for count in (per_person, history.reach))
    normal = (diags(by_person) @ had @ diags(by_item)).tocsr().astype(np.float32)
    kept = min(factors, min(normal.shape) - 1)
    parts = np.zeros((0, history.items), dtype=np.float32)
    if kept > 0 and normal.nnz:
        parts = svds(normal, k=kept, random_state=0, return_singular_vectors="vh")[2]
        parts = parts * np.sign(parts[np.arange(kept), np.abs(parts).argmax(axis=1)])[:, None]
    near = Neighbours(history.taste, quick((normal.T @ normal).tocsr()), "goes with {}")
    return Filtered(near, FACTORS_HEARD * parts.T * by_item[:, None], parts / by_item)


def bought_together(history: History) -> Neighbours:
    """Items had by one person on one day, asked about what the person had."""
    return Neighbours(history.taste, together(history, history.had), "often bought together with {}")


def viewed_together(history: History) -> Neighbours:
    """Items one person looked at on one day, asked about what the person looked at."""
    return Neighbours(history.looks, together(history, history.looked), "often looked at together with {}")


def session(history: History) -> Neighbours:
    """Viewed together, asked about the person's newest day of looking, if it is one of the last two.

    Needs no name and no past: an anonymous visitor is answered from the visit itself.
    """
    import numpy as np

    looked = history.looked
    newest = np.full(history.people, -1, dtype=np.int64)
    np.maximum.at(newest, looked.person, looked.day)
    current = looked.where((looked.day == newest[looked.person]) & (history.day - looked.day < SESSION_DAYS))
    given = history.weighted(current, 1.0).sign()
    return Neighbours(given, together(history, looked), "often looked at together with {}")


def together(history: History, rows: Rows) -> np.ndarray | csr_matrix:
    """items x items: the shrunk cosine of being on the same person's same day; nothing on itself."""
    import numpy as np
    from scipy.sparse import csr_matrix, diags

    person, _, visit = visits(rows)
    shape = (len(person), history.items)
    seen = csr_matrix((np.ones(len(rows), dtype=np.float32), (visit, rows.item)), shape=shape).sign()
    count = np.asarray(seen.sum(axis=0)).ravel()
    both = (seen.T @ seen).tocsr()
    both.setdiag(0)
    both.eliminate_zeros()
    shrunk = both.copy()
    shrunk.data = both.data * both.data / (both.data + DOUBT)
    norm = diags(1 / np.sqrt(np.maximum(count, 1)))
    return quick((norm @ shrunk @ norm).tocsr().astype(np.float32))

"""What a way of recommending is: asked about people, it gives every item a strength and can say why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Voice(Protocol):
    """One way of recommending, made from a History."""

    def scores(self, people: np.ndarray) -> np.ndarray:
        """(people, items) of float32: higher is better, 0 or less where it has nothing to say."""

    def because(self, person: np.ndarray, item: np.ndarray, names: pa.Array) -> pa.Array:
        """Why each of these pairs, in words; `names` says items as people do."""


def said(words: str, values: pa.Array) -> pa.Array:
    """The words with each value in the place of `{}`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    before, _, after = words.partition("{}")
    return pc.binary_join_element_wise(before, values.cast(pa.string()), after, "")


def whole(numbers: np.ndarray) -> pa.Array:
    """Numbers as people say them in passing."""
    import numpy as np
    import pyarrow as pa

    return pa.array(np.rint(np.nan_to_num(numbers)).astype("int64"))

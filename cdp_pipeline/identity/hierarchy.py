"""Which group is above which: parents, the top of each tree, levels, and the circles that would never end.

Integer codes only; -1 is no parent. Where parents come from is groups.py's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Hierarchy:
    """By group code: its parent (none for those that were in a circle), its root, its level (a root's is 0)."""

    parent: np.ndarray
    root: np.ndarray
    level: np.ndarray
    circular: np.ndarray


def hierarchy(parent: np.ndarray) -> Hierarchy:
    """The trees these parents make. A group that is its own parent is a root; groups in a circle all become roots.

    No link of a circle is more believable than another, so none is kept. Pointers are doubled: log(depth) passes.
    """
    import numpy as np

    own = np.arange(len(parent))
    parent = np.where(parent == own, -1, parent)
    circular = np.zeros(len(parent), bool)
    circular[_on_a_circle(parent)] = True
    parent = np.where(circular, -1, parent)

    root = np.where(parent < 0, own, parent)
    level = (parent >= 0).astype(np.int64)
    while True:
        further = root[root]
        if (further == root).all():
            return Hierarchy(parent, root, level, circular)
        level = level + level[root]
        root = further


def lineage(groups: pa.Table) -> pa.Table:
    """Every living group of identity.groups beside itself and each group above it: group_id, above_id."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    groups = groups.filter(pc.not_equal(groups["status"], "gone"))
    ids = groups["group_id"].combine_chunks()
    parent = pc.fill_null(pc.index_in(groups["parent_group_id"], value_set=ids), -1).to_numpy().astype(np.int64)
    below = above = np.arange(len(ids))
    pairs = [(below, above)]
    while len(below):
        climbs = parent[above] >= 0
        below, above = below[climbs], parent[above[climbs]]
        pairs.append((below, above))
    codes = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return pa.table([ids.take(pa.array(side)) for side in codes], names=["group_id", "above_id"])


def _on_a_circle(parent: np.ndarray) -> np.ndarray:
    """The codes from which following parents leads back to where one was."""
    import numpy as np

    # After as many steps as there are groups, whoever still goes on goes round; what they reach are the circles.
    nowhere = len(parent)
    step = np.append(np.where(parent < 0, nowhere, parent), nowhere)
    reached = np.arange(nowhere + 1)
    for _ in range(max(nowhere, 1).bit_length()):
        reached, step = step[reached], step[step]
    return _rounds(np.unique(reached[reached < nowhere]), parent)


def _rounds(inside: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """All members of the circles that these codes lie on."""
    found: set[int] = set()
    for code in inside.tolist():
        while code not in found:
            found.add(code)
            code = int(parent[code])
    import numpy as np

    return np.array(sorted(found), np.int64)

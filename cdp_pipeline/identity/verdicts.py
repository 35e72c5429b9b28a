"""What people decided about pairs of identifiers, as evidence and vetoes for people.py, and written into a project.

Values are spelled as the sources normalise them, so that a verdict meets the identifier it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.verdict import Verdict

End = tuple[str, str]
VERDICT = "verdict"


def verdict_edges(project: Project) -> pa.Table:
    """One edge per pair of identifiers that a verdict links, shaped as edges.edges(); rule and source are `verdict`.

    The record is the verdict's name, the time its day. An identifier may be spelled in several ways, by sources that
    normalise it differently: each is a pair, and what no source ever showed is for the caller to leave out.
    """
    import pyarrow as pa

    rows = {
        (one, other): (verdict.name, datetime.combine(verdict.on, time()))
        for name in sorted(project.verdicts, reverse=True)
        for verdict in [project.verdicts[name]]
        if verdict.link is not None
        for one, other in _pairs(verdict, project)
    }
    moment = pa.timestamp("us")
    return pa.table(
        {
            "type_a": pa.array([one[0] for one, _ in rows], pa.string()),
            "value_a": pa.array([one[1] for one, _ in rows], pa.string()),
            "type_b": pa.array([other[0] for _, other in rows], pa.string()),
            "value_b": pa.array([other[1] for _, other in rows], pa.string()),
            "source": pa.array([VERDICT] * len(rows), pa.string()),
            "record_id": pa.array([name for name, _ in rows.values()], pa.string()),
            "first_seen": pa.array([at for _, at in rows.values()], moment),
            "last_seen": pa.array([at for _, at in rows.values()], moment),
            "rule": pa.array([VERDICT] * len(rows), pa.string()),
            "score": pa.array([1.0] * len(rows), pa.float64()),
        }
    )


def vetoes(project: Project) -> list[tuple[End, End, str]]:
    """The pairs of identifiers that are never one person's, the smaller first, with the verdict that says so."""
    found = {
        pair: name
        for name in sorted(project.verdicts, reverse=True)
        if project.verdicts[name].unlink is not None
        for pair in _pairs(project.verdicts[name], project)
    }
    return sorted((one, other, name) for (one, other), name in found.items())


def _pairs(verdict: Verdict, project: Project) -> Iterator[tuple[End, End]]:
    (type_a, value_a), (type_b, value_b) = verdict.ends
    for a, b in product(spellings(type_a, value_a, project), spellings(type_b, value_b, project)):
        one, other = sorted([(type_a, a), (type_b, b)])
        if one != other:
            yield one, other


def spellings(type_: str, written: str, project: Project) -> list[str]:
    """As written, then as each column of this type would have normalised it."""
    from cdp_pipeline.sources.normalise import LOOKED_UP

    bare = written.strip()
    found = [bare]
    for source in project.sources.values():
        for column in source.columns.values():
            if column.identifier != type_:
                continue
            if column.normalise in ("email", "lower"):
                found.append(bare.lower())
            elif column.normalise in ("upper", "postcode"):
                found.append(" ".join(bare.upper().split()))
            elif column.normalise in LOOKED_UP:
                found.append(LOOKED_UP[column.normalise](bare, source.region) or bare)
            elif column.type == "integer" and bare.isdecimal():
                found.append(str(int(bare)))
    return list(dict.fromkeys(found))

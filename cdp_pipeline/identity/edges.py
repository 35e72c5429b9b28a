"""Pairs of identifiers that stand on the same source row: the evidence that they are one person's.

Evidence only: whether an edge is believed is decided in people.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.identity.seen import happened_at
from cdp_pipeline.lake.table import Column, Table

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project

EDGES = Table(
    name="identity.edges",
    description="Which identifiers were seen together, where, and whether that joins them into one person.",
    columns={
        "type_a": Column("string", "Type of the first identifier."),
        "value_a": Column("string", "The first identifier, normalised.", pii=True),
        "type_b": Column("string", "Type of the second identifier."),
        "value_b": Column("string", "The second identifier, normalised.", pii=True),
        "source": Column("string", "The source that showed them together."),
        "record_id": Column("string", "The earliest row of that source that did."),
        "first_seen": Column("timestamp(6)", "When they were first seen together (UTC)."),
        "last_seen": Column("timestamp(6)", "When they were last seen together (UTC)."),
        "rule": Column("string", "What makes the link: same_row, verdict, or `match:` and its name."),
        "score": Column("float64", "How sure the rule is, 1 being certain."),
        "status": Column(
            "string", "accepted (both are one person), refused_limit, refused_unique, refused_verdict or inactive."
        ),
        "why": Column("string", "Why a link is refused or inactive."),
        "id_a": Column("int64", "The first identifier's id."),
        "id_b": Column("int64", "The second identifier's id."),
    },
    key=("id_a", "id_b", "source"),
)

_DECIDED = ("status", "why", "id_a", "id_b")


def edges(sources: Mapping[str, ibis.Table], project: Project) -> ibis.Table:
    """All pairs of identifiers on one row, once per source, the smaller (type, value) first; no status yet.

    Pairs are read off the columns of a row, so no row is ever joined with itself.
    """
    pairs = [
        pair
        for name, rows in sources.items()
        for (left, left_type), (right, right_type) in combinations(
            sorted(project.sources[name].identifier_columns.items(), key=lambda column: (column[1], column[0])), 2
        )
        for pair in [_pair(rows, name, (left, left_type), (right, right_type))]
    ]
    if not pairs:
        evidence = {name: column.type for name, column in EDGES.columns.items() if name not in _DECIDED}
        return ibis.memtable([], schema=evidence)
    together = ibis.union(*pairs)
    # The smallest (time, record) is one aggregate on every engine, and does not depend on the order of rows.
    earliest = ibis.struct({"at": together["at"], "record_id": together["record_id"]}).min()
    return (
        together.group_by("type_a", "value_a", "type_b", "value_b", "source")
        .agg(earliest=earliest, last_seen=together["at"].max())
        .select(
            "type_a",
            "value_a",
            "type_b",
            "value_b",
            "source",
            record_id=lambda pair: pair["earliest"]["record_id"],
            first_seen=lambda pair: pair["earliest"]["at"],
            last_seen=lambda pair: pair["last_seen"],
            rule=ibis.literal("same_row"),
            score=ibis.literal(1.0, type="float64"),
        )
    )


def _pair(rows: ibis.Table, source: str, left: tuple[str, str], right: tuple[str, str]) -> ibis.Table:
    a, b = rows[left[0]].cast("string"), rows[right[0]].cast("string")
    met = a.notnull() & b.notnull()
    if left[1] == right[1]:  # two columns of one type: the values decide the order, and a value is no pair with itself
        met, a, b = met & (a != b), ibis.least(a, b), ibis.greatest(a, b)
    return rows.filter(met).select(
        type_a=ibis.literal(left[1]),
        value_a=a,
        type_b=ibis.literal(right[1]),
        value_b=b,
        source=ibis.literal(source),
        record_id=rows["_record_id"],
        at=happened_at(rows),
    )

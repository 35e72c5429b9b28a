"""Which identifiers stand on which source rows, and the one-line-per-identifier summary of that.

Reads accepted source tables as they are (values are normalised there); what links to what belongs to edges.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ibis

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project

_SCHEMA = {"source": "string", "record_id": "string", "type": "string", "value": "string", "at": "timestamp(6)"}


def happened_at(rows: ibis.Table) -> ibis.Value:
    """When a source row speaks of: its own time, or its load where the source declares none."""
    return ibis.coalesce(rows["_occurred_at"], rows["_loaded_at"])


def seen(sources: Mapping[str, ibis.Table], project: Project) -> ibis.Table:
    """One row per identifier on a source row: source, record_id, type, value, at; all versions of a snapshot count."""
    parts = [
        rows.filter(rows[column].notnull()).select(
            source=ibis.literal(name),
            record_id=rows["_record_id"],
            type=ibis.literal(identifier),
            value=rows[column].cast("string"),
            at=happened_at(rows),
        )
        for name, rows in sources.items()
        for column, identifier in project.sources[name].identifier_columns.items()
    ]
    return ibis.union(*parts) if parts else ibis.memtable([], schema=_SCHEMA)


def identifiers_seen(seen: ibis.Table) -> ibis.Table:
    """One row per identifier: type, value, first_seen, last_seen."""
    return seen.group_by("type", "value").agg(first_seen=seen["at"].min(), last_seen=seen["at"].max())

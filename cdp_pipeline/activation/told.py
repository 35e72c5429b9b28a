"""What sources told of people before it was loaded, written down beside the ledger for guards to ask; for some days.

The timeline has it from the next run on, and then has the last word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

import pyarrow as pa
import sqlalchemy as sa

from cdp_pipeline.activation.ledger import Ledger, all_ids, utc
from cdp_pipeline.activation.schema import told_events

KEPT = timedelta(days=3)
"""Longer than anything that can be read before it is loaded may wait for its load (sources.tail)."""


def note(ledger: Ledger, events: pa.Table, now: datetime) -> None:
    """Keep these rows of the timeline, each under its id, and none that are older than KEPT."""
    rows = [
        {"event_id": event_id, "person_id": person_id, "row": _packed(events.slice(number, 1)), "at": utc(now)}
        for number, (event_id, person_id) in enumerate(
            zip(events["event_id"].to_pylist(), events["person_id"].to_pylist(), strict=True)
        )
    ]
    if not rows:
        return
    with ledger.writing("told") as connection:
        connection.execute(told_events.delete().where(told_events.c.at < utc(now) - KEPT))
        connection.execute(
            told_events.delete().where(ledger.among(told_events.c.event_id, [str(row["event_id"]) for row in rows]))
        )
        connection.execute(told_events.insert(), rows)


def told_of(
    ledger: Ledger, person_ids: Collection[str], aliases: Mapping[str, str], schema: pa.Schema
) -> pa.Table | None:
    """What was told of these people, and of those who were merged into them: rows of the timeline; None for nothing."""
    ids = all_ids(person_ids, aliases)
    query = sa.select(told_events.c.person_id, told_events.c.row).where(ledger.among(told_events.c.person_id, ids))
    with ledger.reading() as connection:
        found = connection.execute(query.order_by(told_events.c.event_id)).all()
    rows = []
    for person_id, packed in found:
        row = pa.ipc.open_stream(packed).read_all()
        if row.schema.equals(schema):  # Else the project has come to keep other things of events.
            whose = pa.array([aliases.get(person_id, person_id)], pa.string())
            rows.append(row.set_column(row.schema.get_field_index("person_id"), schema.field("person_id"), whose))
    return pa.concat_tables(rows) if rows else None


def _packed(row: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, row.schema) as stream:
        stream.write_table(row)
    return out.getvalue().to_pybytes()

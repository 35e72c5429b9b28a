"""The ledger as tables of the lake: what was decided, tried and delivered. Payloads are hashed, not copied."""

from __future__ import annotations

import pyarrow as pa
import sqlalchemy as sa

from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.activation.schema import attempts, outbox, prevented
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.project import Project

OUTBOX = Table(
    "activation.outbox",
    "Every message or update that was decided, and what became of it.",
    {
        "op_id": Column("string", "The operation: the same decision always has the same id."),
        "origin": Column("string", "What called for it: `trigger:`, `sync:` or `alert:` and its name."),
        "destination": Column("string", "Where it goes."),
        "person_id": Column("string", "Whom it concerns."),
        "kind": Column("string", "act, add, update, remove, entered, left or alert."),
        "occasion": Column("string", "What happened, for a trigger: the move or crossing and its day."),
        "payload_hash": Column("string", "Fingerprint of what was sent; the content stays in the ledger."),
        "state": Column(
            "string",
            "pending, inflight, retry, delivered, failed, unknown, doubtful (dismissed, may have arrived), suppressed, "
            "held (by a guard), dry_run (shown).",
        ),
        "reason": Column("string", "Why it is in this state."),
        "attempt": Column("int64", "How many times it was tried."),
        "next_at": Column("timestamp(6)", "When it is due."),
        "created_at": Column("timestamp(6)", "When it was decided."),
        "updated_at": Column("timestamp(6)", "When its state last changed."),
    },
    key=("op_id",),
)
DELIVERIES = Table(
    "activation.deliveries",
    "Every attempt to deliver, with what the other side answered.",
    {
        "op_id": Column("string", "The operation that was tried."),
        "attempt": Column("int64", "First, second, third try."),
        "at": Column("timestamp(6)", "When it began."),
        "ended_at": Column("timestamp(6)", "When its outcome was known."),
        "origin": Column("string", "What called for it."),
        "destination": Column("string", "Where it went."),
        "person_id": Column("string", "Whom it concerns."),
        "outcome": Column(
            "string", "delivered, accepted (done later), retry, failed, unknown, untried, suppressed or waits."
        ),
        "code": Column("int64", "HTTP or SMTP code of the answer."),
        "reason": Column("string", "The answer, without personal data."),
    },
    key=("op_id", "attempt"),
    month_of=None,
)
PREVENTED = Table(
    "activation.prevented",
    "Whom guards kept us from bothering: for each guard, trigger and day, how many people.",
    {
        "guard": Column("string", "The guard that held; 'unless' is a condition of the trigger's own."),
        "trigger": Column("string", "What would have acted."),
        "day": Column("date", "The day it would have."),
        "people": Column("int64", "For how many people."),
        "waiting": Column("int64", "For how many of them it waits until no guard holds any more."),
    },
    key=("guard", "trigger", "day"),
)
CONTACTS = Table(
    "activation.contacts",
    "Who was reached, when and through which channel.",
    {
        "op_id": Column("string", "The operation that reached the person."),
        "person_id": Column("string", "Who was reached."),
        "channel": Column("string", "email, sms, …; for a tool of our own its type, such as webhook."),
        "destination": Column("string", "Through which destination."),
        "origin": Column("string", "What called for it."),
        "at": Column("timestamp(6)", "When it was delivered."),
    },
    key=("op_id",),
)


AT_ONCE = 50_000


def _rows(ledger: Ledger, query: sa.Select, table: Table) -> pa.Table:
    """What is asked of the ledger in the order of the table's columns, never more than a part of it as Python rows."""
    schema = table.schema.to_pyarrow()
    with ledger.reading() as connection:
        found = connection.execution_options(stream_results=True).execute(query)
        parts = [
            pa.record_batch(
                [pa.array(values, each.type) for values, each in zip(zip(*part, strict=True), schema, strict=True)],
                schema=schema,
            )
            for part in found.partitions(AT_ONCE)
        ]
    return pa.Table.from_batches(parts, schema)


def outbox_rows(ledger: Ledger) -> pa.Table:
    """OUTBOX as it is now."""
    return _rows(ledger, sa.select(*(outbox.c[name] for name in OUTBOX.columns)), OUTBOX)


def delivery_rows(ledger: Ledger) -> pa.Table:
    """DELIVERIES as they are now."""
    whose = {"origin", "destination", "person_id"}
    columns = [(outbox if name in whose else attempts).c[name] for name in DELIVERIES.columns]
    return _rows(
        ledger, sa.select(*columns).join_from(attempts, outbox, attempts.c.op_id == outbox.c.op_id), DELIVERIES
    )


def prevented_rows(ledger: Ledger) -> pa.Table:
    """PREVENTED so far."""
    person, waits = outbox.c.person_id, outbox.c.state == "held"
    keys = (prevented.c.guard, outbox.c.origin, prevented.c.day)
    query = (
        sa.select(
            prevented.c.guard,
            sa.func.substr(outbox.c.origin, len("trigger:") + 1).label("trigger"),
            prevented.c.day,
            sa.func.count(sa.distinct(person)).label("people"),
            sa.func.count(sa.distinct(sa.case((waits, person)))).label("waiting"),
        )
        .join_from(prevented, outbox, prevented.c.op_id == outbox.c.op_id)
        .group_by(*keys)
    )
    return _rows(ledger, query, PREVENTED)


def contact_rows(ledger: Ledger, project: Project) -> pa.Table:
    """CONTACTS so far: acts that were delivered to somebody."""
    channels = {spec.name: spec.channel or spec.type for spec in project.destinations.values()}
    channel = sa.case(channels, value=outbox.c.destination) if channels else sa.null()
    told = {"channel": channel, "at": outbox.c.updated_at}
    query = sa.select(*(told[name] if name in told else outbox.c[name] for name in CONTACTS.columns)).where(
        outbox.c.state == "delivered", outbox.c.person_id != "", outbox.c.kind == "act"
    )
    return _rows(ledger, query, CONTACTS)

"""The tables of the ledger, and how a ledger of an earlier version comes to have them; ledger.py uses them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cdp_pipeline.consent.ledger import WHOLE, metadata

LIVE = ("pending", "retry", "inflight")
LOST = "its worker was lost"
LEAVES = ("remove", "left")
"""Kinds of operations that take somebody out of a destination."""

# Written out, not bound: both databases use a partial index only for a condition they can read.
WAITS = sa.text("state IN ('pending', 'retry')")
UNDER_WAY = sa.text("state = 'inflight'")
HAS_OCCASION = sa.text("occasion <> ''")
OPEN_CASE = sa.text("state IN ('failed', 'unknown')")
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("sequence", WHOLE, primary_key=True, autoincrement=True),
    sa.Column("op_id", sa.String(64), nullable=False, unique=True),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("person_id", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("occasion", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("payload_hash", sa.String(64), nullable=False),
    # For a sync: what unchanged.py knows this payload by.
    sa.Column("fingerprint", sa.String(16)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    # Attempts that do not count towards the limit: given back untried, or made before somebody asked to retry.
    sa.Column("forgiven", sa.Integer, nullable=False),
    sa.Column("next_at", sa.DateTime, nullable=False),
    # The claim it is under way by, or was last.
    sa.Column("claim", WHOLE),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Index("outbox_waits", "destination", "next_at", "sequence", sqlite_where=WAITS, postgresql_where=WAITS),
    sa.Index("outbox_claimed", "claim", sqlite_where=UNDER_WAY, postgresql_where=UNDER_WAY),
    sa.Index("outbox_open_case", "destination", sqlite_where=OPEN_CASE, postgresql_where=OPEN_CASE),
    sa.Index("outbox_order", "origin", "person_id", "sequence"),
    sa.Index("outbox_occasion", "origin", "occasion", sqlite_where=HAS_OCCASION, postgresql_where=HAS_OCCASION),
)
# What a worker has taken, and until when it is its alone. A number is never given twice.
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("claim", WHOLE, primary_key=True, autoincrement=True),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("lease_until", sa.DateTime, nullable=False),
    sqlite_autoincrement=True,
)
# A log: nobody looks one up, and whoever may settle an operation does so once.
attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("op_id", sa.String(64), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("ended_at", sa.DateTime),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("code", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
)
# What the other side called an operation that it accepted and has not yet carried out.
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("op_id", sa.String(64), primary_key=True),
    sa.Column("reference", sa.Text, nullable=False),
)
acknowledged = sa.Table(
    "acknowledged",
    metadata,
    sa.Column("sync", sa.Text, primary_key=True),
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("person_id", sa.Text, nullable=False),
    sa.Column("op_id", sa.String(64), nullable=False),
    sa.Column("payload_hash", sa.String(64)),
    sa.Column("fingerprint", sa.String(16)),
    sa.Column("certain", sa.Boolean, nullable=False),
    sa.Column("present", sa.Boolean, nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sqlite_with_rowid=False,
)
plans = sa.Table(
    "plans",
    metadata,
    sa.Column("plan_id", sa.String(64), primary_key=True),
    sa.Column("sync", sa.Text, nullable=False),
    # None: made before a sync was known to move from one destination to another.
    sa.Column("destination", sa.Text),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    # By field, the share of members of whom nothing is known, as JSON.
    sa.Column("nulls", sa.Text),
    sa.Column("created_at", sa.DateTime, nullable=False),
    # Of a held plan: when it was last planned, of what declaration of the sync, and keys it lets go; as JSON.
    sa.Column("found_at", sa.DateTime),
    sa.Column("declared", sa.Text),
    sa.Column("forgotten", sa.Text),
    sa.Column("approved_at", sa.DateTime),
    sa.Column("approved_by", sa.Text),
)
# What a held plan would do (held.py), for as long as it waits.
held_ops = sa.Table(
    "held_ops",
    metadata,
    sa.Column("plan_id", sa.String(64), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("op_id", sa.String(64), nullable=False),
    sa.Column("person_id", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.String(16)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("after", sa.String(64)),
    sqlite_with_rowid=False,
)
epochs = sa.Table(
    "epochs",
    metadata,
    sa.Column("sync", sa.Text, primary_key=True),
    sa.Column("epoch", sa.String(32), nullable=False),
    # Up to where the outbox was of an earlier epoch.
    sa.Column("since", sa.BigInteger),
)
evaluations = sa.Table(
    "evaluations",
    metadata,
    sa.Column("trigger", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, nullable=False),
)
marks = sa.Table(
    "marks",
    metadata,
    sa.Column("trigger", sa.Text, primary_key=True),
    # The snapshot of the lake up to which was looked at what the trigger watches: the timeline, or dates.
    sa.Column("mark", sa.BigInteger, nullable=False),
    sa.Column("begun_at", sa.DateTime, nullable=False),
)
prevented = sa.Table(
    "prevented",
    metadata,
    sa.Column("op_id", sa.String(64), primary_key=True),
    sa.Column("guard", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, nullable=False),
)
pace = sa.Table(
    "pace",
    metadata,
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("free_at", sa.DateTime, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)


# What must not go on by itself (pauses.py): a destination by its name, or an origin.
pauses = sa.Table(
    "pauses",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", sa.DateTime, nullable=False),
    sa.Column("declared", sa.Text, nullable=False),
)
# How an origin has fared at a destination since its plan was applied or, for what never ends, lately.
health = sa.Table(
    "health",
    metadata,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("delivered", sa.Integer, nullable=False),
    sa.Column("rejected", sa.Integer, nullable=False),
)


# What became of messages after they left (receipts.py).
receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("receipt_id", sa.String(64), primary_key=True),
    sa.Column("op_id", sa.String(64), nullable=False, index=True),
    sa.Column("event", sa.String(32), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("recorded_at", sa.DateTime, nullable=False, index=True),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("email", sa.Text),
    sa.Column("phone", sa.Text),
    sa.Column("push_token", sa.Text),
    sa.Column("detail", sa.Text),
)
# Who was let through, and has not arrived yet (turns.py).
contact_turns = sa.Table(
    "contact_turns",
    metadata,
    sa.Column("op_id", sa.String(64), primary_key=True),
    sa.Column("at", sa.DateTime, nullable=False, index=True),
)
# How far sources were read as they come, and who reads them (positions.py).
read_places = sa.Table(
    "positions",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("place", sa.Text, primary_key=True),
    sa.Column("mark", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
)
# What was read of people before it was loaded (told.py).
told_events = sa.Table(
    "told_events",
    metadata,
    sa.Column("event_id", sa.Text, primary_key=True),
    sa.Column("person_id", sa.Text, nullable=False, index=True),
    sa.Column("row", sa.LargeBinary, nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
)
readers = sa.Table(
    "readers",
    metadata,
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("reader", sa.Text, nullable=False),
    sa.Column("until", sa.DateTime, nullable=False),
)


def prepare(connection: Connection) -> None:
    """Create what is missing, and take over what a ledger of an earlier version knows."""
    _set_aside(connection)
    metadata.create_all(connection)
    _take_over(connection)
    _add_what_is_new(connection)


_BEFORE = "acknowledged_before"


def _set_aside(connection: Connection) -> None:
    """What a ledger of an earlier version knows of syncs, when it did not say of which destination."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(acknowledged.name):
        return
    if "destination" not in {column["name"] for column in inspector.get_columns(acknowledged.name)}:
        connection.exec_driver_sql(f"ALTER TABLE {acknowledged.name} RENAME TO {_BEFORE}")


def _take_over(connection: Connection) -> None:
    if not sa.inspect(connection).has_table(_BEFORE):
        return
    names = [column.name for column in acknowledged.c if column.name != "destination"]
    before = sa.table(_BEFORE, *map(sa.column, names))
    known = sa.select(outbox.c.destination, *(before.c[name] for name in names))
    told = known.join_from(before, outbox, outbox.c.op_id == before.c.op_id)
    connection.execute(acknowledged.insert().from_select(["destination", *names], told))
    connection.exec_driver_sql(f"DROP TABLE {_BEFORE}")


def _add_what_is_new(connection: Connection) -> None:
    """Columns and indexes that a ledger of an earlier version lacks."""
    inspector = sa.inspect(connection)
    columns, indexes = inspector.get_multi_columns(), inspector.get_multi_indexes()
    for table in metadata.sorted_tables:
        there = {column["name"] for column in columns[None, table.name]}
        for column in table.columns:
            if column.name not in there:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")
                if column is outbox.c.claim:
                    # Taken before there were claims, so that no lease would ever end.
                    connection.execute(outbox.update().where(UNDER_WAY).values(state="unknown", reason=LOST))
        there = {str(index["name"]) for index in indexes[None, table.name]}
        for index in table.indexes:
            if index.name not in there:
                index.create(connection)

"""The ledger: every operation ever decided, what became of it, and what each destination is known to hold.

The only truth about who was sent what. Deciding what to send (triggers.py, plan.py) and sending it (deliver.py)
happen elsewhere; here are short transactions, safe for several processes on SQLite (embedded) and Postgres (teams).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection, Engine

from cdp_pipeline.activation.protocol import Closing, canonical_json
from cdp_pipeline.spec.project import Project

DecidedState = Literal["pending", "suppressed", "failed", "held"]
LIVE = ("pending", "retry", "inflight")
LOST = "its worker was lost"
LEAVES = ("remove", "left")
"""Kinds of operations that take somebody out of a destination."""

# Written out, not bound: both databases use a partial index only for a condition they can read.
WAITS = sa.text("state IN ('pending', 'retry')")
UNDER_WAY = sa.text("state = 'inflight'")
_HAS_OCCASION = sa.text("occasion <> ''")
_OPEN_CASE = sa.text("state IN ('failed', 'unknown')")
_metadata = sa.MetaData()
_whole = sa.BigInteger().with_variant(sa.Integer, "sqlite")
outbox = sa.Table(
    "outbox",
    _metadata,
    sa.Column("sequence", _whole, primary_key=True, autoincrement=True),
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
    sa.Column("claim", _whole),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Index("outbox_waits", "destination", "next_at", "sequence", sqlite_where=WAITS, postgresql_where=WAITS),
    sa.Index("outbox_claimed", "claim", sqlite_where=UNDER_WAY, postgresql_where=UNDER_WAY),
    sa.Index("outbox_open_case", "destination", sqlite_where=_OPEN_CASE, postgresql_where=_OPEN_CASE),
    sa.Index("outbox_order", "origin", "person_id", "sequence"),
    sa.Index("outbox_occasion", "origin", "occasion", sqlite_where=_HAS_OCCASION, postgresql_where=_HAS_OCCASION),
)
# What a worker has taken, and until when it is its alone. A number is never given twice.
claims = sa.Table(
    "claims",
    _metadata,
    sa.Column("claim", _whole, primary_key=True, autoincrement=True),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("lease_until", sa.DateTime, nullable=False),
    sqlite_autoincrement=True,
)
# A log: nobody looks one up, and whoever may settle an operation does so once.
attempts = sa.Table(
    "attempts",
    _metadata,
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
    _metadata,
    sa.Column("op_id", sa.String(64), primary_key=True),
    sa.Column("reference", sa.Text, nullable=False),
)
acknowledged = sa.Table(
    "acknowledged",
    _metadata,
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
    _metadata,
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
    _metadata,
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
    _metadata,
    sa.Column("sync", sa.Text, primary_key=True),
    sa.Column("epoch", sa.String(32), nullable=False),
    # Up to where the outbox was of an earlier epoch.
    sa.Column("since", sa.BigInteger),
)
evaluations = sa.Table(
    "evaluations",
    _metadata,
    sa.Column("trigger", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, nullable=False),
)
marks = sa.Table(
    "marks",
    _metadata,
    sa.Column("trigger", sa.Text, primary_key=True),
    # The snapshot of the lake up to which was looked at what the trigger watches: the timeline, or dates.
    sa.Column("mark", sa.BigInteger, nullable=False),
    sa.Column("begun_at", sa.DateTime, nullable=False),
)
prevented = sa.Table(
    "prevented",
    _metadata,
    sa.Column("op_id", sa.String(64), primary_key=True),
    sa.Column("guard", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, nullable=False),
)
pace = sa.Table(
    "pace",
    _metadata,
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("free_at", sa.DateTime, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)


# What must not go on by itself (pauses.py): a destination by its name, or an origin.
pauses = sa.Table(
    "pauses",
    _metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", sa.DateTime, nullable=False),
    sa.Column("declared", sa.Text, nullable=False),
)
# How an origin has fared at a destination since its plan was applied or, for what never ends, lately.
health = sa.Table(
    "health",
    _metadata,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("delivered", sa.Integer, nullable=False),
    sa.Column("rejected", sa.Integer, nullable=False),
)


# What became of messages after they left (receipts.py).
receipts = sa.Table(
    "receipts",
    _metadata,
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
    _metadata,
    sa.Column("op_id", sa.String(64), primary_key=True),
    sa.Column("at", sa.DateTime, nullable=False, index=True),
)
# How far sources were read as they come, and who reads them (positions.py).
read_places = sa.Table(
    "positions",
    _metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("place", sa.Text, primary_key=True),
    sa.Column("mark", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
)
# What was read of people before it was loaded (told.py).
told_events = sa.Table(
    "told_events",
    _metadata,
    sa.Column("event_id", sa.Text, primary_key=True),
    sa.Column("person_id", sa.Text, nullable=False, index=True),
    sa.Column("row", sa.LargeBinary, nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
)
readers = sa.Table(
    "readers",
    _metadata,
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("reader", sa.Text, nullable=False),
    sa.Column("until", sa.DateTime, nullable=False),
)


class LedgerError(Exception):
    """The ledger cannot be opened or asked for this."""


def guarded_by(guards: Sequence[str]) -> str:
    """Why guards keep something from being sent."""
    return f"guard: {', '.join(guards)}"


def _put_off(now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(outbox.c.state == "pending", outbox.c.next_at > utc(now))


def operation_id(*parts: object) -> str:
    """The same parts give the same id, in every process and for ever."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Op:
    """One operation decided: whom to send what, to which destination, on what occasion."""

    op_id: str
    origin: str
    destination: str
    person_id: str
    kind: str
    payload: Mapping[str, object]
    occasion: str = ""
    key: str = ""
    state: DecidedState = "pending"
    reason: str = ""
    guards: tuple[str, ...] = ()
    """For a trigger: the guards that keep it from being sent."""
    fingerprint: str | None = None
    after: str | None = None
    """For a sync: the operation last tried for this key when this one was planned."""

    @cached_property
    def payload_text(self) -> str:
        return canonical_json(self.payload)

    @cached_property
    def payload_hash(self) -> str:
        return hashlib.sha256(self.payload_text.encode()).hexdigest()


def insert_into(dialect: str, table: sa.Table) -> Any:
    """An insertion in a database's own words, which has a way to deal with conflicts."""
    return (postgres_insert if dialect == "postgresql" else sqlite_insert)(table)


def utc(now: datetime) -> datetime:
    """Aware to naive UTC, as the ledger keeps it."""
    if now.tzinfo is None:
        raise ValueError("'now' needs a time zone")
    return now.astimezone(UTC).replace(tzinfo=None)


def ledger_url(project: Project, base: Path) -> str:
    """The declared ledger, or a SQLite file in the embedded lake's folder."""
    settings = project.settings
    if settings.ledger is not None:
        return settings.ledger
    if settings.lake.path is None:
        raise LedgerError("a lake with a catalog needs 'ledger: postgresql+psycopg://…' in the project's settings")
    folder = base / settings.lake.path
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'ledger.sqlite'}"


def open_ledger(url: str) -> Ledger:
    """Connect, and create what is missing; several processes may do so at once."""
    address = sa.make_url(url)
    if address.drivername in ("postgres", "postgresql"):
        address = address.set(drivername="postgresql+psycopg")
    if address.get_backend_name() == "sqlite":
        engine = sa.create_engine(address, connect_args={"timeout": 60})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    elif address.get_backend_name() == "postgresql":
        engine = sa.create_engine(address, pool_pre_ping=True)
    else:
        raise LedgerError(f"the ledger cannot live in '{address.get_backend_name()}': use sqlite or postgresql")
    ledger = Ledger(engine)
    with ledger.writing("schema") as connection:
        _set_aside(connection)
        _metadata.create_all(connection)
        _take_over(connection)
        _add_what_is_new(connection)
    return ledger


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
    for table in _metadata.sorted_tables:
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


def _prepare_sqlite(raw: Any, _: object) -> None:
    raw.isolation_level = None  # The driver must not begin transactions of its own.
    for pragma in (
        "busy_timeout=60000",
        "journal_mode=WAL",
        "synchronous=FULL",
        "cache_size=-65536",
        "wal_autocheckpoint=8000",
    ):
        raw.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail where another wrote in between: lock at once.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Ledger(Closing):
    """All that may be done with the ledger; every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _postgres(self) -> bool:
        return self._engine.dialect.name == "postgresql"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, lock: str | None = None) -> Iterator[Connection]:
        """One write transaction; with `lock`, alone among all that name the same (SQLite: alone altogether)."""
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            if lock is not None and self._postgres:
                number = int(hashlib.sha256(f"cdp:{lock}".encode()).hexdigest()[:15], 16)
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))
            yield connection

    def insert(self, table: sa.Table) -> Any:
        """An insertion in the database's own words, which has a way to deal with conflicts."""
        return insert_into(self._engine.dialect.name, table)

    def among(self, column: sa.ColumnElement[Any], values: Iterable[str | int]) -> sa.ColumnElement[bool]:
        """Whether a column is one of these, however many, as one parameter."""
        if self._postgres:
            return column == sa.any_(sa.literal(list(values), sa.ARRAY(column.type)))
        each = sa.func.json_each(sa.literal(json.dumps(list(values)))).table_valued("value")
        return column.in_(sa.select(each.c.value))

    def _known(self, connection: Connection, op_ids: Sequence[str]) -> set[str]:
        return set(connection.execute(sa.select(outbox.c.op_id).where(self._among(op_ids))).scalars())

    def _among(self, op_ids: Sequence[str]) -> sa.ColumnElement[bool]:
        return self.among(outbox.c.op_id, op_ids)

    def close(self) -> None:
        self._engine.dispose()

    # Deciding

    def fire(
        self,
        trigger: str,
        ops: Sequence[Op],
        *,
        day: date,
        now: datetime,
        cool_down: timedelta = timedelta(0),
        once: bool = False,
        aliases: Mapping[str, str] | None = None,
        counts_dry_run: bool = True,
        mark: int | None = None,
        evaluated: bool = True,
    ) -> dict[str, int]:
        """Record a trigger's operations and, if so, that it was `evaluated` up to a day; count them by state.

        An operation already known, under the person's id or one merged into it, changes nothing: an occasion counts
        once. One that comes within `cool_down` of another, or after any other with `once`, is kept as suppressed. What
        guards kept from being sent is noted by guard and `day`.
        """
        origin, at = f"trigger:{trigger}", utc(now)
        elder = dict(aliases or {})
        counts: dict[str, int] = {}
        with self.writing(origin) as connection:
            past = _Past(
                self, connection, origin, {elder.get(op.person_id, op.person_id) for op in ops}, elder, counts_dry_run
            )
            known = self._known(connection, [op.op_id for op in ops])
            rows, kept = [], []
            for op in ops:
                if op.op_id in known or past.knows(op):
                    counts["known"] = counts.get("known", 0) + 1
                    continue
                last = past.last_other(op)
                state, reason = op.state, op.reason
                if state != "suppressed" and last is not None:
                    if once:
                        state, reason = "suppressed", "once: it has acted for this person before"
                    elif at - last < cool_down:
                        state, reason = "suppressed", "cool-down"
                rows.append(new_row(op, at, state, reason))
                if (state, reason) == (op.state, op.reason):
                    kept += [{"op_id": op.op_id, "guard": guard, "day": day} for guard in op.guards]
                past.add(op, state, at)
                counts[state] = counts.get(state, 0) + 1
            for table, new in ((outbox, rows), (prevented, kept)):
                if new:
                    connection.execute(table.insert(), new)
            if evaluated:
                self._note_evaluated(connection, trigger, day)
            if mark is not None:
                where = marks.c.trigger == trigger
                if connection.execute(marks.update().where(where).values(mark=mark)).rowcount == 0:
                    connection.execute(marks.insert(), {"trigger": trigger, "mark": mark, "begun_at": at})
        return counts

    def _note_evaluated(self, connection: Connection, trigger: str, day: date) -> None:
        found = connection.execute(sa.select(evaluations.c.day).where(evaluations.c.trigger == trigger)).scalar()
        if found is None:
            connection.execute(evaluations.insert(), {"trigger": trigger, "day": day})
        elif found < day:
            connection.execute(evaluations.update().where(evaluations.c.trigger == trigger).values(day=day))

    def evaluated_until(self, trigger: str) -> date | None:
        """The newest day this trigger was evaluated for."""
        with self.reading() as connection:
            return connection.execute(sa.select(evaluations.c.day).where(evaluations.c.trigger == trigger)).scalar()

    def begun(self, trigger: str) -> datetime | None:
        """When (naive UTC) a trigger on events or dates was first evaluated."""
        with self.reading() as connection:
            return connection.execute(sa.select(marks.c.begun_at).where(marks.c.trigger == trigger)).scalar()

    def mark(self, trigger: str) -> int | None:
        """The snapshot of the lake up to which this trigger has looked at the timeline's rows."""
        with self.reading() as connection:
            return connection.execute(sa.select(marks.c.mark).where(marks.c.trigger == trigger)).scalar()

    def known_occasions(self, origin: str, occasions: Collection[str]) -> set[str]:
        """Those of the occasions that this origin has acted on, or decided not to, for whomever."""
        asked = self.among(outbox.c.occasion, set(occasions))
        query = sa.select(outbox.c.occasion).where(outbox.c.origin == origin, _HAS_OCCASION, asked)
        with self.reading() as connection:
            return set(connection.execute(query.distinct()).scalars())

    def occasions_of(self, origin: str, person_ids: Collection[str]) -> set[tuple[str, str]]:
        """(person, occasion) of all that this origin has acted on, or decided not to, for these people."""
        query = sa.select(outbox.c.person_id, outbox.c.occasion).where(
            outbox.c.origin == origin, self.among(outbox.c.person_id, person_ids)
        )
        with self.reading() as connection:
            return {(row.person_id, row.occasion) for row in connection.execute(query.distinct())}

    def waiting_people(self, trigger: str, now: datetime) -> set[str]:
        """The people for whom acts of a trigger wait: until no guard holds any more, or for an hour to come."""
        waits = sa.or_(outbox.c.state == "held", _put_off(now))
        query = sa.select(outbox.c.person_id).where(outbox.c.origin == f"trigger:{trigger}", waits)
        with self.reading() as connection:
            return set(connection.execute(query.distinct()).scalars())

    def keep(
        self, trigger: str, guards: Mapping[str, Sequence[str]], *, state: DecidedState, day: date, now: datetime
    ) -> int:
        """Keep what waits for an hour to come from people (with the guards' names) whom guards have come to spare."""
        origin, kept = f"trigger:{trigger}", 0
        with self.writing(origin) as connection:
            where = sa.and_(outbox.c.origin == origin, _put_off(now), self.among(outbox.c.person_id, guards))
            query = sa.select(outbox.c.op_id, outbox.c.person_id).where(where).with_for_update()
            for op_id, person_id in connection.execute(query).all():
                values = {"state": state, "reason": guarded_by(guards[person_id]), "updated_at": utc(now)}
                connection.execute(outbox.update().where(outbox.c.op_id == op_id).values(values))
                by = [{"op_id": op_id, "guard": guard, "day": day} for guard in guards[person_id]]
                connection.execute(self.insert(prevented).on_conflict_do_nothing(), by)
                kept += 1
        return kept

    def release(self, trigger: str, people: Collection[str], now: datetime) -> int:
        """Let what waited for guards be sent to these people, whom none keeps from it any more."""
        waits = sa.and_(outbox.c.origin == f"trigger:{trigger}", outbox.c.state == "held")
        with self.writing() as connection:
            return connection.execute(
                outbox.update()
                .where(waits, self.among(outbox.c.person_id, people))
                .values(state="pending", reason="", next_at=utc(now), updated_at=utc(now))
            ).rowcount

    def send_once(self, ops: Sequence[Op], now: datetime) -> list[str]:
        """Record operations that carry their own occasion (alerts); returns the ids that are new."""
        at = utc(now)
        with self.writing("send_once") as connection:
            known = self._known(connection, [op.op_id for op in ops])
            fresh = [op for op in ops if op.op_id not in known]
            if fresh:
                connection.execute(outbox.insert(), [new_row(op, at, op.state, op.reason) for op in fresh])
        return [op.op_id for op in fresh]

    # Looking after what is left

    def retry(
        self,
        now: datetime,
        *,
        op_ids: Collection[str] | None = None,
        destination: str | None = None,
        origin: str | None = None,
    ) -> int:
        """Try failed and unknown operations again, all or those named, with a fresh allowance of attempts."""
        return self._close_case(
            now, op_ids, destination, origin, state="pending", reason="", next_at=utc(now), forgiven=outbox.c.attempt
        )

    def dismiss(
        self,
        now: datetime,
        reason: str,
        *,
        op_ids: Collection[str] | None = None,
        destination: str | None = None,
        origin: str | None = None,
        not_arrived: bool = False,
    ) -> int:
        """Stop asking about failed and unknown operations: they stay, as suppressed, with the reason given.

        What may have arrived becomes 'doubtful' and goes on counting as if it had, unless somebody has found out that
        it has `not_arrived`.
        """
        perhaps = sa.and_(outbox.c.state == "unknown", sa.literal(not not_arrived))
        becomes = sa.case((perhaps, "doubtful"), else_="suppressed")
        return self._close_case(now, op_ids, destination, origin, state=becomes, reason=f"dismissed: {reason}")

    def _close_case(
        self,
        now: datetime,
        op_ids: Collection[str] | None,
        destination: str | None,
        origin: str | None,
        **values: object,
    ) -> int:
        open_case: list[sa.ColumnElement[bool]] = [outbox.c.state.in_(("failed", "unknown"))]
        if op_ids is not None:
            open_case.append(self._among(list(op_ids)))
        if origin is not None:
            open_case.append(outbox.c.origin == origin)
        if destination is not None:
            open_case.append(outbox.c.destination == destination)
        with self.writing() as connection:
            return connection.execute(outbox.update().where(*open_case).values(updated_at=utc(now), **values)).rowcount

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Operations by origin, destination and state."""
        columns = (outbox.c.origin, outbox.c.destination, outbox.c.state)
        with self.reading() as connection:
            rows = connection.execute(sa.select(*columns, sa.func.count()).group_by(*columns)).all()
        return {(row[0], row[1], row[2]): row[3] for row in rows}

    def about(self, person_ids: Collection[str]) -> list[dict[str, object]]:
        """Every operation concerning a person (all their ids), oldest first, with its payload."""
        query = sa.select(outbox).where(outbox.c.person_id.in_(list(person_ids))).order_by(outbox.c.sequence)
        with self.reading() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def new_row(op: Op, at: datetime, state: str, reason: str) -> dict[str, object]:
    return {
        "op_id": op.op_id, "origin": op.origin, "destination": op.destination, "person_id": op.person_id,
        "key": op.key, "kind": op.kind, "occasion": op.occasion, "payload": op.payload_text,
        "payload_hash": op.payload_hash, "fingerprint": op.fingerprint, "state": state, "reason": reason,
        "attempt": 0, "forgiven": 0, "next_at": at, "created_at": at, "updated_at": at,
    }  # fmt: skip


class _Past:
    """What a trigger has done for some people before, under any of their ids."""

    def __init__(
        self,
        ledger: Ledger,
        connection: Connection,
        origin: str,
        people: set[str],
        elder: Mapping[str, str],
        counts_dry_run: bool,
    ) -> None:
        self._elder = elder
        self._ops: set[tuple[str, str, str]] = set()
        self._acted: dict[str, dict[str, datetime]] = {}  # By person the two last occasions, and when.
        self._not_acts = {"suppressed"} if counts_dry_run else {"suppressed", "dry_run"}
        ids = people | {alias for alias, survivor in elder.items() if survivor in people}
        columns = (outbox.c[name] for name in ("person_id", "occasion", "key", "state", "created_at"))
        query = sa.select(*columns).where(outbox.c.origin == origin, ledger.among(outbox.c.person_id, ids))
        for row in connection.execute(query):
            self.add(row, row.state, row.created_at)

    def _person(self, person_id: str) -> str:
        return self._elder.get(person_id, person_id)

    def add(self, op: Any, state: str, at: datetime) -> None:
        person = self._person(op.person_id)
        self._ops.add((person, op.occasion, op.key))
        if state not in self._not_acts:
            acted = self._acted.setdefault(person, {})
            acted[op.occasion] = max(at, acted.get(op.occasion, at))
            if len(acted) > 2:
                del acted[min(acted, key=acted.__getitem__)]

    def knows(self, op: Op) -> bool:
        return (self._person(op.person_id), op.occasion, op.key) in self._ops

    def last_other(self, op: Op) -> datetime | None:
        """When it last acted for this person on another occasion."""
        others = [
            at for occasion, at in self._acted.get(self._person(op.person_id), {}).items() if occasion != op.occasion
        ]
        return max(others, default=None)

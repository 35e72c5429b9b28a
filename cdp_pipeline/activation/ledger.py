"""The ledger: every operation ever decided, what became of it, and what each destination is known to hold.

The only truth about who was sent what. Deciding what to send (triggers.py, plan.py) and sending it (deliver.py)
happen elsewhere; here are short transactions, safe for several processes on SQLite (embedded) and Postgres (teams).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection, Engine

from cdp_pipeline.activation.protocol import Delivery, Outcome, Payload, canonical_json, may_repeat
from cdp_pipeline.spec.project import Project

DecidedState = Literal["pending", "suppressed", "failed", "held"]
LIVE = ("pending", "retry", "inflight")
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=6)
LOST = "its worker was lost"

# Written out, not bound: both databases use a partial index only for a condition they can read.
_WAITS = sa.text("state IN ('pending', 'retry')")
_UNDER_WAY = sa.text("state = 'inflight'")
_OPEN_CASE = sa.text("state IN ('failed', 'unknown')")
_metadata = sa.MetaData()
_sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
outbox = sa.Table(
    "outbox",
    _metadata,
    sa.Column("sequence", _sequence, primary_key=True, autoincrement=True),
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
    sa.Column("lease_until", sa.DateTime),
    sa.Column("worker", sa.Text),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Index("outbox_waits", "destination", "next_at", "sequence", sqlite_where=_WAITS, postgresql_where=_WAITS),
    sa.Index("outbox_under_way", "destination", "lease_until", sqlite_where=_UNDER_WAY, postgresql_where=_UNDER_WAY),
    sa.Index("outbox_open_case", "destination", sqlite_where=_OPEN_CASE, postgresql_where=_OPEN_CASE),
    sa.Index("outbox_order", "origin", "person_id", "sequence"),
    sa.Index("outbox_occasion", "origin", "occasion"),
)
attempts = sa.Table(
    "attempts",
    _metadata,
    sa.Column("op_id", sa.String(64), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("ended_at", sa.DateTime),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("code", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sqlite_with_rowid=False,
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
    # The snapshot of the lake up to which rows of the timeline were looked at.
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
LATELY = 1_000
_SETTLED = [outbox.c[name] for name in ("op_id", "attempt", "forgiven", "origin", "destination", "key")]


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


@dataclass(frozen=True)
class Claimed:
    """An operation this worker alone may carry out until its lease ends."""

    delivery: Delivery
    attempt: int
    origin: str
    person_id: str
    decided_at: datetime


@dataclass(frozen=True)
class Claim:
    """What may be delivered at once; `wait` is how long the destination's rate or pause asks for before the next."""

    ops: list[Claimed] = field(default_factory=list)
    wait: timedelta = timedelta(0)


def utc(now: datetime) -> datetime:
    """Aware to naive UTC, as the ledger keeps it."""
    if now.tzinfo is None:
        raise ValueError("'now' needs a time zone")
    return now.astimezone(UTC).replace(tzinfo=None)


def backoff(op_id: str, failures: int) -> timedelta:
    """30 seconds, 2 minutes, 8 minutes, … with a jitter of ±25 % that is the operation's own, so that many spread."""
    wait = min(FIRST_WAIT * 4 ** min(failures - 1, 10), LONGEST_WAIT)
    jitter = int(hashlib.sha256(f"{op_id}:{failures}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return wait * (0.75 + jitter / 2)


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
        _metadata.create_all(connection)
        _add_what_is_new(connection)
    return ledger


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


class Ledger:
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

    def among(self, column: sa.ColumnElement[str], values: Iterable[str]) -> sa.ColumnElement[bool]:
        """Whether a column is one of these, however many, as one parameter."""
        if self._postgres:
            return column == sa.any_(sa.literal(list(values), sa.ARRAY(sa.Text)))
        each = sa.func.json_each(sa.literal(json.dumps(list(values)))).table_valued("value")
        return column.in_(sa.select(each.c.value))

    def _known(self, connection: Connection, op_ids: Sequence[str]) -> set[str]:
        return set(connection.execute(sa.select(outbox.c.op_id).where(self._among(op_ids))).scalars())

    def _among(self, op_ids: Sequence[str]) -> sa.ColumnElement[bool]:
        return self.among(outbox.c.op_id, op_ids)

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
                connection.execute(outbox.insert(), new_row(op, at, state, reason))
                if op.guards and (state, reason) == (op.state, op.reason):
                    by = [{"op_id": op.op_id, "guard": guard, "day": day} for guard in op.guards]
                    connection.execute(prevented.insert(), by)
                past.add(op, state, at)
                counts[state] = counts.get(state, 0) + 1
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
        """When (naive UTC) a trigger on events was first evaluated."""
        with self.reading() as connection:
            return connection.execute(sa.select(marks.c.begun_at).where(marks.c.trigger == trigger)).scalar()

    def mark(self, trigger: str) -> int | None:
        """The snapshot of the lake up to which this trigger has looked at the timeline's rows."""
        with self.reading() as connection:
            return connection.execute(sa.select(marks.c.mark).where(marks.c.trigger == trigger)).scalar()

    def known_occasions(self, origin: str, occasions: Collection[str]) -> set[str]:
        """Those of the occasions that this origin has acted on, or decided not to, for whomever."""
        asked = self.among(outbox.c.occasion, set(occasions))
        query = sa.select(outbox.c.occasion).where(outbox.c.origin == origin, asked)
        with self.reading() as connection:
            return set(connection.execute(query.distinct()).scalars())

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
                insert = postgres_insert(prevented) if self._postgres else sqlite_insert(prevented)
                connection.execute(insert.on_conflict_do_nothing(), by)
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

    # Delivering

    def destinations_due(self, now: datetime) -> list[str]:
        """Destinations with something to deliver, or with a lease that ran out."""
        at = utc(now)
        due = (sa.and_(_WAITS, outbox.c.next_at <= at), sa.and_(_UNDER_WAY, outbox.c.lease_until <= at))
        with self.reading() as connection:
            found = [connection.execute(sa.select(outbox.c.destination).where(one).distinct()).scalars() for one in due]
            return sorted({name for names in found for name in names})

    def waiting_for(self, destination: str, limit: int) -> list[Claimed]:
        """What waits for a destination, longest due first; nobody takes it by this."""
        row = outbox.c
        columns = (row.op_id, row.kind, row.payload, row.attempt, row.origin, row.person_id, row.created_at)
        query = sa.select(*columns).where(row.destination == destination, _WAITS)
        query = query.order_by(row.next_at, row.sequence).limit(limit)
        with self.reading() as connection:
            return [
                Claimed(
                    Delivery(one.op_id, one.kind, Payload(one.payload)), one.attempt, one.origin, one.person_id,
                    one.created_at.replace(tzinfo=UTC),
                )
                for one in connection.execute(query)
            ]  # fmt: skip

    def show_dry_run(self, waiting: Iterable[Claimed], refused: Mapping[str, Outcome], now: datetime) -> dict[str, int]:
        """Settle what waits for a destination in dry run: the exact payload stays, nothing is sent; counts by state.

        What a gate refuses is suppressed, as it would be; what would have to wait says so.
        """
        becomes: dict[tuple[str, str], list[str]] = defaultdict(list)
        for one in waiting:
            outcome = refused.get(one.delivery.op_id)
            if outcome is None:
                becomes["dry_run", "dry run"].append(one.delivery.op_id)
            elif outcome.state == "waits":
                becomes["dry_run", f"dry run; it would wait: {outcome.reason}"].append(one.delivery.op_id)
            else:
                becomes[outcome.state, outcome.reason].append(one.delivery.op_id)
        counts: Counter[str] = Counter()
        with self.writing() as connection:
            for (state, reason), op_ids in sorted(becomes.items()):
                counts[state] += connection.execute(
                    outbox.update()
                    .where(self._among(op_ids), _WAITS)
                    .values(state=state, reason=reason, updated_at=utc(now))
                ).rowcount
        return dict(counts)

    def claim(
        self,
        destination: str,
        *,
        limit: int,
        now: datetime,
        lease: timedelta,
        worker: str,
        repeatable: bool | frozenset[str],
        max_attempts: int,
        rate: float,
    ) -> Claim:
        """Take the operations that are due longest, at most a second's worth of `rate`, one per person and origin."""
        at = utc(now)
        with self.writing() as connection:
            free_at = self._free_at(connection, destination, at)
            if free_at > at:
                return Claim(wait=free_at - at)
            self._expire(connection, destination, at, repeatable, max_attempts)
            earlier = outbox.alias("earlier")
            columns = ("op_id", "kind", "payload", "attempt", "origin", "person_id", "created_at")
            reference = sa.select(jobs.c.reference).where(jobs.c.op_id == outbox.c.op_id).scalar_subquery()
            due = (
                sa.select(*(outbox.c[name] for name in columns), reference.label("reference"))
                .where(outbox.c.destination == destination, sa.text("outbox.state IN ('pending', 'retry')"))
                .where(outbox.c.next_at <= at, ~sa.exists().where(pauses.c.subject == outbox.c.origin))
                .where(
                    ~sa.exists().where(
                        earlier.c.origin == outbox.c.origin,
                        earlier.c.person_id == outbox.c.person_id,
                        earlier.c.destination == outbox.c.destination,
                        earlier.c.sequence < outbox.c.sequence,
                        earlier.c.state.in_(LIVE),
                    )
                )
                .order_by(outbox.c.next_at, outbox.c.sequence)
                .limit(min(limit, max(1, int(rate))))
                .with_for_update(skip_locked=True)
            )
            rows = connection.execute(due).all()
            if not rows:
                return Claim()
            taken = {
                "state": "inflight", "attempt": outbox.c.attempt + 1, "worker": worker, "lease_until": at + lease,
                "updated_at": at,
            }  # fmt: skip
            connection.execute(outbox.update().where(self._among([row.op_id for row in rows])).values(taken))
            connection.execute(
                pace.update()
                .where(pace.c.destination == destination)
                .values(free_at=at + timedelta(seconds=len(rows) / rate), reason="rate")
            )
        return Claim(
            [
                Claimed(
                    Delivery(row.op_id, row.kind, Payload(row.payload), row.reference or ""),
                    row.attempt + 1,
                    row.origin,
                    row.person_id,
                    row.created_at.replace(tzinfo=UTC),
                )
                for row in rows
            ]
        )

    def _free_at(self, connection: Connection, destination: str, at: datetime) -> datetime:
        """When the destination takes the next one; its row is locked, so that workers share one rate."""
        query = sa.select(pace.c.free_at).where(pace.c.destination == destination).with_for_update()
        found = connection.execute(query).scalar()
        if found is not None:
            return found
        connection.execute(sa.text(
            "INSERT INTO pace (destination, free_at, reason) VALUES (:destination, :at, '') ON CONFLICT DO NOTHING"
        ).bindparams(sa.bindparam("at", type_=sa.DateTime)), {"destination": destination, "at": at})  # fmt: skip
        return connection.execute(query).scalar_one()

    def _expire(
        self,
        connection: Connection,
        destination: str,
        at: datetime,
        repeatable: bool | frozenset[str],
        max_attempts: int,
    ) -> None:
        """Settle what a lost worker held: try again where that is safe, else hold it as unknown."""
        lost = connection.execute(
            sa.select(*_SETTLED, outbox.c.kind)
            .where(outbox.c.destination == destination, sa.text("outbox.state = 'inflight'"))
            .where(outbox.c.lease_until <= at)
            .with_for_update(skip_locked=True)
        ).all()
        outcomes = [
            (row, Outcome(row.op_id, "retry" if may_repeat(repeatable, row.kind) else "unknown", LOST, timedelta(0)))
            for row in lost
        ]
        self._settle(connection, outcomes, at, max_attempts)

    def settle(
        self, outcomes: Iterable[tuple[Claimed, Outcome]], *, worker: str, now: datetime, max_attempts: int
    ) -> dict[str, int]:
        """Write outcomes and what the destination now holds, in one commit; count the states they led to.

        An outcome that comes after its lease ran out and somebody else took the operation is not written.
        """
        at, given = utc(now), list(outcomes)
        with self.writing() as connection:
            query = sa.select(*_SETTLED).where(self._among([outcome.op_id for _, outcome in given]))
            query = query.where(outbox.c.worker == worker, outbox.c.state == "inflight").with_for_update()
            mine = {row.op_id: row for row in connection.execute(query).all()}
            sound = [
                (mine[outcome.op_id], outcome)
                for claimed, outcome in given
                if outcome.op_id in mine and mine[outcome.op_id].attempt == claimed.attempt
            ]
            counts = self._settle(connection, sound, at, max_attempts)
            self._note_jobs(connection, [outcome for _, outcome in sound], {
                claimed.delivery.op_id: claimed.delivery.reference for claimed, _ in given
            })  # fmt: skip
        if late := len(given) - len(sound):
            counts["late"] = late
        return dict(counts)

    def _note_jobs(self, connection: Connection, outcomes: Sequence[Outcome], known: Mapping[str, str]) -> None:
        """Keep the references of what was accepted, and forget those of what has come to an end."""
        untouched = ("untried", "waits", "suppressed")
        new = [each for each in outcomes if each.reference != known[each.op_id] and each.state not in untouched]
        if ended := [outcome.op_id for outcome in new if known[outcome.op_id]]:
            connection.execute(jobs.delete().where(self.among(jobs.c.op_id, ended)))
        if rows := [{"op_id": each.op_id, "reference": each.reference} for each in new if each.reference]:
            connection.execute(jobs.insert(), rows)

    def _settle(
        self, connection: Connection, outcomes: Sequence[tuple[Any, Outcome]], at: datetime, max_attempts: int
    ) -> Counter[str]:
        """Write what became of operations, given with their _SETTLED columns: alike ones in one statement."""
        heard: dict[tuple[str, int | None, str], list[str]] = defaultdict(list)
        lead_to: dict[tuple[str, str, int, datetime | None], list[str]] = defaultdict(list)
        held: dict[tuple[str, int], list[str]] = defaultdict(list)
        keys: dict[tuple[str, str], int] = {}
        fared: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row, outcome in outcomes:
            values = _settled(row, outcome, at, max_attempts)
            if values[0] in ("delivered", "failed"):
                fared[row.origin, row.destination].append(values[0])
            lead_to[values].append(row.op_id)
            heard[outcome.state, outcome.code, outcome.reason].append(row.op_id)
            if row.origin.startswith("sync:") and outcome.state not in ("untried", "suppressed", "waits"):
                # Two for one key, which nobody plans, must not meet in one statement.
                keys[row.origin, row.key] = often = keys.get((row.origin, row.key), -1) + 1
                held[outcome.state, often].append(row.op_id)
        for (state, code, reason), op_ids in heard.items():
            said = (outbox.c.op_id, outbox.c.attempt, outbox.c.updated_at, sa.literal(at), sa.literal(state),
                    sa.literal(code, sa.Integer), sa.literal(reason))  # fmt: skip
            names = ["op_id", "attempt", "at", "ended_at", "outcome", "code", "reason"]
            connection.execute(attempts.insert().from_select(names, sa.select(*said).where(self._among(op_ids))))
        for (origin, destination), states in sorted(fared.items()):
            self._note_health(connection, origin, destination, Counter(states))
        for (state, _), op_ids in sorted(held.items(), key=lambda item: item[0][1]):
            self._acknowledge(connection, op_ids, state, at)
        for (becomes, reason, forgiven, next_at), op_ids in lead_to.items():
            if len(op_ids) > 1:
                connection.execute(
                    outbox.update()
                    .where(self._among(op_ids))
                    .values(
                        state=becomes, reason=reason, forgiven=outbox.c.forgiven + forgiven, lease_until=None,
                        worker=None, updated_at=at, next_at=outbox.c.next_at if next_at is None else next_at,
                    )
                )  # fmt: skip
        singles = [
            {"which": op_ids[0], "becomes": values[0], "why": values[1], "more": values[2], "due": values[3]}
            for values, op_ids in lead_to.items()
            if len(op_ids) == 1
        ]
        if singles:
            connection.execute(
                outbox.update()
                .where(outbox.c.op_id == sa.bindparam("which"))
                .values(
                    state=sa.bindparam("becomes"), reason=sa.bindparam("why"),
                    forgiven=outbox.c.forgiven + sa.bindparam("more", type_=sa.Integer), lease_until=None,
                    worker=None, updated_at=at,
                    next_at=sa.func.coalesce(sa.bindparam("due", type_=sa.DateTime), outbox.c.next_at),
                ),
                singles,
            )  # fmt: skip
        counts = Counter[str]()
        for (becomes, *_), op_ids in lead_to.items():
            counts[becomes] += len(op_ids)
        return counts

    def _note_health(self, connection: Connection, origin: str, destination: str, states: Counter[str]) -> None:
        insert = (postgres_insert if self._postgres else sqlite_insert)(health)
        new, many = insert.excluded, health.c.delivered + health.c.rejected > LATELY
        values = {
            name: sa.case((many, health.c[name] // 2), else_=health.c[name]) + new[name]
            for name in ("delivered", "rejected")
        }
        connection.execute(
            insert.on_conflict_do_update(index_elements=["origin", "destination"], set_=values),
            {"origin": origin, "destination": destination, "delivered": states["delivered"],
             "rejected": states["failed"]},
        )  # fmt: skip

    def _acknowledge(self, connection: Connection, op_ids: Sequence[str], state: str, at: datetime) -> None:
        """Keep what the destination holds: certainly after an answer, perhaps after silence.

        The last operation tried is kept even when it failed: the next one for this key is derived from it, so that
        somebody who left and came back is a new operation, not the old one again.
        """
        leaves = outbox.c.kind.in_(("remove", "left"))
        told = sa.select(
            sa.func.substr(outbox.c.origin, len("sync:") + 1), outbox.c.key, outbox.c.person_id, outbox.c.op_id,
            sa.case((leaves, sa.null()), else_=outbox.c.payload_hash),
            sa.case((leaves, sa.null()), else_=outbox.c.fingerprint), sa.literal(state == "delivered"),
            sa.literal(False) if state == "failed" else ~leaves, sa.literal(at),
        ).where(self._among(op_ids))  # fmt: skip
        names = ["sync", "key", "person_id", "op_id", "payload_hash", "fingerprint", "certain", "present", "at"]
        insert = postgres_insert(acknowledged) if self._postgres else sqlite_insert(acknowledged)
        new = insert.excluded
        present: Any = sa.or_(acknowledged.c.present, new.present)
        if state in ("delivered", "failed"):
            present = new.present if state == "delivered" else acknowledged.c.present
        values = {name: new[name] for name in names[2:]} | {"present": present}
        connection.execute(
            insert.from_select(names, told).on_conflict_do_update(index_elements=["sync", "key"], set_=values)
        )

    def rest(self, destination: str, until: datetime, reason: str) -> None:
        """Let a destination rest: it asked for it, or it does not answer."""
        with self.writing() as connection:
            connection.execute(
                pace.update()
                .where(pace.c.destination == destination, pace.c.free_at < utc(until))
                .values(free_at=utc(until), reason=reason)
            )

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
    ) -> int:
        """Stop asking about failed and unknown operations: they stay, as suppressed, with the reason given."""
        return self._close_case(now, op_ids, destination, origin, state="suppressed", reason=f"dismissed: {reason}")

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


def _settled(row: Any, outcome: Outcome, at: datetime, max_attempts: int) -> tuple[str, str, int, datetime | None]:
    """What an operation becomes: state, reason, attempts forgiven in addition, and when it is due if that moves."""
    tried = row.attempt - row.forgiven
    if outcome.state in ("untried", "waits"):
        # Not an attempt: back in line as before.
        due = at if outcome.state == "untried" or outcome.after is None else at + outcome.after
        return "retry" if tried > 1 else "pending", outcome.reason, 1, due
    if outcome.state == "accepted":
        # It answered: not a failed attempt, however often it has to be asked what became of it.
        return "retry", outcome.reason, 1, at + (outcome.after or FIRST_WAIT)
    if outcome.state != "retry":
        return outcome.state, outcome.reason, 0, None
    if tried >= max_attempts:
        return "failed", f"{outcome.reason}; given up after {tried} attempts", 0, None
    return "retry", outcome.reason, 0, at + (backoff(row.op_id, tried) if outcome.after is None else outcome.after)


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
        self._acted: dict[str, dict[str, datetime]] = {}
        self._not_acts = {"suppressed"} if counts_dry_run else {"suppressed", "dry_run"}
        ids = people | {alias for alias, survivor in elder.items() if survivor in people}
        query = sa.select(outbox).where(outbox.c.origin == origin, ledger.among(outbox.c.person_id, ids))
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

    def knows(self, op: Op) -> bool:
        return (self._person(op.person_id), op.occasion, op.key) in self._ops

    def last_other(self, op: Op) -> datetime | None:
        """When it last acted for this person on another occasion."""
        others = [
            at for occasion, at in self._acted.get(self._person(op.person_id), {}).items() if occasion != op.occasion
        ]
        return max(others, default=None)

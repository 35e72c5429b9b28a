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
from cdp_pipeline.activation.schema import HAS_OCCASION, OPEN_CASE, evaluations, marks, outbox, prepare, prevented
from cdp_pipeline.spec.project import Project

DecidedState = Literal["pending", "suppressed", "failed", "held"]


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


def all_ids(person_ids: Collection[str], aliases: Mapping[str, str]) -> set[str]:
    """These people's ids, and those of everybody who was merged into one of them."""
    wanted = set(person_ids)
    return wanted | {one for one, survivor in aliases.items() if survivor in wanted}


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
        prepare(connection)
    return ledger


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
                # A guard has only prevented what would have been sent without it.
                if last is not None and (state != "suppressed" or op.guards):
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
        query = sa.select(outbox.c.occasion).where(outbox.c.origin == origin, HAS_OCCASION, asked)
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
        open_case: list[Any] = [OPEN_CASE]
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
        ids = all_ids(people, elder)
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

"""A table in somebody's database: members are upserted under their key and deleted when they leave.

The table is theirs: it is read to learn its columns, never created or altered here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from cdp_pipeline.activation.protocol import Closing, Delivery, DestinationError, Outcome, canonical_json
from cdp_pipeline.destinations.http import SHORTEST_TRY, WAIT_AFTER_REFUSED_KEY, untried
from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.destination import Sql

INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
# Who we are or what we may do is refused, no such database: what a SQLSTATE begins with then.
RIGHTS = ("28", "3D", "42501")
Row = dict[str, object]


class RowRefusedError(ValueError):
    """A row that does not fit the table."""


def connect(spec: Sql) -> SqlConnection:
    return SqlConnection(spec)


class SqlConnection(Closing):
    """Writes a batch in one transaction; where a row of it is refused, each row gets a savepoint of its own."""

    batch_size = 500
    repeatable = True

    def __init__(self, spec: Sql) -> None:
        self._spec = spec
        self._engine = _engine(spec)
        self._table: sa.Table | None = None

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        if within < SHORTEST_TRY or not batch:
            return untried(batch, "no time left in this round")
        try:
            with self._engine.begin() as connection:
                if self._table is None:
                    self._table = _table(connection, self._spec)
                return _write(connection, self._table, self._spec.key, batch)
        except DestinationError as mistake:
            return _resting(batch, str(mistake), WAIT_AFTER_REFUSED_KEY)
        except SQLAlchemyError as error:
            # Nothing of the batch is there, or all of it after all: an upsert may be repeated.
            state = str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")
            words = f"the database cannot be used ({type(error).__name__}{' ' + state if state else ''})"
            refused_us = state.startswith(RIGHTS) or "authentication" in str(getattr(error, "orig", ""))
            return _resting(batch, words, WAIT_AFTER_REFUSED_KEY if refused_us else None, refused_us)

    def close(self) -> None:
        self._engine.dispose()


def _resting(
    batch: Sequence[Delivery], reason: str, after: timedelta | None, refused_us: bool = False
) -> list[Outcome]:
    first = Outcome(batch[0].op_id, "retry", reason, after, refused_us=refused_us)
    return [first, *untried(batch[1:], reason, after)]


def _engine(spec: Sql) -> sa.Engine:
    seconds = max(2, int(spec.timeout.total_seconds()))
    try:
        url = sa.make_url(spec.url)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() not in INSERTS:
            raise DestinationError(unknown("database", url.get_backend_name(), INSERTS))
        options: dict[str, Any] = {"timeout": seconds}
        if url.get_backend_name() == "postgresql":
            options = {"connect_timeout": seconds, "options": f"-c statement_timeout={seconds * 1000}"}
        # Parameters are people's data: no error may hold them.
        engine = sa.create_engine(url, connect_args=options, hide_parameters=True, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError):
        raise DestinationError("'url' is no database's address, such as postgresql://user@host/name") from None
    if engine.dialect.name == "sqlite":
        # Its driver would begin transactions of its own and know no savepoints.
        sa.event.listen(engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _table(connection: sa.Connection, spec: Sql) -> sa.Table:
    schema, _, name = spec.table.rpartition(".")
    inspector = sa.inspect(connection)
    known = inspector.get_table_names(schema or None)
    if name not in known:
        raise DestinationError(unknown("table", name, known))
    table = sa.Table(name, sa.MetaData(), schema=schema or None, autoload_with=connection)
    if spec.key not in table.columns:
        raise DestinationError(f"table '{spec.table}': {unknown('column', spec.key, table.columns.keys())}")
    unique = [inspector.get_pk_constraint(name, schema or None)["constrained_columns"]]
    unique += [each["column_names"] for each in inspector.get_unique_constraints(name, schema or None)]
    unique += [each["column_names"] for each in inspector.get_indexes(name, schema or None) if each["unique"]]  # type: ignore[misc]
    if [spec.key] not in unique:
        raise DestinationError(
            f"table '{spec.table}': column '{spec.key}' is not unique, so nobody is found again by it"
        )
    return table


def _write(connection: sa.Connection, table: sa.Table, key: str, batch: Sequence[Delivery]) -> list[Outcome]:
    outcomes: dict[str, Outcome] = {}
    rows: list[tuple[str, bool, Row]] = []
    for delivery in batch:
        try:
            leaves, row = row_of(delivery, key)
            rows.append((delivery.op_id, leaves, _fitting(row, table)))
        except RowRefusedError as refused:
            outcomes[delivery.op_id] = Outcome(delivery.op_id, "failed", str(refused))
    try:
        with connection.begin_nested():
            # In order: somebody may leave and come back within one batch.
            for (leaves, _), some in groupby(rows, key=lambda each: (each[1], tuple(each[2]))):
                many = [row for _, _, row in some]
                connection.execute(_statement(connection, table, key, leaves, many[0]), many)
        outcomes |= {op_id: Outcome(op_id, "delivered", "written") for op_id, _, _ in rows}
    except (IntegrityError, DataError):
        for op_id, leaves, row in rows:
            outcomes[op_id] = _write_one(connection, _statement(connection, table, key, leaves, row), op_id, row)
    return [outcomes[delivery.op_id] for delivery in batch]


def _write_one(connection: sa.Connection, statement: sa.Executable, op_id: str, row: Row) -> Outcome:
    try:
        with connection.begin_nested():
            connection.execute(statement, row)
    except (IntegrityError, DataError) as error:
        state = getattr(error.orig, "sqlstate", None)
        return Outcome(op_id, "failed", f"the table refuses it ({type(error).__name__}{f' {state}' if state else ''})")
    return Outcome(op_id, "delivered", "written")


def row_of(delivery: Delivery, key: str) -> tuple[bool, Row]:
    """Whether somebody leaves, and the row: the mapped fields, under the sync's key, or an act's own id without one."""
    payload = delivery.payload
    data = payload.get("data")
    row: Row = dict(data) if isinstance(data, Mapping) else {}
    if "member" not in payload:
        return False, {**row, key: row.get(key) or delivery.op_id}
    if key in row and str(row[key]) != str(payload["key"]):
        raise RowRefusedError(f"the sync knows people by another field than '{key}', which the table has them under")
    return payload["member"] is False, {**row, key: payload["key"]}


def _statement(connection: sa.Connection, table: sa.Table, key: str, leaves: bool, row: Row) -> sa.Executable:
    if leaves:
        return table.delete().where(table.c[key] == sa.bindparam(key, type_=table.c[key].type))
    insert = INSERTS[connection.dialect.name](table)
    fields = {name: insert.excluded[name] for name in row if name != key}
    if not fields:
        return insert.on_conflict_do_nothing(index_elements=[key])
    return insert.on_conflict_do_update(index_elements=[key], set_=fields)


def _fitting(row: Row, table: sa.Table) -> Row:
    """The row in the types of the table's columns; RowRefusedError names the column that takes no such value."""
    if missing := [name for name in row if name not in table.columns]:
        raise RowRefusedError("; ".join(unknown("column", name, table.columns.keys()) for name in missing))
    fitted: Row = {}
    for name, value in row.items():
        try:
            fitted[name] = None if value is None else _as(table.c[name].type, value)
        except (ValueError, TypeError, InvalidOperation):
            raise RowRefusedError(f"column '{name}' is {table.c[name].type} and takes no such value") from None
    return fitted


def _as(kind: sa.types.TypeEngine[Any], value: object) -> object:
    """A value as JSON says it (numbers, texts, true) as a column of this type takes it."""
    if isinstance(kind, sa.JSON | sa.ARRAY):
        return value
    text = canonical_json({"": value})[4:-1] if isinstance(value, list | dict) else str(value)
    if isinstance(kind, sa.Boolean):
        if not isinstance(value, bool):
            raise ValueError
        return value
    if isinstance(kind, sa.Integer):
        number = Decimal(text)
        if number != int(number):
            raise ValueError
        return int(number)
    if isinstance(kind, sa.Float):
        return float(text)
    if isinstance(kind, sa.Numeric):
        return Decimal(text)
    if isinstance(kind, sa.DateTime):
        at = datetime.fromisoformat(text)
        return at if at.tzinfo is None or kind.timezone else at.astimezone(UTC).replace(tzinfo=None)
    if isinstance(kind, sa.Date):
        return datetime.fromisoformat(text).date() if not isinstance(value, date) else value
    if isinstance(kind, sa.String):
        return text if not isinstance(value, bool) else text.lower()
    return value

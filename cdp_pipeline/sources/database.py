"""Reads a table or query of a database into a temporary table of texts: in batches, so that memory stays bounded.

Any dialect through SQLAlchemy. With a cursor only what is at or after the last value (less the overlap) is read; rows
without a cursor value are read every time, because nothing says when they came, as are those from days to come: one
wrong clock would else hide all that follows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, NoSuchTableError, SQLAlchemyError

from cdp_pipeline.sources.errors import ColumnMissingError, SourceError, SourceUnreachableError, did_you_mean
from cdp_pipeline.sources.reading import Scratch, Staged
from cdp_pipeline.sources.report import FileLoad
from cdp_pipeline.spec.source import Source, Sql

_BATCH = 50_000
_AHEAD = timedelta(days=1)
"""So far the database's clock may be ahead of ours, by its zone if nothing else."""


def read_database(scratch: Scratch, source: Source, cursor: str | None, now: datetime) -> tuple[Staged, FileLoad]:
    """Stage what is new since `cursor` (as an earlier load kept it), or everything without one."""
    assert source.sql is not None
    with _connected(source, source.sql) as connection:
        return _stage(scratch, source, connection, source.sql, cursor, now)


def newest_cursor(source: Source, now: datetime) -> str | None:
    """The highest value of the cursor column as it is now, as a load would keep it."""
    assert source.sql is not None
    with _connected(source, source.sql) as connection:
        column = _cursor_column(source, _relation(source, connection, source.sql), source.sql)
        highest = connection.execute(sa.select(sa.func.max(column))).scalar()
        if highest is not None and _may_be(highest, now) != highest:
            until = sa.select(sa.func.max(column)).where(column <= _may_be(highest, now))
            highest = connection.execute(until).scalar()
    return None if highest is None else _to_text(highest)


@contextmanager
def _connected(source: Source, sql: Sql) -> Iterator[sa.Connection]:
    """A connection to the source's database, with errors that say which source it is and hide passwords."""
    try:
        engine = sa.create_engine(sql.url)
    except (SQLAlchemyError, NoSuchModuleError, ImportError) as problem:
        raise SourceError(f"source {source.name}: the database URL cannot be used: {_plain(problem)}") from None
    try:
        with engine.connect().execution_options(stream_results=True, max_row_buffer=_BATCH) as connection:
            yield connection
    except DBAPIError as problem:
        where = engine.url.render_as_string(hide_password=True)
        reason = _plain(problem.orig or problem)
        if _answers(engine):
            raise SourceError(f"source {source.name}: {where} refuses the query: {reason}") from None
        # Not chained: a driver's error may quote the whole connection string.
        raise SourceUnreachableError(f"source {source.name}: {where} does not answer: {reason}") from None
    finally:
        engine.dispose()


def _cursor_column(source: Source, relation: sa.FromClause, sql: Sql) -> sa.ColumnElement[Any]:
    assert sql.cursor is not None
    if sql.cursor not in relation.c:
        near = did_you_mean(sql.cursor, relation.c.keys())
        raise ColumnMissingError(f"source {source.name}: there is no cursor column '{sql.cursor}'{near}")
    return relation.c[sql.cursor]


def _answers(engine: sa.Engine) -> bool:
    try:
        with engine.connect():
            return True
    except DBAPIError:
        return False


def _plain(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def _stage(
    scratch: Scratch, source: Source, connection: sa.Connection, sql: Sql, cursor: str | None, now: datetime
) -> tuple[Staged, FileLoad]:
    relation = _relation(source, connection, sql)
    statement = sa.select(relation)
    low = None
    if sql.cursor is not None:
        column = _cursor_column(source, relation, sql)
        if cursor is not None:
            low = _less_overlap(_from_text(cursor), sql.overlap or timedelta())
            statement = statement.where(sa.or_(column >= low, column.is_(None)))
        statement = statement.order_by(column)
    result = connection.execute(statement)
    names = list(result.keys())
    columns = {name: f"c{number}" for number, name in enumerate(names)}
    table = scratch.name("staged")
    texts = ", ".join(f"{column} VARCHAR" for column in columns.values())
    scratch.connection.execute(f"CREATE TEMP TABLE {table} (_place INTEGER, _broken VARCHAR, _raw VARCHAR, {texts})")
    read = FileLoad(0, sql.table or "query")
    if low is not None:
        read.place += f" from {sql.cursor} {low}"
    highest: Any = None
    place = names.index(sql.cursor) if sql.cursor is not None else None

    def chunks() -> Iterator[Sequence[sa.Row[Any]]]:
        try:
            yield from result.partitions(_BATCH)
        except DBAPIError as problem:
            failures.append(problem)
            raise
        except (ValueError, TypeError, ArithmeticError) as problem:
            # Only the kind: the driver quotes the value.
            failures.append(
                SourceError(f"source {source.name}: a value is not of its column's type ({type(problem).__name__})")
            )
            raise

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal highest
        for chunk in chunks():
            by_column = list(zip(*chunk, strict=True))
            if place is not None:
                known = [value for value in (highest, *by_column[place]) if value is not None]
                top = max(known, default=None)
                if top is not None and _may_be(top, now) != top:
                    top = max((value for value in known if _may_be(value, now) == value), default=None)
                highest = top
            yield pa.record_batch([_texts(values) for values in by_column], schema=schema)

    schema = pa.schema([(column, pa.string()) for column in columns.values()])
    failures: list[Exception] = []
    with scratch.arrow(pa.RecordBatchReader.from_batches(schema, batches())) as rows:
        try:
            scratch.connection.execute(f"INSERT INTO {table} SELECT 0, NULL, NULL, * FROM {rows}")
        except duckdb.Error:
            if failures:  # the database went away in the middle; DuckDB only knows that its input failed
                raise failures[0] from None
            raise
    read.cursor = _to_text(highest) if highest is not None else cursor
    read.fingerprint = _fingerprint(scratch, table, columns)
    return Staged(table, columns, columns), read


def _relation(source: Source, connection: sa.Connection, sql: Sql) -> sa.FromClause:
    """The table as the database knows it, or the query under a name."""
    if sql.query is not None:
        query = sa.text(sql.query.strip().rstrip(";"))
        # Its columns are only known by asking; no row is fetched.
        probe: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(query.columns().subquery("q")).limit(0)
        names = list(connection.execute(probe).keys())
        return query.columns(*[sa.column(name) for name in names]).subquery("q")
    assert sql.table is not None
    schema, _, name = sql.table.rpartition(".")
    try:
        return sa.Table(name, sa.MetaData(), schema=schema or None, autoload_with=connection)
    except NoSuchTableError:
        inspector = sa.inspect(connection)
        known = [*inspector.get_table_names(schema or None), *inspector.get_view_names(schema or None)]
        near = did_you_mean(name, known)
        raise SourceError(f"source {source.name}: the database has no table '{sql.table}'{near}") from None


def _texts(values: Sequence[Any]) -> pa.Array:
    """A column's values as text; databases without strict types may mix them."""
    try:
        array = pa.array(values)
        if pa.types.is_string(array.type):
            return array
        if not pa.types.is_binary(array.type):
            return array.cast(pa.string())
    except (pa.ArrowException, TypeError, OverflowError):
        pass
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fingerprint(scratch: Scratch, table: str, columns: dict[str, str]) -> str:
    """A hash of the rows read, whatever their order: the same rows again are nothing new."""
    texts = ", ".join(columns.values())
    row = scratch.connection.execute(
        f"SELECT sum(hash({texts})::HUGEINT), bit_xor(hash({texts}, 1)), count(*) FROM {table}"
    ).fetchone()
    return hashlib.sha256(json.dumps([list(columns), [str(value) for value in row or ()]]).encode()).hexdigest()[:32]


_KINDS: dict[str, Any] = {"timestamp": datetime, "date": date, "integer": int, "number": float, "money": Decimal}


def _to_text(value: Any) -> str:
    """A cursor value with its kind, so that the next load compares like with like."""
    kind = next((name for name, type in _KINDS.items() if isinstance(value, type)), "string")
    return json.dumps([kind, value.isoformat() if isinstance(value, date) else str(value)])


def _from_text(text: str) -> Any:
    kind, value = json.loads(text)
    if kind in ("timestamp", "date"):
        return _KINDS[kind].fromisoformat(value)
    return _KINDS[kind](value) if kind in _KINDS else value


def _may_be(value: Any, now: datetime) -> Any:
    """The cursor's value, if it is a time one that may have come by now: what is beyond, no later than that."""
    latest = now.astimezone(UTC) + _AHEAD
    if isinstance(value, datetime):
        return min(value, latest if value.tzinfo is not None else latest.replace(tzinfo=None))
    if isinstance(value, date):
        return min(value, latest.date())
    if isinstance(value, str):
        try:
            told = datetime.fromisoformat(value)
        except ValueError:
            return value
        return value if _may_be(told, now) == told else latest.replace(tzinfo=None).isoformat(sep=value[10:11] or "T")
    return value


def _less_overlap(value: Any, overlap: timedelta) -> Any:
    """The value some time earlier; only times have an earlier."""
    if not overlap:
        return value
    if isinstance(value, date):
        return value - overlap
    if isinstance(value, str):
        try:
            earlier = datetime.fromisoformat(value) - overlap
        except ValueError:
            return value
        return earlier.isoformat(sep="T" if "T" in value else " ")
    return value

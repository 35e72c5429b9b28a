"""Makes published tables equal to given rows: stage, compare, then one short locked transaction for all of them."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import duckdb
import ibis
import ibis.expr.datatypes as dt
import pyarrow as pa

from cdp_pipeline.lake.catalog import Catalog, identifier, literal
from cdp_pipeline.lake.columns import fitted, require_columns, stored_type
from cdp_pipeline.lake.errors import DuplicateKeyError, LakeBusyError, LakeFullError, LakeMovedError, RowsError
from cdp_pipeline.lake.maintenance import remove_orphans
from cdp_pipeline.lake.schema import emptied, grow
from cdp_pipeline.lake.table import Table
from cdp_pipeline.lake.view import LakeView

Rows: TypeAlias = ibis.Table | pa.Table | pa.RecordBatchReader
ATTEMPTS = 8


@dataclass(frozen=True)
class Mirror:
    """Make the table, or the slice where each column of `within` has one of its values, equal to the rows.

    Rows that are `cheap` to compute twice go into a slice with nothing in it without being kept aside first.
    """

    table: Table
    rows: Rows
    within: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    cheap: bool = False


@dataclass(frozen=True)
class Upsert:
    """Insert new keys, update changed rows, leave the rest.

    With `since`, only while the table is as it was at that snapshot, else LakeMovedError: for rows that were decided
    on by what the table said.
    """

    table: Table
    rows: Rows
    since: int | None = None


@dataclass(frozen=True)
class Note:
    """What made a snapshot, kept with it."""

    run_id: str = ""
    asset: str = ""
    partition: str = ""


@dataclass(frozen=True)
class Counts:
    """What a publish did to one table: rows given, and what became of them."""

    rows: int
    inserted: int
    updated: int
    deleted: int

    @property
    def changed(self) -> int:
        return self.inserted + self.updated + self.deleted

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.rows + other.rows, self.inserted + other.inserted, self.updated + other.updated,
            self.deleted + other.deleted,
        )  # fmt: skip


@dataclass(frozen=True)
class Published:
    """The snapshot in which the rows are (the one before, if they were there already) and the counts per table."""

    snapshot: int
    counts: dict[str, Counts]


@dataclass(frozen=True)
class _Change:
    """One write, staged: its rows, and what differs from the table at snapshot `base`."""

    write: Mirror | Upsert
    staged: str
    differing: str | None
    counts: Counts
    base: int


def publish(lake: LakeView, catalog: Catalog, writes: Sequence[Mirror | Upsert], note: Note) -> Published:
    """Commit all writes in one transaction, or none."""
    names = [write.table.name for write in writes]
    if len(set(names)) < len(names):
        raise RowsError(f"One publish writes each table once, but got {', '.join(names)}.")
    with _temporary(lake) as temporary, _disk_full_is_clear(lake, catalog):
        staged = [(write, *_stage(lake, write, temporary)) for write in writes]
        for attempt in range(ATTEMPTS):
            try:
                return _commit(lake, catalog, staged, note, temporary)
            except (duckdb.TransactionException, LakeBusyError) as error:
                if isinstance(error, LakeBusyError) or attempt == ATTEMPTS - 1:
                    raise LakeBusyError(f"{', '.join(names)}: other writers kept coming first. {error}") from error
                time.sleep(random.uniform(0, 0.05 * 2**attempt))
    raise AssertionError("the last attempt returns or raises")


def _commit(
    lake: LakeView, catalog: Catalog, staged: list[tuple[Mirror | Upsert, str, int]], note: Note, temporary: _Names
) -> Published:
    changes = [_compare(lake, write, name, rows, temporary) for write, name, rows in staged]
    if not any(_needs_writing(lake, change) for change in changes):
        return Published(max(change.base for change in changes), _counts(changes))
    key = uuid.uuid4().hex
    connection = lake.connection
    with catalog.writing(write.table.name for write, _, _ in staged):
        _require_unmoved(lake, (write for write, _, _ in staged))
        changes = [
            change
            if not lake.touched(change.write.table.name, since=change.base)
            else _compare(lake, change.write, change.staged, change.counts.rows, temporary)
            for change in changes
        ]
        before = lake.latest()
        try:
            connection.execute("BEGIN")
            for change in changes:
                _apply(lake, change)
            extra = json.dumps({"key": key, **asdict(note)})
            message = f"{note.asset or ', '.join(_counts(changes))} {note.partition}".strip()
            connection.execute(
                f"CALL lake.set_commit_message('cdp', {literal(message)}, extra_info => {literal(extra)})"
            )
            connection.execute("COMMIT")
        except BaseException as error:
            _rollback(connection)
            # A commit may have arrived although its acknowledgement did not.
            if not isinstance(error, duckdb.Error) or lake.committed(key, since=before) is None:
                raise
        snapshot = lake.committed(key, since=before)
    return Published(before if snapshot is None else snapshot, _counts(changes))


def _require_unmoved(lake: LakeView, writes: Iterable[Mirror | Upsert]) -> None:
    for write in writes:
        if isinstance(write, Upsert) and write.since is not None and lake.touched(write.table.name, write.since):
            raise LakeMovedError(f"{write.table.name}: somebody else wrote it first; nothing was written.")


def _counts(changes: list[_Change]) -> dict[str, Counts]:
    return {change.write.table.name: change.counts for change in changes}


def _needs_writing(lake: LakeView, change: _Change) -> bool:
    return change.counts.changed > 0 or lake.grows(change.write.table)


def _stage(lake: LakeView, write: Mirror | Upsert, temporary: _Names) -> tuple[str, int]:
    """Compute the rows into a temporary table with the declared types, outside every lock and transaction.

    Cheap rows for an empty slice stay a view, computed when they are written.
    """
    table, rows = write.table, write.rows
    if not isinstance(rows, ibis.Table):
        source = temporary.new("given")
        lake.connection.register(source, rows)
        rows = lake.engine.local.table(source)
    require_columns(table, rows.columns)
    rows = lake.engine.materialize(fitted(rows, table.schema))
    source = temporary.new("source")
    lake.engine.local.create_view(source, rows, database=("memory", "main"))
    # The types are those declared here: Ibis leaves out casts that it believes change nothing.
    types = {identifier(name): stored_type(type) for name, type in table.schema.items()}
    if isinstance(write, Mirror) and write.cheap and _is_new_slice(lake, write, lake.latest()):
        staged = temporary.new("view")
        columns = ", ".join(f"CAST({name} AS {type}) AS {name}" for name, type in types.items())
        lake.connection.execute(f"CREATE TEMP VIEW {staged} AS SELECT {columns} FROM memory.main.{source}")
        [count] = _row(lake, f"SELECT count(*) FROM {staged}")
    else:
        staged = temporary.new("staged")
        columns = ", ".join(f"{name} {type}" for name, type in types.items())
        lake.connection.execute(f"CREATE TEMP TABLE {staged} ({columns})")
        [count] = _row(lake, f"INSERT INTO {staged} SELECT * FROM memory.main.{source}")
    _require_unique(lake, table, staged, count)
    if isinstance(write, Mirror) and write.within:
        [outside] = _row(lake, f"SELECT count(*) FROM {staged} t WHERE NOT {_inside(write)}")
        if outside:
            raise RowsError(f"{table.name}: {outside} rows lie outside the slice of {', '.join(write.within)} given.")
    return staged, count


def _require_unique(lake: LakeView, table: Table, staged: str, count: int) -> None:
    key = ", ".join(identifier(name) for name in table.key)
    [distinct] = _row(lake, f"SELECT count(DISTINCT hash({key})) FROM {staged}")
    if distinct == count:
        return
    # Two hashes of 64 bits may be equal by chance: only this slower look is proof.
    [keys, rows, example] = _row(
        lake,
        f"""SELECT count(*), sum(n), min(example) FROM (
              SELECT count(*) AS n, left(md5(concat_ws('|', {key})), 12) AS example
              FROM {staged} GROUP BY {key} HAVING n > 1)""",
    )
    if keys:
        raise DuplicateKeyError(table.name, table.key, keys, rows, example)


def _compare(lake: LakeView, write: Mirror | Upsert, staged: str, rows: int, temporary: _Names) -> _Change:
    """Stage what differs between the staged rows and the table as it is now: rows to insert, update and delete."""
    table, base = write.table, lake.latest()
    if _is_new_slice(lake, write, base):
        return _Change(write, staged, None, Counts(rows, rows, 0, 0), base)
    stored = lake.stored(table.name, base)
    names = list(table.columns)
    lost = emptied(table, stored)
    kept = ", ".join(
        f"CAST({identifier(name)} AS {stored_type(type)}) AS {identifier(name)}"
        if name in stored and name not in lost
        else f"CAST(NULL AS {stored_type(type)}) AS {identifier(name)}"
        for name, type in table.schema.items()
    )
    on = " AND ".join(f"s.{identifier(name)} IS NOT DISTINCT FROM t.{identifier(name)}" for name in table.key)
    differs = " OR ".join(
        _differs(identifier(name), type) for name, type in table.schema.items() if name not in table.key
    )
    whole = f"SELECT rowid AS _row, {kept} FROM {lake.at(table.name, base)}"
    if isinstance(write, Upsert):
        join, scope = "LEFT JOIN", whole
    elif not write.within:
        join, scope = "FULL JOIN", whole
    else:
        # A key may have moved here from outside the slice; then it moves rather than doubles.
        moved = f"OR EXISTS (SELECT 1 FROM {staged} s WHERE {on})" if set(write.within) - set(table.key) else ""
        join, scope = "FULL JOIN", f"{whole} WHERE {_inside(write)} {moved}"
    differing = temporary.new("differing")
    lake.connection.execute(
        f"""CREATE TEMP TABLE {differing} AS
            SELECT t._row AS _row, s._given AS _given, {", ".join(f"s.{identifier(name)}" for name in names)}
            FROM (SELECT *, true AS _given FROM {staged}) s {join} ({scope}) t ON {on}
            WHERE t._row IS NULL OR s._given IS NULL {"OR " + differs if differs else ""}"""
    )
    inserted, updated, deleted = _row(
        lake,
        f"""SELECT count(*) FILTER (_row IS NULL), count(*) FILTER (_row IS NOT NULL AND _given),
                   count(*) FILTER (_given IS NULL) FROM {differing}""",
    )
    return _Change(write, staged, differing, Counts(rows, inserted, updated, deleted), base)


def _is_new_slice(lake: LakeView, write: Mirror | Upsert, base: int) -> bool:
    """Whether nothing is stored where the rows belong, so that there is nothing to compare them with."""
    if lake.is_empty(write.table.name, base):
        return True
    if not isinstance(write, Mirror) or not write.within or not set(write.within) <= set(write.table.key):
        return False
    stored = lake.stored(write.table.name, base)
    if not set(write.within) <= set(stored):
        return False
    return (
        lake.connection.execute(
            f"SELECT 1 FROM {lake.at(write.table.name, base)} WHERE {_inside(write)} LIMIT 1"
        ).fetchone()
        is None
    )


def _differs(name: str, type: dt.DataType) -> str:
    differs = f"s.{name} IS DISTINCT FROM t.{name}"
    if not type.is_floating():
        return differs
    # Threads add floats in any order: computing a mean again may change its last digit, which is no change.
    finite = f"isfinite(s.{name}) AND isfinite(t.{name})"
    near = f"abs(s.{name} - t.{name}) <= 1e-12 * greatest(abs(s.{name}), abs(t.{name}))"
    return f"({differs} AND NOT coalesce({finite} AND {near}, false))"


def _inside(write: Mirror) -> str:
    conditions = [
        f"coalesce(t.{identifier(name)} IN ({', '.join(_value(value) for value in values)}), false)"
        if values
        else "false"
        for name, values in write.within.items()
    ]
    return "(" + " AND ".join(conditions) + ")"


def _value(value: Any) -> str:
    return str(value) if isinstance(value, int) else literal(str(value))


def _apply(lake: LakeView, change: _Change) -> None:
    table = change.write.table
    grow(lake.connection, table, lake.stored_now(table.name))
    target = identifier("lake", *table.name.split("."))
    columns = ", ".join(identifier(name) for name in table.columns)
    run = lake.connection.execute
    if change.differing is None:
        if change.counts.rows:
            run(f"INSERT INTO {target} ({columns}) SELECT {columns} FROM {change.staged}")
        return
    if change.counts.deleted:
        run(f"DELETE FROM {target} WHERE rowid IN (SELECT _row FROM {change.differing} WHERE _given IS NULL)")
    if change.counts.updated:
        sets = ", ".join(f"{identifier(name)} = d.{identifier(name)}" for name in table.columns)
        run(
            f"UPDATE {target} SET {sets} FROM (SELECT * FROM {change.differing} WHERE _given AND _row IS NOT NULL) d "
            f"WHERE {target}.rowid = d._row"
        )
    if change.counts.inserted:
        run(f"INSERT INTO {target} ({columns}) SELECT {columns} FROM {change.differing} WHERE _row IS NULL")


class _Names:
    """Fresh names for temporary relations, and what was named."""

    def __init__(self) -> None:
        self.used: list[str] = []

    def new(self, what: str) -> str:
        self.used.append(f"_{what}_{uuid.uuid4().hex[:12]}")
        return self.used[-1]


@contextmanager
def _temporary(lake: LakeView) -> Iterator[_Names]:
    names = _Names()
    lake.connection.execute("SET preserve_insertion_order = false")
    try:
        yield names
    finally:
        lake.connection.execute("SET preserve_insertion_order = true")
        for name in names.used:
            if name.startswith("_given"):
                lake.connection.unregister(name)
            elif name.startswith("_source"):
                lake.connection.execute(f"DROP VIEW IF EXISTS memory.main.{name}")
            elif name.startswith("_view"):
                lake.connection.execute(f"DROP VIEW IF EXISTS temp.main.{name}")
            else:
                lake.connection.execute(f"DROP TABLE IF EXISTS temp.main.{name}")


def _row(lake: LakeView, sql: str) -> tuple[Any, ...]:
    row = lake.connection.execute(sql).fetchone()
    assert row is not None
    return row


def _rollback(connection: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.TransactionException):  # the failed statement may have ended the transaction itself
        connection.execute("ROLLBACK")


@contextmanager
def _disk_full_is_clear(lake: LakeView, catalog: Catalog) -> Iterator[None]:
    """Turn the many ways in which a full disk shows into one error, and give back what was written."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        text = str(error).lower()
        if not any(sign in text for sign in ("no space left", "disk is full", "disk full", "failed to offload")):
            raise
        with suppress(duckdb.Error, LakeBusyError), catalog.alone():
            remove_orphans(lake)
        raise LakeFullError(
            f"No room left under {catalog.spill.parent}. Nothing was published; the lake is as it was. "
            "Free some room (`cdp doctor` shows what uses it) and run again."
        ) from error

"""A lake: published tables at one pinned snapshot, earlier ones, and the one way to write. No Dagster, no SQL text."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import ibis
from ibis.backends.sql.datatypes import DuckDBType

from cdp_pipeline.lake.catalog import ELSEWHERE, META, Catalog, identifier, locate
from cdp_pipeline.lake.changes import changes, feed
from cdp_pipeline.lake.columns import fitted
from cdp_pipeline.lake.engines import DuckDBEngine, Engine, SparkEngine
from cdp_pipeline.lake.erase import Predicate, erase, traces
from cdp_pipeline.lake.errors import LakeReadOnlyError, LakeVersionError, TableMissingError
from cdp_pipeline.lake.instances import borrowed
from cdp_pipeline.lake.maintenance import Maintained, maintain
from cdp_pipeline.lake.publish import Mirror, Note, Published, Upsert, publish
from cdp_pipeline.lake.schema import emptied, steps
from cdp_pipeline.lake.table import Table
from cdp_pipeline.spec.project import LakeLocation


class LakeView:
    """The tables of a lake as they were at one snapshot."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, engine: Engine, snapshot: int) -> None:
        self.connection = connection
        self.engine = engine
        self._snapshot = snapshot
        self._own: dict[str, int] = {}

    @property
    def snapshot(self) -> int:
        """What is read, except for tables this very lake has published since."""
        return self._snapshot

    def exists(self, name: str) -> bool:
        """Whether the table has been published."""
        return self.table_id(name, self.version(name)) is not None

    def table(self, name: str) -> ibis.Table:
        """A published table with the columns it is stored with."""
        if not self.exists(name):
            raise TableMissingError(f"{name}: not published yet as of snapshot {self.version(name)}.")
        return self.engine.read(name, self.version(name))

    def read(self, table: Table) -> ibis.Table:
        """A declared table with its declared columns; empty where it is not published yet."""
        if not self.exists(table.name):
            return self.engine.table(table.schema.to_pyarrow().empty_table())
        rows = self.table(table.name)
        return fitted(rows.drop(*emptied(table, rows.schema())), table.schema)

    def changes(self, name: str, since: int, until: int | None = None) -> ibis.Table:
        """The rows that came and went between snapshots `since` and `until` (default: what this lake reads).

        The table's columns and `_change`: insert or delete; a row that became another one is both.
        """
        return changes(self, name, since, self.version(name) if until is None else until)

    def feed(self, name: str, since: int) -> tuple[ibis.Table, ibis.Table]:
        """Rows written and rows removed since a snapshot, cheaply: both may hold more than changed (see changes.py)."""
        return feed(self, name, since, self.version(name))

    def version(self, name: str) -> int:
        """The snapshot at which a table is read."""
        return self._own.get(name, self._snapshot)

    def at(self, name: str, version: int) -> str:
        """How SQL names a table at a snapshot, under the alias t."""
        return f"{identifier('lake', *name.split('.'))} t AT (VERSION => {version})"

    def table_id(self, name: str, version: int) -> int | None:
        schema, table = name.split(".")
        row = self.connection.execute(
            f"""SELECT t.table_id FROM {META}.ducklake_table t JOIN {META}.ducklake_schema s USING (schema_id)
                WHERE s.schema_name = ? AND t.table_name = ? AND t.begin_snapshot <= ?
                  AND coalesce(t.end_snapshot > ?, true)""",
            [schema, table, version, version],
        ).fetchone()
        return None if row is None else row[0]

    def stored(self, name: str, version: int) -> ibis.Schema:
        """The columns a table has at a snapshot."""
        rows = self.connection.execute(f"DESCRIBE FROM {self.at(name, version)}").fetchall()
        return ibis.schema({row[0]: DuckDBType.from_string(row[1]) for row in rows})

    def latest(self) -> int:
        """The newest snapshot of the lake, whoever made it."""
        row = self.connection.execute(f"SELECT max(snapshot_id) FROM {META}.ducklake_snapshot").fetchone()
        assert row is not None
        return row[0]


class Lake(LakeView):
    """An open lake. Reads see the snapshot pinned at opening (or `refresh`) and this lake's own publishes."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, catalog: Catalog, engine: Engine, read_only: bool = False
    ) -> None:
        super().__init__(connection, engine, -1)
        self.catalog = catalog
        self.ibis = engine.local
        self.read_only = read_only
        self.refresh()

    def refresh(self) -> int:
        """Pin the latest snapshot."""
        self._snapshot = self.latest()
        self._own.clear()
        return self._snapshot

    @property
    def local(self) -> LakeView:
        """The same tables, read by DuckDB whatever the engine."""
        view = LakeView(self.connection, DuckDBEngine(self.connection), self._snapshot)
        view._own = self._own
        return view

    def as_of(self, when: datetime | int) -> LakeView:
        """The lake as it was at a snapshot, or at a moment (aware)."""
        if isinstance(when, datetime):
            query = f"SELECT max(snapshot_id) FROM {META}.ducklake_snapshot WHERE snapshot_time::TIMESTAMPTZ <= ?"
        else:
            query = f"SELECT max(snapshot_id) FROM {META}.ducklake_snapshot WHERE snapshot_id = ?"
        row = self.connection.execute(query, [when]).fetchone()
        if row is None or row[0] is None:
            first, last = self.connection.execute(
                f"SELECT min(snapshot_id), max(snapshot_id) FROM {META}.ducklake_snapshot"
            ).fetchall()[0]
            raise LakeVersionError(f"The lake has nothing as of {when}; it remembers snapshots {first} to {last}.")
        return LakeView(self.connection, self.engine, row[0])

    def publish(self, *writes: Mirror | Upsert, note: Note | None = None) -> Published:
        """Commit all writes in one transaction, or none; equal rows are not touched, equal tables make no snapshot."""
        self._writable()
        published = publish(self, writes, note or Note())
        self._own.update(dict.fromkeys(published.counts, published.snapshot))
        return published

    def held(self, rows: ibis.Table) -> ibis.Table:
        """The rows computed once, kept on this connection for DuckDB to read as often as need be."""
        return self.ibis.create_table(f"held_{uuid.uuid4().hex[:12]}", self.engine.materialize(rows), temp=True)

    def maintain(self, now: datetime, keep: timedelta) -> Maintained:
        """Tidy the files, forget snapshots older than `keep`, remove what nothing refers to."""
        self._writable()
        try:
            return maintain(self, now, keep)
        finally:
            self.refresh()

    def erase(self, what: Mapping[str, Predicate]) -> dict[str, int]:
        """Delete these rows physically and forget every snapshot before; returns the rows deleted per table."""
        self._writable()
        try:
            return erase(self, what)
        finally:
            self.refresh()

    def traces(self, text: str) -> list[str]:
        """Files and catalog tables in which a text is still found: the proof of an erasure is an empty list."""
        return traces(self, text)

    def _writable(self) -> None:
        if self.read_only:
            raise LakeReadOnlyError("This lake was opened read-only.")

    def grows(self, table: Table) -> bool:
        """Whether the declaration asks for more than is stored."""
        stored = self.stored_now(table.name)
        return stored is None or bool(steps(table, stored))

    def stored_now(self, name: str) -> ibis.Schema | None:
        latest = self.latest()
        return None if self.table_id(name, latest) is None else self.stored(name, latest)

    def is_empty(self, name: str, version: int) -> bool:
        return self.table_id(name, version) is None or not self._any(f"SELECT 1 FROM {self.at(name, version)} LIMIT 1")

    def touched(self, name: str, since: int) -> bool:
        """Whether anybody changed the table after a snapshot."""
        table_id = self.table_id(name, self.latest())
        return table_id is not None and self._any(
            f"SELECT 1 FROM {META}.ducklake_snapshot_changes WHERE snapshot_id > {since} AND "
            f"(regexp_matches(changes_made, ':{table_id}(,|$)') OR contains(changes_made, ?)) LIMIT 1",
            ["created_table:" + identifier(*name.split("."))],
        )

    def touched_outside(self, group: str, since: int) -> bool:
        """Whether anybody changed a table of another group after a snapshot."""
        return self._any(
            f"""SELECT 1 FROM (
                  SELECT unnest(regexp_extract_all(changes_made, ':(\\d+)', 1))::BIGINT AS table_id
                  FROM {META}.ducklake_snapshot_changes WHERE snapshot_id > {since})
                WHERE table_id NOT IN (
                  SELECT t.table_id FROM {META}.ducklake_table t JOIN {META}.ducklake_schema s USING (schema_id)
                  WHERE s.schema_name = ?) LIMIT 1""",
            [group],
        )

    def committed(self, key: str, since: int) -> int | None:
        """The snapshot that carries this publish's key."""
        row = self.connection.execute(
            f"SELECT max(snapshot_id) FROM {META}.ducklake_snapshot_changes WHERE snapshot_id > ? "
            "AND contains(commit_extra_info, ?)",
            [since, key],
        ).fetchone()
        return None if row is None else row[0]

    def _any(self, sql: str, parameters: list[Any] | None = None) -> bool:
        return self.connection.execute(sql, parameters or []).fetchone() is not None


@contextmanager
def open_lake(
    location: LakeLocation,
    base: Path | None = None,
    engine: str = "duckdb",
    read_only: bool = False,
    threads: int | None = None,
) -> Iterator[Lake]:
    """Open the lake a project names, making it if it is not there (never when read-only).

    With a Spark Connect URL for an engine, tables are Spark's, and what is published is computed there. Many small
    questions cost half as much on one thread as on all (`threads`).
    """
    catalog = locate(location, base or Path.cwd())
    # Reading writes nothing to the lake, and spills elsewhere.
    spill = ELSEWHERE if read_only else catalog.spill
    with borrowed(catalog.extensions, spill, threads) as connection, ExitStack() as stack:
        catalog.attach(connection, read_only)
        local = DuckDBEngine(connection)
        computing = local if engine == "duckdb" else stack.enter_context(SparkEngine(engine, local, catalog.shared))
        yield Lake(connection, catalog, computing, read_only)

"""What can be read of a lake: tables as of a snapshot, what changed since one, what its catalog knows. Only reads."""

from __future__ import annotations

from typing import Any

import duckdb
import ibis
from ibis.backends.sql.datatypes import DuckDBType

from cdp_pipeline.lake.catalog import META, identifier, literal
from cdp_pipeline.lake.columns import fitted
from cdp_pipeline.lake.engines import Engine
from cdp_pipeline.lake.errors import LakeVersionError, TableMissingError
from cdp_pipeline.lake.schema import emptied, steps
from cdp_pipeline.lake.table import Column, Table


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
        """The rows that came (`_change` = insert) and went (delete) between two snapshots.

        A row that became another one is both; without `until`, up to what is read. The two snapshots are compared:
        DuckLake's own feed reports rows that were gone long before as deleted once the last living rows of their file
        are deleted.
        """
        until = self.version(name) if until is None else until
        new = self.engine.read(name, until) if self.table_id(name, until) is not None else None
        if new is None:
            raise TableMissingError(f"{name}: not published yet as of snapshot {until}.")
        old = self._before(name, since, until, new.schema())
        came = new.difference(old, distinct=False).mutate(_change=ibis.literal("insert"))
        went = old.difference(new, distinct=False).mutate(_change=ibis.literal("delete"))
        return ibis.union(came, went)

    def feed(self, name: str, since: int) -> tuple[ibis.Table, ibis.Table]:
        """Rows written and rows removed since a snapshot, read from the files of the snapshots after it only.

        Both may hold more than changed: a row that was rewritten as it was is in both, and DuckLake reports rows as
        removed that were gone long before (see `changes`). Nothing that changed is missing. DuckDB reads them, whatever
        the engine.
        """
        (schema, table), until = name.split("."), self.version(name)
        declared = self.stored(name, until)
        nothing = ibis.memtable(declared.to_pyarrow().empty_table())
        if since >= until:
            return nothing, nothing
        if not self._any(f"SELECT 1 FROM {META}.ducklake_snapshot WHERE snapshot_id = ?", [since]):
            raise LakeVersionError(
                f"{name}: the lake has no snapshot {since} (any more), so what changed since is unknown."
            )
        columns = ", ".join(identifier(column) for column in declared)
        where = f"'lake', {literal(schema)}, {literal(table)}, {since + 1}, {until}"
        written, removed = (
            self.engine.local.sql(f"SELECT {columns} FROM ducklake_table_{what}({where})")
            for what in ("insertions", "deletions")
        )
        return written, removed

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

    def _before(self, name: str, since: int, until: int, schema: ibis.Schema) -> ibis.Table:
        begin, remembered = self.connection.execute(
            f"""SELECT (SELECT min(begin_snapshot) FROM {META}.ducklake_table WHERE table_id = ?),
                       EXISTS (FROM {META}.ducklake_snapshot WHERE snapshot_id = ?)""",
            [self.table_id(name, until), since],
        ).fetchall()[0]
        if begin > since:
            return self.engine.table(schema.to_pyarrow().empty_table())
        if not remembered:
            raise LakeVersionError(
                f"{name}: the lake has no snapshot {since} (any more), so what changed since is unknown. Take the "
                "whole table, or keep snapshots longer (project: retention.snapshots)."
            )
        old = self.engine.read(name, since)
        now = Table(name, "", {column: Column(str(type)) for column, type in schema.items()}, key=(), derived=True)
        return fitted(old.drop(*emptied(now, old.schema())), schema)

    def _any(self, sql: str, parameters: list[Any] | None = None) -> bool:
        return self.connection.execute(sql, parameters or []).fetchone() is not None

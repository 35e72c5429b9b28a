"""Expressions over a lake's tables, compiled once and asked again and again, also of the lake's later states."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import duckdb
import ibis
import pyarrow as pa

from cdp_pipeline.lake.catalog import META, identifier
from cdp_pipeline.lake.engines import DuckDBEngine
from cdp_pipeline.lake.view import LakeView

GIVEN = "_given"


class Questions:
    """What was compiled; forgotten once any table of the lake has come or has changed its columns.

    Compiling takes many times longer than asking.
    """

    def __init__(self) -> None:
        self._texts: dict[Hashable, tuple[Hashable, str]] = {}
        self._read: set[str] = set()
        self._schema: int | None = None

    def of(self, lake: LakeView) -> Asked:
        """The lake as it is now, to be asked; by DuckDB in this process, whatever the lake's engine."""
        row = lake.connection.execute(
            f"SELECT schema_version FROM {META}.ducklake_snapshot WHERE snapshot_id = ?", [lake.snapshot]
        ).fetchone()
        schema = None if row is None else row[0]
        if schema is None or schema != self._schema:
            self._texts.clear()
            self._read.clear()
        self._schema = schema
        return Asked(lake, self._texts, self._read)


class Asked(LakeView):
    """The tables of a lake at one snapshot, under names that are the same at each."""

    def __init__(self, lake: LakeView, texts: dict[Hashable, tuple[Hashable, str]], read: set[str]) -> None:
        self._shown = _ShownEngine(lake.connection)
        super().__init__(lake.connection, self._shown, lake.snapshot)
        self._own = lake._own
        self._texts = texts
        self._there: dict[str, bool] = {}
        self._read = read
        for name in read:
            self._shown.show(name, self.version(name))

    def exists(self, name: str) -> bool:
        if name not in self._there:
            self._there[name] = super().exists(name)
        return self._there[name]

    def table(self, name: str) -> ibis.Table:
        found = super().table(name)
        self._read.add(name)
        return found

    def answer(
        self,
        about: Hashable,
        question: Callable[[ibis.Table], ibis.Table],
        given: pa.Table,
        when: Hashable = None,
    ) -> pa.Table:
        """What a question finds for these rows. `about` and `when` tell it from all others; of each `about` only the
        newest `when` is remembered. Nothing in it may depend on the rows but the table it is handed."""
        known = self._texts.get(about)
        if known is None or known[0] != when:
            asked = question(ibis.table(ibis.schema(given.schema), name=GIVEN))
            known = self._texts[about] = (when, str(self.engine.local.compile(asked)))
        self.connection.register(GIVEN, given)
        try:
            return self.connection.execute(known[1]).to_arrow_table()
        finally:
            self.connection.unregister(GIVEN)


class _ShownEngine(DuckDBEngine):
    """Shows each table under one name, at whatever snapshot it is shown."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        super().__init__(connection)
        self._tables: dict[str, ibis.Table] = {}

    def show(self, name: str, version: int) -> str:
        view, relation = f"{name}@shown", identifier("lake", *name.split("."))
        self.connection.execute(
            f"CREATE OR REPLACE TEMP VIEW {identifier(view)} AS FROM {relation} AT (VERSION => {version})"
        )
        return view

    def read(self, name: str, version: int) -> ibis.Table:
        if name not in self._tables:
            self._tables[name] = self.local.table(self.show(name, version), database=("temp", "main"))
        return self._tables[name]

"""What computes over published tables: the port, DuckDB in this process, and Spark over Spark Connect."""

from __future__ import annotations

from typing import Protocol

import duckdb
import ibis
from ibis.backends.duckdb import Backend as DuckDBBackend

from cdp_pipeline.lake.catalog import identifier


class Engine(Protocol):
    """Reads a published table at a snapshot, and turns an expression into rows that DuckDB can read."""

    local: DuckDBBackend

    def read(self, name: str, version: int) -> ibis.Table: ...

    def materialize(self, rows: ibis.Table) -> ibis.Table: ...


class DuckDBEngine:
    """Everything in this process."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.local = ibis.duckdb.from_connection(connection)

    def read(self, name: str, version: int) -> ibis.Table:
        view = f"{name}@{version}"
        relation = identifier("lake", *name.split("."))
        self.connection.execute(
            f"CREATE TEMP VIEW IF NOT EXISTS {identifier(view)} AS FROM {relation} AT (VERSION => {version})"
        )
        return self.local.table(view, database=("temp", "main"))

    def materialize(self, rows: ibis.Table) -> ibis.Table:
        return rows

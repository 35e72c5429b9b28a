"""Read-only SQL as people type it: `schema.table` means the lake's table. Nothing a query says can change anything."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import duckdb

from cdp_pipeline.lake import Lake, LakeView
from cdp_pipeline.lake.errors import LakeError

READING = {duckdb.StatementType.SELECT, duckdb.StatementType.RELATION}
EXPLAINING = re.compile(r"\s*explain\s+(analyze\s+)?", re.IGNORECASE)


class QueryError(LakeError):
    """A query that is wrong, or that would do more than read."""


def query_lake(lake: Lake, query: str, as_of: datetime | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one SELECT (or DESCRIBE, SHOW, EXPLAIN), on the lake as it is, or as it was."""
    view: LakeView = lake if as_of is None else lake.as_of(as_of)
    # A connection of its own on the same instance, so that its default catalog is nobody else's.
    with lake.connection.cursor() as connection:
        try:
            # EXPLAIN ANALYZE does what it explains.
            statements = connection.extract_statements(EXPLAINING.sub("", query, count=1))
            if len(statements) != 1 or statements[0].type not in READING:
                raise QueryError("cdp sql reads: give exactly one SELECT, DESCRIBE, SHOW or EXPLAIN.")
            with _catalog_of(connection, view, as_of is not None) as catalog:
                connection.execute(f"USE {catalog}")
                cursor = connection.execute(query)
                return _told_apart([column[0] for column in cursor.description or []]), cursor.fetchall()
        except duckdb.Error as error:
            raise QueryError(str(error)) from error


def _told_apart(names: list[str]) -> list[str]:
    """A second `n` is `n_1`, as in DuckDB's own shell."""
    return [f"{name}_{before}" if (before := names[:place].count(name)) else name for place, name in enumerate(names)]


@contextmanager
def _catalog_of(connection: duckdb.DuckDBPyConnection, view: LakeView, is_past: bool) -> Iterator[str]:
    """The lake itself, or a catalog of views that show its tables, under their own names, as they were."""
    if not is_past:
        yield "lake"
        return
    past = f"past_{uuid.uuid4().hex}"
    connection.execute(f"ATTACH ':memory:' AS {past}")
    try:
        names = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = 'lake'"
        ).fetchall()
        for schema, table in names:
            name = f"{schema}.{table}"
            if view.exists(name):
                connection.execute(f'CREATE SCHEMA IF NOT EXISTS {past}."{schema}"')
                was = view.at(name, view.snapshot)
                connection.execute(f'CREATE VIEW {past}."{schema}"."{table}" AS SELECT * FROM {was}')
        yield past
    finally:
        connection.execute("USE memory")
        connection.execute(f"DETACH {past}")

"""Creates published tables from their declaration and lets them grow with it. Never narrows what is stored."""

from __future__ import annotations

import duckdb
import ibis
import ibis.expr.datatypes as dt

from cdp_pipeline.lake.catalog import identifier
from cdp_pipeline.lake.columns import same, stored_type
from cdp_pipeline.lake.errors import SchemaChangeError
from cdp_pipeline.lake.table import Table


def grow(connection: duckdb.DuckDBPyConnection, table: Table, stored: ibis.Schema | None) -> None:
    """Bring the stored table to its declaration, inside the caller's transaction."""
    target = identifier("lake", *table.name.split("."))
    if stored is None:
        columns = ", ".join(f"{identifier(name)} {stored_type(type)}" for name, type in table.schema.items())
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier('lake', table.name.split('.')[0])}")
        connection.execute(f"CREATE TABLE {target} ({columns})")
        if table.month_of:
            month_of = identifier(table.month_of)
            connection.execute(f"ALTER TABLE {target} SET PARTITIONED BY (year({month_of}), month({month_of}))")
        return
    for statement in steps(table, stored):
        connection.execute(statement)


def steps(table: Table, stored: ibis.Schema) -> list[str]:
    """The ALTER statements between what is stored and what is declared; an error where values would be lost."""
    alter = f"ALTER TABLE {identifier('lake', *table.name.split('.'))}"
    found: list[str] = []
    for name, type in table.schema.items():
        if name not in stored:
            found.append(f"{alter} ADD COLUMN {identifier(name)} {stored_type(type)}")
        else:
            found.extend(_column_steps(alter, table, (name,), stored[name], type))
    return found


def _column_steps(alter: str, table: Table, path: tuple[str, ...], old: dt.DataType, new: dt.DataType) -> list[str]:
    if same(old, new):
        return []
    if isinstance(old, dt.Struct) and isinstance(new, dt.Struct):
        found = []
        for name, type in new.fields.items():
            if name not in old.names:
                found.append(f"{alter} ADD COLUMN {identifier(*path, name)} {stored_type(type)}")
            else:
                found.extend(_column_steps(alter, table, (*path, name), old.fields[name], type))
        return found
    if _widens(old, new):
        return [f"{alter} ALTER COLUMN {identifier(*path)} SET DATA TYPE {stored_type(new)}"]
    if table.derived and path[0] not in table.key:
        return [
            f"{alter} DROP COLUMN {identifier(*path)}",
            f"{alter} ADD COLUMN {identifier(*path)} {stored_type(new)}",
        ]
    raise SchemaChangeError(
        f"{table.name}.{'.'.join(path)}: stored as {old} but now declared {new}, which would lose values. "
        f"Declare it {old} again, or give the new values a new column name."
    )


def _widens(old: dt.DataType, new: dt.DataType) -> bool:
    if isinstance(old, dt.Integer) and isinstance(new, dt.Integer):
        return old.bounds.lower >= new.bounds.lower and old.bounds.upper <= new.bounds.upper
    return isinstance(old, dt.Float32) and isinstance(new, dt.Float64)

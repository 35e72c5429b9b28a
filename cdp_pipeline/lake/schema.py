"""Creates published tables from their declaration and lets them grow with it. Never narrows what is stored."""

from __future__ import annotations

from dataclasses import dataclass

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
    for step in steps(table, stored):
        connection.execute(step.statement)


@dataclass(frozen=True)
class Step:
    """One ALTER on the way from what is stored to what is declared, and whether it empties its column."""

    column: str
    statement: str
    empties: bool = False


def emptied(table: Table, stored: ibis.Schema) -> set[str]:
    """The columns whose stored values do not count any more, because their type was declared anew."""
    return {step.column for step in steps(table, stored) if step.empties}


def steps(table: Table, stored: ibis.Schema) -> list[Step]:
    """What leads from what is stored to what is declared; an error where values would be lost."""
    alter = f"ALTER TABLE {identifier('lake', *table.name.split('.'))}"
    found: list[Step] = []
    for name, type in table.schema.items():
        if name not in stored:
            found.append(Step(name, f"{alter} ADD COLUMN {identifier(name)} {stored_type(type)}"))
        else:
            found.extend(_column_steps(alter, table, (name,), stored[name], type))
    return found


def _column_steps(alter: str, table: Table, path: tuple[str, ...], old: dt.DataType, new: dt.DataType) -> list[Step]:
    column, sql_path, sql_type = path[0], identifier(*path), stored_type(new)
    if same(old, new):
        return []
    if isinstance(old, dt.Struct) and isinstance(new, dt.Struct):
        found = []
        for name, type in new.fields.items():
            if name not in old.names:
                found.append(Step(column, f"{alter} ADD COLUMN {identifier(*path, name)} {stored_type(type)}"))
            else:
                found.extend(_column_steps(alter, table, (*path, name), old.fields[name], type))
        return found
    if _widens(old, new):
        return [Step(column, f"{alter} ALTER COLUMN {sql_path} SET DATA TYPE {sql_type}")]
    if table.derived and column not in table.key:
        return [
            Step(column, f"{alter} DROP COLUMN {sql_path}", empties=True),
            Step(column, f"{alter} ADD COLUMN {sql_path} {sql_type}"),
        ]
    raise SchemaChangeError(
        f"{table.name}.{'.'.join(path)}: stored as {old} but now declared {new}, which would lose values. "
        f"Declare it {old} again, or give the new values a new column name."
    )


def _widens(old: dt.DataType, new: dt.DataType) -> bool:
    if isinstance(old, dt.Integer) and isinstance(new, dt.Integer):
        return old.bounds.lower >= new.bounds.lower and old.bounds.upper <= new.bounds.upper
    return isinstance(old, dt.Float32) and isinstance(new, dt.Float64)

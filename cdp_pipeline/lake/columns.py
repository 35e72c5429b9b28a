"""Fits the columns one has to the columns a table declares, by name, on any engine. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import ibis
import ibis.expr.datatypes as dt
from ibis.backends.sql.datatypes import DuckDBType

from cdp_pipeline.lake.errors import RowsError
from cdp_pipeline.lake.table import Table


def fitted(rows: ibis.Table, schema: ibis.Schema) -> ibis.Table:
    """These columns in this order with these types; a column that is not there is null."""
    have = rows.schema()
    return rows.select(
        **{name: _fit(rows[name], type) if name in have else ibis.null(type) for name, type in schema.items()}
    )


def _fit(value: ibis.Value, type: dt.DataType) -> ibis.Value:
    if not isinstance(type, dt.Struct) or not isinstance(value.type(), dt.Struct):
        return value if same(value.type(), type) else value.cast(type)
    if same(value.type(), type):
        return value
    # Field by field, because Spark casts a struct by position.
    fields = {
        name: _fit(value[name], inner) if name in value.type().names else ibis.null(inner)
        for name, inner in type.fields.items()
    }
    return ibis.ifelse(value.isnull(), ibis.null(type), ibis.struct(fields))


def same(one: dt.DataType, other: dt.DataType) -> bool:
    """Whether two types store alike (whatever they say about nulls and time zones)."""
    return stored_type(one) == stored_type(other)


@cache
def stored_type(type: dt.DataType) -> str:
    """The DuckDB type a declared type is stored as."""
    if isinstance(type, dt.Timestamp):
        return "TIMESTAMP"
    if isinstance(type, dt.Struct):
        inner = ", ".join(f'"{name}" {stored_type(field)}' for name, field in type.fields.items())
        return f"STRUCT({inner})"
    if isinstance(type, dt.Array):
        return stored_type(type.value_type) + "[]"
    return DuckDBType.to_string(type)


def require_columns(table: Table, given: Iterable[str]) -> None:
    """Rows bring every declared column and no other, so that a misspelt one is not silently null."""
    missing = [name for name in table.columns if name not in set(given)]
    unknown = [name for name in given if name not in table.columns]
    if missing or unknown:
        raise RowsError(
            f"{table.name}: the published rows "
            + " and ".join(
                [f"lack the declared columns {', '.join(missing)}"] * bool(missing)
                + [f"bring columns that are not declared: {', '.join(unknown)}"] * bool(unknown)
            )
            + "."
        )

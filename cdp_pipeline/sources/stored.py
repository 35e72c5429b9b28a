"""Published tables as DuckDB's SQL, for the queries of a load that join them with what it has staged.

As they are now, not as pinned: what a load compares with must be what its publish will meet. In this process whatever
the project's engine, because that is where files are read.
"""

from __future__ import annotations

from cdp_pipeline.lake import Lake
from cdp_pipeline.lake.catalog import identifier
from cdp_pipeline.lake.columns import stored_type
from cdp_pipeline.lake.table import Table


def stored_sql(lake: Lake, table: Table) -> str:
    """A query for the declared columns of a table; of no rows where it is not published yet."""
    stored = lake.stored_now(table.name)
    have = {} if stored is None else stored
    columns = ", ".join(
        f"CAST({identifier(name) if name in have else 'NULL'} AS {stored_type(type)}) AS {identifier(name)}"
        for name, type in table.schema.items()
    )
    return f"SELECT {columns} " + ("LIMIT 0" if stored is None else f"FROM {lake.at(table.name, lake.latest())}")

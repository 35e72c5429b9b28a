"""Published tables as SQL, for the queries of a load that join them with what it has staged."""

from __future__ import annotations

from cdp_pipeline.lake import LakeView
from cdp_pipeline.lake.columns import stored_type
from cdp_pipeline.lake.table import Table


def stored_sql(lake: LakeView, table: Table) -> str:
    """A query for the declared columns of a table; of no rows where it is not published yet."""
    if lake.exists(table.name):
        return lake.engine.local.compile(lake.read(table))
    columns = ", ".join(f'NULL::{stored_type(type)} AS "{name}"' for name, type in table.schema.items())
    return f"SELECT {columns} LIMIT 0"

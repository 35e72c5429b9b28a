"""What Dagster and the lake say of a table: its columns in words, its size, who made it. Never a row or a value."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import ibis

from cdp_pipeline.lake import Counts, Note
from cdp_pipeline.lake.table import Table


def column_schema(table: Table) -> dg.TableSchema:
    """Each column with its type and a marketer's description; personal data is marked as such."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, column.type, column.description, tags={"pii": ""} if column.pii else None)
            for name, column in table.columns.items()
        ]
    )


def asset_arguments(table: Table, owner: str | None, kinds: set[str], declared: str = "") -> dict[str, Any]:
    """The arguments every asset of a table shares: key, group, words, owners, kinds, columns.

    `declared`: what the project says of it, in Markdown.
    """
    schema, name = table.name.split(".")
    return {
        "key": [schema, name],
        "group_name": schema,
        "description": f"{table.description}\n\n{declared}".strip(),
        "owners": [owner] if owner else [],
        "kinds": kinds,
        "metadata": {"dagster/column_schema": column_schema(table), "dagster/table_name": table.name},
    }


def key_of(table: Table | str) -> list[str]:
    return (table if isinstance(table, str) else table.name).split(".")


def asset_spec(
    table: Table, deps: Sequence[Any], owner: str | None, kinds: set[str], declared: str = ""
) -> dg.AssetSpec:
    """One table of a step that makes several."""
    return dg.AssetSpec(**asset_arguments(table, owner, kinds, declared), deps=list(deps))


def published(counts: Counts, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run-time metadata of one published table: rows now, and how many were added, changed and removed."""
    return {
        "dagster/row_count": counts.rows,
        "rows added": counts.inserted,
        "rows changed": counts.updated,
        "rows removed": counts.deleted,
        **(more or {}),
    }


def disagreeing(counts: ibis.Table) -> dict[str, Any]:
    """Of how many people sources disagree, per attribute, most first (customers.disagreements)."""
    rows = counts.order_by(ibis.desc("disagree"), "attribute").to_pyarrow().to_pylist()
    lines = [f"| {row['attribute']} | {row['disagree']:,} | {row['people']:,} |" for row in rows]
    table = "\n".join(
        ["| attribute | people of whom sources disagree | people with a value |", "|---|--:|--:|", *lines]
    )
    return {"contradictions": dg.MetadataValue.md(table)}


def note(context: dg.AssetExecutionContext) -> Note:
    """What the lake remembers of who published."""
    partition = str(context.partition_key_range) if context.has_partition_key_range else ""
    return Note(run_id=context.run_id, asset=context.op_execution_context.op_handle.name, partition=partition)


def shown(table: Table, deps: Sequence[Any], owner: str | None, by: str) -> dg.AssetsDefinition:
    """A table other assets write, with its rows counted by one of its columns."""

    @dg.asset(**asset_arguments(table, owner, {"duckdb"}), deps=list(deps), required_resource_keys={"lake"})
    def show(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        counts = context.resources.lake.read(table).group_by(by).agg(rows=ibis._.count()).to_pyarrow().to_pylist()
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": sum(row["rows"] for row in counts),
                **{f"{by} {row[by]}": row["rows"] for row in counts},
            }
        )

    return show

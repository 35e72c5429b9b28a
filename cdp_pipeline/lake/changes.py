"""What changed in a published table between two snapshots. What must outlast its snapshots is kept as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.lake.catalog import META, identifier, literal
from cdp_pipeline.lake.columns import fitted
from cdp_pipeline.lake.errors import LakeVersionError, TableMissingError
from cdp_pipeline.lake.schema import emptied
from cdp_pipeline.lake.table import Column, Table

if TYPE_CHECKING:
    from cdp_pipeline.lake.lake import LakeView


def changes(view: LakeView, name: str, since: int, until: int) -> ibis.Table:
    """The rows that came (`_change` = insert) and went (delete); a row that became another one is both.

    Compares the two snapshots. DuckLake's own feed is not used, because it reports rows that were gone long before
    as deleted once the last living rows of their file are deleted.
    """
    new = view.engine.read(name, until) if view.table_id(name, until) is not None else None
    if new is None:
        raise TableMissingError(f"{name}: not published yet as of snapshot {until}.")
    old = _before(view, name, since, until, new.schema())
    came = new.difference(old, distinct=False).mutate(_change=ibis.literal("insert"))
    went = old.difference(new, distinct=False).mutate(_change=ibis.literal("delete"))
    return ibis.union(came, went)


def feed(view: LakeView, name: str, since: int, until: int) -> tuple[ibis.Table, ibis.Table]:
    """Rows written and rows removed after snapshot `since`, up to `until`, read from the files of those snapshots only.

    Both may hold more than changed: a row that was rewritten as it was is in both, and DuckLake reports rows as removed
    that were gone long before (see `changes`). Nothing that changed is missing. DuckDB reads them, whatever the engine.
    """
    schema, table = name.split(".")
    declared = view.stored(name, until)
    nothing = ibis.memtable(declared.to_pyarrow().empty_table())
    if since >= until:
        return nothing, nothing
    if not view.connection.execute(f"SELECT 1 FROM {META}.ducklake_snapshot WHERE snapshot_id = ?", [since]).fetchone():
        raise LakeVersionError(
            f"{name}: the lake has no snapshot {since} (any more), so what changed since is unknown."
        )
    columns = ", ".join(identifier(column) for column in declared)
    where = f"'lake', {literal(schema)}, {literal(table)}, {since + 1}, {until}"
    written, removed = (
        view.engine.local.sql(f"SELECT {columns} FROM ducklake_table_{what}({where})")
        for what in ("insertions", "deletions")
    )
    return written, removed


def _before(view: LakeView, name: str, since: int, until: int, schema: ibis.Schema) -> ibis.Table:
    begin, remembered = view.connection.execute(
        f"""SELECT (SELECT min(begin_snapshot) FROM {META}.ducklake_table WHERE table_id = ?),
                   EXISTS (FROM {META}.ducklake_snapshot WHERE snapshot_id = ?)""",
        [view.table_id(name, until), since],
    ).fetchall()[0]
    if begin > since:
        return view.engine.table(schema.to_pyarrow().empty_table())
    if not remembered:
        raise LakeVersionError(
            f"{name}: the lake has no snapshot {since} (any more), so what changed since is unknown. Take the whole "
            "table, or keep snapshots longer (project: retention.snapshots)."
        )
    old = view.engine.read(name, since)
    now = Table(name, "", {column: Column(str(type)) for column, type in schema.items()}, key=(), derived=True)
    return fitted(old.drop(*emptied(now, old.schema())), schema)

"""The change feed of a published table. Feeds end with their snapshots: keep what must last as rows of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.lake.catalog import META, literal
from cdp_pipeline.lake.errors import LakeVersionError, TableMissingError

if TYPE_CHECKING:
    from cdp_pipeline.lake.lake import LakeView


def changes(view: LakeView, name: str, since: int, until: int) -> ibis.Table:
    """Rows inserted, updated (before and after) and deleted in the snapshots after `since` up to `until`."""
    schema, table = name.split(".")
    table_id = view.table_id(name, until)
    if table_id is None:
        raise TableMissingError(f"{name}: not published yet as of snapshot {until}.")
    [[remembered, created]] = view.connection.execute(
        f"""SELECT (SELECT min(snapshot_id) FROM {META}.ducklake_snapshot),
                   (SELECT min(begin_snapshot) FROM {META}.ducklake_table WHERE table_id = {table_id})"""
    ).fetchall()
    if since + 1 < remembered and created < remembered:
        raise LakeVersionError(
            f"{name}: the changes since snapshot {since} are forgotten; the lake remembers snapshot {remembered} on. "
            "Compare the whole tables instead, or keep snapshots longer (project: retention.snapshots)."
        )
    # The feed of one snapshot more, filtered away again, where nothing is asked for: it still has the columns.
    first = min(max(since + 1, created, remembered), until)
    return view.engine.local.sql(
        f"""SELECT snapshot_id AS _snapshot, change_type AS _change, * EXCLUDE (snapshot_id, change_type, rowid)
            FROM ducklake_table_changes('lake', {literal(schema)}, {literal(table)}, {first}, {until})
            WHERE snapshot_id > {since}"""
    )

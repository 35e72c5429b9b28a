"""The change feed of a published table. Feeds end with their snapshots: keep what must last as rows of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.lake.catalog import literal

if TYPE_CHECKING:
    from cdp_pipeline.lake.lake import LakeView


def changes(view: LakeView, name: str, since: int, until: int) -> ibis.Table:
    schema, table = name.split(".")
    return view.engine.local.sql(
        f"""SELECT snapshot_id AS _snapshot, change_type AS _change, * EXCLUDE (snapshot_id, change_type, rowid)
            FROM ducklake_table_changes('lake', {literal(schema)}, {literal(table)}, {since + 1}, {until})"""
    )

"""Keeps a lake small and quick: tidies files, forgets old snapshots, removes leftovers. Erasing is erase.py's."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cdp_pipeline.lake.catalog import Catalog, literal
from cdp_pipeline.lake.errors import LakeBusyError
from cdp_pipeline.lake.view import LakeView

# A file that was replaced stays at least a day, for queries that had already listed it. Not just a day here, because
# on a SQLite catalog DuckLake compares only the dates of two moments.
GRACE = timedelta(days=2)
# A file is rewritten once this share of its rows is deleted.
DELETED = 0.2


# How often and for how long, in seconds, others are kept from opening the lake until all who have it open have left it.
TURNS, TURN, BETWEEN = 5, 2.0, 3.0


@dataclass(frozen=True)
class Maintained:
    """What a maintenance run did; `files_merged` is None where somebody had the lake open all the time."""

    snapshots_forgotten: int
    files_rewritten: int
    files_merged: int | None
    files_removed: int
    orphans_removed: int


def maintain(lake: LakeView, catalog: Catalog, now: datetime, keep: timedelta) -> Maintained:
    """Every step leaves a sound lake, so that being killed half way costs only the rest."""
    with catalog.alone():
        rewritten = call(lake, f"ducklake_rewrite_data_files('lake', delete_threshold => {DELETED})")
    merged = _merge(lake, catalog)
    with catalog.alone():
        forgotten = _forget(lake, now - keep)
        removed = call(lake, f"ducklake_cleanup_old_files('lake', older_than => {_moment(now - GRACE)})")
        orphans = remove_orphans(lake)
    _remove_spill_of_the_dead(catalog)
    return Maintained(forgotten, rewritten, merged, removed, orphans)


def _merge(lake: LakeView, catalog: Catalog) -> int | None:
    """Make few files of many small ones, while nobody reads; what is never left is merged by a later maintenance.

    On a SQLite catalog DuckDB lists a table's files in two steps that do not see the same state of it: first how many
    entries there are, then, on another connection, those. Merged in between, the table is read as empty.
    """
    merged = None
    for turn in range(TURNS):
        if turn:
            time.sleep(BETWEEN)
        with suppress(LakeBusyError), catalog.unread(TURN):
            merged = (merged or 0) + call(lake, "ducklake_merge_adjacent_files('lake')")
            catalog.vacuum()
            break
    return merged


def remove_orphans(lake: LakeView) -> int:
    """Remove the leftovers of writers that died: where nobody else is writing, a file the catalog does not know."""
    return call(lake, "ducklake_delete_orphaned_files('lake', cleanup_all => true)")


def forget(lake: LakeView, snapshots: list[int]) -> int:
    """Forget these snapshots; what only they refer to may then be removed."""
    if not snapshots:
        return 0
    return call(lake, f"ducklake_expire_snapshots('lake', versions => {snapshots})")


def _forget(lake: LakeView, before: datetime) -> int:
    # The snapshot in force at that moment stays, so that every later moment can be read.
    older = f"QUALIFY lead(snapshot_time) OVER (ORDER BY snapshot_id) <= {_moment(before)}"
    rows = lake.connection.execute(f"SELECT snapshot_id FROM lake.snapshots() {older}").fetchall()
    return forget(lake, [row[0] for row in rows])


def call(lake: LakeView, function: str) -> int:
    return len(lake.connection.execute(f"CALL {function}").fetchall())


def _moment(when: datetime) -> str:
    return f"{literal(when.isoformat())}::TIMESTAMPTZ"


def _remove_spill_of_the_dead(catalog: Catalog) -> None:
    for folder in catalog.spill.glob("*-*"):
        process = folder.name.split("-")[0]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

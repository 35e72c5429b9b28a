"""Erases rows so that no byte of them stays in files, catalog or history, and looks for traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import ibis

from cdp_pipeline.lake.catalog import Catalog, identifier, literal
from cdp_pipeline.lake.maintenance import call, forget, remove_orphans
from cdp_pipeline.lake.view import LakeView

# For how many seconds nobody else may open the lake while it is waited for all to leave it.
PATIENCE = 60.0
# A condition on the table (`ibis._.email == …` or a function of it), or a column and the values to erase.
Predicate: TypeAlias = ibis.Deferred | Callable[[ibis.Table], ibis.Value] | tuple[str, Sequence[Any]]


def erase(lake: LakeView, catalog: Catalog, what: Mapping[str, Predicate]) -> dict[str, int]:
    """Delete, then rewrite every file and forget every snapshot that held the rows; run it again if it is killed."""
    # Whoever reads an older snapshot would find it empty, not gone (maintenance.py says why).
    with catalog.unread(PATIENCE):
        erased = _delete(lake, what)
        call(lake, "ducklake_rewrite_data_files('lake', delete_threshold => 0)")
        [[latest]] = lake.connection.execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchall()
        older = lake.connection.execute(
            f"SELECT snapshot_id FROM lake.snapshots() WHERE snapshot_id < {latest}"
        ).fetchall()
        forget(lake, [row[0] for row in older])
        call(lake, "ducklake_cleanup_old_files('lake', cleanup_all => true)")
        remove_orphans(lake)
        # Deleted catalog rows (minima and maxima of columns) stay in free pages until then.
        catalog.vacuum()
    return erased


def _delete(lake: LakeView, what: Mapping[str, Predicate]) -> dict[str, int]:
    connection, erased = lake.connection, {}
    latest = lake.latest()
    connection.execute("BEGIN")
    try:
        for name, predicate in what.items():
            if lake.table_id(name, latest) is None:
                erased[name] = 0
                continue
            target = identifier("lake", *name.split("."))
            connection.execute(f"CREATE OR REPLACE TEMP VIEW _erasable AS SELECT rowid AS _row, * FROM {target}")
            rows = lake.engine.local.table("_erasable", database=("temp", "main"))
            if isinstance(predicate, tuple):
                column, values = predicate
                chosen = rows.filter(rows[column].isin(list(values)))
            else:
                chosen = rows.filter(predicate)
            doomed = lake.engine.local.compile(chosen.select("_row"))
            connection.execute(f"CREATE OR REPLACE TEMP TABLE _doomed AS {doomed}")
            [[erased[name]]] = connection.execute("SELECT count(*) FROM _doomed").fetchall()
            connection.execute(f"DELETE FROM {target} WHERE rowid IN (SELECT _row FROM _doomed)")
        connection.execute("CALL lake.set_commit_message('cdp', 'erasure')")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.TransactionException):  # the failed statement may have ended the transaction itself
            connection.execute("ROLLBACK")
        raise
    connection.execute("DROP VIEW IF EXISTS _erasable; DROP TABLE IF EXISTS _doomed")
    return erased


def traces(lake: LakeView, catalog: Catalog, text: str) -> list[str]:
    """Where a text is still found: in the catalog's storage, or in any file (read as bytes and, Parquet, as rows)."""
    found = catalog.traces(text)
    files = [row[0] for row in lake.connection.execute(f"FROM glob({literal(catalog.data + '**')})").fetchall()]
    for file in files:
        local = "://" not in file and text.encode() in Path(file).read_bytes()
        if local or (file.endswith(".parquet") and _in_rows(lake, file, text)):
            found.append(file)
    return found


def _in_rows(lake: LakeView, file: str, text: str) -> bool:
    query = f"SELECT 1 FROM read_parquet({literal(file)}) t WHERE contains(t::VARCHAR, ?) LIMIT 1"
    return lake.connection.execute(query, [text]).fetchone() is not None

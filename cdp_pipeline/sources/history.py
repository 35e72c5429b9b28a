"""Full copies become history: versions of rows, valid from the copy that first showed them to the one that did not.

Works on temporary tables; reading copies and publishing versions is load.py's.
"""

from __future__ import annotations

from datetime import datetime

from cdp_pipeline.lake import Lake
from cdp_pipeline.lake.table import Table
from cdp_pipeline.sources.reading import Scratch
from cdp_pipeline.sources.stored import stored_sql


def moment_literal(moment: datetime) -> str:
    return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}'"


class History:
    """The versions of a source that a copy may still change: the open ones and those of the latest copy's moment."""

    def __init__(self, lake: Lake, scratch: Scratch, table: Table, latest: datetime | None) -> None:
        self.run = lake.connection.execute
        self.scratch = scratch
        self.table = table
        self.latest = latest
        self.versions = scratch.name("versions")
        stored = stored_sql(lake, table)
        lately = "false" if latest is None else f"_valid_to >= {moment_literal(latest)}"
        # _undone: a version of the latest copy, while a correction of that copy is applied.
        self.run(
            f"""CREATE TEMP TABLE {self.versions} AS SELECT *, false AS _touched, false AS _undone
                FROM ({stored}) WHERE _valid_to IS NULL OR {lately}"""
        )

    def any_open(self) -> bool:
        return bool(self.run(f"FROM {self.versions} WHERE _valid_to IS NULL LIMIT 1").fetchall())

    def changed(self) -> str:
        """The versions to publish."""
        view = self.scratch.name("changed", "VIEW")
        self.run(f"CREATE TEMP VIEW {view} AS SELECT * EXCLUDE (_touched, _undone) FROM {self.versions} WHERE _touched")
        return view

    def apply(self, incoming: str, at: datetime, loaded_at: datetime, kept: str | None, whole: bool = True) -> None:
        """Make the copy `incoming` (one row per _record_id) what is valid from `at` on, not before the latest copy.

        kept: SQL for the _record_ids that came but were set aside, which stay as they were; None where some rows
        cannot even be told apart, so that none may be taken for removed. whole=False: a few rows of a copy, late.
        """
        versions, moment = self.versions, moment_literal(at)
        own = [name for name in self.table.columns if not name.startswith("_")]
        same = " AND ".join(f'v."{name}" IS NOT DISTINCT FROM i."{name}"' for name in own)
        if at == self.latest:
            # The second copy of one moment corrects the first: begin where that one began.
            scope = "true" if whole else f"_record_id IN (SELECT _record_id FROM {incoming})"
            self.run(f"UPDATE {versions} SET _undone = true WHERE _valid_from = {moment} AND {scope}")
            self.run(
                f"""UPDATE {versions} SET _valid_to = NULL, _touched = true
                    WHERE _valid_to = {moment} AND NOT _undone AND {scope}"""
            )
            self.run(
                f"""UPDATE {versions} v SET _undone = false, _valid_to = NULL,
                           _touched = _touched OR v._valid_to IS NOT NULL
                    FROM {incoming} i WHERE v._undone AND v._record_id = i._record_id AND {same}"""
            )
        gone = "false" if kept is None else f"i._record_id IS NULL AND v._record_id NOT IN ({kept})"
        self.run(
            f"""UPDATE {versions} SET _valid_to = {moment}, _touched = true WHERE rowid IN (
                  SELECT v.rowid FROM {versions} v LEFT JOIN {incoming} i USING (_record_id)
                  WHERE v._valid_to IS NULL AND NOT v._undone AND v._valid_from < {moment}
                    AND ({gone} OR i._record_id IS NOT NULL AND NOT ({same})))"""
        )
        fresh = self.scratch.name("fresh")
        self.run(
            f"""CREATE TEMP TABLE {fresh} AS SELECT i.* FROM {incoming} i
                ANTI JOIN (SELECT _record_id FROM {versions} WHERE _valid_to IS NULL AND NOT _undone)
                  USING (_record_id)"""
        )
        self.run(f"DELETE FROM {versions} WHERE _undone AND _record_id IN (SELECT _record_id FROM {fresh})")
        columns = ", ".join(f'"{name}"' for name in self.table.columns if name not in _OF_VERSIONS)
        self.run(
            f"""INSERT INTO {versions} ({columns}, _loaded_at, _valid_from, _touched, _undone)
                SELECT {columns}, {moment_literal(loaded_at)}, {moment}, true, false FROM {fresh}"""
        )
        # What only the first copy of this moment showed was never valid: an empty span.
        self.run(f"UPDATE {versions} SET _valid_to = _valid_from, _touched = true, _undone = false WHERE _undone")
        self.latest = at


_OF_VERSIONS = ("_loaded_at", "_valid_from", "_valid_to")

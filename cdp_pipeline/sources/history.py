"""Full copies become history: versions of rows, valid from the copy that first showed them to the one that did not.

Works on temporary tables; reading copies and publishing versions is load.py's.
"""

from __future__ import annotations

from datetime import datetime

from cdp_pipeline.lake import Lake
from cdp_pipeline.lake.table import Table
from cdp_pipeline.sources.reading import Scratch


def moment_literal(moment: datetime) -> str:
    return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}'"


class History:
    """The versions of a source that copies may still change: the open ones and those of the latest copy's moment."""

    def __init__(self, lake: Lake, scratch: Scratch, table: Table, latest: datetime | None) -> None:
        self.run = lake.connection.execute
        self.scratch = scratch
        self.table = table
        self.latest = latest
        self.versions = scratch.name("versions")
        stored = lake.ibis.compile(lake.read(table))
        since = "false" if latest is None else f"_valid_to >= {moment_literal(latest)}"
        self.run(
            f"""CREATE TEMP TABLE {self.versions} AS SELECT *, false AS _touched, false AS _undone
                FROM ({stored}) WHERE _valid_to IS NULL OR {since}"""
        )

    def open_rows(self) -> int:
        row = self.run(f"SELECT count(*) FROM {self.versions} WHERE _valid_to IS NULL").fetchone()
        return row[0] if row else 0

    def apply(self, incoming: str, unsure: str | None, at: datetime, loaded_at: datetime) -> None:
        """Make the copy `incoming` (one row per _record_id) what is valid from `at` on.

        unsure: SQL for the _record_ids that were in the copy but unreadable, which stay as they were; None where rows
        cannot be told apart at all, so that nothing may be taken for removed. A second copy of the same moment
        corrects the first.
        """
        versions, moment = self.versions, moment_literal(at)
        if at == self.latest:
            self.run(f"UPDATE {versions} SET _undone = true WHERE _valid_from = {moment}")
            self.run(
                f"""UPDATE {versions} SET _valid_to = NULL, _touched = true
                    WHERE _valid_to = {moment} AND NOT _undone"""
            )
        own = [name for name in self.table.columns if not name.startswith("_")]
        same = " AND ".join(f'v."{name}" IS NOT DISTINCT FROM i."{name}"' for name in own)
        gone = "false" if unsure is None else f"i._record_id IS NULL AND v._record_id NOT IN ({unsure})"
        # A version of this very moment that the corrected copy shows again is simply valid again.
        self.run(
            f"""UPDATE {versions} v SET _undone = false, _valid_to = NULL,
                       _touched = _touched OR v._valid_to IS NOT NULL
                FROM {incoming} i WHERE v._undone AND v._record_id = i._record_id AND {same}"""
        )
        self.run(
            f"""UPDATE {versions} SET _valid_to = {moment}, _touched = true WHERE rowid IN (
                  SELECT v.rowid FROM {versions} v LEFT JOIN {incoming} i USING (_record_id)
                  WHERE v._valid_to IS NULL AND NOT v._undone
                    AND ({gone} OR i._record_id IS NOT NULL AND NOT ({same})))"""
        )
        fresh = self.scratch.name("fresh")
        self.run(
            f"""CREATE TEMP TABLE {fresh} AS SELECT i.* FROM {incoming} i
                ANTI JOIN (SELECT _record_id FROM {versions} WHERE _valid_to IS NULL AND NOT _undone)
                  USING (_record_id)"""
        )
        self.run(f"DELETE FROM {versions} WHERE _undone AND _record_id IN (SELECT _record_id FROM {fresh})")
        columns = ", ".join(f'"{name}"' for name in self.table.columns if not name.startswith("_valid"))
        given = columns.replace('"_loaded_at"', moment_literal(loaded_at))
        self.run(
            f"""INSERT INTO {versions} ({columns}, _valid_from, _valid_to, _touched, _undone)
                SELECT {given}, {moment}, NULL, true, false FROM {fresh}"""
        )
        # What the first copy of this moment showed and the corrected one does not was never valid: an empty span.
        self.run(f"UPDATE {versions} SET _valid_to = _valid_from, _touched = true, _undone = false WHERE _undone")
        self.latest = at

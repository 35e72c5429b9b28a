"""The rows a load sets aside: collected with their text as received, published to `sources.quarantine` with the load.

Listing and replaying them later is quarantine.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import pyarrow as pa

from cdp_pipeline.lake import Lake, Upsert
from cdp_pipeline.lake.columns import stored_type
from cdp_pipeline.sources.contract import Fault
from cdp_pipeline.sources.history import moment_literal
from cdp_pipeline.sources.normalise import as_literal
from cdp_pipeline.sources.reading import Readable, Scratch, Staged, fields_as_json, raw_rows
from cdp_pipeline.sources.report import FileLoad
from cdp_pipeline.sources.stored import stored_sql
from cdp_pipeline.sources.tables import QUARANTINE
from cdp_pipeline.spec.source import Source


class SetAside:
    """A temporary table shaped like `sources.quarantine`."""

    def __init__(self, lake: Lake, source: Source, scratch: Scratch, at: datetime, run_id: str) -> None:
        self.lake, self.source, self.scratch = lake, source, scratch
        self.at, self.run_id = at, run_id
        self.run = lake.connection.execute
        self.table = scratch.name("set_aside")
        columns = ", ".join(f'"{name}" {stored_type(type)}' for name, type in QUARANTINE.schema.items())
        self.run(f"CREATE TEMP TABLE {self.table} ({columns})")

    def add(
        self,
        staged: Staged,
        rows: str,
        faults: Sequence[Fault],
        loads: Sequence[FileLoad],
        files: Mapping[int, Readable],
    ) -> None:
        """Copy the broken and faulty ones of the staged rows, as received, with column and reason."""
        places = ", ".join(str(one.number) for one in loads)
        bad = self.run(
            f"""SELECT EXISTS (FROM {staged.table} WHERE _broken IS NOT NULL)
                    OR EXISTS (FROM {rows} WHERE _fault IS NOT NULL AND _place IN ({places}))"""
        ).fetchone()
        if bad == (False,):
            return
        fields = fields_as_json(staged.whole) if staged.whole else "CASE WHEN _broken IS NULL THEN _raw END"
        columns = ", ".join(as_literal(fault.column) for fault in faults)
        reasons = ", ".join(as_literal(fault.reason) for fault in faults)
        found = self.scratch.name("found")
        self.run(
            f"""CREATE TEMP TABLE {found} AS
                SELECT s._place, s.rowid AS _row, r._record_id AS record_id,
                       CASE WHEN _broken IS NULL THEN [{columns}][_fault + 1] END AS "column",
                       coalesce(_broken, [{reasons}][_fault + 1]) AS reason, _raw AS raw, {fields} AS fields
                FROM {staged.table} s LEFT JOIN {rows} r ON r._row = s.rowid AND r._place = s._place
                WHERE _broken IS NOT NULL OR _fault IS NOT NULL"""
        )
        if self.source.files is not None:
            for [number] in self.run(f"SELECT DISTINCT _place FROM {found} WHERE raw IS NULL").fetchall():
                if files[number].format == "csv":
                    self._find_raw(staged, found, files[number])
        source = as_literal(self.source.name)
        values = ", ".join(
            f"({one.number}, {as_literal(one.place)}, {moment_literal(one.copied_at) if one.copied_at else 'NULL'})"
            for one in loads
        )
        self.run(
            f"""INSERT INTO {self.table} BY NAME
                SELECT left(md5(concat_ws(chr(31), {source}, place, raw,
                              row_number() OVER (PARTITION BY place, raw ORDER BY _row))), 24) AS quarantine_id,
                       record_id, {source} AS source, "column", reason, raw, fields, place,
                       copied_at::TIMESTAMP AS copied_at, {moment_literal(self.at)} AS loaded_at,
                       {as_literal(self.run_id)} AS run_id, NULL::TIMESTAMP AS replayed_at
                FROM (SELECT * REPLACE (coalesce(raw, fields) AS raw) FROM {found})
                JOIN (VALUES {values}) p(_place, place, copied_at) USING (_place)"""
        )
        self.scratch.drop(found)

    def _find_raw(self, staged: Staged, found: str, file: Readable) -> None:
        """Give the rows of a CSV that DuckDB read their text as received, by going through the file once more."""
        assert self.source.files is not None
        first = f"(SELECT min(rowid) FROM {staged.table} WHERE _place = {file.number})"
        ordinals = self.run(f"SELECT _row - {first} FROM {found} WHERE _place = {file.number} ORDER BY 1").fetchall()
        texts = list(raw_rows(self.source.files, file, [row[0] for row in ordinals]))
        arrow = pa.table(
            {
                "ordinal": pa.array([row[0] for row in texts], pa.int64()),
                "text": pa.array([row[1] for row in texts], pa.string()),
                "fields": pa.array([row[2] for row in texts], pa.list_(pa.string())),
            }
        )
        read = ", ".join(f"coalesce(s.{column}, '')" for column in staged.whole.values())
        with self.scratch.arrow(arrow) as name:
            # Only a text whose fields are those that were read is taken for the row's own.
            self.run(
                f"""UPDATE {found} f SET raw = x.text FROM {name} x, {staged.table} s
                    WHERE f._place = {file.number} AND s.rowid = f._row AND [{read}] = x.fields
                      AND x.ordinal = f._row - {first}"""
            )

    def forget(self, place: str) -> None:
        """Drop what was set aside from a file that was refused or failed after all."""
        self.run(f"DELETE FROM {self.table} WHERE place = {as_literal(place)}")

    def counts(self) -> dict[str, int]:
        """Rows set aside per place."""
        return dict(self.run(f"SELECT place, count(*) FROM {self.table} GROUP BY 1").fetchall())

    def settle(self, ready: str | None) -> None:
        """Rows set aside before stay as they are; those that have now come sound (in `ready`) need no replay."""
        stored = f"SELECT * FROM ({stored_sql(self.lake, QUARANTINE)}) WHERE source = {as_literal(self.source.name)}"
        self.run(f"DELETE FROM {self.table} WHERE quarantine_id IN (SELECT quarantine_id FROM ({stored}))")
        if ready is not None:
            self.run(
                f"""INSERT INTO {self.table}
                    SELECT * REPLACE ({moment_literal(self.at)} AS replayed_at) FROM ({stored})
                    WHERE replayed_at IS NULL AND record_id IN (SELECT _record_id FROM {ready})"""
            )

    def write(self) -> list[Upsert]:
        """What to publish, if there is anything."""
        if not self.run(f"FROM {self.table} LIMIT 1").fetchall():
            return []
        return [Upsert(QUARANTINE, self.lake.ibis.table(self.table, database=("temp", "main")))]

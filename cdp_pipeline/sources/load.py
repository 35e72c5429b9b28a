"""Loads a source: finds what is new, reads it, holds it to its contract and publishes the outcome in one commit.

A file that cannot be read, or that its contract refuses, never stops the other files of its source: they are loaded,
the failure is kept in `sources.loads`, and the load raises at its end, naming everything that went wrong. The next
load tries such a file again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from cdp_pipeline.lake import Lake, Note, Upsert
from cdp_pipeline.sources import drift as drifting
from cdp_pipeline.sources.aside import SetAside
from cdp_pipeline.sources.errors import ContractError, FileUnreadableError, SourceError
from cdp_pipeline.sources.files import Arrival, arrivals, file_format, find_files, missing_file, scan
from cdp_pipeline.sources.history import History, moment_literal
from cdp_pipeline.sources.judge import Judge
from cdp_pipeline.sources.reading import Readable, Scratch, Staged, by_header, json_keys, read_header, stage
from cdp_pipeline.sources.report import FileLoad, LoadReport, conservation
from cdp_pipeline.sources.stored import stored_sql
from cdp_pipeline.sources.tables import LOADS, source_table
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source
from cdp_pipeline.spec.window import midnight

__all__ = ["FileLoad", "LoadReport", "arrivals", "conservation", "load"]

_SETTLED = ("loaded", "superseded")


def load(
    lake: Lake, source: Source, project: Project, days: Sequence[date] | None, now: datetime, run_id: str
) -> LoadReport:
    """Load what is new: of these days (and files without a day), or everything where `days` is None."""
    with Scratch(lake.connection).until_done() as scratch:
        under_way = _Load(lake, source, project, now, run_id, scratch)
        if source.files is not None:
            under_way.files(days)
        elif source.sql is not None:
            under_way.database()
        under_way.report.raise_problems()
        return under_way.report


class _Load:
    """One load under way. Temporary tables: `rows` (typed, with faults), `losers` (replaced by another row of the
    same grain), `ready` (what is published)."""

    def __init__(
        self, lake: Lake, source: Source, project: Project, now: datetime, run_id: str, scratch: Scratch
    ) -> None:
        self.lake, self.source, self.project, self.scratch, self.run_id = lake, source, project, scratch, run_id
        self.at = now.astimezone(UTC).replace(tzinfo=None)
        self.table = source_table(source)
        self.report = LoadReport(source.name)
        self.judge = Judge(lake, source, project, scratch)
        self.aside = SetAside(lake, source, scratch, self.at, run_id)
        self.readable: dict[int, Readable] = {}
        self.overlap_from: str | None = None
        self.touched: list[dict[str, Any]] = []
        mine = lake.connection.execute(
            f"FROM ({stored_sql(lake, LOADS)}) WHERE source = ? ORDER BY loaded_at", [source.name]
        ).to_arrow_table()
        self.last_from = {row["place"]: row for row in mine.to_pylist()}
        self.loaded = [row for row in mine.to_pylist() if row["status"] == "loaded"]

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        return self.lake.connection.execute(query).fetchall()

    # Files: what is new

    def files(self, days: Sequence[date] | None) -> None:
        assert self.source.files is not None
        found = find_files(self.source, days)
        if not found and not self.last_from and not find_files(self.source):
            raise missing_file(self.source)
        if days is not None and "{day}" in self.source.files.path:
            self.report.missing_days = sorted(set(days) - {file.day for file in found if file.day})
        if self.source.mode == "snapshot":
            self._copies(found)
            return
        new = [one for file in found if (one := self._open(file)) is not None]
        if new or self.touched:
            self._publish_events(self._read([one for one in new if one.error is None]))

    def _known(self, file: Arrival) -> bool:
        """Whether the file as it lies there is what was last loaded from its place, going by size and time."""
        before = self.last_from.get(file.place)
        return (
            before is not None
            and before["status"] in _SETTLED
            and (before["size"], before["modified_ns"]) == (file.size, file.modified_ns)
        )

    def _open(self, file: Arrival, again: bool = False) -> FileLoad | None:
        """Take a file into the load, with the first pass over its bytes; None where its content is nothing new."""
        assert self.source.files is not None
        if not again and self._known(file):
            return None
        one = FileLoad(len(self.report.loads), file.place, day=file.day, size=file.size, modified_ns=file.modified_ns)
        one.fingerprint = f"unread:{file.size}:{file.modified_ns}"
        try:
            form = file_format(self.source.files, file.place)
            first_pass = scan(file.place)
            one.fingerprint = first_pass.fingerprint
            before = self.last_from.get(file.place, {"status": None})
            if not again and before["status"] in _SETTLED and before["fingerprint"] == one.fingerprint:
                # Its time is noted, or the arrivals sensor would ask for it for ever.
                self.touched.append({**before, "size": file.size, "modified_ns": file.modified_ns})
                return None
            header = read_header(self.lake.connection, self.source.files, form, file.place, first_pass)
            if form != "jsonl":
                self._note_missing(drifting.missing_columns(self.source, file.place, header))
            self.readable[one.number] = Readable(one.number, file.place, first_pass, form, header)
        except SourceError as error:
            one.fail(error)
        self.report.loads.append(one)
        return one

    # Full copies

    def _copies(self, found: Sequence[Arrival]) -> None:
        copies: dict[datetime, list[Arrival]] = {}
        for file in found:
            copies.setdefault(self._copied_at(file.day), []).append(file)
        history = self._history()
        for moment, parts in sorted(copies.items()):
            opened = [self._open(file) for file in parts]
            if all(one is None for one in opened):
                continue
            # A copy is one whole: its other parts are read again with the one that is new.
            whole = [one or self._open(file, again=True) for one, file in zip(opened, parts, strict=True)]
            copy = [one for one in whole if one is not None]
            for one in copy:
                one.copied_at = moment
            if history.latest is not None and moment < history.latest:
                for one in copy:
                    if one.error is None:
                        one.status = "superseded"
                        one.message = f"{one.place}: a newer copy was loaded before, so this one is left out"
                continue
            rows = None if any(one.error for one in copy) else self._read(copy)
            self._apply_copy(history, rows, copy, moment)
        if self.report.loads or self.touched:
            self._publish_versions(history)

    def _copied_at(self, day: date | None) -> datetime:
        """The moment a copy stands for: the last instant of its day in the project's zone, or now while that lasts."""
        if day is None:
            return self.at
        ended = midnight(day + timedelta(days=1), self.project.zone)
        return min(ended - timedelta(microseconds=1), self.at)

    def _history(self) -> History:
        latest = max((row["copied_at"] for row in self.loaded if row["copied_at"]), default=None)
        return History(self.lake, self.scratch, self.table, latest)

    def _apply_copy(self, history: History, rows: str | None, copy: list[FileLoad], moment: datetime) -> None:
        first = copy[0]
        if rows is not None and not any(one.error or one.read for one in copy) and history.any_open():
            first.fail(FileUnreadableError(f"{first.place}: has no rows; that everything is gone is not believed"))
        failed = next((one for one in copy if one.error is not None), None)
        if failed is not None or rows is None:
            for one in copy:
                if one.error is None and failed is not None:
                    one.fail(
                        FileUnreadableError(
                            f"{one.place}: not loaded, for its copy is not whole without {failed.place}"
                        )
                    )
                self.aside.forget(one.place)
            return
        losers = self._losers(rows)
        incoming = self.scratch.name("incoming", "VIEW")
        self.sql(
            f"CREATE TEMP VIEW {incoming} AS FROM {rows} ANTI JOIN {losers} USING (_place, _row) WHERE _fault IS NULL"
        )
        aside = f"FROM {self.aside.table} WHERE copied_at = {moment_literal(moment)}"
        [[nameless]] = self.sql(f"SELECT count(*) {aside} AND record_id IS NULL")
        if nameless:
            first.message = f"{nameless} rows have no readable key, so no row was taken for removed"
        history.apply(incoming, moment, self.at, kept=None if nameless else f"SELECT record_id {aside}")
        self._count(rows, losers)
        self.scratch.drop(incoming)
        self.scratch.drop(rows)

    def _publish_versions(self, history: History) -> None:
        self._publish(history.changed())

    # Databases

    def database(self) -> None:
        from cdp_pipeline.sources.database import read_database

        copied_at = self.at if self.source.mode == "snapshot" else None
        cursor = next((row["cursor"] for row in reversed(self.loaded) if row["cursor"]), None)
        self.overlap_from = cursor
        staged, read = read_database(
            self.scratch, self.source, None if copied_at else cursor, self.at.replace(tzinfo=UTC)
        )
        before = self.last_from.get(read.place, {"status": None})
        if before["status"] == "loaded" and before["fingerprint"] == read.fingerprint:
            self._read_in_vain(before)
            return
        read.copied_at = copied_at
        self.report.loads.append(read)
        self._note_missing(drifting.missing_columns(self.source, read.place, list(staged.text)))
        rows = self._without_refused(self._judged(staged, [read], None), [read])
        if copied_at is None:
            self._publish_events(rows)
            return
        history = self._history()
        self._apply_copy(history, rows, [read], copied_at)
        self._publish_versions(history)

    # Reading, and the contract

    def _read(self, loads: Sequence[FileLoad]) -> str | None:
        """Stage files and hold them to the contract: one table of all their rows, faulty ones included."""
        assert self.source.files is not None
        wanted = [drifting.origin(self.source, name) for name in self.source.columns]
        by_number = {one.number: one for one in loads}
        rows: str | None = None
        for group in by_header([self.readable[number] for number in by_number]):
            staged = stage(self.scratch, self.source.files, group, wanted)
            for number, message in staged.failed.items():
                by_number[number].fail(FileUnreadableError(message))
            rows = self._judged(staged, [by_number[one.number] for one in group], rows)
            self.scratch.drop(staged.table)
        return self._without_refused(rows, loads) if rows is not None else None

    def _judged(self, staged: Staged, loads: Sequence[FileLoad], rows: str | None) -> str:
        present = list(staged.whole) or json_keys(self.lake.connection, staged)
        self.report.drift.unknown |= drifting.unknown_columns(self.lake.connection, self.source, staged, present)
        rows = self.judge.judged(staged, rows, loads[0].copied_at)
        counts = dict(self.sql(f"SELECT _place, count(*) FROM {staged.table} GROUP BY 1"))
        for one in loads:
            one.read = counts.get(one.number, 0)
        self.aside.add(staged, rows, self.judge.faults, loads, self.readable)
        return rows

    def _without_refused(self, rows: str, loads: Sequence[FileLoad]) -> str:
        """Take out the files in which a check with the action `reject` failed."""
        refusing = [str(number) for number, fault in enumerate(self.judge.faults) if fault.refuses]
        found = self.sql(
            f"""SELECT _place, min(_fault), count(*) FROM {rows}
                WHERE _fault IN ({", ".join(refusing) or "NULL"}) GROUP BY 1"""
        )
        by_number = {one.number: one for one in loads}
        for number, fault, count in found:
            one, broken = by_number[number], self.judge.faults[fault]
            why = f"{count} rows break its contract ({broken.column}: {broken.reason})"
            one.refuse(ContractError(f"{one.place}: refused as a whole, {why}"))
            self.sql(f"DELETE FROM {rows} WHERE _place = {number}")
            self.aside.forget(one.place)
        return rows

    def _note_missing(self, missing: list[str]) -> None:
        self.report.drift.missing = sorted({*self.report.drift.missing, *missing})

    # What becomes of rows

    def _losers(self, rows: str) -> str:
        """Rows that another row of the load with the same grain replaces, and whether their columns differ."""
        losers = self.scratch.name("losers")
        own = ", ".join(f'"{name}"' for name in self.source.columns)
        first = "_occurred_at DESC, " if self.source.on_conflict == "latest_occurred" else ""
        self.sql(
            f"""CREATE TEMP TABLE {losers} AS
                WITH repeated AS (SELECT _record_id FROM {rows} WHERE _fault IS NULL GROUP BY 1 HAVING count(*) > 1)
                SELECT _place, _row, ROW({own}) IS DISTINCT FROM winner AS conflict FROM (
                  SELECT *, row_number() OVER w AS n, first_value(ROW({own})) OVER w AS winner
                  FROM {rows} SEMI JOIN repeated USING (_record_id) WHERE _fault IS NULL
                  WINDOW w AS (PARTITION BY _record_id ORDER BY {first}_place DESC, _row DESC
                               ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))
                WHERE n > 1"""
        )
        return losers

    def _publish_events(self, rows: str | None) -> None:
        if rows is None:
            self._publish(None)
            return
        losers = self._losers(rows)
        ready, standing = self.scratch.name("ready", "VIEW"), self.scratch.name("standing")
        self.sql(f"CREATE TEMP TABLE {standing} (_place INTEGER, _row BIGINT, equal BOOLEAN)")
        self.sql(
            f"""CREATE TEMP VIEW {ready} AS SELECT *, {moment_literal(self.at)} AS _loaded_at
                FROM {rows} ANTI JOIN {losers} USING (_place, _row) ANTI JOIN {standing} USING (_place, _row)
                WHERE _fault IS NULL"""
        )
        newest_day = self._find_standing(ready, standing, losers)
        self._count(rows, losers)
        days = self.sql(f"SELECT DISTINCT _place, _day FROM {ready}")
        own = {one.number: one.day or newest_day for one in self.report.loads}
        self.report.late_days = sorted({day for place, day in days if (limit := own[place]) and day < limit})
        if self._only_overlap(ready):
            self.report.loads = []
            self._read_in_vain(self.loaded[-1])
            return
        self._publish(ready)

    def _read_in_vain(self, before: dict[str, Any]) -> None:
        """Note that a database has told nothing new until now: that nothing happened is news as well."""
        self.touched.append(before | {"loaded_at": self.at})
        self._publish(None)

    def _only_overlap(self, ready: str) -> bool:
        """Whether a read in increments got nothing but rows that stand already: then nothing has happened."""
        [one] = self.report.loads[:1]
        same_cursor = self.overlap_from is not None and one.cursor == self.overlap_from
        return same_cursor and one.error is None and not one.quarantined and not self.sql(f"FROM {ready} LIMIT 1")

    def _find_standing(self, ready: str, standing: str, losers: str) -> date | None:
        """Rows that the lake has just so, or (`latest_occurred`) newer, need no writing; the newest day it has."""
        stored = stored_sql(self.lake, self.table)
        equal = " AND ".join(f's."{name}" IS NOT DISTINCT FROM r."{name}"' for name in self.source.columns)
        newer = "s._occurred_at > r._occurred_at" if self.source.on_conflict == "latest_occurred" else "false"
        self.sql(
            f"""INSERT INTO {standing} SELECT r._place, r._row, {equal}
                FROM {ready} r JOIN ({stored}) s USING (_record_id) WHERE ({equal}) OR {newer}"""
        )
        self.sql(f"INSERT INTO {losers} SELECT _place, _row, true FROM {standing} WHERE NOT equal")
        [[newest_day]] = self.sql(f"SELECT max(_day) FROM ({stored})")
        return newest_day

    def _count(self, rows: str, losers: str) -> None:
        """Count each file's rows by what became of them: accepted ones as those that stay, not as what is left over."""
        by_number: Mapping[int, FileLoad] = {one.number: one for one in self.report.loads}
        for number, *counts in self.sql(
            f"""SELECT _place, count(*), sum(_omitted), sum(_coerced), min(_day), max(_day)
                FROM {rows} ANTI JOIN {losers} USING (_place, _row) WHERE _fault IS NULL GROUP BY 1"""
        ):
            one = by_number[number]
            one.accepted, one.omitted, one.coerced, one.first_day, one.last_day = counts
        for number, duplicates, conflicts in self.sql(
            f"SELECT _place, count(*), count(*) FILTER (conflict) FROM {losers} GROUP BY 1"
        ):
            by_number[number].duplicates, by_number[number].conflicts = duplicates, conflicts
        aside = self.aside.counts()
        for one in self.report.loads:
            one.quarantined = aside.get(one.place, 0)

    def _publish(self, ready: str | None) -> None:
        writes = []
        if ready is not None:
            rows = self.lake.ibis.table(ready, database=("temp", "main"))
            writes.append(Upsert(self.table, rows.select(*self.table.columns)))
        self.aside.settle(ready)
        writes += [*self.aside.write(), Upsert(LOADS, self._ledger_rows())]
        published = self.lake.publish(*writes, note=Note(self.run_id, self.table.name))
        self.report.snapshot = published.snapshot
        if self.table.name in published.counts:
            counts = published.counts[self.table.name]
            self.report.inserted, self.report.updated = counts.inserted, counts.updated

    def _ledger_rows(self) -> pa.Table:
        rows = [
            {name: getattr(one, name, None) for name in LOADS.columns}
            | {"source": self.source.name, "loaded_at": self.at, "run_id": self.run_id}
            for one in self.report.loads
        ]
        return pa.Table.from_pylist(rows + self.touched, schema=LOADS.schema.to_pyarrow())

"""Loads a source: finds what is new, reads it, holds it to its contract and publishes the outcome in one commit.

A file that cannot be read, or that its contract refuses, never stops the other files of its source: they are loaded,
the failure is kept in `sources.loads`, and the load raises at its end, naming everything that went wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import ibis
import pyarrow as pa

from cdp_pipeline.lake import Lake, Note, Upsert
from cdp_pipeline.sources import drift as drifting
from cdp_pipeline.sources.contract import Fault, contract
from cdp_pipeline.sources.drift import Drift
from cdp_pipeline.sources.errors import (
    ContractError,
    FileUnreadableError,
    ReferenceNotLoadedError,
    SourceError,
    did_you_mean,
)
from cdp_pipeline.sources.files import Arrival, arrivals, file_format, find_files, missing_file, scan
from cdp_pipeline.sources.history import History, moment_literal
from cdp_pipeline.sources.normalise import LOOKED_UP, as_literal, looked_up
from cdp_pipeline.sources.reading import (
    Readable,
    Scratch,
    Staged,
    by_header,
    fields_as_json,
    json_keys,
    raw_rows,
    read_header,
    stage,
)
from cdp_pipeline.sources.tables import LOADS, QUARANTINE, source_table
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source

__all__ = ["FileLoad", "LoadReport", "arrivals", "conservation", "load"]


@dataclass
class FileLoad:
    """One file, or one read of a database: what is known of it, and what became of its rows."""

    number: int
    place: str
    fingerprint: str = ""
    day: date | None = None
    size: int | None = None
    modified_ns: int | None = None
    cursor: str | None = None
    copied_at: datetime | None = None
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0
    rejected: int = 0
    omitted: int = 0
    coerced: int = 0
    first_day: date | None = None
    last_day: date | None = None
    status: str = "loaded"
    message: str = ""
    error: SourceError | None = field(default=None, repr=False)

    def fail(self, error: SourceError, status: str = "failed") -> None:
        self.status, self.message, self.error = status, str(error), error
        self.read = self.accepted = self.duplicates = self.conflicts = self.quarantined = self.rejected = 0


@dataclass
class LoadReport:
    """What one load did; `loads` has a row per file that was new, none where nothing was."""

    source: str
    loads: list[FileLoad] = field(default_factory=list)
    inserted: int = 0
    updated: int = 0
    snapshot: int | None = None
    drift: Drift = field(default_factory=Drift)
    patch: str = ""
    late_days: list[date] = field(default_factory=list)
    missing_days: list[date] = field(default_factory=list)

    @property
    def first_late_day(self) -> date | None:
        """The oldest day that got rows although it was over; what depends on it and later days is stale."""
        return self.late_days[0] if self.late_days else None

    @property
    def problems(self) -> list[str]:
        return [one.message for one in self.loads if one.error is not None]

    def total(self, what: str) -> int:
        return sum(getattr(one, what) for one in self.loads)

    def metadata(self) -> dict[str, Any]:
        """Counts and days for people to look at; never a value of a row."""
        counts = ("read", "accepted", "duplicates", "conflicts", "quarantined", "rejected", "omitted", "coerced")
        shown: dict[str, Any] = {"files": len(self.loads), "inserted": self.inserted, "updated": self.updated}
        shown |= {what: self.total(what) for what in counts}
        if self.late_days:
            shown["first late day"] = str(self.first_late_day)
        if self.drift.unknown:
            shown["columns not declared"] = ", ".join(self.drift.unknown)
        if self.drift.missing:
            shown["columns missing"] = ", ".join(self.drift.missing)
        return shown


def conservation(loads: ibis.Table) -> ibis.Table:
    """The loads whose rows do not add up: read = accepted + duplicates + quarantined + rejected. Empty when all do."""
    return loads.filter(loads.read != loads.accepted + loads.duplicates + loads.quarantined + loads.rejected)


def load(
    lake: Lake, source: Source, project: Project, days: Sequence[date] | None, now: datetime, run_id: str
) -> LoadReport:
    """Load what is new: of these days (and files without a day), or everything where `days` is None."""
    with Scratch(lake.connection).until_done() as scratch:
        return _Load(lake, source, project, now, run_id, scratch).run(days)


@dataclass
class _Load:
    """One load under way."""

    lake: Lake
    source: Source
    project: Project
    now: datetime
    run_id: str
    scratch: Scratch

    def __post_init__(self) -> None:
        self.table = source_table(self.source)
        self.at = self.now.astimezone(UTC).replace(tzinfo=None)
        self.report = LoadReport(self.source.name)
        self.set_aside = self.scratch.name("set_aside")
        self.faults: tuple[Fault, ...] = ()
        self.readable: dict[int, Readable] = {}
        self.references: dict[str, str] = {}
        loads = self.lake.read(LOADS)
        mine = loads.filter(loads.source == self.source.name).order_by("loaded_at").to_pyarrow().to_pylist()
        self.earlier = {row["place"]: row for row in mine}
        loaded = [row for row in mine if row["status"] == "loaded"]
        self.latest_copy = max((row["copied_at"] for row in loaded if row["copied_at"]), default=None)
        self.cursor = next((row["cursor"] for row in reversed(loaded) if row["cursor"]), None)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        return self.lake.connection.execute(query).fetchall()

    # What to read

    def run(self, days: Sequence[date] | None) -> LoadReport:
        columns = ", ".join(f'"{name}" {_stored(type)}' for name, type in QUARANTINE.schema.items())
        self.sql(f"CREATE TEMP TABLE {self.set_aside} ({columns})")
        if self.source.files is not None:
            self._load_files(days)
        elif self.source.sql is not None:
            self._load_database()
        if problems := self.report.problems:
            kinds = {type(one.error) for one in self.report.loads if one.error is not None}
            kind = kinds.pop() if len(kinds) == 1 else ContractError if ContractError in kinds else FileUnreadableError
            error = kind(f"source {self.source.name}: " + "; ".join(problems))
            error.report = self.report
            raise error
        return self.report

    def _load_files(self, days: Sequence[date] | None) -> None:
        assert self.source.files is not None
        found = find_files(self.source, days)
        if not found and not self.earlier and not find_files(self.source):
            raise missing_file(self.source)
        if days is not None and "{day}" in self.source.files.path:
            self.report.missing_days = sorted(set(days) - {file.day for file in found})
        if self.source.mode == "events":
            new = [one for file in found if (one := self._open(file)) is not None]
            self._load_batch(new)
            return
        copies: dict[datetime, list[Arrival]] = {}
        for file in found:
            copies.setdefault(self._copied_at(file.day), []).append(file)
        self._load_copies(copies)

    def _known(self, file: Arrival) -> bool:
        """Whether the file, as it is, was the last that came from its place; its bytes are compared when its time is not."""
        before = self.earlier.get(file.place)
        return (
            before is not None
            and before["status"] in ("loaded", "superseded")
            and (before["size"], before["modified_ns"]) == (file.size, file.modified_ns)
        )

    def _open(self, file: Arrival, again: bool = False) -> FileLoad | None:
        """Take a file into the load, with its first pass and header; None where nothing about it is new."""
        assert self.source.files is not None
        if not again and self._known(file):
            return None
        one = FileLoad(len(self.report.loads), file.place, day=file.day, size=file.size, modified_ns=file.modified_ns)
        one.fingerprint = f"unread:{file.size}:{file.modified_ns}"
        try:
            form = file_format(self.source.files, file.place)
            bytes_seen = scan(file.place)
            before = self.earlier.get(file.place)
            same = before is not None and before["fingerprint"] == bytes_seen.fingerprint
            if not again and same and before is not None and before["status"] in ("loaded", "superseded"):
                return None
            one.fingerprint = bytes_seen.fingerprint
            header = read_header(self.lake.connection, self.source.files, form, file.place, bytes_seen)
            if form != "jsonl":
                missing = drifting.missing_columns(self.source, file.place, header)
                self.report.drift.missing = sorted({*self.report.drift.missing, *missing})
            self.readable[one.number] = Readable(one.number, file.place, bytes_seen, form, header)
        except SourceError as error:
            one.fail(error)
        self.report.loads.append(one)
        return one

    def _copied_at(self, day: date | None) -> datetime:
        """The moment a full copy stands for: the last instant of its day in the project's zone, or now if that is not over."""
        if day is None:
            return self.at
        midnight = datetime.combine(day + timedelta(days=1), time(), self.project.zone).astimezone(UTC)
        return min(midnight.replace(tzinfo=None) - timedelta(microseconds=1), self.at)

    # Events

    def _load_batch(self, new: list[FileLoad]) -> None:
        if not new:
            return
        rows = self._read([one for one in new if one.number in self.readable])
        self._publish_events(rows)

    def _publish_events(self, rows: str | None) -> None:
        if rows is None:
            self._publish(None)
            return
        losers = self._losers(rows)
        ready = self.scratch.name("ready")
        self.sql(
            f"""CREATE TEMP TABLE {ready} AS
                SELECT * EXCLUDE (_fault, _omitted, _coerced), {moment_literal(self.at)} AS _loaded_at
                FROM {rows} WHERE _fault IS NULL AND (_place, _row) NOT IN (SELECT (_place, _row) FROM {losers})"""
        )
        before = None
        if self.lake.exists(self.table.name):
            before = self._leave_out_what_stands(ready, losers)
        self._count(rows, losers)
        self._find_late_days(ready, before)
        self._publish(ready)

    def _leave_out_what_stands(self, ready: str, losers: str) -> date | None:
        """Take rows that the lake has just so, and those older than what it has, out of `ready`; its newest day."""
        own = ", ".join(f'"{name}"' for name in self.source.columns)
        stored = self.lake.ibis.compile(self.lake.read(self.table))
        same = self.scratch.name("same")
        older = "s._occurred_at > r._occurred_at" if self.source.on_conflict == "latest_occurred" else "false"
        ours = own.replace('"', 's."', 1).replace(', "', ', s."')
        theirs = own.replace('"', 'r."', 1).replace(', "', ', r."')
        self.sql(
            f"""CREATE TEMP TABLE {same} AS
                SELECT r._place, r._row, ROW({ours}) IS NOT DISTINCT FROM ROW({theirs}) AS equal
                FROM {ready} r JOIN ({stored}) s USING (_record_id)
                WHERE ROW({ours}) IS NOT DISTINCT FROM ROW({theirs}) OR {older}"""
        )
        self.sql(f"DELETE FROM {ready} WHERE (_place, _row) IN (SELECT (_place, _row) FROM {same})")
        self.sql(f"INSERT INTO {losers} SELECT _place, _row, true FROM {same} WHERE NOT equal")
        [[newest]] = self.sql(f"SELECT max(_day) FROM ({stored})")
        return newest

    def _find_late_days(self, ready: str, newest_before: date | None) -> None:
        days = self.sql(f"SELECT DISTINCT _place, _day FROM {ready}")
        own = {one.number: one.day or newest_before for one in self.report.loads}
        self.report.late_days = sorted({day for place, day in days if own[place] is not None and day < own[place]})

    # Full copies

    def _load_copies(self, copies: Mapping[datetime, list[Arrival]]) -> None:
        history: History | None = None
        for moment, parts in sorted(copies.items()):
            if all(self._known(file) for file in parts):
                continue
            opened = [self._open(file) for file in parts]
            if all(one is None for one in opened):
                continue
            # A copy is one whole: its parts are read again with the one that is new.
            new = [one or self._open(file, again=True) for one, file in zip(opened, parts, strict=True)]
            copy = [one for one in new if one is not None]
            for one in copy:
                one.copied_at = moment
            history = history or History(self.lake, self.scratch, self.table, self.latest_copy)
            self._apply_copy(history, copy, moment)
        if self.report.loads:
            self._publish_versions(history)

    def _apply_copy(self, history: History, copy: list[FileLoad], moment: datetime) -> None:
        if history.latest is not None and moment < history.latest:
            for one in copy:
                if one.error is None:
                    one.status = "superseded"
                    one.message = f"{one.place}: a newer copy was loaded before, so this one tells nothing new"
            return
        rows = None
        if not any(one.error for one in copy):
            rows = self._read(copy)
        failed = next((one for one in copy if one.error is not None), None)
        if failed is None and rows is not None:
            [[count]] = self.sql(f"SELECT count(*) FROM {rows}")
            if sum(one.read for one in copy) == 0 and count == 0 and history.open_rows():
                copy[0].fail(
                    FileUnreadableError(
                        f"{copy[0].place}: the copy has no rows; that everything is gone is not believed"
                    )
                )
                failed = copy[0]
        if failed is not None or rows is None:
            for one in copy:
                if one.error is None and failed is not None:
                    one.fail(type(failed.error)(f"{one.place}: not loaded, for {failed.place} is of the same copy"))  # type: ignore[misc]
                self._forget_set_aside(one)
            return
        losers = self._losers(rows)
        incoming = self.scratch.name("incoming")
        self.sql(
            f"""CREATE TEMP TABLE {incoming} AS SELECT * EXCLUDE (_fault, _omitted, _coerced), NULL AS _loaded_at
                FROM {rows} WHERE _fault IS NULL AND (_place, _row) NOT IN (SELECT (_place, _row) FROM {losers})"""
        )
        places = ", ".join(as_literal(one.place) for one in copy)
        aside = f"FROM {self.set_aside} WHERE place IN ({places})"
        [[unreadable]] = self.sql(f"SELECT count(*) {aside} AND record_id IS NULL")
        unsure = None if unreadable else f"SELECT record_id {aside}"
        if unreadable:
            copy[0].message = f"{unreadable} rows have no readable key, so no row was taken for removed"
        history.apply(incoming, unsure, moment, self.at)
        self._count(rows, losers)
        self.scratch.drop(rows)
        self.scratch.drop(incoming)

    def _publish_versions(self, history: History | None) -> None:
        if history is None:
            self._publish(None)
            return
        ready = self.scratch.name("ready")
        self.sql(
            f"CREATE TEMP TABLE {ready} AS SELECT * EXCLUDE (_touched, _undone) FROM {history.versions} WHERE _touched"
        )
        self._publish(ready)

    # Databases

    def _load_database(self) -> None:
        from cdp_pipeline.sources.database import read_database

        one = FileLoad(0, "")
        copied_at = self.at if self.source.mode == "snapshot" else None
        table = self.scratch.name("staged")
        read = read_database(self.scratch, self.source, table, None if copied_at else self.cursor)
        one.place, one.cursor, one.copied_at = read.place, read.cursor, copied_at
        staged = Staged(table, read.text, read.text)
        columns = ", ".join(read.text.values())
        [[digest, count]] = self.sql(f"SELECT bit_xor(hash({columns})), count(*) FROM {table}")
        one.fingerprint = hashlib.sha256(f"{digest}:{count}:{','.join(read.text)}".encode()).hexdigest()[:32]
        before = self.earlier.get(one.place)
        if before is not None and before["status"] == "loaded" and before["fingerprint"] == one.fingerprint:
            return
        self.report.loads.append(one)
        self.report.drift.missing = drifting.missing_columns(self.source, one.place, list(read.text))
        rows = self._held_to_contract(staged, [one], None, copied_at)
        if copied_at is None:
            self._publish_events(self._without_refused(rows, [one]))
            return
        self.scratch.drop(rows)
        raise NotImplementedError

    # Reading and the contract

    def _read(self, loads: list[FileLoad]) -> str | None:
        """Stage these files and hold them to the contract: one table of all their rows, faulty ones included."""
        assert self.source.files is not None
        wanted = [drifting.origin(self.source, name) for name in self.source.columns]
        rows: str | None = None
        by_number = {one.number: one for one in loads}
        for group in by_header([self.readable[number] for number in by_number]):
            staged = stage(self.scratch, self.source.files, group, wanted)
            for number, message in staged.failed.items():
                by_number[number].fail(FileUnreadableError(message))
            members = [by_number[one.number] for one in group]
            rows = self._held_to_contract(staged, members, rows, loads[0].copied_at)
            self.scratch.drop(staged.table)
        return self._without_refused(rows, loads) if rows is not None else None

    def _held_to_contract(
        self, staged: Staged, loads: list[FileLoad], rows: str | None, copied_at: datetime | None
    ) -> str:
        """Add staged rows, typed and judged, to `rows` (made if None), and set the bad ones aside."""
        present = json_keys(self.lake.connection, staged) if not staged.whole else list(staged.text)
        self.report.drift.unknown |= drifting.unknown_columns(self.lake.connection, self.source, staged, present)
        self.report.patch = self.report.drift.patch(self.source.columns)
        given = {
            name: staged.text[drifting.origin(self.source, name)]
            for name in self.source.columns
            if drifting.origin(self.source, name) in staged.text
        }
        held = contract(
            self.source,
            f"(SELECT rowid AS _row, * EXCLUDE (_raw, _broken) FROM {staged.table} WHERE _broken IS NULL)",
            given,
            self._lookups(staged.table, given),
            self._references(),
            self.project.settings.timezone,
            copied_at,
        )
        self.faults = held.faults
        if rows is None:
            rows = self.scratch.name("rows")
            self.sql(f"CREATE TEMP TABLE {rows} AS {held.sql}")
        else:
            self.sql(f"INSERT INTO {rows} {held.sql}")
        counts = dict(self.sql(f"SELECT _place, count(*) FROM {staged.table} GROUP BY 1"))
        for one in loads:
            if one.error is None:
                one.read = counts.get(one.number, 0)
        self._set_aside(staged, rows, loads)
        return rows

    def _lookups(self, relation: str, given: Mapping[str, str]) -> dict[str, str]:
        """For each column whose normal form takes Python: a table of its distinct texts and their form."""
        tables = {}
        for name, column in self.source.columns.items():
            if column.normalise not in LOOKED_UP or name not in given:
                continue
            texts = [
                row[0] for row in self.sql(f"SELECT DISTINCT {given[name]} FROM {relation} WHERE {given[name]} <> ''")
            ]
            forms = [looked_up(column.normalise, text, self.source.region) for text in texts]
            tables[name] = self.scratch.name("lookup")
            with self.scratch.arrow(pa.table({"given": texts, "normal": pa.array(forms, pa.string())})) as arrow:
                self.sql(f"CREATE TEMP TABLE {tables[name]} AS SELECT given::VARCHAR AS given, normal FROM {arrow}")
        return tables

    def _references(self) -> dict[str, str]:
        """For each column that checks refer to: a table of the values it has in the lake."""
        wanted = {
            (name, check.references)
            for name, column in self.source.columns.items()
            for check in column.checks
            if check.references is not None and check.action != "allow"
        }
        for name, reference in sorted(wanted):
            if reference in self.references:
                continue
            other, _, column = reference.partition(".")
            target = self.project.sources.get(other)
            if target is None or column not in target.columns:
                raise SourceError(
                    f"source {self.source.name}: {name} refers to {reference}, which is not declared"
                    + did_you_mean(other, self.project.sources)
                )
            if not self.lake.exists(f"sources.{other}"):
                raise ReferenceNotLoadedError(
                    f"source {self.source.name}: {name} refers to {reference}, but {other} has not been loaded; load it first"
                )
            values = self.lake.ibis.compile(self.lake.read(source_table(target)).select(column).distinct())
            table = self.references[reference] = self.scratch.name("reference")
            self.sql(
                f'CREATE TEMP TABLE {table} AS SELECT "{column}"::VARCHAR AS v FROM ({values}) WHERE "{column}" IS NOT NULL'
            )
        return self.references

    def _without_refused(self, rows: str, loads: Iterable[FileLoad]) -> str:
        """Take out the files in which a check with the action `reject` failed."""
        refusing = [number for number, fault in enumerate(self.faults) if fault.refuses]
        if not refusing:
            return rows
        listed = ", ".join(map(str, refusing))
        found = self.sql(
            f"SELECT _place, min(_fault), count(*) FROM {rows} WHERE _fault IN ({listed}) GROUP BY 1 ORDER BY 1"
        )
        by_number = {one.number: one for one in loads}
        for number, fault, count in found:
            one, broken = by_number[number], self.faults[fault]
            read = one.read
            one.fail(
                ContractError(
                    f"{one.place}: refused, {count} rows break the contract ({broken.column}: {broken.reason})"
                ),
                "rejected",
            )
            one.read = one.rejected = read
            self.sql(f"DELETE FROM {rows} WHERE _place = {number}")
            self._forget_set_aside(one)
        return rows

    # What becomes of rows

    def _set_aside(self, staged: Staged, rows: str, loads: list[FileLoad]) -> None:
        """Copy broken and faulty rows, as received and with the reason, to the rows set aside."""
        places = ", ".join(str(one.number) for one in loads)
        [[bad]] = self.sql(
            f"""SELECT (SELECT count(*) FROM {staged.table} WHERE _broken IS NOT NULL)
                     + (SELECT count(*) FROM {rows} WHERE _fault IS NOT NULL AND _place IN ({places}))"""
        )
        if not bad:
            return
        fields = fields_as_json(staged.whole) if staged.whole else "CASE WHEN _broken IS NULL THEN _raw END"
        columns = ", ".join(as_literal(fault.column) for fault in self.faults)
        reasons = ", ".join(as_literal(fault.reason) for fault in self.faults)
        aside = self.scratch.name("aside")
        self.sql(
            f"""CREATE TEMP TABLE {aside} AS
                SELECT s._place, s.rowid AS _row, r._record_id AS record_id,
                       CASE WHEN _broken IS NULL THEN [{columns}][_fault + 1] END AS "column",
                       coalesce(_broken, [{reasons}][_fault + 1]) AS reason, _raw AS raw, {fields} AS fields
                FROM {staged.table} s
                LEFT JOIN (SELECT * FROM {rows} WHERE _place IN ({places})) r ON r._row = s.rowid AND r._place = s._place
                WHERE _broken IS NOT NULL OR _fault IS NOT NULL"""
        )
        self._find_raw(staged, aside)
        values = ", ".join(
            f"({one.number}, {as_literal(one.place)}, {moment_literal(one.copied_at) if one.copied_at else 'NULL'})"
            for one in loads
        )
        self.sql(
            f"""INSERT INTO {self.set_aside} BY NAME
                SELECT left(md5(concat_ws(chr(31), {as_literal(self.source.name)}, place, raw,
                              row_number() OVER (PARTITION BY place, raw ORDER BY _row))), 24) AS quarantine_id,
                       record_id, {as_literal(self.source.name)} AS source, "column", reason, raw, fields, place,
                       copied_at::TIMESTAMP AS copied_at, {moment_literal(self.at)} AS loaded_at,
                       {as_literal(self.run_id)} AS run_id, NULL::TIMESTAMP AS replayed_at
                FROM (SELECT * REPLACE (coalesce(raw, fields) AS raw) FROM {aside})
                JOIN (VALUES {values}) p(_place, place, copied_at) USING (_place)"""
        )

    def _find_raw(self, staged: Staged, aside: str) -> None:
        """Give rows of a CSV that DuckDB read their text as received, by going through their files once more."""
        files = self.source.files
        without = self.sql(f"SELECT DISTINCT _place FROM {aside} WHERE raw IS NULL")
        if files is None:
            return
        for [place] in without:
            readable = self.readable[place]
            if readable.format != "csv":
                continue
            ordinals = [
                row[0]
                for row in self.sql(
                    f"""SELECT _row - (SELECT min(rowid) FROM {staged.table} WHERE _place = {place}) FROM {aside}
                        WHERE _place = {place} ORDER BY 1"""
                )
            ]
            found = list(raw_rows(files, readable, ordinals))
            texts = pa.table(
                {
                    "ordinal": pa.array([row[0] for row in found], pa.int64()),
                    "text": pa.array([row[1] for row in found], pa.string()),
                    "fields": pa.array([row[2] for row in found], pa.list_(pa.string())),
                }
            )
            read = ", ".join(f"coalesce(s.{column}, '')" for column in staged.whole.values())
            with self.scratch.arrow(texts) as arrow:
                # Only a text whose fields are those that were read is taken for the row's own.
                self.sql(
                    f"""UPDATE {aside} a SET raw = x.text FROM {arrow} x, {staged.table} s
                        WHERE a._place = {place} AND s.rowid = a._row AND [{read}] = x.fields
                          AND x.ordinal = a._row - (SELECT min(rowid) FROM {staged.table} WHERE _place = {place})"""
                )

    def _forget_set_aside(self, one: FileLoad) -> None:
        self.sql(f"DELETE FROM {self.set_aside} WHERE place = {as_literal(one.place)}")

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

    def _count(self, rows: str, losers: str) -> None:
        by_number = {one.number: one for one in self.report.loads}
        for place, sound, omitted, coerced, first, last in self.sql(
            f"""SELECT _place, count(*) FILTER (l._row IS NULL), sum(_omitted), sum(_coerced),
                       min(_day) FILTER (l._row IS NULL), max(_day) FILTER (l._row IS NULL)
                FROM {rows} LEFT JOIN {losers} l USING (_place, _row) WHERE _fault IS NULL GROUP BY 1"""
        ):
            one = by_number[place]
            one.accepted, one.omitted, one.coerced, one.first_day, one.last_day = sound, omitted, coerced, first, last
        for place, duplicates, conflicts in self.sql(
            f"SELECT _place, count(*), count(*) FILTER (conflict) FROM {losers} GROUP BY 1"
        ):
            by_number[place].duplicates, by_number[place].conflicts = duplicates, conflicts
        for place, count in self.sql(f"SELECT place, count(*) FROM {self.set_aside} GROUP BY 1"):
            for one in self.report.loads:
                if one.place == place:
                    one.quarantined = count

    def _publish(self, ready: str | None) -> None:
        temporary = ("temp", "main")
        writes = [Upsert(LOADS, self._load_rows())]
        if ready is not None:
            rows = self.lake.ibis.table(ready, database=temporary)
            writes.append(Upsert(self.table, rows.select(*self.table.columns)))
        if self.lake.exists(QUARANTINE.name):
            self._settle_quarantine(ready)
        if self.sql(f"SELECT 1 FROM {self.set_aside} LIMIT 1"):
            writes.append(Upsert(QUARANTINE, self.lake.ibis.table(self.set_aside, database=temporary)))
        published = self.lake.publish(*writes, note=Note(self.run_id, self.table.name))
        self.report.snapshot = published.snapshot
        if self.table.name in published.counts:
            counts = published.counts[self.table.name]
            self.report.inserted, self.report.updated = counts.inserted, counts.updated

    def _settle_quarantine(self, ready: str | None) -> None:
        """Rows that were set aside before stay as they are; those that have now come sound are settled."""
        quarantine = self.lake.read(QUARANTINE)
        stored = self.lake.ibis.compile(quarantine.filter(quarantine.source == self.source.name))
        self.sql(f"DELETE FROM {self.set_aside} WHERE quarantine_id IN (SELECT quarantine_id FROM ({stored}))")
        if ready is not None:
            self.sql(
                f"""INSERT INTO {self.set_aside} SELECT * REPLACE ({moment_literal(self.at)} AS replayed_at) FROM ({stored})
                    WHERE replayed_at IS NULL AND record_id IN (SELECT _record_id FROM {ready})"""
            )

    def _load_rows(self) -> pa.Table:
        rows = [
            {name: getattr(one, name) for name in LOADS.columns if hasattr(one, name)}
            | {"source": self.source.name, "loaded_at": self.at, "run_id": self.run_id}
            for one in self.report.loads
        ]
        return pa.Table.from_pylist(rows, schema=LOADS.schema.to_pyarrow())


def _stored(type: Any) -> str:
    from cdp_pipeline.lake.columns import stored_type

    return stored_type(type)

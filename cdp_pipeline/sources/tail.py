"""What has come to a source since it was last looked at: lines that files grew by, new files, rows behind a cursor.

Nothing is published: rows are held to the contract by the code of a load, and are left to the next load to keep. A
place (a file, a table) is remembered by its mark, a short text that says how far it was read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cdp_pipeline.lake import Lake
from cdp_pipeline.sources.drift import missing_columns, origin
from cdp_pipeline.sources.errors import SourceError
from cdp_pipeline.sources.files import Arrival, file_format, find_files, open_plain, scan
from cdp_pipeline.sources.history import moment_literal
from cdp_pipeline.sources.judge import Judge
from cdp_pipeline.sources.reading import Readable, Scratch, by_header, read_header, stage
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source

log = logging.getLogger(__name__)
SOURCE = ""
"""The mark under this name says that a source is known: what lay there when it was first looked at is no news."""
LOOK_BACK = timedelta(days=2)
MOST = 8 * 1024 * 1024
LONGEST_RECORD = 200
LATE = timedelta(minutes=1)
_EDGE = 1024
_READ_ERRORS = (OSError, EOFError, zlib.error, gzip.BadGzipFile)


@dataclass
class News:
    """What came: a temporary table of sound rows as a load would keep them (None: none), and the marks to keep.

    `more`: there is more than was read at once. `gone`: marks of places that no longer matter.
    """

    marks: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    rows: str | None = None
    more: bool = False


@dataclass(frozen=True)
class _Piece:
    """What is to be read of a file: all of it where it is only read whole, else its new lines in a file of their own.

    skip: of a file read whole, the rows that are no news; None means all.
    """

    path: str
    place: str
    whole: bool = False
    skip: int | None = 0


def why_not(source: Source) -> str | None:
    """Why rows of a source cannot be told before it is loaded; None where they can."""
    if source.mode != "events":
        return "it comes as full copies"
    if source.collector is not None:
        return "nothing is read from a collector yet"
    refuses = [name for name, column in source.columns.items() if column.invalid == "reject"]
    refuses += [
        name for name, column in source.columns.items() if any(check.action == "reject" for check in column.checks)
    ]
    if refuses:
        return f"one row may have the whole file rejected ({', '.join(sorted(set(refuses)))})"
    if source.sql is not None and source.sql.cursor is None:
        return "without a cursor all of it is read each time"
    return None


def tail(
    lake: Lake, scratch: Scratch, source: Source, project: Project, marks: Mapping[str, str], now: datetime
) -> News:
    """What came since `marks`, at most about MOST bytes of each file; the first look only takes note of what is there.

    Files are read up to their last whole line. Those untouched for LOOK_BACK, or of a day before it, are left to the
    load, as is what cannot be read.
    """
    if source.sql is not None:
        return _behind_cursor(lake, scratch, source, project, marks, now)
    with tempfile.TemporaryDirectory(prefix="cdp_tail_") as folder:
        return _Files(lake, scratch, source, project, marks, now, Path(folder)).news()


class _Files:
    """One look at a source of files."""

    def __init__(
        self,
        lake: Lake,
        scratch: Scratch,
        source: Source,
        project: Project,
        marks: Mapping[str, str],
        now: datetime,
        folder: Path,
    ) -> None:
        assert source.files is not None
        self.lake, self.scratch, self.source, self.project = lake, scratch, source, project
        self.files, self.now, self.folder = source.files, now, folder
        self.before: dict[str, dict[str, Any]] = {place: json.loads(mark) for place, mark in marks.items()}
        self.after: dict[str, dict[str, Any]] = {}
        self.more = False

    def news(self) -> News:
        first = SOURCE not in self.before
        if first:
            self.after[SOURCE] = {}
        recent = list(self._recent())
        pieces = []
        for file in recent:
            before = self.before.get(file.place, {})
            state = {"size": file.size, "modified_ns": file.modified_ns}
            if all(before.get(name) == value for name, value in state.items()):
                continue
            self.after[file.place] = before | state
            try:
                if self._only_whole(file):
                    pieces.append(_Piece(file.place, file.place, True, None if first else before.get("rows", 0)))
                elif first:
                    self.after[file.place] |= _end(file.place)
                elif piece := self._new_lines(file, before):
                    pieces.append(piece)
            except (*_READ_ERRORS, SourceError) as problem:
                # Not whole yet, or never: it is looked at again when it changes.
                log.info("%s: cannot be read yet (%s)", file.place, type(problem).__name__)
        rows = self._judged(pieces) if pieces else None
        places = {SOURCE, *(file.place for file in recent)}
        return News(
            {place: json.dumps(mark) for place, mark in self.after.items()},
            [place for place in self.before if place not in places],
            rows,
            self.more,
        )

    def _recent(self) -> Iterator[Arrival]:
        oldest = self.now - LOOK_BACK
        first_day = oldest.astimezone(self.project.zone).date()
        for file in find_files(self.source):
            if file.modified_ns >= oldest.timestamp() * 1e9 and (file.day is None or file.day >= first_day):
                yield file

    def _only_whole(self, file: Arrival) -> bool:
        """Whether rows are told apart by their order in the file, or lines cannot be cut off it."""
        form = file_format(self.files, file.place)
        return form == "parquet" or self.source.repeatable or self.files.encoding == "utf-16"

    def _new_lines(self, file: Arrival, before: Mapping[str, Any]) -> _Piece | None:
        """The whole lines behind those read before, with the header, as a file of their own."""
        is_csv = file_format(self.files, file.place) == "csv"
        read = before.get("read", 0)
        if _edge(file.place, read) != before.get("edge", ""):
            read = 0  # Another file under the same name.
        with open_plain(file.place) as stream:
            header = stream.readline() if is_csv and read else b""
            stream.seek(read)
            chunk = stream.read(MOST)
        end = _whole_records(chunk, is_csv)
        self.after[file.place] |= {"read": read + end, "edge": _edge(file.place, read + end)}
        if end == 0:
            return None
        if len(chunk) == MOST:
            self.more = True
            self.after[file.place]["modified_ns"] = 0
        suffix = "".join(Path(file.place.removesuffix(".gz")).suffixes[-1:])
        path = self.folder / f"{len(self.after)}{suffix}"
        path.write_bytes(header + chunk[:end])
        return _Piece(str(path), file.place)

    def _judged(self, pieces: Sequence[_Piece]) -> str | None:
        """The pieces held to the contract; what cannot be read is left to the load."""
        wanted = [origin(self.source, name) for name in self.source.columns]
        readable = []
        for number, piece in enumerate(pieces):
            try:
                form, first_pass = file_format(self.files, piece.path), scan(piece.path)
                header = read_header(self.lake.connection, self.files, form, piece.path, first_pass)
                if form != "jsonl":
                    missing_columns(self.source, piece.place, header)
                readable.append(Readable(number, piece.path, first_pass, form, header))
            except SourceError as problem:
                log.warning("%s: left to the next load (%s)", piece.place, type(problem).__name__)
        judge = Judge(self.lake, self.source, self.project, self.scratch)
        rows: str | None = None
        for group in by_header(readable):
            staged = stage(self.scratch, self.files, group, wanted)
            rows = judge.judged(staged, rows)
        if rows is None:
            return None
        query = f"SELECT _place, count(*) FROM {rows} GROUP BY 1"
        counts = dict(self.lake.connection.execute(query).fetchall())
        skips = []
        for number, count in counts.items():
            piece = pieces[number]
            if piece.whole:
                self.after[piece.place]["rows"] = count
                # Fewer rows than before: another file under the same name.
                skips.append((number, count if piece.skip is None else piece.skip if piece.skip <= count else 0))
        return _sound(self.scratch, self.source, rows, self.now, skips)


def _end(path: str) -> dict[str, Any]:
    """The mark of a file of which everything up to the last whole line is known."""
    read = length = 0
    with open_plain(path) as stream:
        while chunk := stream.read(MOST):
            if (end := chunk.rfind(b"\n")) >= 0:
                read = length + end + 1
            length += len(chunk)
    return {"read": read, "edge": _edge(path, read)}


def _edge(path: str, read: int) -> str:
    """What the beginning of a file and the end of what was read of it looked like."""
    if not read:
        return ""
    with open_plain(path) as stream:
        digest = hashlib.sha256(stream.read(min(read, _EDGE)))
        stream.seek(max(0, read - _EDGE))
        digest.update(stream.read(min(read, _EDGE)))
    return digest.hexdigest()[:32]


def _whole_records(chunk: bytes, quoted: bool) -> int:
    """How many of the bytes end with a whole record: at the last newline, in a CSV the last one outside of quotes.

    A quote that nobody closes holds up what follows it for LONGEST_RECORD lines, as it does in a load.
    """
    end = last = chunk.rfind(b"\n") + 1
    if not quoted:
        return end
    odd = chunk.count(b'"', 0, end) % 2
    while odd and end:
        start = chunk.rfind(b"\n", 0, end - 1) + 1
        odd ^= chunk.count(b'"', start, end) % 2
        end = start
    return last if chunk.count(b"\n", end, last) > LONGEST_RECORD else end


def _behind_cursor(
    lake: Lake, scratch: Scratch, source: Source, project: Project, marks: Mapping[str, str], now: datetime
) -> News:
    """Rows at or after the last cursor value; those that a declared overlap expects late are looked for a minute."""
    from cdp_pipeline.sources.database import newest_cursor, read_database

    assert source.sql is not None
    if SOURCE not in marks:
        return News({SOURCE: json.dumps({"cursor": newest_cursor(source, now)})})
    before = json.loads(marks[SOURCE])
    overlap = min(source.sql.overlap or timedelta(), LATE)
    near = source.model_copy(update={"sql": source.sql.model_copy(update={"overlap": overlap})})
    staged, read = read_database(scratch, near, before["cursor"], now)
    if read.fingerprint == before.get("fingerprint"):
        return News()
    missing_columns(source, read.place, list(staged.text))
    rows = Judge(lake, source, project, scratch).judged(staged)
    mark = {"cursor": read.cursor, "fingerprint": read.fingerprint}
    return News({SOURCE: json.dumps(mark)}, rows=_sound(scratch, source, rows, now))


def _sound(
    scratch: Scratch, source: Source, rows: str, now: datetime, skips: Sequence[tuple[int, int]] = ()
) -> str | None:
    """The rows without fault, one per key, as a load would keep them, less the first of places; None where none are."""
    first = "_occurred_at DESC, " if source.on_conflict == "latest_occurred" else ""
    sound = scratch.name("sound")
    scratch.connection.execute(
        f"""CREATE TEMP TABLE {sound} AS
            SELECT * EXCLUDE (_row, _place, _fault, _omitted, _coerced, _ordinal, _skipped, _skip),
                   {moment_literal(now.astimezone(UTC))} AS _loaded_at
            FROM (SELECT *, row_number() OVER (PARTITION BY _place ORDER BY _row) AS _ordinal FROM {rows})
            LEFT JOIN (VALUES {", ".join(map(str, [(-1, 0), *skips]))}) s(_skipped, _skip) ON _place = _skipped
            WHERE _fault IS NULL AND _ordinal > coalesce(_skip, 0)
            QUALIFY row_number() OVER (PARTITION BY _record_id ORDER BY {first}_place DESC, _row DESC) = 1"""
    )
    return sound if scratch.connection.execute(f"FROM {sound} LIMIT 1").fetchone() is not None else None

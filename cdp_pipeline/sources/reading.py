"""Brings files into a temporary table of texts: fast by DuckDB where a file is clean, record by record where it is not.

Every row is kept, also the broken ones, with its text as received. What the texts mean is contract.py's business.
"""

from __future__ import annotations

import csv
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import duckdb
import pyarrow as pa

from cdp_pipeline.sources.errors import FileUnreadableError
from cdp_pipeline.sources.files import Format, Scan
from cdp_pipeline.sources.normalise import as_literal
from cdp_pipeline.sources.records import Record, csv_records, line_records
from cdp_pipeline.spec.source import Files

_BATCH = 50_000


class Scratch:
    """Names for temporary tables of one load, dropped with it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._kinds: dict[str, str] = {}

    def name(self, what: str, kind: str = "TABLE") -> str:
        """A fresh name for a temporary table (or `kind` VIEW)."""
        name = f"_load_{what}_{uuid.uuid4().hex[:10]}"
        self._kinds[name] = kind
        return name

    def drop(self, name: str) -> None:
        self.connection.execute(f"DROP {self._kinds[name]} IF EXISTS temp.main.{name}")

    @contextmanager
    def arrow(self, rows: pa.Table | pa.RecordBatchReader) -> Iterator[str]:
        """Arrow rows under a name SQL can read, for the length of a statement."""
        name = f"_load_arrow_{uuid.uuid4().hex[:10]}"
        self.connection.register(name, rows)
        try:
            yield name
        finally:
            self.connection.unregister(name)

    @contextmanager
    def until_done(self) -> Iterator[Scratch]:
        try:
            yield self
        finally:
            for name in reversed(self._kinds):
                self.drop(name)


@dataclass(frozen=True)
class Readable:
    """A file to read: its number in the load, where it is, what the first pass found, its format and columns."""

    number: int
    path: str
    scan: Scan
    format: Format
    header: tuple[str, ...]


@dataclass
class Staged:
    """A temporary table with `_place`, `_broken` (reason), `_raw` and texts; `text` says the SQL of each column's.

    `whole` names the columns in which a row is kept beside its raw text, none where the raw text is JSON.
    """

    table: str
    text: dict[str, str]
    whole: dict[str, str]
    failed: dict[int, str] = field(default_factory=dict)


def read_header(
    connection: duckdb.DuckDBPyConnection, files: Files, format: Format, path: str, scan: Scan
) -> tuple[str, ...]:
    """The names of a file's columns; JSON lines have none."""
    if format == "jsonl":
        return ()
    if format == "parquet":
        try:
            return tuple(row[0] for row in connection.execute("DESCRIBE FROM read_parquet(?)", [path]).fetchall())
        except duckdb.Error as problem:
            raise FileUnreadableError(
                f"{path}: is not sound Parquet ({_first_line(problem)}); deliver it again"
            ) from problem
    if scan.empty:
        raise FileUnreadableError(f"{path}: is empty, without even a header; deliver it again")
    csv.field_size_limit(sys.maxsize)
    try:
        first = next(csv_records(path, files.encoding, files.delimiter), None)
    except UnicodeError as problem:
        raise FileUnreadableError(f"{path}: is not {files.encoding} ({problem}); say its `encoding:`") from problem
    header = tuple(name.strip() for name in first.fields) if first else ()
    if not header or (first and first.broken):
        raise FileUnreadableError(f"{path}: the header cannot be read; is `encoding:` ({files.encoding}) right?")
    lowered = [name for name in header if name]
    if twice := sorted({name for name in lowered if lowered.count(name) > 1}):
        raise FileUnreadableError(f"{path}: the header has {', '.join(map(repr, twice))} more than once")
    return header


def stage(scratch: Scratch, files: Files, group: Sequence[Readable], wanted: Sequence[str]) -> Staged:
    """Read files of one format and header into one temporary table; a file that cannot be read fails alone.

    wanted: the names of the columns that the contract needs (JSON lines hold only those apart from the raw text).
    """
    table = scratch.name("staged")
    names = list(wanted) if group[0].format == "jsonl" else list(group[0].header)
    places = {name: f"c{number}" for number, name in enumerate(names)}
    columns = "".join(f", {column} VARCHAR" for column in places.values())
    scratch.connection.execute(f"CREATE TEMP TABLE {table} (_place INTEGER, _broken VARCHAR, _raw VARCHAR{columns})")
    staged = Staged(table, places, {} if group[0].format == "jsonl" else places)
    fast = {"csv": _insert_csv, "jsonl": _insert_jsonl, "parquet": _insert_parquet}[group[0].format]

    def quickly(some: list[Readable]) -> list[Readable]:
        """Those of the files that DuckDB did not read, or not rightly; nothing of them is kept."""
        try:
            fast(scratch.connection, files, some, staged)
        except duckdb.Error as problem:
            if len(some) == 1:
                staged.failed[some[0].number] = _first_line(problem)
            return some
        wrong = _miscounted(scratch.connection, some, table)
        for one in wrong:
            scratch.connection.execute(f"DELETE FROM {table} WHERE _place = ?", [one.number])
        return wrong

    left = quickly(list(group))
    if len(group) > 1:
        left = [one for one in left if quickly([one])]
    for one in left:
        why = staged.failed.pop(one.number, "")
        if one.format == "parquet":
            staged.failed[one.number] = f"{one.path}: is not sound Parquet ({why}); deliver it again"
            continue
        try:
            _insert_records(scratch, files, one, staged)
        except (duckdb.Error, pa.ArrowException, UnicodeError, OSError) as problem:
            staged.failed[one.number] = f"{one.path}: cannot be read ({_first_line(problem)})"
    if group[0].format == "jsonl":
        scratch.connection.execute(f"DELETE FROM {table} WHERE _raw IS NULL OR _raw < '!' AND trim(_raw, ' \t\r') = ''")
    return staged


def _miscounted(connection: duckdb.DuckDBPyConnection, group: Sequence[Readable], table: str) -> list[Readable]:
    """Files of which DuckDB made another number of rows than they have lines: it skips rows it cannot make out."""
    counts = dict(connection.execute(f"SELECT _place, count(*) FROM {table} GROUP BY 1").fetchall())
    wrong = []
    for one in group:
        if one.format == "parquet":
            continue
        lines = one.scan.lines - (1 if one.format == "csv" else 0)
        exact = not one.scan.quotes or one.format == "jsonl"
        if not one.scan.uniform_newlines or (exact and counts.get(one.number, 0) != lines):
            wrong.append(one)
    return wrong


def _paths(group: Sequence[Readable]) -> tuple[str, str]:
    """The list of paths, and the SQL that numbers a row by its file."""
    paths = "[" + ", ".join(as_literal(one.path) for one in group) + "]"
    numbers = [one.number for one in group]
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return paths, f"file_index + {numbers[0]}"
    return paths, f"[{', '.join(map(str, numbers))}][file_index + 1]"


def _insert_csv(connection: duckdb.DuckDBPyConnection, files: Files, group: Sequence[Readable], staged: Staged) -> None:
    paths, number = _paths(group)
    columns = ", ".join(f"'{column}': 'VARCHAR'" for column in staged.text.values())
    connection.execute(
        f"""INSERT INTO {staged.table} SELECT {number}, NULL, NULL, {", ".join(staged.text.values())}
            FROM read_csv({paths}, columns={{{columns}}}, auto_detect=false, header=true, strict_mode=true,
                          delim={as_literal(files.delimiter)}, quote='"', escape='"',
                          encoding={as_literal(files.encoding)})"""
    )


def _insert_jsonl(
    connection: duckdb.DuckDBPyConnection, files: Files, group: Sequence[Readable], staged: Staged
) -> None:
    paths, number = _paths(group)
    # A character that JSON cannot hold parts the line into one column.
    lines = f"""SELECT {number} AS _place, NULL AS broken, line
        FROM read_csv({paths}, columns={{'line': 'VARCHAR'}}, delim='\x01', quote='', escape='', auto_detect=false,
                      header=false, strict_mode=true, encoding={as_literal(files.encoding)})"""
    connection.execute(f"INSERT INTO {staged.table} {_json_fields(lines, staged)}")


def _json_fields(lines: str, staged: Staged) -> str:
    """SQL that adds the fields to rows of `_place`, `broken` and `line`, and marks lines that are no JSON object."""
    keys = ", ".join(as_literal(f'$."{name}"') for name in staged.text)
    fields = ", ".join(f"x[{number}]" for number in range(1, len(staged.text) + 1))
    return f"""SELECT _place, CASE WHEN x IS NULL THEN coalesce(broken, 'broken_row') END, line, {fields} FROM (
        SELECT _place, broken, line, CASE WHEN json_valid(line) AND json_type(line) = 'OBJECT'
                                  THEN json_extract_string(line, [{keys}]) END AS x FROM ({lines}))"""


def _insert_parquet(
    connection: duckdb.DuckDBPyConnection, files: Files, group: Sequence[Readable], staged: Staged
) -> None:
    paths, number = _paths(group)
    types = dict(row[:2] for row in connection.execute("DESCRIBE FROM read_parquet(?)", [group[0].path]).fetchall())
    texts = ", ".join(_as_text(name, types[name]) for name in staged.text)
    connection.execute(f"INSERT INTO {staged.table} SELECT {number}, NULL, NULL, {texts} FROM read_parquet({paths})")


def _as_text(name: str, type: str) -> str:
    column = '"' + name.replace('"', '""') + '"'
    if type in ("DOUBLE", "FLOAT"):
        # Whole numbers that went through a float (pandas does that where some are missing) are written whole.
        whole = f"{column} = trunc({column}) AND abs({column}) < 1e15"
        return f"CASE WHEN {whole} THEN {column}::BIGINT::VARCHAR ELSE {column}::VARCHAR END"
    return f"{column}::VARCHAR"


def _insert_records(scratch: Scratch, files: Files, one: Readable, staged: Staged) -> None:
    """The exact way: each record with its raw text, the broken ones marked."""
    csv.field_size_limit(sys.maxsize)
    width = len(staged.text)
    records: Iterator[Record]
    if one.format == "csv":
        records = islice(csv_records(one.path, files.encoding, files.delimiter), 1, None)
        schema = pa.schema([(name, pa.string()) for name in ("_broken", "_raw", *staged.text.values())])
    else:
        records = line_records(one.path, files.encoding)
        schema = pa.schema([("broken", pa.string()), ("line", pa.string())])

    def row(record: Record) -> tuple[str | None, ...]:
        if one.format == "jsonl":
            return record.broken, record.raw
        fields: list[str | None] = [*record.fields[:width]]
        return record.broken, record.raw, *fields, *[None] * (width - len(fields))

    def batches() -> Iterator[pa.RecordBatch]:
        while chunk := [row(record) for record in islice(records, _BATCH)]:
            columns = list(zip(*chunk, strict=True))
            yield pa.record_batch([pa.array(column, pa.string()) for column in columns], schema=schema)

    with scratch.arrow(pa.RecordBatchReader.from_batches(schema, batches())) as rows:
        if one.format == "csv":
            scratch.connection.execute(f"INSERT INTO {staged.table} SELECT {one.number}, * FROM {rows}")
            return
        fields = _json_fields(f"SELECT {one.number} AS _place, * FROM {rows}", staged)
        scratch.connection.execute(f"INSERT INTO {staged.table} {fields}")


def json_keys(connection: duckdb.DuckDBPyConnection, staged: Staged) -> list[str]:
    """Every key that the staged JSON lines hold."""
    found = connection.execute(
        f"SELECT DISTINCT unnest(json_keys(_raw)) FROM {staged.table} WHERE _broken IS NULL"
    ).fetchall()
    return sorted(row[0] for row in found)


def raw_rows(files: Files, one: Readable, ordinals: Sequence[int]) -> Iterator[tuple[int, str, list[str]]]:
    """(position in the file from 0, text as received, fields) of the rows at these positions, in order."""
    wanted = iter(ordinals)
    following = next(wanted, None)
    for position, record in enumerate(islice(csv_records(one.path, files.encoding, files.delimiter), 1, None)):
        if following is None:
            return
        if position == following:
            yield position, record.raw, record.fields
            following = next(wanted, None)


def _first_line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def by_header(readable: Sequence[Readable]) -> list[list[Readable]]:
    """Files that can be read together."""
    groups: dict[tuple[Format, tuple[str, ...]], list[Readable]] = defaultdict(list)
    for one in readable:
        groups[one.format, one.header].append(one)
    return list(groups.values())


def fields_as_json(whole: Mapping[str, str]) -> str:
    """SQL for a staged row's columns as a JSON object."""
    pairs = ", ".join(f"{as_literal(name)}, {column}" for name, column in whole.items())
    return f"CAST(json_object({pairs}) AS VARCHAR)"

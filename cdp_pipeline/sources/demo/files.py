"""Writes the demo company's files: rows in, dirt on top, bytes out, and what truth has to know about them noted."""

from __future__ import annotations

import gzip
import sqlite3
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cdp_pipeline.sources.demo.clock import Day
from cdp_pipeline.sources.demo.dirt import LOST, choose, lasting_draw, misspell, spoil_cells, spoil_lines
from cdp_pipeline.sources.demo.feeds import FEEDS, Feed, Rows
from cdp_pipeline.sources.demo.text import Numbers, Text, constant, join, timestamps
from cdp_pipeline.sources.demo.truth import DirtLedger, Evidence

_NUMBERS = {"csat": pa.int64(), "agent_minutes": pa.int64(), "minutes": pa.int64()}


class Files:
    """Writes rows into the files of the day, with dirt, and remembers what truth has to know about them."""

    def __init__(self, folder: Path, seed: int, days: int, evidence: Evidence, dirt: DirtLedger) -> None:
        self.folder, self.seed, self.days = folder, seed, days
        self.evidence, self.dirt = evidence, dirt
        self.rows = dict.fromkeys(FEEDS, 0)
        self.written: list[str] = []
        self._late: dict[int, list[tuple[Feed, Rows]]] = {}
        self._open: dict[str, Any] = {}
        self._calls = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._database = _new_database(folder / "shop.sqlite")

    def start(self, day: Day) -> None:
        """Open the day's files; every feed but the CRM's monthly copies has one, if only with its header."""
        self.day = day
        for feed in FEEDS.values():
            if not feed.path.endswith(".sqlite") and not feed.name.startswith("crm_"):
                self._file(feed)
        for feed, rows in self._late.pop(day.number, []):
            self.dirt.add("late", feed.name, self._path(feed), feed.dirt["late"], len(rows))
            self._write(feed, rows)

    def emit(self, name: str, columns: dict[str, Any], person: Numbers, mask: Numbers) -> None:
        """Sort a batch by time, dirty it at the feed's rates, note its evidence and write it."""
        feed = FEEDS[name]
        if not len(person):
            return
        missing = [column for column in feed.columns if column not in columns]
        rows = Rows({**columns, **{c: pa.nulls(len(person), pa.string()) for c in missing}}, person, mask)
        if feed.time:
            rows = rows.take(np.argsort(columns[feed.time], kind="stable"))
        self._calls += 1
        rng = np.random.default_rng([self.seed, 3, self.day.number, zlib.crc32(name.encode()), self._calls])
        draw = lasting_draw(rows, self.seed) if feed.lasting else rng.random(len(rows))
        kinds = choose(feed, rows, draw)
        misspell(feed, rows, kinds, draw)

        late = np.flatnonzero(kinds == "late")
        if len(late):
            arrival = self.day.number + rng.integers(1, 4, len(late))
            for target in np.unique(arrival[arrival < self.days]):
                delayed = rows.take(late[arrival == target])
                self.evidence.record(delayed.person, delayed.mask)
                self._late.setdefault(int(target), []).append((feed, delayed))
            stays = kinds != "late"
            rows, kinds = rows.take(np.flatnonzero(stays)), kinds[stays]
        kept = ~np.isin(kinds, LOST)
        self.evidence.record(rows.person[kept], rows.mask[kept])
        twice = np.sort(np.concatenate([np.arange(len(rows)), np.flatnonzero(kinds == "duplicate")]))
        kinds = np.where(np.diff(twice, prepend=-1) == 0, "", kinds[twice])
        for kind in feed.dirt:
            self.dirt.add(kind, name, self._path(feed), feed.dirt[kind], int((kinds == kind).sum()))
        self._write(feed, rows.take(twice) if len(twice) > len(rows) else rows, kinds)

    def emit_clean(self, name: str, columns: dict[str, Any], person: Numbers, mask: Numbers) -> None:
        """Write a batch of a feed without dirt as it is, and note its evidence."""
        if len(person):
            self.evidence.record(person, mask)
            self._write(FEEDS[name], Rows(columns, person, mask))

    def finish_day(self) -> None:
        for name in [name for name in self._open if FEEDS[name].daily]:
            self._open.pop(name).close()

    def close(self) -> None:
        for out in self._open.values():
            out.close()
        self._database.commit()
        self._database.close()

    def products(self, rows: list[tuple[Any, ...]]) -> None:
        self._database.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _path(self, feed: Feed) -> str:
        return feed.path.format(day=self.day.date.isoformat())

    def _columns(self, feed: Feed) -> tuple[str, ...]:
        """A feed with an extra column starts to deliver it, unannounced, after three fifths of the days."""
        return (*feed.columns, feed.extra) if feed.extra and self.day.number >= self.days * 3 // 5 else feed.columns

    def _file(self, feed: Feed) -> Any:
        if feed.name not in self._open:
            path = self._path(feed)
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            self.written.append(path)
            if path.endswith(".parquet"):
                schema = pa.schema([(column, _type(feed, column)) for column in feed.columns])
                self._open[feed.name] = pq.ParquetWriter(self.folder / path, schema, compression="zstd")
            else:
                self._open[feed.name] = _TextFile(self.folder / path)
                if feed.csv:
                    self._open[feed.name].write((feed.delimiter.join(self._columns(feed)) + "\n").encode())
        return self._open[feed.name]

    def _write(self, feed: Feed, rows: Rows, kinds: Numbers | None = None) -> None:
        self.rows[feed.name] += len(rows)
        spelled = dict(rows.columns)
        if feed.path.endswith(".parquet"):
            spelled[feed.time] = pa.array(spelled[feed.time] * 1_000_000).cast(pa.timestamp("us", "UTC"))
            schema = pa.schema([(column, _type(feed, column)) for column in feed.columns])
            self._file(feed).write_table(pa.table({c: _as(spelled[c], schema.field(c).type) for c in feed.columns}))
            return
        if feed.time:
            spelled[feed.time] = _spell_time(feed, self.day, spelled[feed.time])
        if feed.path.endswith(".sqlite"):
            holes = ", ".join("?" * len(feed.columns))
            table = [spelled[c].to_pylist() for c in feed.columns]
            self._database.executemany(f"INSERT INTO {feed.name} VALUES ({holes})", zip(*table, strict=True))
            return
        if kinds is not None:
            spoil_cells(feed, spelled, kinds)
        columns = self._columns(feed)
        if feed.extra in columns and feed.extra not in spelled:
            spelled[feed.extra] = constant("", len(rows))
        lines = _csv_lines(feed, columns, spelled) if feed.csv else _json_lines(feed, spelled)
        if kinds is not None:
            lines = spoil_lines(feed, lines, kinds)
        self._file(feed).write(_bytes_of(lines))


class _TextFile:
    """A text file, gzipped when its name says so, with the same bytes every time."""

    def __init__(self, path: Path) -> None:
        self._raw: BinaryIO = path.open("wb")
        self._out: Any = self._raw
        if path.suffix == ".gz":
            self._out = gzip.GzipFile("", "wb", compresslevel=3, fileobj=self._raw, mtime=0)

    def write(self, data: Any) -> None:
        self._out.write(data)

    def close(self) -> None:
        if self._out is not self._raw:
            self._out.close()
        self._raw.close()


def _new_database(path: Path) -> sqlite3.Connection:
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.executescript(
        """
        PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
        CREATE TABLE products (sku TEXT PRIMARY KEY, product_name TEXT, category TEXT, brand TEXT, price NUMERIC,
                               smart INTEGER, warranty_months INTEGER, launched_on TEXT, stock INTEGER);
        CREATE TABLE warranties (warranty_id TEXT PRIMARY KEY, registered_at TEXT, serial_number TEXT, email TEXT,
                                 phone TEXT, sku TEXT, category TEXT, ends_on TEXT);
        CREATE TABLE price_notices (notice_id TEXT PRIMARY KEY, announced_at TEXT, customer_id TEXT, email TEXT,
                                    plan TEXT, old_price NUMERIC, new_price NUMERIC, valid_from TEXT);
        """
    )
    return database


def _spell_time(feed: Feed, day: Day, epoch: Numbers) -> Text:
    if not feed.store_clock:
        return timestamps(epoch)
    wall = pa.array(epoch + day.shop_hours_offset).cast(pa.timestamp("s")).cast(pa.string())
    year, month, date = (pc.utf8_slice_codeunits(wall, *at) for at in ((0, 4), (5, 7), (8, 10)))
    return join(date, "/", month, "/", year, pc.utf8_slice_codeunits(wall, 10, 19))


def _csv_lines(feed: Feed, columns: tuple[str, ...], spelled: dict[str, Any]) -> Text:
    cells: list[Any] = []
    for column in columns:
        cell = _as(spelled[column], pa.string()).fill_null("")
        if column in feed.quoted:
            cell = join('"', pc.replace_substring(cell, '"', '""'), '"')
        cells += [feed.delimiter, cell]
    return join(*cells[1:], "\n")


def _json_lines(feed: Feed, spelled: dict[str, Any]) -> Text:
    """One object a line; what is unknown is left out. The first column is never unknown."""
    first, *others = feed.columns
    parts: list[Any] = [f'{{"{first}":"', spelled[first].fill_null(""), '"']
    for column in others:
        cell = _as(spelled[column], pa.string())
        if column in feed.bare:
            parts.append(join(f',"{column}":', cell).fill_null(""))
        else:
            if column == "text":
                cell = pc.replace_substring(cell, '"', '\\"')
            parts.append(join(f',"{column}":"', cell, '"').fill_null(""))
    return join(*parts, "}\n")


def _bytes_of(lines: pa.Array) -> Any:
    """The lines one after the other: just the buffer the column lies in."""
    if isinstance(lines, pa.ChunkedArray):
        lines = lines.combine_chunks()
    offsets = np.frombuffer(lines.buffers()[1], np.int32)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(lines.buffers()[2])[int(offsets[0]) : int(offsets[-1])]


def _type(feed: Feed, column: str) -> pa.DataType:
    return pa.timestamp("us", "UTC") if column == feed.time else _NUMBERS.get(column, pa.string())


def _as(values: Any, type_: pa.DataType) -> pa.Array:
    values = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    return values if values.type == type_ else values.cast(type_)

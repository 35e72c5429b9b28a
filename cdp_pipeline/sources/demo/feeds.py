"""The files the demo company exports: their formats, their dirt, and the writing of a day's rows into them.

What the rows say is decided by the behaviours (web, stores, crm, service, marketing).
"""

from __future__ import annotations

import gzip
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cdp_pipeline.sources.demo.clock import Day
from cdp_pipeline.sources.demo.people import CONTACT_AGAIN, EMAILS, PHONE, bits
from cdp_pipeline.sources.demo.text import Numbers, Text, constant, join, scramble, timestamps
from cdp_pipeline.sources.demo.truth import DirtLedger, Evidence

PLACEHOLDER_EMAIL, PLACEHOLDER_PHONE = "none@none.com", "0000000000"
LOST = ("broken_row", "impossible_time", "missing_key", "wrong_encoding")
_EMAIL_BITS = np.bitwise_or.reduce(bits(np.array(EMAILS)))
_PHONE_BITS = bits(PHONE) | bits(PHONE, borrowed=True)
_FILE_DIRT = {"broken_row": 0.0005, "impossible_time": 0.0003, "missing_key": 0.0003, "duplicate": 0.002, "late": 0.003}


@dataclass(frozen=True)
class Feed:
    """One exported table. Text columns are spelled by the caller; `time` holds seconds since 1970 until written.

    `bare` columns are numbers in JSON, `quoted` ones may hold a delimiter, `extra` is a column that comes later, and
    `lasting` dirt stays where it is from copy to copy.
    """

    name: str
    path: str
    key: str
    time: str
    columns: tuple[str, ...]
    dirt: Mapping[str, float] = field(default_factory=dict)
    bare: frozenset[str] = frozenset()
    quoted: frozenset[str] = frozenset()
    delimiter: str = ","
    store_clock: bool = False
    lasting: bool = False
    extra: str | None = None

    @property
    def daily(self) -> bool:
        return "{day}" in self.path

    @property
    def csv(self) -> bool:
        return ".csv" in self.path


def _columns(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FEEDS = {
    feed.name: feed
    for feed in (
        Feed(
            "web_events", "web_events/{day}.jsonl.gz", "event_id", "occurred_at",
            _columns(
                "event event_id occurred_at anonymous_id customer_id email session_id channel device page "
                "search_term sku category quantity amount utm_source utm_campaign"
            ),
            dirt={**_FILE_DIRT, "placeholder_email": 0.005, "email_variant": 0.03},
            bare=frozenset({"quantity", "amount"}),
        ),
        Feed(
            "shop_orders", "shop_orders/{day}.csv.gz", "order_id", "ordered_at",
            _columns(
                "order_id line ordered_at customer_id email phone given_name family_name city postcode country "
                "channel sku category quantity unit_price discount total order_total currency coupon status"
            ),
            dirt={
                **_FILE_DIRT, "wrong_encoding": 0.0005, "placeholder_email": 0.004, "placeholder_phone": 0.004,
                "email_variant": 0.03,
            },
            extra="gift_note",
        ),
        Feed(
            "returns", "returns/{day}.csv", "return_id", "returned_at",
            _columns(
                "return_id returned_at order_id line customer_id email sku category quantity refund reason"
            ),
            dirt={"broken_row": 0.002, "duplicate": 0.004, "late": 0.01},
        ),
        Feed(
            "pos_receipts", "pos_receipts/{day}.csv.gz", "receipt_id", "sold_at",
            _columns(
                "receipt_id line sold_at store till cashier loyalty_number email sku category quantity "
                "unit_price discount total receipt_total payment"
            ),
            dirt={**_FILE_DIRT, "wrong_encoding": 0.001, "placeholder_email": 0.02, "email_variant": 0.05},
            delimiter=";", store_clock=True,
        ),
        Feed(
            "crm_contacts", "crm_contacts/{day}.csv.gz", "contact_id", "updated_at",
            _columns(
                "contact_id customer_id loyalty_number given_name family_name email phone birth_date gender "
                "language city postcode country account_id loyalty_tier email_consent sms_consent created_on "
                "updated_at"
            ),
            dirt={
                "broken_row": 0.0003, "wrong_encoding": 0.0005, "duplicate": 0.001, "impossible_birth_date": 0.003,
                "placeholder_email": 0.01, "placeholder_phone": 0.01, "email_variant": 0.08,
            },
            lasting=True,
        ),
        Feed(
            "crm_accounts", "crm_accounts/{day}.csv", "account_id", "",
            _columns("account_id account_name industry employees city country payment_terms"),
            quoted=frozenset({"account_name"}),
        ),
        Feed(
            "warranties", "shop.sqlite", "warranty_id", "registered_at",
            _columns("warranty_id registered_at serial_number email phone sku category ends_on"),
            dirt={"placeholder_phone": 0.02, "email_variant": 0.05},
        ),
        Feed(
            "tickets", "tickets/{day}.parquet", "ticket_id", "happened_at",
            _columns(
                "ticket_id event happened_at customer_id email phone contact_channel topic priority csat agent_minutes"
            ),
            dirt={
                "missing_key": 0.001, "duplicate": 0.003, "late": 0.005, "placeholder_phone": 0.03,
                "email_variant": 0.05,
            },
        ),
        Feed(
            "surveys", "surveys/{day}.csv", "survey_id", "answered_at",
            _columns("survey_id survey answered_at email score comment"),
            dirt={"broken_row": 0.003, "duplicate": 0.005}, quoted=frozenset({"comment"}),
        ),
        Feed(
            "reviews", "reviews.jsonl.gz", "review_id", "written_at",
            _columns("review_id written_at customer_id sku category stars text"),
            dirt={"duplicate": 0.005}, bare=frozenset({"stars"}),
        ),
        Feed(
            "iot_events", "iot_events/{day}.jsonl.gz", "event_id", "reported_at",
            _columns("event event_id reported_at serial_number customer_id email alarm battery"),
            dirt={"broken_row": 0.001, "missing_key": 0.001, "duplicate": 0.01, "late": 0.02},
            bare=frozenset({"battery"}),
        ),
        Feed(
            "messages", "messages/{day}.parquet", "message_id", "happened_at",
            _columns("message_id event happened_at medium campaign customer_id email phone arm"),
            dirt={"duplicate": 0.001, "late": 0.002},
        ),
        Feed(
            "consents", "consents/{day}.csv", "consent_id", "happened_at",
            _columns("consent_id event happened_at email phone subject granted wording"),
            dirt={"duplicate": 0.004, "email_variant": 0.05},
        ),
        Feed(
            "ad_spend", "ad_spend.csv", "campaign", "",
            _columns("spent_on platform campaign impressions clicks cost"),
        ),
        Feed(
            "referrals", "referrals.csv", "referral_id", "referred_at",
            _columns("referral_id referred_at customer_id friend_email"),
        ),
        Feed(
            "store_visits", "store_visits/{day}.parquet", "visit_id", "entered_at",
            _columns("visit_id entered_at store anonymous_id minutes"), dirt={"duplicate": 0.003},
        ),
    )
}  # fmt: skip
_NUMBERS = {"csat": pa.int64(), "agent_minutes": pa.int64(), "minutes": pa.int64()}


@dataclass
class Rows:
    """Rows of one feed. `person` and `mask` say which person's identifiers a row really shows (mask 0: nobody's)."""

    columns: dict[str, Any]
    person: Numbers
    mask: Numbers

    def __len__(self) -> int:
        return len(self.person)

    def take(self, index: Numbers) -> Rows:
        at = pa.array(index)
        columns = {
            name: values[index] if isinstance(values, np.ndarray) else values.take(at)
            for name, values in self.columns.items()
        }
        return Rows(columns, self.person[index], self.mask[index])


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
        draw = _lasting_draw(rows, self.seed) if feed.lasting else rng.random(len(rows))
        kinds = _choose(feed, rows, draw)
        _misspell(feed, rows, kinds, draw)

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

    def finish_day(self) -> None:
        for name in [name for name in self._open if FEEDS[name].daily]:
            self._open.pop(name).close()

    def close(self) -> None:
        for out in self._open.values():
            out.close()
        self._database.commit()
        self._database.close()

    def products(self, rows: list[tuple[Any, ...]]) -> None:
        self._database.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

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
            _spoil_cells(feed, spelled, kinds)
        columns = self._columns(feed)
        if feed.extra in columns and feed.extra not in spelled:
            spelled[feed.extra] = constant("", len(rows))
        lines = _csv_lines(feed, columns, spelled) if feed.csv else _json_lines(feed, spelled)
        if kinds is not None:
            lines = _spoil_lines(feed, lines, kinds)
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
                               smart INTEGER, warranty_months INTEGER, launched_on TEXT);
        CREATE TABLE warranties (warranty_id TEXT PRIMARY KEY, registered_at TEXT, serial_number TEXT, email TEXT,
                                 phone TEXT, sku TEXT, category TEXT, ends_on TEXT);
        """
    )
    return database


def _lasting_draw(rows: Rows, seed: int) -> Numbers:
    """A number between 0 and 1 that a contact keeps from one copy of the CRM to the next."""
    entry = rows.person * 2 + (rows.mask >> CONTACT_AGAIN & 1)
    return scramble(entry, seed + 18) / 2.0**64


def _choose(feed: Feed, rows: Rows, draw: Numbers) -> Numbers:
    """At most one kind of dirt per row, each at its declared rate; '' is clean."""
    names = np.array([*feed.dirt, ""], dtype="U24")
    kinds = names[np.searchsorted(np.cumsum(list(feed.dirt.values())), draw, side="right")]
    for kind, column in (("placeholder_email", "email"), ("email_variant", "email"), ("placeholder_phone", "phone")):
        if kind in feed.dirt:
            kinds[(kinds == kind) & rows.columns[column].is_null().to_numpy(False)] = ""
    return kinds


def _misspell(feed: Feed, rows: Rows, kinds: Numbers, draw: Numbers) -> None:
    for kind, column, word, said in (
        ("placeholder_email", "email", PLACEHOLDER_EMAIL, _EMAIL_BITS),
        ("placeholder_phone", "phone", PLACEHOLDER_PHONE, _PHONE_BITS),
    ):
        chosen = kinds == kind
        if chosen.any():
            rows.columns[column] = pc.if_else(pa.array(chosen), word, rows.columns[column])
            rows.mask = np.where(chosen, rows.mask & ~said, rows.mask)
    variants = np.flatnonzero(kinds == "email_variant")
    if len(variants):
        plain = rows.columns["email"].take(pa.array(variants))
        style = pa.array((draw[variants] * 1e9).astype(np.int64) % 3)
        spelled = pc.choose(style, pc.utf8_upper(plain), pc.utf8_capitalize(plain), join(" ", plain, " "))
        rows.columns["email"] = pc.replace_with_mask(rows.columns["email"], pa.array(kinds == "email_variant"), spelled)
    births = kinds == "impossible_birth_date"
    if births.any():
        rows.columns["birth_date"] = pc.if_else(pa.array(births), "1980-02-31", rows.columns["birth_date"])
    if not feed.csv and not feed.path.endswith(".gz") and (kinds == "missing_key").any():
        _spoil_cells(feed, rows.columns, kinds)


def _spoil_cells(feed: Feed, spelled: dict[str, Any], kinds: Numbers) -> None:
    for kind, column, word in (("missing_key", feed.key, None), ("impossible_time", feed.time, "impossible")):
        chosen = kinds == kind
        if chosen.any():
            shown = word and ("31/02/2026 10:00:00" if feed.store_clock else "2026-02-30T10:00:00Z")
            spelled[column] = pc.if_else(pa.array(chosen), pa.scalar(shown, pa.string()), spelled[column])


def _spoil_lines(feed: Feed, lines: Text, kinds: Numbers) -> pa.Array:
    """Cut rows off in the middle, or write a name in Latin-1 into a UTF-8 file."""
    spoiled = np.flatnonzero((kinds == "broken_row") | (kinds == "wrong_encoding"))
    if not len(spoiled):
        return lines
    lines = lines.cast(pa.binary())
    replacements = []
    for index in spoiled:
        line = lines[index].as_py()
        if kinds[index] == "broken_row":
            replacements.append(line[: len(line) // 2].rstrip(feed.delimiter.encode()) + b"\n")
        else:
            cells = line.split(feed.delimiter.encode())
            cells[feed.columns.index("cashier" if feed.name == "pos_receipts" else "family_name")] = "Brontë".encode(
                "latin-1"
            )
            replacements.append(feed.delimiter.encode().join(cells))
    return pc.replace_with_mask(
        lines, pa.array(np.isin(np.arange(len(lines)), spoiled)), pa.array(replacements, pa.binary())
    )


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

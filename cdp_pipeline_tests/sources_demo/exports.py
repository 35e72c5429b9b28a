"""Reads the demo company's exports the slow and obvious way: plain Python, line by line, no pipeline code.

It is the oracle the generator's truth is held against.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq

from cdp_pipeline.sources.demo import DemoSummary
from cdp_pipeline.sources.demo.feeds import FEEDS

LONDON = ZoneInfo("Europe/London")
NOBODYS = {  # (column, as typed): which kind of dirt that is
    ("email", "none@none.com"): "placeholder_email",
    ("email", "shop@example.com"): "role_email",
    ("email", "till2@example.com"): "role_email",
    ("email", "kiosk1@example.com"): "role_email",
    ("email", "info@example.com"): "role_email",
    ("phone", "0000000000"): "placeholder_phone",
    ("phone", "0808 157 0020"): "call_centre_phone",
    ("phone", "0808 157 0021"): "call_centre_phone",
    ("customer_id", "null"): "hard_coded_id",
    ("customer_id", "0"): "hard_coded_id",
    ("customer_id", "undefined"): "hard_coded_id",
    ("anonymous_id", "00000000-0000-0000-0000-000000000000"): "zero_cookie",
}
KEYS = {
    "web_events": ("event_id", "occurred_at"), "shop_orders": ("order_id", "ordered_at"),
    "returns": ("return_id", "returned_at"), "pos_receipts": ("receipt_id", "sold_at"),
    "crm_contacts": ("contact_id", "updated_at"), "crm_accounts": ("account_id", None),
    "tickets": ("ticket_id", "happened_at"), "surveys": ("survey_id", "answered_at"),
    "reviews": ("review_id", "written_at"), "iot_events": ("event_id", "reported_at"),
    "messages": ("message_id", "happened_at"), "consents": ("consent_id", "happened_at"),
    "ad_spend": ("campaign", "spent_on"), "referrals": ("referral_id", "referred_at"),
    "store_visits": ("visit_id", "entered_at"), "warranties": ("warranty_id", "registered_at"),
    "price_notices": ("notice_id", "announced_at"),
}  # fmt: skip
IDENTIFIERS = {
    "customer_id": "customer_id", "email": "email", "phone": "phone", "loyalty_number": "loyalty_number",
    "anonymous_id": "anonymous_id", "contact_id": "crm_contact_id",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row as it lies in a file: its cells, or why it cannot be used (`fault`), and the bytes it was read from."""

    source: str
    file: str
    cells: dict[str, object]
    fault: str | None
    raw: object


def instant(source: str, text: object) -> datetime | None:
    if isinstance(text, datetime):
        return text
    try:
        if source == "pos_receipts":
            return datetime.strptime(str(text), "%d/%m/%Y %H:%M:%S").replace(tzinfo=LONDON)
        return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None


def _fault(source: str, cells: dict[str, object]) -> str | None:
    key, time = KEYS[source]
    if not cells.get(key):
        return "missing_key"
    if time and instant(source, cells.get(time)) is None:
        return "impossible_time"
    return None


def _text_rows(source: str, path: Path, file: str) -> Iterator[Row]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = data.split(b"\n")
    assert lines.pop() == b"", f"{file} does not end with a line end"
    delimiter = ";" if source == "pos_receipts" else ","
    header: list[str] | None = None
    for raw in lines:
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            broken = raw.count(delimiter.encode()) + 1 < len(header or [])
            yield Row(source, file, {}, "broken_row" if broken else "wrong_encoding", raw)
            continue
        if ".csv" in file:
            values = next(csv.reader([line], delimiter=delimiter))
            if header is None:
                header = values
                continue
            if len(values) != len(header):
                yield Row(source, file, {}, "broken_row", raw)
                continue
            cells: dict[str, object] = dict(zip(header, values, strict=True))
        else:
            try:
                cells = json.loads(line)
            except json.JSONDecodeError:
                yield Row(source, file, {}, "broken_row", raw)
                continue
        yield Row(source, file, cells, _fault(source, cells), raw)


def header(path: Path) -> list[str]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return re.split("[,;]", data.split(b"\n", 1)[0].decode())


@dataclass
class Company:
    """One generated folder and everything in it."""

    summary: DemoSummary

    @property
    def folder(self) -> Path:
        return self.summary.folder

    @cached_property
    def rows(self) -> list[Row]:
        return [row for source in KEYS for row in self._read(source)]

    def of(self, source: str) -> list[Row]:
        return [row for row in self._read(source) if row.fault is None]

    def truth(self, name: str) -> list[dict[str, str]]:
        with (self.folder / "truth" / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    @cached_property
    def person_of(self) -> dict[tuple[str, str], int]:
        return {(r["type"], r["value"]): int(r["person"]) for r in self.truth("identifiers") if r["person"]}

    def _read(self, source: str) -> Iterator[Row]:
        feed = FEEDS[source]
        for path in sorted(self.folder.glob(feed.path.format(day="*"))):
            file = path.relative_to(self.folder).as_posix()
            if path.suffix == ".sqlite":
                with sqlite3.connect(path) as database:
                    database.row_factory = sqlite3.Row
                    for found in database.execute(f"SELECT * FROM {source}"):
                        yield Row(source, file, dict(found), _fault(source, dict(found)), tuple(found))
            elif path.suffix == ".parquet":
                for cells in pq.read_table(path).to_pylist():
                    yield Row(source, file, cells, _fault(source, cells), tuple(cells.values()))
            else:
                yield from _text_rows(source, path, file)


def normalised(column: str, value: object) -> str | None:
    """What an identifier becomes, by the simplest rules that hold for British data; None where it says nobody."""
    text = str(value or "").strip()
    if not text or (column, text) in NOBODYS:
        return None
    if column == "email":
        return text.lower()
    if column == "phone":
        return "+44" + text.replace(" ", "").removeprefix("+44").removeprefix("0")
    return text


def identifiers(row: Row) -> list[tuple[str, str]]:
    found = ((kind, normalised(column, row.cells.get(column))) for column, kind in IDENTIFIERS.items())
    return [(kind, value) for kind, value in found if value is not None]


def counted_dirt(rows: list[Row]) -> Counter[tuple[str, str, str]]:
    """(kind, source, file) as one finds them by looking at the files alone."""
    found: Counter[tuple[str, str, str]] = Counter()
    previous: Row | None = None
    for row in rows:

        def note(kind: str, row: Row = row) -> None:
            found[kind, row.source, row.file] += 1

        if previous is not None and previous.file == row.file and previous.raw == row.raw:
            note("duplicate")
            continue
        previous = row
        if row.fault:
            note(row.fault)
            continue
        email = str(row.cells.get("email") or "")
        if email != email.strip().lower():
            note("email_variant")
        for column in ("email", "phone", "customer_id", "anonymous_id"):
            kind = NOBODYS.get((column, str(row.cells.get(column))))
            if kind is not None:
                note(kind)
        if row.cells.get("birth_date") == "1980-02-31":
            note("impossible_birth_date")
        day = re.search(r"\d{4}-\d\d-\d\d", row.file)
        time = KEYS[row.source][1]
        if day and time and row.source != "crm_contacts":
            when = instant(row.source, row.cells[time])
            assert when is not None
            if when.astimezone(LONDON).date() != date.fromisoformat(day[0]):
                note("late")
    return found


class Groups:
    """Union and find, the schoolbook way."""

    def __init__(self) -> None:
        self.parent: dict[object, object] = {}

    def find(self, item: object) -> object:
        self.parent.setdefault(item, item)
        while self.parent[item] != item:
            item = self.parent[item]
        return item

    def join(self, one: object, other: object) -> None:
        self.parent[self.find(one)] = self.find(other)

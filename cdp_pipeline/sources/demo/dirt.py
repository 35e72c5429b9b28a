"""Dirt: which rows get which kind, and what it does to them. At most one kind per row, so that each can be counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdp_pipeline.sources.demo.feeds import Feed, Rows
from cdp_pipeline.sources.demo.people import CONTACT_AGAIN, COOKIES, CUSTOMER, CUSTOMER_AGAIN, EMAILS, PHONE, bits
from cdp_pipeline.sources.demo.text import Numbers, Text, join, pick, scramble

LOST = ("broken_row", "impossible_time", "missing_key", "wrong_encoding")
_EMAIL_BITS = np.bitwise_or.reduce(bits(np.array(EMAILS)))
_PHONE_BITS = bits(PHONE) | bits(PHONE, borrowed=True)
_CUSTOMER_BITS = bits(CUSTOMER) | bits(CUSTOMER_AGAIN)
_COOKIE_BITS = np.bitwise_or.reduce(bits(np.array(COOKIES)) | bits(np.array(COOKIES), borrowed=True))
_NO_COOKIE = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class Planted:
    """Values that stand where a person's own should: as typed, as the pipeline normalises them, and what they are."""

    column: str
    said: Numbers  # the bits of what they hide
    values: Mapping[str, str]
    why: str


PLANTED = {
    "placeholder_email": Planted(
        "email", _EMAIL_BITS, {"none@none.com": "none@none.com"}, "placeholder that names nobody"
    ),
    "placeholder_phone": Planted(
        "phone", _PHONE_BITS, {"0000000000": "+44000000000"}, "placeholder that names nobody"
    ),
    "role_email": Planted(
        "email", _EMAIL_BITS,
        {email: email for email in ("shop@example.com", "till2@example.com", "kiosk1@example.com", "info@example.com")},
        "mailbox of a store, typed at its till or kiosk",
    ),
    "call_centre_phone": Planted(
        "phone", _PHONE_BITS, {"0808 157 0020": "+448081570020", "0808 157 0021": "+448081570021"},
        "line of the call centre, noted instead of the caller's",
    ),
    "hard_coded_id": Planted(
        "customer_id", _CUSTOMER_BITS, {word: word for word in ("null", "0", "undefined")}, "left in by a programmer"
    ),
    "zero_cookie": Planted(
        "anonymous_id", _COOKIE_BITS, {_NO_COOKIE: _NO_COOKIE}, "browser that keeps no cookies"
    ),
}  # fmt: skip


def lasting_draw(rows: Rows, seed: int) -> Numbers:
    """A number between 0 and 1 that a contact keeps from one copy of the CRM to the next."""
    entry = rows.person * 2 + (rows.mask >> CONTACT_AGAIN & 1)
    return scramble(entry, seed + 18) / 2.0**64


def choose(feed: Feed, rows: Rows, draw: Numbers) -> Numbers:
    """At most one kind of dirt per row, each at its declared rate; '' is clean."""
    names = np.array([*feed.dirt, ""], dtype="U24")
    kinds = names[np.searchsorted(np.cumsum(list(feed.dirt.values())), draw, side="right")]
    columns = {kind: planted.column for kind, planted in PLANTED.items()} | {"email_variant": "email"}
    for kind, column in columns.items():
        if kind in feed.dirt:
            kinds[(kinds == kind) & rows.columns[column].is_null().to_numpy(False)] = ""
    return kinds


def misspell(feed: Feed, rows: Rows, kinds: Numbers, draw: Numbers) -> None:
    for kind, planted in PLANTED.items():
        chosen = kinds == kind
        if chosen.any():
            words = pick(list(planted.values), (draw * 1e9).astype(np.int64) % len(planted.values))
            rows.columns[planted.column] = pc.if_else(pa.array(chosen), words, rows.columns[planted.column])
            rows.mask = np.where(chosen, rows.mask & ~planted.said, rows.mask)
    variants = np.flatnonzero(kinds == "email_variant")
    if len(variants):
        plain = rows.columns["email"].take(pa.array(variants))
        style = pa.array((draw[variants] * 1e9).astype(np.int64) % 3)
        spelled = pc.choose(style, pc.utf8_upper(plain), pc.utf8_capitalize(plain), join(" ", plain, " "))
        rows.columns["email"] = pc.replace_with_mask(rows.columns["email"], pa.array(kinds == "email_variant"), spelled)
    births = kinds == "impossible_birth_date"
    if births.any():
        rows.columns["birth_date"] = pc.if_else(pa.array(births), "1980-02-31", rows.columns["birth_date"])
    if not feed.text and (kinds == "missing_key").any():
        spoil_cells(feed, rows.columns, kinds)


def spoil_cells(feed: Feed, spelled: dict[str, Any], kinds: Numbers) -> None:
    for kind, column, word in (("missing_key", feed.key, None), ("impossible_time", feed.time, "impossible")):
        chosen = kinds == kind
        if chosen.any():
            shown = word and ("31/02/2026 10:00:00" if feed.store_clock else "2026-02-30T10:00:00Z")
            spelled[column] = pc.if_else(pa.array(chosen), pa.scalar(shown, pa.string()), spelled[column])


def spoil_lines(feed: Feed, lines: Text, kinds: Numbers) -> pa.Array:
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

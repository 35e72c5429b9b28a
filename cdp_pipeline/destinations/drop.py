"""Files that are dropped where somebody picks them up: what stands in one and what it is called, wherever it goes.

A batch becomes one file for each sync or trigger in it. Every row carries the operation's id: after a lost answer a row
may stand in two files, and whoever takes each id once has each operation once.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from cdp_pipeline.activation.protocol import Closing, Delivery, Outcome, canonical_json
from cdp_pipeline.destinations.http import SHORTEST_TRY, untried
from cdp_pipeline.spec.destination import Drop

# What a spreadsheet takes for a formula. Numbers, also a telephone's, begin alike and are none.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d\s()./-]*$)")


@dataclass(frozen=True)
class Parcel:
    """One file: its name, what stands in it, and which operations that are."""

    name: str
    content: bytes
    op_ids: tuple[str, ...]


@dataclass(frozen=True)
class Trouble:
    """Why a file could not be put where it belongs, and how long to wait before the next try."""

    reason: str
    after: timedelta | None = None
    state: Literal["retry", "failed"] = "retry"
    refused_us: bool = False


def parcels(batch: Sequence[Delivery], format: Literal["csv", "jsonl"], day: date) -> list[Parcel]:
    """The files of a batch. The same operations on the same day have the same name: written twice, it is one file."""
    by_type: dict[str, list[Delivery]] = {}
    for delivery in batch:
        by_type.setdefault(str(delivery.payload.get("type") or "deliveries"), []).append(delivery)
    made = []
    for kind, some in by_type.items():
        op_ids = tuple(delivery.op_id for delivery in some)
        same = hashlib.sha256("\n".join(sorted(op_ids)).encode()).hexdigest()[:12]
        name = f"{re.sub(r'[^a-z0-9]+', '_', kind.lower())}_{day:%Y%m%d}_{same}.{format}"
        made.append(Parcel(name, _csv(some) if format == "csv" else _jsonl(some), op_ids))
    return made


def _jsonl(batch: Sequence[Delivery]) -> bytes:
    rows = ({**each.payload, "op_id": each.op_id, "action": each.kind} for each in batch)
    return "".join(canonical_json(row) + "\n" for row in rows).encode()


def _csv(batch: Sequence[Delivery]) -> bytes:
    """`_op_id`, `_action`, `_key` (of syncs) or `_occasion` (of triggers), then the mapped fields by their names."""
    about = [name for name in ("key", "occasion") if any(name in each.payload for each in batch)]
    data = [each.payload.get("data") for each in batch]
    fields = sorted({name for each in data if isinstance(each, Mapping) for name in each})
    text = io.StringIO()
    writer = csv.writer(text)  # Its line ends are RFC 4180's; with others it would leave a lone CR unquoted.
    writer.writerow(["_op_id", "_action", *(f"_{name}" for name in about), *fields])
    for delivery, values in zip(batch, data, strict=True):
        known = values if isinstance(values, Mapping) else {}
        cells = [delivery.payload.get(name) for name in about] + [known.get(name) for name in fields]
        writer.writerow([delivery.op_id, delivery.kind, *map(_cell, cells)])
    return text.getvalue().encode()


def _cell(value: object) -> str:
    """A value as text; what a spreadsheet would run gets a quote before it, which makes it text there as well."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return canonical_json({"": value})[4:-1]
    text = str(value)
    return f"'{text}" if isinstance(value, str) and _FORMULA.match(text) else text


class DropConnection(Closing):
    """Puts the files of a batch one after the other; a file arrives whole or not at all."""

    batch_size = 1000
    repeatable = True

    def __init__(self, spec: Drop) -> None:
        self._format = spec.format
        self._timeout = spec.timeout

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        started = time.monotonic()
        outcomes: dict[str, Outcome] = {}
        why, after = "no time left in this round", None
        for parcel in parcels(batch, self._format, now.date()):
            left = within - timedelta(seconds=time.monotonic() - started)
            if left < SHORTEST_TRY:
                break
            trouble = self._put(parcel, min(self._timeout, left), now)
            if trouble is None:
                outcomes |= {op_id: Outcome(op_id, "delivered", "written") for op_id in parcel.op_ids}
                continue
            # One attempt stands for the whole file; what would come after it is not tried.
            why, after = trouble.reason, trouble.after
            for op_id in parcel.op_ids if trouble.state == "failed" else parcel.op_ids[:1]:
                outcomes[op_id] = Outcome(op_id, trouble.state, why, after, refused_us=trouble.refused_us)
            break
        rest = [delivery for delivery in batch if delivery.op_id not in outcomes]
        outcomes |= {each.op_id: each for each in untried(rest, why, after)}
        return [outcomes[delivery.op_id] for delivery in batch]

    @abstractmethod
    def _put(self, parcel: Parcel, timeout: timedelta, now: datetime) -> Trouble | None:
        """Write one file so that nobody ever sees half of it; None where it is there."""

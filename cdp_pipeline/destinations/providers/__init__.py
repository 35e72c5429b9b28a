"""What mail providers tell of letters in words of their own: one file each, the Smtp destination's `provider`.

Each has `headers(op_id)`, what a letter carries so that its events name the operation; `genuine(key, callback)`,
whether the provider says it; and `told(callback)`, the reports in it. What follows is activation/receipts.py's.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

NAME = "cdp_op_id"
"""What the operation's id is called among the things a letter carries (Postmark allows twenty letters)."""


def objects(body: bytes | str) -> list[dict[str, Any]]:
    """The JSON objects a body is, one or a list of them; ValueError where it is something else."""
    said = json.loads(body)
    found = said if isinstance(said, list) else [said]
    if not all(isinstance(each, dict) for each in found):
        raise ValueError("an event is a JSON object")
    return found


def part(said: dict[str, Any], name: str) -> dict[str, Any]:
    """An object within an object; empty where there is none."""
    found = said.get(name)
    return found if isinstance(found, dict) else {}


def instant(given: object, heard: datetime) -> datetime:
    """A time as they write it (ISO 8601, or seconds since 1970), never later than it was heard."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        try:
            at = datetime.fromtimestamp(given, UTC)
        except (OverflowError, OSError):
            raise ValueError("an event's time is out of range") from None
    elif isinstance(given, str):
        at = datetime.fromisoformat(given)
    else:
        raise ValueError("an event says no time")
    return min(at if at.tzinfo else at.replace(tzinfo=UTC), heard)


def message_id(given: object) -> str:
    """The operation in a Message-ID of ours, `<operation@domain>`; empty where nothing is given."""
    return str(given or "").strip("<> ").rpartition("@")[0]

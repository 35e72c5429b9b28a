"""What comes back to the return path of letters: delivery status notifications (RFC 3464) and complaints (RFC 5965).

Fetching the mail, and what follows from a bounce, happens elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Literal

from cdp_pipeline.activation.receipts import Report

# The address does not exist, has moved, takes no mail at all, or is switched off: it will not work tomorrow either.
DEAD = {"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"}
COMPLAINTS = {"abuse", "fraud", "opt-out"}
_STATUS = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")


@dataclass(frozen=True)
class Bounce:
    """One recipient's fate.

    hard: the address is dead. soft: this letter did not arrive, another may. complaint: they want no more.
    `op_id` is the operation as the letter names it: anybody can write such a mail, so whoever acts on it first makes
    sure that the operation is known and was sent to this address. `status` is the enhanced code, empty for complaints.
    """

    kind: Literal["hard", "soft", "complaint"]
    op_id: str
    status: str
    address: str = field(repr=False)


def bounces(mail: bytes) -> list[Bounce]:
    """The bounces and complaints that a mail reports; a delay, a confirmation or an ordinary letter is none."""
    report = message_from_bytes(mail, policy=policy.compat32)
    parts = list(report.walk())
    original = _original(parts)
    by_type = {part.get_content_type(): part for part in reversed(parts)}
    if (status := by_type.get("message/delivery-status")) is not None:
        return list(_bounced(status, original))
    if (feedback := by_type.get("message/feedback-report")) is not None:
        return list(_complained(feedback, original))
    return []


def reports_of_mail(mail: bytes, now: datetime) -> list[Report]:
    """The same as receipts; of a mail without a readable date, as of now."""
    try:
        at = parsedate_to_datetime(str(message_from_bytes(mail, policy=policy.compat32)["Date"]))
    except (ValueError, TypeError):
        at = now
    at = min(at if at.tzinfo else at.replace(tzinfo=UTC), now)
    return [
        Report(
            one.op_id,
            "message_complained" if one.kind == "complaint" else "message_bounced",
            at,
            one.address or None,
            one.status or None,
            one.kind == "hard",
        )
        for one in bounces(mail)
    ]


def _blocks(part: Message) -> list[Message]:
    """The groups of fields a report consists of: of the letter first, then of each recipient."""
    payload = part.get_payload()
    return [block for block in payload if isinstance(block, Message)] if isinstance(payload, list) else []


def _bounced(status: Message, original: Message | None) -> Iterator[Bounce]:
    letter, *recipients = _blocks(status) or [Message()]
    op_id = _text(letter, "Original-Envelope-Id") or _op_id(original)
    for recipient in recipients:
        if _text(recipient, "Action").lower() != "failed":
            continue
        found = _STATUS.search(_text(recipient, "Status"))
        code = found[1] if found else ""
        if not code or code.endswith(".0.0"):
            # Some say only 'failed' here and the true code in the words of the other server.
            better = _STATUS.search(_text(recipient, "Diagnostic-Code"))
            code = better[1] if better else code
        address = _address(recipient, "Original-Recipient") or _address(recipient, "Final-Recipient")
        yield Bounce("hard" if code in DEAD else "soft", op_id, code, address)


def _complained(feedback: Message, original: Message | None) -> Iterator[Bounce]:
    for block in _blocks(feedback):
        if _text(block, "Feedback-Type").lower() in COMPLAINTS:
            to = _text(block, "Original-Rcpt-To") or (_text(original, "To") if original is not None else "")
            yield Bounce("complaint", _op_id(original), "", to.strip(" <>"))


def _original(parts: list[Message]) -> Message | None:
    """The letter that is reported on, whole or its headers alone."""
    for part in parts:
        if part.get_content_type() == "message/rfc822":
            return next(iter(_blocks(part)), None)
        if part.get_content_type() == "text/rfc822-headers":
            raw = part.get_payload(decode=True)
            return message_from_bytes(raw) if isinstance(raw, bytes) else None
    return None


def _text(block: Message, name: str) -> str:
    return " ".join(str(block.get(name, "")).split())


def _address(block: Message, name: str) -> str:
    """`rfc822; ann@example.com` without its type."""
    return _text(block, name).rpartition(";")[2].strip(" <>")


def _op_id(original: Message | None) -> str:
    """Our Message-IDs are made of the operation's id."""
    return _text(original, "Message-ID").strip("<>").rpartition("@")[0] if original is not None else ""

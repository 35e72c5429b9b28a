"""What became of messages after they left: sent, opened, clicked, bounced, complained about, unsubscribed from.

Kept beside the ledger, in a table that a source of the project reads, so that receipts are events of the timeline like
any others. Reading mail and links is the destinations' business; what a person permits afterwards is consent's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import sqlalchemy as sa

from cdp_pipeline.activation.ledger import Ledger, LedgerError, ledger_url, operation_id, utc
from cdp_pipeline.activation.protocol import AddressIs, Outcome
from cdp_pipeline.activation.schema import outbox, receipts
from cdp_pipeline.consent.ledger import ConsentLedger, Reason, Said, Suppression
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.reach import WAYS
from cdp_pipeline.spec.source import Source

Event = Literal[
    "message_sent", "message_delivered", "message_opened", "message_clicked", "message_bounced", "message_complained",
    "message_unsubscribed",
]  # fmt: skip
EVENTS: tuple[Event, ...] = get_args(Event)
ADDRESSES = {"email": "email", "sms": "phone", "phone": "phone", "whatsapp": "phone", "push": "push_token"}
"""Channel to the column (and type of identifier) that holds the address a message went to."""


@dataclass(frozen=True)
class Report:
    """Somebody says what became of a message. `op_id` is who they say it is about; an `address` has to fit it.

    `dead`: the address will not work tomorrow either. `detail`: a code, never words of the other side.
    """

    op_id: str
    event: Event
    at: datetime
    address: str | None = None
    detail: str | None = None
    dead: bool = False


def reads_receipts(source: Source, project: Project, base: Path) -> bool:
    """Whether the source reads the receipts of this project's own ledger."""
    if source.sql is None or source.sql.table != receipts.name:
        return False
    theirs, ours = (sa.make_url(url) for url in (source.sql.url, ledger_url(project, base)))
    if theirs.get_backend_name() == ours.get_backend_name() == "sqlite":
        return base.joinpath(theirs.database or "").resolve() == base.joinpath(ours.database or "").resolve()
    return (theirs.host, theirs.port, theirs.database) == (ours.host, ours.port, ours.database)


def note_sent(ledger: Ledger, project: Project, now: datetime) -> int:
    """Add `message_sent` for every message that reached a channel since the last time; how many those are."""
    channels = {name: spec.channel for name, spec in project.destinations.items() if spec.channel is not None}
    noted = sa.exists().where(receipts.c.op_id == outbox.c.op_id, receipts.c.event == "message_sent")
    sent = sa.select(*_ABOUT, outbox.c.updated_at).where(
        outbox.c.destination.in_(sorted(channels)), outbox.c.state == "delivered", outbox.c.kind == "act", ~noted
    )
    with ledger.writing("receipts") as connection:
        rows = [
            _row(row, channels[row.destination] or "", "message_sent", row.updated_at, now, None)
            for row in connection.execute(sent)
        ]
        if rows:
            connection.execute(receipts.insert(), rows)
    return len(rows)


def note_addresses(
    ledger: Ledger, consents: ConsentLedger, project: Project, outcomes: Iterable[Outcome], now: datetime
) -> None:
    """Write down what deliveries were told of addresses, as if a letter had come back."""
    events: dict[AddressIs, Event] = {"dead": "message_bounced", "unsubscribed": "message_unsubscribed"}
    told = [
        Report(one.op_id, events[one.address], now, detail=one.reason, dead=one.address == "dead")
        for one in outcomes
        if one.address is not None
    ]
    if told:
        note(ledger, consents, project, told, now)


def note(
    ledger: Ledger, consents: ConsentLedger, project: Project, reports: Iterable[Report], now: datetime
) -> Counter[str]:
    """Write down what is reported, each thing once, and let a dead address, a complaint or a no count from now on.

    Anybody can send a report: one about an operation that is not known, or that went to another address, is counted
    as 'unknown' and does nothing. Returns how many were new, by event.
    """
    given = list(reports)
    known = {row.op_id: row for row in _operations(ledger, [one.op_id for one in given])}
    counts: Counter[str] = Counter()
    rows: dict[str, dict[str, Any]] = {}
    for one in given:
        row = known.get(one.op_id)
        channel = None if row is None else getattr(project.destinations.get(row.destination), "channel", None)
        if row is None or channel is None or not _fits(one, row):
            counts["unknown"] += 1
            continue
        made = _row(row, channel, one.event, utc(one.at), now, one.detail)
        rows[made["receipt_id"]] = made
        _follow(consents, project, one, made)
    with ledger.writing("receipts") as connection:
        query = sa.select(receipts.c.receipt_id).where(ledger.among(receipts.c.receipt_id, rows))
        there = set(connection.execute(query).scalars())
        fresh = [row for receipt_id, row in rows.items() if receipt_id not in there]
        if fresh:
            connection.execute(receipts.insert(), fresh)
    return counts + Counter(row["event"] for row in fresh)


def of_operations(ledger: Ledger, op_ids: Sequence[str]) -> dict[str, list[tuple[str, datetime]]]:
    """(event, when) of each operation's receipts, oldest first."""
    found: dict[str, list[tuple[str, datetime]]] = {}
    with ledger.reading() as connection:
        about = ledger.among(receipts.c.op_id, op_ids)
        query = sa.select(receipts.c.op_id, receipts.c.event, receipts.c.at).where(about)
        for op_id, event, at in connection.execute(query.order_by(receipts.c.at, receipts.c.event)):
            found.setdefault(op_id, []).append((event, at))
    return found


def reports_of_lines(lines: Iterable[str], linked: Callable[[str], str | None]) -> list[Report]:
    """Reports from JSON lines, each as report_of wants it, or with a "link" in place of the operation.

    That is the one in the letter that was clicked: `linked` says whose it is. Raises LedgerError that names every line
    that is no report.
    """
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            if isinstance(said, dict) and "link" in said:
                said["op_id"] = linked(str(said["link"]))
                if said["op_id"] is None:
                    raise ValueError("the link is none of ours")
            found.append(report_of(said))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        raise LedgerError("no receipts: " + "; ".join(wrong))
    return found


def report_of(said: object) -> Report:
    """A report out of {"op_id", "event", "at" (ISO 8601 with a zone)}, with "address" and "dead" if they are known.

    Raises ValueError that says what is wrong with it.
    """
    try:
        if not isinstance(said, dict):
            raise ValueError("a report is a JSON object")
        at = datetime.fromisoformat(said["at"])
        if said["event"] not in EVENTS:
            raise ValueError(f"event should be one of {', '.join(EVENTS)}")
        if at.tzinfo is None:
            raise ValueError("'at' needs a time zone")
        return Report(str(said["op_id"]), said["event"], at, said.get("address"), dead=said.get("dead") is True)
    except KeyError as error:
        raise ValueError(f"{error} is missing") from None
    except TypeError as error:
        raise ValueError(str(error)) from None


_ABOUT = tuple(outbox.c[name] for name in ("op_id", "origin", "destination", "payload"))


def _operations(ledger: Ledger, op_ids: Sequence[str]) -> list[Any]:
    """The messages of these ids that left us, or may have; some are answered before we have settled them."""
    gone = sa.and_(outbox.c.state.in_(("delivered", "unknown", "doubtful", "inflight")), outbox.c.kind == "act")
    with ledger.reading() as connection:
        return [*connection.execute(sa.select(*_ABOUT).where(ledger.among(outbox.c.op_id, op_ids), gone))]


def _address(row: Any) -> str | None:
    to = json.loads(row.payload).get("to")
    return str(to) if to else None


def _fits(one: Report, row: Any) -> bool:
    address = _address(row)
    return one.address is None or (address is not None and one.address.casefold() == address.casefold())


def _row(row: Any, channel: str, event: Event, at: datetime, now: datetime, detail: str | None) -> dict[str, Any]:
    addresses = dict.fromkeys(ADDRESSES.values()) | {ADDRESSES[channel]: _address(row)}
    # Opened and clicked again and again; everything else happens to a message once.
    again = (at.isoformat(),) if event in ("message_opened", "message_clicked") else ()
    return {
        "receipt_id": operation_id("receipt", row.op_id, event, *again), "op_id": row.op_id, "event": event, "at": at,
        "recorded_at": utc(now), "channel": channel, "destination": row.destination, "origin": row.origin,
        "detail": detail, **addresses,
    }  # fmt: skip


def _follow(consents: ConsentLedger, project: Project, one: Report, row: dict[str, Any]) -> None:
    """A dead address and a complaint suppress, who unsubscribes says no: at once."""
    channel = row["channel"]
    address, way = row[ADDRESSES[channel]], WAYS[channel].identifiers
    type_ = next((name for name in way if name in project.identifiers), None)
    if address is None or type_ is None:
        return
    about = _asked_for(project, channel, row["origin"]) if one.event == "message_unsubscribed" else None
    reason: Reason | None = None
    if one.event == "message_complained" or (one.event == "message_unsubscribed" and about is None):
        reason = "complaint"
    elif one.event == "message_bounced" and one.dead:
        reason = "bounce"
    if about is not None:
        said = Said(row["receipt_id"], (type_, address), about, "denied", one.at, "receipts")
        consents.record([said], one.at)
    elif reason is not None:
        consents.suppress([Suppression(row["receipt_id"], (type_, address), reason, one.at, "receipts", channel)])


def _asked_for(project: Project, channel: str, origin: str) -> str | None:
    """The permission without which such a message would not have been sent: the channel's, else the purpose."""
    trigger, consent = project.triggers.get(origin.removeprefix("trigger:")), project.consent
    purpose = None if trigger is None else trigger.purpose
    if consent is None:
        return None
    permission = consent.channels.get(channel)  # type: ignore[call-overload]
    if permission is not None and (not permission.purposes or purpose in permission.purposes):
        return f"channel:{channel}"
    return f"purpose:{purpose}" if purpose in consent.purposes else None

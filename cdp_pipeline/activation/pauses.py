"""What must not go on by itself: destinations that refuse us, and origins too much of which is rejected.

A pause lasts until somebody resumes it, or changes the destination. Letting a destination rest for a while is the
ledger's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cdp_pipeline.activation.ledger import Ledger, operation_id, utc
from cdp_pipeline.activation.schema import health, outbox, pace, pauses

if TYPE_CHECKING:
    from cdp_pipeline.spec.destination import Destination

REJECTED_SHARE, REJECTED_AT_LEAST = 0.10, 10


@dataclass(frozen=True)
class Pause:
    """`subject`: a destination by name, or an origin such as sync:vips."""

    subject: str
    reason: str
    since: datetime


def paused(ledger: Ledger) -> dict[str, Pause]:
    """Everything that is paused, by subject."""
    with ledger.reading() as connection:
        rows = connection.execute(sa.select(pauses).order_by(pauses.c.since))
        return {row.subject: Pause(row.subject, row.reason, row.since) for row in rows}


def refuse(ledger: Ledger, destination: Destination, reason: str, now: datetime) -> Pause | None:
    """Pause a destination that refuses our key, until it is declared differently; None if it is paused already."""
    return _pause(ledger, destination.name, reason, now, _as_declared(destination))


def lifted(ledger: Ledger, destination: Destination, now: datetime) -> bool:
    """Whether the destination may be served: it is not paused, or was changed since, which ends the pause."""
    query = sa.select(pauses.c.declared).where(pauses.c.subject == destination.name)
    with ledger.reading() as connection:
        declared = connection.execute(query).scalar()
    if declared is None:
        return True
    return declared != _as_declared(destination) and resume(ledger, destination.name, now)


def trip(ledger: Ledger, destination: str, origins: Collection[str], now: datetime) -> list[Pause]:
    """Pause the origins of which more than a tenth was rejected, at least ten; those that are paused by this."""
    asked = sa.select(health).where(health.c.destination == destination, health.c.origin.in_(list(origins)))
    with ledger.reading() as connection:
        rows = connection.execute(asked).all()
    found = []
    for row in rows:
        heard = row.delivered + row.rejected
        if row.rejected >= REJECTED_AT_LEAST and row.rejected > REJECTED_SHARE * heard:
            reason = f"'{destination}' rejected {row.rejected} of {heard}"
            if (pause := _pause(ledger, row.origin, reason, now)) is not None:
                found.append(pause)
    return found


def resume(ledger: Ledger, subject: str, now: datetime) -> bool:
    """End a pause: what waits is due at once, and rejections are counted anew. False: it was not paused."""
    at = utc(now)
    with ledger.writing("pauses") as connection:
        if not connection.execute(pauses.delete().where(pauses.c.subject == subject)).rowcount:
            return False
        connection.execute(health.delete().where(sa.or_(health.c.origin == subject, health.c.destination == subject)))
        connection.execute(pace.update().where(pace.c.destination == subject, pace.c.free_at > at).values(free_at=at))
        waits = sa.and_(outbox.c.destination == subject, outbox.c.state.in_(("pending", "retry")))
        connection.execute(outbox.update().where(waits, outbox.c.next_at > at).values(next_at=at))
    return True


def _pause(ledger: Ledger, subject: str, reason: str, now: datetime, declared: str = "") -> Pause | None:
    pause = Pause(subject, reason, utc(now))
    with ledger.writing("pauses") as connection:
        if connection.execute(sa.select(pauses.c.subject).where(pauses.c.subject == subject)).first():
            return None
        connection.execute(pauses.insert(), {**vars(pause), "declared": declared})
    return pause


def _as_declared(destination: Destination) -> str:
    return operation_id("declared", destination.model_dump_json())

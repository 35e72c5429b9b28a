"""A sync's way through the ledger: what its destination holds, its plan held or applied, and whether all add up.

The comparison itself is plan.py's and has no ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cdp_pipeline.activation.ledger import (
    Ledger,
    LedgerError,
    acknowledged,
    health,
    known_ids,
    new_row,
    outbox,
    plans,
    portions,
    utc,
)
from cdp_pipeline.activation.plan import Held, SyncPlan, guards
from cdp_pipeline.activation.turns import REFUSED

SUPERSEDED = "superseded: no longer what is wanted"


def holds(ledger: Ledger, sync: str) -> dict[str, Held]:
    """What the destination of a sync is known to hold, by key."""
    columns = [acknowledged.c[name] for name in ("key", "person_id", "op_id", "payload_hash", "certain", "present")]
    with ledger.reading() as connection:
        rows = connection.execute(sa.select(*columns).where(acknowledged.c.sync == sync))
        return {key: Held(*rest) for key, *rest in rows}


@dataclass(frozen=True)
class Submitted:
    """What became of a plan: 'applied', 'held' with the reasons, or 'unchanged' where there was nothing to do."""

    state: str
    reasons: list[str]
    enqueued: int = 0


def submit(
    ledger: Ledger, plan: SyncPlan, *, dry_run: bool, recent_sizes: Sequence[int] = (), now: datetime
) -> Submitted:
    """Enqueue a plan, or hold it until it is approved. Submitting the same plan again changes nothing.

    A plan for a destination in dry run is never held: nothing is sent, and its payloads are what one wants to see.
    """
    at, name = utc(now), plan.sync.name
    with ledger.writing(f"sync:{name}") as connection:
        of_sync = plans.c.sync == name
        applied_before = sa.select(plans.c.plan_id).where(of_sync, plans.c.state == "applied").limit(1)
        first = connection.execute(applied_before).scalar() is None
        state = connection.execute(sa.select(plans.c.state).where(plans.c.plan_id == plan.plan_id)).scalar()
        if not plan.ops and not plan.forgotten:
            _supersede(connection, plan, at)
            return Submitted("unchanged", [])
        reasons = guards(plan, first=first, recent_sizes=recent_sizes)
        goes = not reasons or dry_run or state in ("approved", "applied")
        becomes = "shown" if goes and dry_run else "applied" if goes else "held"
        connection.execute(plans.delete().where(of_sync, plans.c.state == "held", plans.c.plan_id != plan.plan_id))
        values = {"state": becomes, "reason": "; ".join(reasons), "size": plan.size}
        if state is None:
            connection.execute(plans.insert(), {"plan_id": plan.plan_id, "sync": name, "created_at": at, **values})
        elif state != becomes:
            connection.execute(plans.update().where(plans.c.plan_id == plan.plan_id).values(values))
        if not goes:
            return Submitted("held", reasons)
        return Submitted("applied", reasons, _enqueue(connection, plan, dry_run, at))


def waiting(ledger: Ledger) -> list[dict[str, Any]]:
    """The plans that wait for approval, or that were approved and wait to be submitted again."""
    columns = (plans.c.plan_id, plans.c.sync, plans.c.state, plans.c.size, plans.c.reason, plans.c.created_at)
    with ledger.reading() as connection:
        query = sa.select(*columns).where(plans.c.state.in_(("held", "approved"))).order_by(plans.c.created_at)
        return [dict(row) for row in connection.execute(query).mappings()]


def approve(ledger: Ledger, plan_id: str, *, by: str, now: datetime) -> None:
    """Let a held plan be applied the next time it is submitted, as long as it is still exactly that plan."""
    with ledger.writing() as connection:
        changed = connection.execute(
            plans.update()
            .where(plans.c.plan_id == plan_id, plans.c.state == "held")
            .values(state="approved", approved_by=by, approved_at=utc(now))
        ).rowcount
        if not changed:
            waiting = connection.execute(sa.select(plans.c.plan_id).where(plans.c.state == "held")).scalars().all()
            raise LedgerError(f"no plan '{plan_id}' is held; held: {', '.join(waiting) or 'none'}")


def _enqueue(connection: Connection, plan: SyncPlan, dry_run: bool, at: datetime) -> int:
    origin = f"sync:{plan.sync.name}"
    here = outbox.c.origin == origin
    # Locked until the end, so that no worker takes or settles one while it is being replaced.
    waiting = connection.execute(sa.select(outbox).where(here, outbox.c.state != "delivered").with_for_update()).all()
    rows = {row.op_id: row for row in waiting}
    under_way = {row.key for row in waiting if row.state == "inflight"}
    latest = dict(
        connection.execute(
            sa.select(acknowledged.c.key, acknowledged.c.op_id).where(acknowledged.c.sync == plan.sync.name)
        ).all()
    )
    _supersede(connection, plan, at)
    # What was planned from a state that has changed since, or is changing now, is left to the next plan.
    sound = [op for op in plan.ops if op.key not in under_way and latest.get(op.key) == op.after]
    known = known_ids(connection, [op.op_id for op in sound])
    fresh = []
    for op in sound:
        row = rows.get(op.op_id)
        values = new_row(op, at, op.state, op.reason)
        if row is not None:
            # What a gate refused is planned again as soon as nothing speaks against it.
            refused = row.state == "suppressed" and row.reason.startswith(REFUSED) and op.state == "pending"
            revived = refused or row.reason == SUPERSEDED or (row.state == "dry_run" and not dry_run)
            if row.state in ("pending", "retry") or not revived:
                continue
            # A new place in line, behind whatever was decided for this person in between.
            connection.execute(outbox.delete().where(outbox.c.op_id == op.op_id))
            values |= {"attempt": row.attempt, "forgiven": row.attempt}
        elif op.op_id in known:
            continue
        fresh.append(values)
    if fresh:
        connection.execute(outbox.insert(), fresh)
        # A new plan is a new run: what an earlier one met is no reason to stop this one.
        connection.execute(health.delete().where(health.c.origin == origin))
    for key in plan.forgotten:
        connection.execute(
            acknowledged.update()
            .where(acknowledged.c.sync == plan.sync.name, acknowledged.c.key == key)
            .values(present=False, payload_hash=None, certain=True, at=at)
        )
    return len(fresh)


def _supersede(connection: Connection, plan: SyncPlan, at: datetime) -> None:
    """Close what was decided before, has not arrived and is no longer wanted."""
    wanted = {op.op_id for op in plan.ops}
    open_case = sa.and_(
        outbox.c.origin == f"sync:{plan.sync.name}", outbox.c.state.in_(("pending", "retry", "failed", "unknown"))
    )
    decided = connection.execute(sa.select(outbox.c.op_id).where(open_case)).scalars()
    for some in portions([op_id for op_id in decided if op_id not in wanted]):
        connection.execute(
            outbox.update()
            .where(outbox.c.op_id.in_(some), open_case)
            .values(state="suppressed", reason=SUPERSEDED, updated_at=at)
        )


@dataclass(frozen=True)
class Conservation:
    """Every member of an audience accounted for: what became of each, by state, and how many are in no state at all."""

    audience: int
    states: Counter[str]
    held: bool

    @property
    def missing(self) -> int:
        return self.audience - sum(self.states.values())

    @property
    def holds(self) -> bool:
        """A plan that waits for approval accounts for the people it has not enqueued yet."""
        return self.missing == 0 or (self.held and self.missing > 0)


def conservation(ledger: Ledger, sync: str, members: Iterable[str]) -> Conservation:
    """audience = delivered + suppressed + failed + unknown + pending (+ dry run), counted from the outbox."""
    people, latest, refused = set(members), dict[str, str](), set[str]()
    query = (
        sa.select(outbox.c.person_id, outbox.c.kind, outbox.c.state)
        .where(outbox.c.origin == f"sync:{sync}", outbox.c.reason != SUPERSEDED)
        .order_by(outbox.c.sequence)
    )
    with ledger.reading() as connection:
        for person_id, kind, state in connection.execute(query):
            if kind in ("remove", "left"):
                latest.pop(person_id, None)
            elif state == "suppressed":
                refused.add(person_id)
            else:
                latest[person_id] = "pending" if state in ("retry", "inflight") else state
        held = connection.execute(
            sa.select(plans.c.plan_id).where(plans.c.sync == sync, plans.c.state == "held")
        ).first()
    # Who was refused counts as suppressed only where nothing was sent since.
    found = dict.fromkeys(refused, "suppressed") | latest
    return Conservation(len(people), Counter(found[person] for person in people & found.keys()), held is not None)

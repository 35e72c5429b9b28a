"""A sync's way through the ledger: what its destination holds, its plan held or applied, and whether all add up.

The comparison itself is plan.py's and has no ledger.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cdp_pipeline.activation import held as held_plans
from cdp_pipeline.activation.ledger import Ledger, new_row, utc
from cdp_pipeline.activation.pauses import paused
from cdp_pipeline.activation.plan import Held, SyncPlan, guards
from cdp_pipeline.activation.schema import (
    LEAVES,
    OPEN_CASE,
    UNDER_WAY,
    WAITS,
    acknowledged,
    epochs,
    health,
    held_ops,
    outbox,
    plans,
)
from cdp_pipeline.activation.turns import REFUSED
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.sync import Sync

SUPERSEDED = "superseded: no longer what is wanted"
_COUNTED = {"retry": "pending", "inflight": "pending", "doubtful": "unknown"}

_HELD = [acknowledged.c[name] for name in ("key", "person_id", "op_id", "payload_hash", "certain", "present")]


def _there(sync: Sync) -> sa.ColumnElement[bool]:
    """What a sync has put into its destination; what it put into another before it was sent here is another's."""
    return sa.and_(acknowledged.c.sync == sync.name, acknowledged.c.destination == sync.destination)


def holds(ledger: Ledger, sync: Sync) -> dict[str, Held]:
    """What the destination of a sync is known to hold, by key."""
    with ledger.reading() as connection:
        rows = connection.execute(sa.select(*_HELD).where(_there(sync)))
        return {key: Held(*rest) for key, *rest in rows}


def holds_some(ledger: Ledger, sync: Sync, keys: Collection[str], fingerprints: Collection[str]) -> dict[str, Held]:
    """Of what the destination holds: these keys, these fingerprints, and what has none or is not certain."""
    here = _there(sync)
    open_case = sa.and_(acknowledged.c.present, sa.or_(~acknowledged.c.certain, acknowledged.c.fingerprint.is_(None)))
    found: dict[str, Held] = {}
    with ledger.reading() as connection:
        for some in (
            ledger.among(acknowledged.c.key, keys),
            ledger.among(acknowledged.c.fingerprint, fingerprints),
            open_case,
        ):
            rows = connection.execute(sa.select(*_HELD).where(here, some))
            found |= {key: Held(*rest) for key, *rest in rows}
    return found


def held_fingerprints(ledger: Ledger, sync: Sync) -> str:
    """The fingerprints of all that the destination surely holds, one after the other: one value for a million."""
    query = sa.select(sa.func.aggregate_strings(acknowledged.c.fingerprint, "")).where(
        _there(sync), acknowledged.c.present, acknowledged.c.certain
    )
    with ledger.reading() as connection:
        return connection.execute(query).scalar() or ""


def how_many_held(ledger: Ledger, sync: Sync) -> int:
    """How many keys the destination holds, or may hold."""
    query = sa.select(sa.func.count()).where(_there(sync), acknowledged.c.present)
    with ledger.reading() as connection:
        return connection.execute(query).scalar_one()


@dataclass(frozen=True)
class Submitted:
    """What became of a plan, and why it is held if it is.

    'applied', 'held', 'unchanged' where there was nothing to do, 'ready' where it is left for another time; 'shown':
    the destination is in dry run, and the reasons are why it would be held.
    """

    state: str
    reasons: list[str]
    enqueued: int = 0


def submit(
    ledger: Ledger,
    plan: SyncPlan,
    *,
    dry_run: bool,
    recent_sizes: Sequence[int] = (),
    upstream: Sequence[str] = (),
    now: datetime,
    only_hold: bool = False,
) -> Submitted:
    """Enqueue a plan, or hold it until it is approved. Submitting the same plan again changes nothing.

    Of a sync only the last plan can be held: what is submitted supersedes one that is. A plan for a destination in dry
    run is never held: nothing is sent, and its payloads are what one wants to see.
    `only_hold`: what would be enqueued is left for another time ('ready').
    """
    at, name = utc(now), plan.sync.name
    with ledger.writing(f"sync:{name}") as connection:
        here = sa.func.coalesce(plans.c.destination, plan.sync.destination) == plan.sync.destination
        applied = sa.select(plans.c.nulls).where(plans.c.sync == name, here, plans.c.state == "applied")
        last = connection.execute(applied.order_by(plans.c.created_at.desc()).limit(1)).first()
        state = connection.execute(sa.select(plans.c.state).where(plans.c.plan_id == plan.plan_id)).scalar()
        _note_proven(connection, plan)
        held_plans.supersede(connection, name, by=plan.plan_id)
        if not only_hold:
            _leave(connection, ledger, plan.sync, at)
        if not plan.ops and not plan.forgotten:
            if not only_hold:
                _supersede(connection, ledger, plan, at)
            return Submitted("unchanged", [])
        nulls_before = json.loads(last.nulls) if last is not None and last.nulls else {}
        there = sa.select(acknowledged.c.key).where(_there(plan.sync)).limit(1)
        first = last is None and connection.execute(there).first() is None
        reasons = guards(plan, first=first, recent_sizes=recent_sizes, nulls_before=nulls_before, upstream=upstream)
        goes = not reasons or dry_run or (state == "applied" and not _dropped(connection, ledger, plan))
        if goes and only_hold:
            moves = bool(plan.forgotten) or any(op.state == "pending" for op in plan.ops)
            return Submitted("unchanged" if not moves else "shown" if dry_run else "ready", reasons)
        becomes = "held" if not goes else "shown" if dry_run else "applied"
        values = {"state": becomes, "reason": "; ".join(reasons), "size": plan.size, "nulls": json.dumps(plan.nulls)}
        if state is None:
            whose = {"plan_id": plan.plan_id, "sync": name, "destination": plan.sync.destination}
            connection.execute(plans.insert(), {**whose, "created_at": at, **values})
        elif state != becomes:
            values |= {"created_at": at, "approved_at": None, "approved_by": None}
            connection.execute(plans.update().where(plans.c.plan_id == plan.plan_id).values(values))
        if not goes:
            held_plans.keep(connection, plan, at)
            return Submitted("held", reasons)
        held_plans.forget(connection, plan.plan_id)
        return Submitted(becomes, reasons, _enqueue(connection, ledger, plan, dry_run, at))


def _note_proven(connection: Connection, plan: SyncPlan) -> None:
    """Keep what was found out by comparing payloads, where it still is by the operation that was looked at."""
    if plan.proven:
        same = sa.and_(acknowledged.c.key == sa.bindparam("which"), acknowledged.c.op_id == sa.bindparam("by"))
        connection.execute(
            acknowledged.update()
            .where(_there(plan.sync), same)
            .values(person_id=sa.bindparam("whose"), fingerprint=sa.bindparam("print")),
            [{"which": key, "whose": whose, "print": one, "by": by} for key, (whose, one, by) in plan.proven.items()],
        )


def _dropped(connection: Connection, ledger: Ledger, plan: SyncPlan) -> bool:
    """Whether a later plan has dropped what this one let go: what was permitted then, is not any more."""
    ids = ledger.among(outbox.c.op_id, [op.op_id for op in plan.ops])
    query = sa.select(outbox.c.op_id).where(ids, outbox.c.reason == SUPERSEDED).limit(1)
    return connection.execute(query).first() is not None


def waiting(ledger: Ledger) -> list[dict[str, Any]]:
    """The plans that wait for approval, one of a sync at most."""
    columns = (plans.c.plan_id, plans.c.sync, plans.c.state, plans.c.size, plans.c.reason, plans.c.created_at)
    with ledger.reading() as connection:
        query = sa.select(*columns).where(plans.c.state == "held").order_by(plans.c.created_at)
        return [dict(row) for row in connection.execute(query).mappings()]


def history(ledger: Ledger, sync: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """The plans of a sync or of all, newest first: what became of each, why it was held and who approved it."""
    columns = ("created_at", "sync", "plan_id", "state", "size", "reason", "approved_by", "approved_at")
    query = sa.select(*(plans.c[name] for name in columns)).order_by(plans.c.created_at.desc()).limit(limit)
    with ledger.reading() as connection:
        return [
            dict(row)
            for row in connection.execute(query if sync is None else query.where(plans.c.sync == sync)).mappings()
        ]


def examples(ledger: Ledger, sync: str, each: int = 1) -> list[dict[str, Any]]:
    """Some operations of each kind and state, with exactly what is sent: of the plan that is held, and the newest ones.

    They hold personal data: for somebody who asks, not for a log.
    """
    names = ("kind", "state", "reason", "person_id", "payload")

    def some(table: sa.Table, order: sa.ColumnElement[Any], where: sa.ColumnElement[bool]) -> sa.Select[Any]:
        alike = (table.c.kind, table.c.state)
        place = sa.func.row_number().over(partition_by=alike, order_by=order).label("place")
        ranked = sa.select(*(table.c[name] for name in names), place).where(where).subquery()
        columns = (ranked.c[name] for name in names)
        return sa.select(*columns).where(ranked.c.place <= each).order_by(ranked.c.kind, ranked.c.state, ranked.c.place)

    last = sa.select(plans.c.plan_id).where(plans.c.sync == sync, plans.c.state == "held")
    held = some(held_ops, held_ops.c.place.asc(), held_ops.c.plan_id.in_(last))
    newest = some(outbox, outbox.c.sequence.desc(), outbox.c.origin == f"sync:{sync}")
    with ledger.reading() as connection:
        found = [("held", connection.execute(held).all()), ("decided", connection.execute(newest).all())]
    return [
        {"sync": sync, "stage": stage, **row._mapping, "payload": json.loads(row.payload)}
        for stage, rows in found
        for row in rows
    ]


def open_cases(ledger: Ledger, sync: str | None = None) -> list[dict[str, Any]]:
    """What failed or may have arrived, by origin, destination and reason: it waits for `retry` or `dismiss`."""
    columns = [outbox.c[name] for name in ("origin", "destination", "state", "reason")]
    query = sa.select(*columns, sa.func.count().label("operations")).where(OPEN_CASE)
    if sync is not None:
        query = query.where(outbox.c.origin == f"sync:{sync}")
    with ledger.reading() as connection:
        return [dict(row) for row in connection.execute(query.group_by(*columns).order_by(*columns)).mappings()]


def put_off(ledger: Ledger, now: datetime) -> list[dict[str, Any]]:
    """What waits for a later time, by origin, destination and reason, and when the first of it is due: 'next_at'."""
    columns = [outbox.c[name] for name in ("origin", "destination", "state", "reason")]
    query = (
        sa.select(*columns, sa.func.count().label("operations"), sa.func.min(outbox.c.next_at).label("next_at"))
        .where(WAITS, outbox.c.next_at > utc(now), outbox.c.reason != "")
        .group_by(*columns)
        .order_by(*columns)
    )
    with ledger.reading() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def standing(ledger: Ledger, project: Project) -> list[dict[str, Any]]:
    """One row per declared sync: how many are over there, what waits, fails or is paused, and what its plan was."""
    stopped, counts = paused(ledger), ledger.counts()
    rows = []
    for sync in project.syncs.values():
        here = (f"sync:{sync.name}", sync.destination)
        pause = stopped.get(here[0]) or stopped.get(sync.destination)
        last = next(iter(history(ledger, sync.name, 1)), None)
        waits = last is not None and last["state"] == "held"
        dry_run = project.destinations[sync.destination].dry_run
        rows.append({
            "sync": sync.name, "audience": sync.audience, "destination": sync.destination, "mode": sync.mode,
            "there": how_many_held(ledger, sync),
            "waiting": sum(counts.get((*here, state), 0) for state in ("pending", "retry", "inflight")),
            "failed": sum(counts.get((*here, state), 0) for state in ("failed", "unknown")),
            "last_plan": last and last["state"],
            "says": pause.reason if pause else "dry run" if dry_run else last["reason"] if last and waits else "",
        })  # fmt: skip
    return rows


def epoch(ledger: Ledger, sync: Sync) -> str:
    """What the operations of this ledger's knowledge of a sync are told apart by from those of another's.

    A ledger that was lost, or told to forget, must not repeat ids: the destination would take the operation for done.
    So a new epoch begins where something was delivered in this one and nothing is known any more of what is there.
    """
    query = sa.select(epochs.c.epoch).where(epochs.c.sync == sync.name)
    of_sync = outbox.c.origin == f"sync:{sync.name}"
    known = sa.exists().where(_there(sync))
    since = sa.func.coalesce(epochs.c.since, 0)
    delivered = sa.and_(outbox.c.destination == sync.destination, outbox.c.state == "delivered")
    told = sa.exists().where(of_sync, delivered, outbox.c.sequence > since)
    sound = query.where(sa.or_(known, ~told))
    with ledger.reading() as connection:
        if (found := connection.execute(sound).scalar()) is not None:
            return str(found)
    with ledger.writing(f"sync:{sync.name}") as connection:
        if (found := connection.execute(sound).scalar()) is None:
            last = connection.execute(sa.select(sa.func.max(outbox.c.sequence)).where(of_sync)).scalar()
            connection.execute(epochs.delete().where(epochs.c.sync == sync.name))
            connection.execute(epochs.insert(), {"sync": sync.name, "epoch": uuid.uuid4().hex, "since": last})
        return str(connection.execute(query).scalar_one())


def forget(ledger: Ledger, sync: Sync) -> int:
    """Take it that the destination has lost what this sync put there: the next plan sends everybody, held first."""
    with ledger.writing(f"sync:{sync.name}") as connection:
        held_plans.supersede(connection, sync.name, by="")
        connection.execute(plans.delete().where(plans.c.sync == sync.name))
        connection.execute(epochs.delete().where(epochs.c.sync == sync.name))
        return connection.execute(acknowledged.delete().where(_there(sync))).rowcount


def approve(ledger: Ledger, plan_id: str, *, by: str, now: datetime, syncs: Mapping[str, Sync] | None = None) -> int:
    """Enqueue a held plan: exactly what was shown, whatever the audience has become since; how many are sent.

    Left out is only what has been sent meanwhile by an earlier plan. Whether somebody may be sent something at all is
    judged when it is sent. Raises LedgerError where the plan is superseded, too old, or was made of another declaration
    than `syncs` now holds.
    """
    at = utc(now)
    with ledger.reading() as connection:
        name = held_plans.sync_of(connection, plan_id)
    with ledger.writing(f"sync:{name}") as connection:
        plan = held_plans.kept(connection, plan_id, syncs, now)
        values = {"state": "applied", "approved_by": by, "approved_at": at}
        connection.execute(plans.update().where(plans.c.plan_id == plan_id).values(values))
        held_plans.forget(connection, plan_id)
        return _enqueue(connection, ledger, plan, False, at)


def _enqueue(connection: Connection, ledger: Ledger, plan: SyncPlan, dry_run: bool, at: datetime) -> int:
    origin = f"sync:{plan.sync.name}"
    # Locked until the end, so that no worker takes or settles one while it is being replaced.
    under_way = {row.key for row in _open(connection, plan.sync, plan.sync.destination) if row.state == "inflight"}
    columns = [outbox.c[name] for name in ("op_id", "state", "reason", "attempt")]
    ids = [op.op_id for op in plan.ops]
    query = sa.select(*columns).where(ledger.among(outbox.c.op_id, ids)).with_for_update()
    rows = {row.op_id: row for row in connection.execute(query)}
    latest = dict(
        connection.execute(
            sa.select(acknowledged.c.key, acknowledged.c.op_id)
            .where(_there(plan.sync))
            .where(ledger.among(acknowledged.c.key, [op.key for op in plan.ops]))
        ).all()
    )
    _supersede(connection, ledger, plan, at)
    fresh, revived, perhaps = [], [], []
    for op in plan.ops:
        # What was planned from a state that has changed since, or is changing now, is left to the next plan.
        if op.key in under_way or latest.get(op.key) != op.after:
            continue
        row = rows.get(op.op_id)
        values = new_row(op, at, op.state, op.reason)
        if row is not None:
            if row.state == "doubtful" and row.reason == SUPERSEDED:
                # Wanted after all, but it may have arrived: that was for somebody to decide, and is again.
                perhaps.append(op.op_id)
                continue
            # What a gate refused is planned again as soon as nothing speaks against it, or something else does.
            refused = row.state == "suppressed" and row.reason.startswith(REFUSED) and op.state == "pending"
            refused_now = op.state == "suppressed" and row.reason != op.reason
            again = refused or refused_now or row.reason == SUPERSEDED
            if not (again or (row.state == "dry_run" and not dry_run)):
                continue
            # A new place in line, behind whatever was decided for this person in between.
            revived.append(op.op_id)
            values |= {"attempt": row.attempt, "forgiven": row.attempt}
        fresh.append(values)
    if revived:
        connection.execute(outbox.delete().where(ledger.among(outbox.c.op_id, revived)))
    if perhaps:
        asked = {"state": "unknown", "reason": "it may have arrived", "updated_at": at}
        connection.execute(outbox.update().where(ledger.among(outbox.c.op_id, perhaps)).values(asked))
    if fresh:
        connection.execute(outbox.insert(), fresh)
        # A new plan is a new run: what an earlier one met is no reason to stop this one.
        connection.execute(health.delete().where(health.c.origin == origin))
    if plan.forgotten:
        connection.execute(
            acknowledged.update()
            .where(_there(plan.sync), ledger.among(acknowledged.c.key, plan.forgotten))
            .values(present=False, payload_hash=None, fingerprint=None, certain=True, at=at)
        )
    return sum(row["state"] == "pending" for row in fresh)


def _open(connection: Connection, sync: Sync, destination: str) -> list[Any]:
    """Of what was decided for this sync before, what has not come to an end; locked."""
    of_sync = sa.and_(outbox.c.destination == destination, outbox.c.origin == f"sync:{sync.name}")
    columns = [outbox.c[name] for name in ("op_id", "key", "state", "kind")]
    found: list[Any] = []
    for some in (WAITS, UNDER_WAY, OPEN_CASE):  # One query for each of the partial indexes.
        found += connection.execute(sa.select(*columns).where(of_sync, some).with_for_update()).all()
    return found


def _supersede(connection: Connection, ledger: Ledger, plan: SyncPlan, at: datetime) -> None:
    """Close what was decided before, has not arrived and is no longer wanted."""
    wanted = {op.op_id for op in plan.ops}
    rows = _open(connection, plan.sync, plan.sync.destination)
    _close(connection, ledger, [row for row in rows if row.op_id not in wanted], at)


def _leave(connection: Connection, ledger: Ledger, sync: Sync, at: datetime) -> None:
    """Close what was decided while the sync had another destination, except to take somebody out there."""
    before = sa.select(plans.c.destination).where(plans.c.sync == sync.name, plans.c.destination != sync.destination)
    for destination in connection.execute(before.distinct()).scalars().all():
        rows = _open(connection, sync, destination)
        _close(connection, ledger, [row for row in rows if row.kind not in LEAVES], at)


def _close(connection: Connection, ledger: Ledger, rows: Sequence[Any], at: datetime) -> None:
    if gone := [row.op_id for row in rows if row.state != "inflight"]:
        perhaps = sa.case((outbox.c.state == "unknown", "doubtful"), else_="suppressed")
        connection.execute(
            outbox.update()
            .where(ledger.among(outbox.c.op_id, gone), outbox.c.state != "inflight")
            .values(state=perhaps, reason=SUPERSEDED, updated_at=at)
        )


@dataclass(frozen=True)
class Conservation:
    """Every member of an audience accounted for: what became of each, by state, and how many are in no state at all."""

    audience: int
    states: Counter[str]

    @property
    def missing(self) -> int:
        return self.audience - self.states.total()

    @property
    def holds(self) -> bool:
        return self.missing == 0


def conservation(
    ledger: Ledger, sync: Sync, members: Iterable[str], aliases: Mapping[str, str] | None = None
) -> Conservation:
    """audience = delivered + suppressed + failed + unknown + pending (+ dry run) + held, counted from the ledger.

    `held`: in a plan that waits for approval, and in none before. `unknown`: also what somebody has dismissed without
    knowing whether it arrived. `aliases`: people who were merged into others, and count as those.
    """
    elder = aliases or {}
    people, last, refused = set(members), dict[str, tuple[str, str]](), set[str]()
    query = (
        sa.select(outbox.c.key, outbox.c.person_id, outbox.c.kind, outbox.c.state)
        .where(outbox.c.origin == f"sync:{sync.name}", outbox.c.destination == sync.destination)
        .where(outbox.c.reason != SUPERSEDED)
        .order_by(outbox.c.sequence)
    )
    waits = (
        sa.select(held_ops.c.person_id)
        .join_from(held_ops, plans, held_ops.c.plan_id == plans.c.plan_id)
        .where(plans.c.sync == sync.name, plans.c.state == "held", held_ops.c.kind.not_in(LEAVES))
    )
    with ledger.reading() as connection:
        for key, said, kind, state in connection.execute(query):
            person_id = elder.get(said, said)
            # By key: who has another one now is taken out under the old one, and was added under the new one before.
            if kind in LEAVES:
                last.pop(key, None)
            elif state == "suppressed":
                refused.add(person_id)
            else:
                last.pop(key, None)
                last[key] = person_id, _COUNTED.get(state, state)
        held = {elder.get(person_id, person_id) for person_id in connection.execute(waits).scalars()}
    # Who was refused counts as suppressed only where nothing was sent since; as held, only where nothing ever was.
    found = dict.fromkeys(held, "held") | dict.fromkeys(refused, "suppressed") | dict(last.values())
    return Conservation(len(people), Counter(found[person] for person in people & found.keys()))

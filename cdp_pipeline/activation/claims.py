"""Claims on the outbox: a worker takes what is due, for as long as its lease lasts, and writes what became of it.

What is due was decided in ledger.py, and is sent in deliver.py. Each function is one transaction, safe for several
workers at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cdp_pipeline.activation.ledger import Ledger, utc
from cdp_pipeline.activation.protocol import Delivery, Outcome, Payload, may_repeat
from cdp_pipeline.activation.schema import (
    LEAVES,
    LIVE,
    LOST,
    UNDER_WAY,
    WAITS,
    acknowledged,
    attempts,
    claims,
    health,
    jobs,
    outbox,
    pace,
    pauses,
)

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=6)
LATELY = 1_000
"""Of how many operations at least is known how an origin that never ends has fared."""
GIVEN_BACK = ("untried", "waits")
NOT_SENT = (*GIVEN_BACK, "suppressed")


class Claimed(NamedTuple):
    """An operation that whoever claimed it alone may carry out until the lease ends.

    `attempt` counts them all, `tried` those that count towards the limit.
    """

    delivery: Delivery
    sequence: int
    attempt: int
    tried: int
    origin: str
    destination: str
    person_id: str
    key: str
    decided_at: datetime


@dataclass(frozen=True)
class Claim:
    """What may be delivered at once; `wait` is how long the destination's rate or pause asks for before the next."""

    number: int = 0
    ops: list[Claimed] = field(default_factory=list)
    wait: timedelta = timedelta(0)


def backoff(op_id: str, failures: int) -> timedelta:
    """30 seconds, 2 minutes, 8 minutes, … with a jitter of ±25 % that is the operation's own, so that many spread."""
    wait = min(FIRST_WAIT * 4 ** min(failures - 1, 10), LONGEST_WAIT)
    jitter = int(hashlib.sha256(f"{op_id}:{failures}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return wait * (0.75 + jitter / 2)


def destinations_due(ledger: Ledger, now: datetime) -> list[str]:
    """Destinations with something to deliver, or with a lease that ran out."""
    due = sa.select(outbox.c.destination).where(WAITS, outbox.c.next_at <= utc(now))
    lost = sa.select(claims.c.destination).where(claims.c.lease_until <= utc(now))
    with ledger.reading() as connection:
        found = [connection.execute(query.distinct()).scalars() for query in (due, lost)]
        return sorted({name for names in found for name in names})


def waiting_for(ledger: Ledger, destination: str, limit: int) -> list[Claimed]:
    """What waits for a destination, longest due first; nobody takes it by this."""
    query = sa.select(*_COLUMNS).where(outbox.c.destination == destination, WAITS)
    with ledger.reading() as connection:
        return _read(connection.execute(query.order_by(outbox.c.next_at, outbox.c.sequence).limit(limit)))


def show_dry_run(
    ledger: Ledger, waiting: Iterable[Claimed], refused: Mapping[str, Outcome], now: datetime
) -> dict[str, int]:
    """Settle what waits for a destination in dry run: the exact payload stays, nothing is sent; counts by state.

    What a gate refuses is suppressed, as it would be; what would have to wait says so.
    """
    becomes: dict[tuple[str, str], list[Claimed]] = defaultdict(list)
    for one in waiting:
        outcome = refused.get(one.delivery.op_id)
        if outcome is None:
            becomes["dry_run", "dry run"].append(one)
        elif outcome.state == "waits":
            becomes["dry_run", f"dry run; it would wait: {outcome.reason}"].append(one)
        else:
            becomes[outcome.state, outcome.reason].append(one)
    counts = Counter[str]()
    with ledger.writing() as connection:
        for (state, reason), ops in sorted(becomes.items()):
            counts[state] += connection.execute(
                outbox.update()
                .where(_those(ledger, ops), WAITS)
                .values(state=state, reason=reason, updated_at=utc(now))
            ).rowcount
    return dict(counts)


def rest(ledger: Ledger, destination: str, until: datetime, reason: str) -> None:
    """Let a destination rest: it asked for it, or it does not answer."""
    with ledger.writing() as connection:
        connection.execute(
            pace.update()
            .where(pace.c.destination == destination, pace.c.free_at < utc(until))
            .values(free_at=utc(until), reason=reason)
        )


def claim(
    ledger: Ledger,
    destination: str,
    *,
    limit: int,
    now: datetime,
    lease: timedelta,
    worker: str,
    repeatable: bool | frozenset[str],
    max_attempts: int,
    rate: float,
) -> Claim:
    """Take the operations that are due longest, at most a second's worth of `rate`, one per person and origin."""
    at = utc(now)
    with ledger.writing() as connection:
        free_at = _free_at(connection, destination, at)
        if free_at > at:
            return Claim(wait=free_at - at)
        _expire(ledger, connection, destination, at, repeatable, max_attempts)
        due = _due(destination, at).limit(min(limit, max(1, int(rate))))
        ops = _read(connection.execute(due).all(), more=1)
        if not ops:
            return Claim()
        values = {"destination": destination, "worker": worker, "lease_until": at + lease}
        number = connection.execute(claims.insert().values(values).returning(claims.c.claim)).scalar_one()
        connection.execute(
            outbox.update()
            .where(_those(ledger, ops))
            .values(state="inflight", attempt=outbox.c.attempt + 1, claim=number, updated_at=at)
        )
        connection.execute(
            pace.update()
            .where(pace.c.destination == destination)
            .values(free_at=at + timedelta(seconds=len(ops) / rate), reason="rate")
        )
    return Claim(number, ops)


_reference = sa.select(jobs.c.reference).where(jobs.c.op_id == outbox.c.op_id).scalar_subquery()
_COLUMNS = (
    outbox.c.op_id, outbox.c.kind, outbox.c.payload, _reference, outbox.c.sequence, outbox.c.attempt, outbox.c.forgiven,
    outbox.c.origin, outbox.c.destination, outbox.c.person_id, outbox.c.key, outbox.c.created_at,
)  # fmt: skip


def _due(destination: str, at: datetime) -> sa.Select[Any]:
    """What may be taken now, locked against other workers; of a person and origin only the first."""
    earlier = outbox.alias("earlier")
    first = ~sa.exists().where(
        earlier.c.origin == outbox.c.origin,
        earlier.c.person_id == outbox.c.person_id,
        earlier.c.destination == outbox.c.destination,
        earlier.c.sequence < outbox.c.sequence,
        earlier.c.state.in_(LIVE),
    )
    return (
        sa.select(*_COLUMNS)
        .where(outbox.c.destination == destination, sa.text(f"outbox.{WAITS.text}"))
        .where(outbox.c.next_at <= at, ~sa.exists().where(pauses.c.subject == outbox.c.origin), first)
        .order_by(outbox.c.next_at, outbox.c.sequence)
        .with_for_update(skip_locked=True)
    )


def _read(rows: Iterable[Sequence[Any]], more: int = 0) -> list[Claimed]:
    """Rows of _COLUMNS, with one attempt more where they are yet to be marked as taken."""
    return [
        Claimed(
            Delivery(op_id, kind, Payload(payload), reference or ""), sequence, attempt + more,
            attempt + more - forgiven, origin, destination, person_id, key, created_at.replace(tzinfo=UTC),
        )
        for (
            op_id, kind, payload, reference, sequence, attempt, forgiven,
            origin, destination, person_id, key, created_at,
        ) in rows
    ]  # fmt: skip


def _those(ledger: Ledger, ops: Iterable[Claimed]) -> sa.ColumnElement[bool]:
    return ledger.among(outbox.c.sequence, [each.sequence for each in ops])


def _free_at(connection: Connection, destination: str, at: datetime) -> datetime:
    """When the destination takes the next one; its row is locked, so that workers share one rate."""
    query = sa.select(pace.c.free_at).where(pace.c.destination == destination).with_for_update()
    found = connection.execute(query).scalar()
    if found is not None:
        return found
    connection.execute(sa.text(
        "INSERT INTO pace (destination, free_at, reason) VALUES (:destination, :at, '') ON CONFLICT DO NOTHING"
    ).bindparams(sa.bindparam("at", type_=sa.DateTime)), {"destination": destination, "at": at})  # fmt: skip
    return connection.execute(query).scalar_one()


def _expire(
    ledger: Ledger,
    connection: Connection,
    destination: str,
    at: datetime,
    repeatable: bool | frozenset[str],
    max_attempts: int,
) -> None:
    """Settle what lost workers held: try again where that is safe, else hold it as unknown."""
    lost = sa.select(claims.c.claim).where(claims.c.destination == destination, claims.c.lease_until <= at)
    for number in connection.execute(lost).scalars().all():
        held = sa.select(*_COLUMNS).where(UNDER_WAY, outbox.c.claim == number).with_for_update(skip_locked=True)
        ops, heard = _read(connection.execute(held)), dict[str, Outcome]()
        for op_id, kind, *_ in (each.delivery for each in ops):
            heard[op_id] = Outcome(op_id, "retry" if may_repeat(repeatable, kind) else "unknown", LOST, timedelta(0))
        _settle(ledger, connection, ops, heard, at, max_attempts)
        _end(connection, number)


def settle(
    ledger: Ledger, claim: Claim, outcomes: Iterable[Outcome], *, now: datetime, max_attempts: int
) -> dict[str, int]:
    """Write outcomes and what the destination now holds, in one commit; count the states they led to.

    An outcome that comes after its lease ran out and somebody else took the operation is not written.
    """
    at, heard = utc(now), {outcome.op_id: outcome for outcome in outcomes}
    held = sa.select(outbox.c.sequence).where(UNDER_WAY, outbox.c.claim == claim.number).with_for_update()
    with ledger.writing() as connection:
        mine = set(connection.execute(held).scalars().all())
        sound = [each for each in claim.ops if each.sequence in mine and each.delivery.op_id in heard]
        counts = _settle(ledger, connection, sound, heard, at, max_attempts)
        _note_jobs(ledger, connection, sound, heard)
        _end(connection, claim.number)
    if late := len(heard) - len(sound):
        counts["late"] = late
    return dict(counts)


def _end(connection: Connection, number: int) -> None:
    """Forget a claim under which nothing is under way any more."""
    held = sa.exists().where(UNDER_WAY, outbox.c.claim == number)
    connection.execute(claims.delete().where(claims.c.claim == number, ~held))


def _note_jobs(ledger: Ledger, connection: Connection, ops: Iterable[Claimed], heard: Mapping[str, Outcome]) -> None:
    """Keep the references of what was accepted, and forget those of what has come to an end."""
    said = ((each.delivery.reference, heard[each.delivery.op_id]) for each in ops)
    new = [(known, one) for known, one in said if one.reference != known and one.state not in NOT_SENT]
    if ended := [outcome.op_id for known, outcome in new if known]:
        connection.execute(jobs.delete().where(ledger.among(jobs.c.op_id, ended)))
    if rows := [{"op_id": each.op_id, "reference": each.reference} for _, each in new if each.reference]:
        connection.execute(jobs.insert(), rows)


def _settle(
    ledger: Ledger,
    connection: Connection,
    ops: Iterable[Claimed],
    heard: Mapping[str, Outcome],
    at: datetime,
    max_attempts: int,
) -> Counter[str]:
    """Write what became of operations, alike ones in one statement; count the states they led to."""
    alike: dict[tuple[Any, ...], list[Claimed]] = defaultdict(list)
    for each in ops:
        said = heard[each.delivery.op_id]
        alike[
            each.origin, each.destination, each.tried, said.state, said.code, said.reason, said.after
        ].append(each)  # fmt: skip
    moves: list[tuple[_Move, list[Claimed]]] = []
    fared: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for (origin, destination, tried, state, code, reason, after), group in alike.items():
        _note_attempts(ledger, connection, group, state, code, reason, at)
        sort, _, sync = origin.partition(":")
        if sort == "sync" and state not in NOT_SENT:
            for different in _one_by_key(group):
                _acknowledge(ledger, connection, sync, different, state, at)
        move = _move(tried, state, reason, after, at, max_attempts)
        fared[origin, destination][move.state] += len(group)
        if move.due is None and move.state == "retry":
            waits = (backoff(each.delivery.op_id, tried) for each in group)
            moves += [(move._replace(due=at + wait), [each]) for each, wait in zip(group, waits, strict=True)]
        else:
            moves.append((move, group))
    for (origin, destination), states in sorted(fared.items()):
        _note_health(ledger, connection, origin, destination, states)
    _make(ledger, connection, moves, at)
    return sum(fared.values(), Counter())


def _note_attempts(
    ledger: Ledger,
    connection: Connection,
    ops: Sequence[Claimed],
    state: str,
    code: int | None,
    reason: str,
    at: datetime,
) -> None:
    told = sa.select(
        outbox.c.op_id, outbox.c.attempt, outbox.c.updated_at, sa.literal(at), sa.literal(state),
        sa.literal(code, sa.Integer), sa.literal(reason),
    ).where(_those(ledger, ops))  # fmt: skip
    names = ["op_id", "attempt", "at", "ended_at", "outcome", "code", "reason"]
    connection.execute(attempts.insert().from_select(names, told))


def _one_by_key(ops: list[Claimed]) -> Iterator[list[Claimed]]:
    """Two for one key, which nobody plans, must not meet in one statement."""
    while ops:
        first = {each.key: each for each in reversed(ops)}
        yield list(first.values())
        ops = [each for each in ops if first[each.key] is not each]


class _Move(NamedTuple):
    """What operations become: state, reason, attempts forgiven in addition, and when they are due if that moves.

    What is tried again without a word from the other side when, is due after a wait of each one's own.
    """

    state: str
    reason: str
    forgiven: int
    due: datetime | None


def _move(tried: int, state: str, reason: str, after: timedelta | None, at: datetime, max_attempts: int) -> _Move:
    if state in GIVEN_BACK:
        # Not an attempt: back in line as before.
        due = at if state == "untried" or after is None else at + after
        return _Move("retry" if tried > 1 else "pending", reason, 1, due)
    if state == "accepted":
        # It answered: not a failed attempt, however often it has to be asked what became of it.
        return _Move("retry", reason, 1, at + (after or FIRST_WAIT))
    if state != "retry":
        return _Move(state, reason, 0, None)
    if tried >= max_attempts:
        return _Move("failed", f"{reason}; given up after {tried} attempts", 0, None)
    return _Move("retry", reason, 0, None if after is None else at + after)


def _make(ledger: Ledger, connection: Connection, moves: Iterable[tuple[_Move, list[Claimed]]], at: datetime) -> None:
    """Write moves: each of many operations in a statement, all of single ones together."""
    moved = outbox.update().values(
        state=sa.bindparam("becomes"), reason=sa.bindparam("why"), updated_at=at,
        forgiven=outbox.c.forgiven + sa.bindparam("more", type_=sa.Integer),
        next_at=sa.func.coalesce(sa.bindparam("due", type_=sa.DateTime), outbox.c.next_at),
    )  # fmt: skip
    singles = []
    for move, ops in moves:
        values = {"becomes": move.state, "why": move.reason, "more": move.forgiven, "due": move.due}
        if len(ops) == 1:
            singles.append({**values, "which": ops[0].sequence})
        else:
            connection.execute(moved.where(_those(ledger, ops)), values)
    if singles:
        connection.execute(moved.where(outbox.c.sequence == sa.bindparam("which")), singles)


def _note_health(ledger: Ledger, connection: Connection, origin: str, destination: str, states: Counter[str]) -> None:
    delivered, rejected = states["delivered"], states["failed"]
    if not delivered + rejected:
        return
    insert = ledger.insert(health)
    new, many = insert.excluded, health.c.delivered + health.c.rejected > LATELY
    values = {
        name: sa.case((many, health.c[name] // 2), else_=health.c[name]) + new[name]
        for name in ("delivered", "rejected")
    }
    connection.execute(
        insert.on_conflict_do_update(index_elements=["origin", "destination"], set_=values),
        {"origin": origin, "destination": destination, "delivered": delivered, "rejected": rejected},
    )


def _acknowledge(
    ledger: Ledger, connection: Connection, sync: str, ops: Sequence[Claimed], state: str, at: datetime
) -> None:
    """Keep what the destination holds: certainly after an answer, perhaps after silence.

    The last operation tried is kept even when it failed: the next one for this key is derived from it, so that
    somebody who left and came back is a new operation, not the old one again.
    """
    leaves = outbox.c.kind.in_(LEAVES)
    told = sa.select(
        sa.literal(sync), outbox.c.destination, outbox.c.key, outbox.c.person_id, outbox.c.op_id,
        sa.case((leaves, sa.null()), else_=outbox.c.payload_hash),
        sa.case((leaves, sa.null()), else_=outbox.c.fingerprint), sa.literal(state == "delivered"),
        sa.literal(False) if state == "failed" else ~leaves, sa.literal(at),
    ).where(_those(ledger, ops))  # fmt: skip
    keys = ["sync", "destination", "key"]
    names = [*keys, "person_id", "op_id", "payload_hash", "fingerprint", "certain", "present", "at"]
    insert = ledger.insert(acknowledged)
    new = insert.excluded
    present: Any = sa.or_(acknowledged.c.present, new.present)
    if state in ("delivered", "failed"):
        present = new.present if state == "delivered" else acknowledged.c.present
    values = {name: new[name] for name in names[len(keys) :]} | {"present": present}
    connection.execute(insert.from_select(names, told).on_conflict_do_update(index_elements=keys, set_=values))

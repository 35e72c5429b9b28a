"""Whose turn it is: frequency caps, quiet hours and budgets, counted over everything that reached or may reach people.

A turn is taken before the message leaves, so that several workers together keep to a cap. Runs after the gates that
look at the person alone (gates.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql import Executable

from cdp_pipeline.activation.ledger import Ledger, insert_into, utc
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline.activation.schema import UNDER_WAY, contact_turns, jobs, outbox
from cdp_pipeline.consent.ledger import LISTED, each_of, listed, one_of
from cdp_pipeline.consent.subjects import Subject
from cdp_pipeline.spec.base import duration_text
from cdp_pipeline.spec.contact_policy import Budget, Cap, ContactPolicy
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.project import Project

REFUSED = "gate: "
"""How every reason for a refusal begins: what was refused may be sent once nothing speaks against it any more."""
ASK_AGAIN = timedelta(minutes=1)
WORTH_WAITING_FOR = timedelta(hours=1)
"""How long something more important that was decided, but not sent, keeps its turn before others."""
FORGOTTEN = timedelta(days=2)
REACHED = ("delivered", "unknown", "doubtful")
SHOWN = "dry_run"
WAITING = ("pending", "retry")
# Written out, not bound: both databases use a partial index only for a condition they can read.
_ACTS = "kind = 'act'"
_ARRIVED = f"{_ACTS} AND state IN {(*REACHED, SHOWN)}"
_INDEXES = (
    ("outbox_acts", "person_id", _ACTS),
    ("outbox_arrived", "updated_at, state, origin, destination", _ARRIVED),
)


class Turn(NamedTuple):
    """A message that waits to be let through; `quiet` is until when its person sleeps."""

    op_id: str
    origin: str
    person: Subject
    quiet: datetime | None


class _Contact(NamedTuple):
    """What was sent to somebody, is being sent, or is to be sent before others."""

    channel: str | None
    purpose: str | None
    state: str
    at: datetime
    priority: int


class _Call(NamedTuple):
    """What calls for messages at a destination: one more of them, the caps on it, and its price to each budget."""

    contact: _Contact
    caps: Sequence[Cap]
    prices: Sequence[tuple[int, Decimal]]


class Turns:
    """Lets through what caps, quiet hours and budgets allow, and remembers it until it has arrived."""

    def __init__(self, ledger: Ledger, project: Project) -> None:
        self._ledger = ledger
        self._project = project
        self._policy = project.contact_policy or ContactPolicy(
            kind="contact_policy", name="none", description="No policy is declared."
        )
        self._ready = False

    def refusals(self, turns: Sequence[Turn], destination: Destination, now: datetime) -> dict[str, Outcome]:
        """By op_id what must not be sent now: 'suppressed', or 'waits' with how long. The others have their turn."""
        if not turns:
            return {}
        caps, budgets = self._policy.caps, self._policy.budgets
        if not caps and not budgets:
            return {turn.op_id: _sleeps(turn.op_id, turn.quiet, now) for turn in turns if turn.quiet is not None}
        self._prepare()
        with self._ledger.writing("contacts") as connection:
            refused = self._refused(connection, turns, destination, now)
            self._take(connection, [turn.op_id for turn in turns if turn.op_id not in refused], now)
        return refused

    def against(self, turn: Turn, destination: Destination, now: datetime) -> Outcome | None:
        """What would be said of this message if it came now; it takes no turn."""
        with self._ledger.reading() as connection:
            return self._refused(connection, [turn], destination, now).get(turn.op_id)

    def _refused(
        self, connection: Connection, turns: Sequence[Turn], destination: Destination, now: datetime
    ) -> dict[str, Outcome]:
        budgets, refused = self._policy.budgets, dict[str, Outcome]()
        calls = {origin: self._call(origin, destination, now) for origin in {turn.origin for turn in turns}}
        # In a dry run what was shown before counts as if it had arrived; of what is sent it never takes a turn.
        reached = (*REACHED, SHOWN) if destination.dry_run else REACHED
        contacts = self._contacts(connection, turns, reached, now) if self._policy.caps else defaultdict(list)
        spent = self._spent(connection, turns, reached, now)
        for turn in sorted(turns, key=lambda turn: -calls[turn.origin].contact.priority):
            call, mine = calls[turn.origin], contacts[turn.person.person_id]
            outcome = _capped(call, turn, mine, now) if mine else None  # A cap lets at least one through.
            if outcome is None and turn.quiet is not None:
                outcome = _sleeps(turn.op_id, turn.quiet, now)
            if outcome is None:
                outcome = _broke(budgets, spent, call.prices, turn)
            if outcome is not None:
                refused[turn.op_id] = outcome
                continue
            mine.append(call.contact)
            for i, price in call.prices:
                spent[i] += price
        return refused

    def _prepare(self) -> None:
        if self._ready:
            return
        with self._ledger.writing("schema") as connection:
            # Only who has a policy pays for finding the past of a person, or of everybody.
            for name, columns, some in _INDEXES:
                connection.execute(sa.text(f"CREATE INDEX IF NOT EXISTS {name} ON outbox ({columns}) WHERE {some}"))
            for name in ("outbox_person", "outbox_sent"):  # of earlier versions
                connection.execute(sa.text(f"DROP INDEX IF EXISTS {name}"))
        self._ready = True

    def _call(self, origin: str, destination: Destination, now: datetime) -> _Call:
        purpose, channel, budgets = self._purpose(origin), destination.channel, self._policy.budgets
        caps = [cap for cap in self._policy.caps if cap.concerns(channel, purpose)]
        prices = [(i, price) for i, each in enumerate(budgets) if (price := _pays(each, origin, channel, purpose))]
        return _Call(_Contact(channel, purpose, "inflight", now, self._priority(origin)), caps, prices)

    def _take(self, connection: Connection, op_ids: Sequence[str], now: datetime) -> None:
        connection.execute(contact_turns.delete().where(contact_turns.c.at < utc(now) - FORGOTTEN))
        if op_ids:
            dialect = connection.dialect.name
            connection.execute(_TAKE[dialect], {"op_ids": listed(dialect, op_ids), "at": utc(now)})

    def _contacts(
        self, connection: Connection, turns: Sequence[Turn], reached: Sequence[str], now: datetime
    ) -> defaultdict[str, list[_Contact]]:
        """What counts towards caps, by living person: sent within the longest cap, on its way, or more important."""
        at, within = utc(now), max(cap.within for cap in self._policy.caps)
        whose = {one: turn.person.person_id for turn in turns for one in turn.person.ids}
        judged = {turn.op_id for turn in turns}
        dialect = connection.dialect.name
        given = {
            "at": at,
            "within": at - within,
            "reached": reached,
            "decided": at - WORTH_WAITING_FOR,
            "ids": listed(dialect, [*whose]),
        }
        found: defaultdict[str, list[_Contact]] = defaultdict(list)
        for one in connection.execute(_COUNTS[dialect], given).all():
            spec = self._project.destinations.get(one.destination)
            going = one.state not in WAITING or (spec is not None and not spec.dry_run)
            if one.op_id not in judged and going:
                channel = None if spec is None else spec.channel
                at_utc, origin = one.updated_at.replace(tzinfo=UTC), one.origin
                contact = _Contact(channel, self._purpose(origin), one.state, at_utc, self._priority(origin))
                found[whose[one.person_id]].append(contact)
        return found

    def _spent(
        self, connection: Connection, turns: Sequence[Turn], reached: Sequence[str], now: datetime
    ) -> list[Decimal]:
        """What was spent of each budget within its time, and what is being spent."""
        row, budgets = outbox.c, self._policy.budgets
        if not budgets:
            return []
        judged, columns = {turn.op_id for turn in turns}, (row.origin, row.destination)
        taken = sa.select(row.op_id, *columns).join_from(outbox, contact_turns, contact_turns.c.op_id == row.op_id)
        under_way = Counter(
            (one.origin, one.destination)
            for one in connection.execute(taken.where(UNDER_WAY)).all()
            if one.op_id not in judged
        )
        spent = []
        for budget in budgets:
            within = (sa.text(_ARRIVED), row.state.in_(reached), row.updated_at > utc(now) - budget.within)
            told = connection.execute(sa.select(*columns, sa.func.count()).where(*within).group_by(*columns))
            counts = under_way + Counter({(origin, name): count for origin, name, count in told})
            spent.append(sum((self._paid(budget, *one) * count for one, count in counts.items()), Decimal(0)))
        return spent

    def _paid(self, budget: Budget, origin: str, destination: str) -> Decimal:
        spec = self._project.destinations.get(destination)
        return _pays(budget, origin, None if spec is None else spec.channel, self._purpose(origin))

    def _purpose(self, origin: str) -> str | None:
        trigger = self._project.triggers.get(origin.removeprefix("trigger:"))
        return None if trigger is None else trigger.purpose

    def _priority(self, origin: str) -> int:
        trigger = self._project.triggers.get(origin.removeprefix("trigger:"))
        return 0 if trigger is None else trigger.priority


def _counting(dialect: str) -> sa.Select[Any]:
    """What counts towards caps of some ids; put together once, for it is asked before everything that is sent."""
    row = outbox.c
    at, within, decided = (sa.bindparam(name, type_=sa.DateTime) for name in ("at", "within", "decided"))
    counts = sa.or_(
        sa.and_(row.state.in_(sa.bindparam("reached", expanding=True)), row.updated_at > within),
        sa.and_(row.state == "inflight", contact_turns.c.op_id.is_not(None)),
        jobs.c.op_id.is_not(None),
        sa.and_(row.state.in_(WAITING), row.next_at <= at, row.created_at > decided),
    )
    columns = (row.op_id, row.person_id, row.origin, row.destination, row.updated_at)
    state = sa.case((jobs.c.op_id.is_not(None), "inflight"), else_=row.state)  # accepted: as good as on its way
    return (
        sa.select(*columns, state.label("state"))
        .outerjoin_from(outbox, contact_turns, contact_turns.c.op_id == row.op_id)
        .outerjoin(jobs, jobs.c.op_id == row.op_id)
        .where(sa.text(_ACTS), counts)
        .where(one_of(dialect, row.person_id, sa.bindparam("ids", type_=LISTED[dialect])))
    )


def _taking(dialect: str) -> Executable:
    """Notes that some operations have had their turn, in one statement."""
    op_ids, at = sa.bindparam("op_ids", type_=LISTED[dialect]), sa.bindparam("at", type_=sa.DateTime)
    insert = insert_into(dialect, contact_turns)
    # The condition tells SQLite where the rows end and what to do with those that are there begins.
    taken = insert.from_select(["op_id", "at"], sa.select(each_of(dialect, op_ids).c.value, at).where(sa.true()))
    return taken.on_conflict_do_update(index_elements=["op_id"], set_={"at": insert.excluded.at})


_COUNTS = {dialect: _counting(dialect) for dialect in LISTED}
_TAKE = {dialect: _taking(dialect) for dialect in LISTED}


def _capped(call: _Call, turn: Turn, mine: Sequence[_Contact], now: datetime) -> Outcome | None:
    """Refused for good where so much has arrived already; asked again where it depends on what is on its way."""
    priority = call.contact.priority
    for cap in call.caps:
        theirs = [one for one in mine if one.channel is not None and cap.concerns(one.channel, one.purpose)]
        arrived = sum(one.state in (*REACHED, SHOWN) and one.at > now - cap.within for one in theirs)
        way = sum(one.state == "inflight" or (one.state in WAITING and one.priority > priority) for one in theirs)
        if arrived + way < cap.most:
            continue
        words = f"{REFUSED}frequency cap: {cap.most} in {duration_text(cap.within)}"
        if arrived >= cap.most:
            return Outcome(turn.op_id, "suppressed", words)
        return Outcome(turn.op_id, "waits", f"{words}, something else goes first", ASK_AGAIN)
    return None


def _sleeps(op_id: str, until: datetime | None, now: datetime) -> Outcome:
    return Outcome(op_id, "waits", f"{REFUSED}quiet hours", ASK_AGAIN if until is None else until - now)


def _broke(
    budgets: Sequence[Budget], spent: Sequence[Decimal], prices: Iterable[tuple[int, Decimal]], turn: Turn
) -> Outcome | None:
    for i, price in prices:
        if spent[i] + price > (budget := budgets[i]).most:
            unit = f" {budget.currency}" if budget.currency else ""
            words = f"{REFUSED}budget: {budget.most}{unit} in {duration_text(budget.within)}"
            return Outcome(turn.op_id, "suppressed", words)
    return None


def _pays(budget: Budget, origin: str, channel: str | None, purpose: str | None) -> Decimal:
    """What one message takes from a budget: nothing where it is none of its business."""
    named = not budget.triggers or origin.removeprefix("trigger:") in budget.triggers
    return budget.each if named and channel is not None and budget.concerns(channel, purpose) else Decimal(0)

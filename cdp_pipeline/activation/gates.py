"""The gates every delivery passes at the moment it is sent, in order; each refusal is kept with its reason.

Erased or suppressed, purpose, channel, bounce or complaint, control group, frequency cap, quiet hours, budget. What
follows from what people said is consent/'s; how often and how much is turns.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import NamedTuple, Protocol

import pyarrow as pa
import sqlalchemy as sa

from cdp_pipeline.activation.barred import GONE, barred_people
from cdp_pipeline.activation.claims import Claimed
from cdp_pipeline.activation.controls import concerned, held_out
from cdp_pipeline.activation.ledger import Ledger, utc
from cdp_pipeline.activation.protocol import Outcome, read_together
from cdp_pipeline.activation.quiet import longest, zone_of
from cdp_pipeline.activation.schema import WAITS, outbox
from cdp_pipeline.activation.turns import REFUSED, Turn, Turns
from cdp_pipeline.consent.ledger import ConsentLedger, Identifier, understood
from cdp_pipeline.consent.permissions import refusal
from cdp_pipeline.consent.subjects import Subject, Subjects
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.reach import WAYS
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline.spec.trigger import Trigger

ASKED_AHEAD = 20_000
KEPT = 5 * ASKED_AHEAD
TAKES_OUT = ("remove", "left")
NOBODYS: Sequence[Identifier] = ()


class Gates(Protocol):
    """Who may be sent what at this instant."""

    def refusals(self, claimed: Sequence[Claimed], destination: Destination, now: datetime) -> dict[str, Outcome]:
        """By op_id the operations that must not be sent now: 'suppressed', or 'waits' with how long.

        What takes somebody out of a destination ('remove', 'left') always passes.
        """


class _Met(NamedTuple):
    """Somebody, the hashes their identifiers are kept under, in the same order, and where they live."""

    subject: Subject
    prints: tuple[str, ...]
    place: str | None


class _Asked(NamedTuple):
    """Somebody who may be sent something: what calls for it, and the addresses it goes to."""

    op_id: str
    origin: str
    met: _Met
    addresses: Sequence[Identifier]


class ContactGates:
    """The gates a project declares: its consent document and its contact policy, and whoever is suppressed.

    Who is who is asked once: open new ones for every round of deliveries. What they say is asked every time.
    """

    def __init__(self, ledger: Ledger, project: Project, consents: ConsentLedger, subjects: Subjects) -> None:
        self._ledger = ledger
        self._project = project
        self._consents = consents
        self._subjects = subjects
        self._turns = Turns(ledger, project)
        self._known: dict[str, _Met | None] = {}

    def refusals(self, claimed: Sequence[Claimed], destination: Destination, now: datetime) -> dict[str, Outcome]:
        # What the other side has accepted already is only asked about: it has passed.
        sent = [
            one
            for one in claimed
            if one.person_id and one.delivery.kind not in TAKES_OUT and not one.delivery.reference
        ]
        if any(one.person_id not in self._known for one in sent):
            # Those whose turn it will be next with them: one or many cost the same.
            self._meet({one.person_id for one in sent} | self._due(destination, now))
        refused, asked, acts = dict[str, Outcome](), list[_Asked](), set[str]()
        written_to = {origin: self._written_to(origin, destination) for origin in {one.origin for one in sent}}
        if any(written_to.values()):
            read_together(one.delivery.payload for one in sent)
        for one in sent:
            (op_id, kind, payload, _), met, written = one.delivery, self._known[one.person_id], written_to[one.origin]
            if met is None:
                refused[op_id] = Outcome(op_id, "suppressed", GONE)
                continue
            asked.append(_Asked(op_id, one.origin, met, NOBODYS if written is None else written(payload)))
            if kind == "act":
                acts.add(op_id)
        for op_id, reason in self._reasons(asked, destination, now).items():
            refused[op_id] = Outcome(op_id, "suppressed", reason)
        if destination.channel is None or self._project.contact_policy is None:
            return refused
        asleep = self._asleep(destination, now)
        passed = [
            Turn(case.op_id, case.origin, case.met.subject, asleep(case.origin, case.met.subject))
            for case in asked
            if case.op_id in acts and case.op_id not in refused
        ]
        return refused | self._turns.refusals(passed, destination, now)

    def barred(self, sync: Sync, people: pa.Table, destination: Destination, now: datetime) -> dict[str, str]:
        """Of some people (`person_id` and what the mapping names) those a sync must not put there, by id, and why."""
        return barred_people(self._subjects.everybody(), self._consents, self._project, sync, people, destination, now)

    def standing(self, trigger: Trigger, person_id: str, destination: Destination, now: datetime) -> str | None:
        """What would keep this from a person if it were sent now, by what they said, how often and when."""
        self._meet({person_id})
        met = self._known[person_id]
        if met is None:
            return GONE
        origin, person = f"trigger:{trigger.name}", met.subject
        reason = self._reasons([_Asked("", origin, met, NOBODYS)], destination, now).get("")
        if reason is None and self._project.contact_policy is not None:
            turn = Turn("", origin, person, self._asleep(destination, now)(origin, person))
            outcome = self._turns.against(turn, destination, now)
            reason = None if outcome is None else outcome.reason
        return reason

    def _reasons(self, asked: Sequence[_Asked], destination: Destination, now: datetime) -> dict[str, str]:
        """By op_id why some must not be sent it, by what they and their addresses say at this instant."""
        fingerprint, purposes = self._consents.fingerprint, {one.origin: self._purpose(one.origin) for one in asked}
        prints = {each for one in asked for each in one.met.prints}
        others = {
            name: fingerprint(name)
            for one in asked
            for name in one.addresses
            if name not in one.met.subject.identifiers
        }
        prints.update(others.values())
        about = {f"purpose:{purpose}" for purpose in purposes.values()} | {f"channel:{destination.channel}"}
        words = self._consents.words_of(prints, about, now)
        consent, policy = self._project.consent, self._project.contact_policy
        controls = [] if policy is None else policy.controls
        measured = {origin: concerned(controls, origin, purpose) for origin, purpose in purposes.items()}

        @cache
        def follows(origin: str, place: str | None, said: Sequence[tuple[bool, str]]) -> str | None:
            """What follows for everybody of whom this is said (of an address in use or not): most say the same."""
            voices = [(in_use, understood(each)) for in_use, each in said]
            return refusal(consent, purposes[origin], destination.channel, voices, place)

        found = dict[str, str]()
        for op_id, origin, (person, theirs, place), addresses in asked:
            said = [
                (not addresses or name in addresses, words[each])
                for name, each in zip(person.identifiers, theirs, strict=True)
                if each in words
            ]
            if others:
                said += [(True, words[others[name]]) for name in addresses if others.get(name) in words]
            reason = follows(origin, place, tuple(said))
            if reason is None and (groups := measured[origin]):
                group = held_out(groups, person.person_id)
                reason = None if group is None else f"control group: {group}"
            if reason is not None:
                found[op_id] = REFUSED + reason
        return found

    def _meet(self, person_ids: set[str]) -> None:
        """Find out who some people are."""
        if len(self._known) > KEPT:
            self._known.clear()
        strangers, fingerprint = person_ids - self._known.keys(), self._consents.fingerprint
        law = "" if (consent := self._project.consent) is None else consent.jurisdiction or ""
        self._known |= dict.fromkeys(strangers)
        for person_id, subject in self._subjects.of(strangers).items():
            place = subject.attributes.get(law)
            prints = tuple(map(fingerprint, subject.identifiers))
            self._known[person_id] = _Met(subject, prints, None if place is None else str(place))

    def _due(self, destination: Destination, now: datetime) -> set[str]:
        """Whose turn it will soon be: asked together, because a question to the lake costs the same for one or many."""
        row = outbox.c
        waits = (row.destination == destination.name, WAITS, row.next_at <= utc(now))
        with self._ledger.reading() as connection:
            return set(connection.execute(sa.select(row.person_id).where(*waits).limit(ASKED_AHEAD)).scalars().all())

    def _cause(self, origin: str) -> Trigger | Sync | None:
        sort, _, name = origin.partition(":")
        if sort == "trigger":
            return self._project.triggers.get(name)
        return self._project.syncs.get(name) if sort == "sync" else None

    def _purpose(self, origin: str) -> str | None:
        cause = self._cause(origin)
        return None if cause is None else cause.purpose

    def _written_to(
        self, origin: str, destination: Destination
    ) -> Callable[[Mapping[str, object]], Sequence[Identifier]] | None:
        """Finds the identifiers that a payload itself holds: who is written to, whoever that is by now."""
        way, known = WAYS.get(destination.channel or ""), self._project.identifiers
        types = [] if way is None else [type_ for type_ in way.identifiers if type_ in known]
        # The fields of a sync that hold identifiers: attributes that are called as their type is.
        cause = self._cause(origin)
        mapping = cause.mapping if isinstance(cause, Sync) else {}
        named = [(sent, name) for sent, name in mapping.items() if name in known]

        def found(payload: Mapping[str, object]) -> Sequence[Identifier]:
            pairs = [(type_, payload.get("to")) for type_ in types]
            data = payload.get("data") if named else None
            if isinstance(data, Mapping):
                pairs += [(name, data.get(sent)) for sent, name in named]
            return [(type_, value) for type_, value in pairs if isinstance(value, str) and value]

        return found if types or named else None

    def _asleep(self, destination: Destination, now: datetime) -> Callable[[str, Subject], datetime | None]:
        """Finds until when somebody is left in peace."""
        policy, zone = self._project.contact_policy, self._project.zone
        hours = [] if policy is None else policy.quiet_hours
        names = sorted({one.zone for one in hours if one.zone is not None})

        @cache
        def until(origin: str, *said: object) -> datetime | None:
            known, purpose = dict(zip(names, said, strict=True)), self._purpose(origin)
            theirs = [(one, zone_of(one, known, zone)) for one in hours if one.concerns(destination.channel, purpose)]
            return longest(theirs, now)

        return lambda origin, person: until(origin, *map(person.attributes.get, names))

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
from cdp_pipeline.activation.ledger import Ledger, outbox, utc
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline.activation.quiet import longest, zone_of
from cdp_pipeline.activation.turns import REFUSED, Turn, Turns
from cdp_pipeline.consent.ledger import ConsentLedger, Identifier
from cdp_pipeline.consent.permissions import Voices, refusal
from cdp_pipeline.consent.subjects import Subject, Subjects
from cdp_pipeline.spec.contact_policy import Control
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


class _Asked(NamedTuple):
    """Somebody who may be sent something: what calls for it, and the addresses it goes to."""

    origin: str
    purpose: str | None
    subject: Subject
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
        self._known: dict[str, Subject | None] = {}
        self._prints: dict[Identifier, str] = {}

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
        refused: dict[str, Outcome] = {}
        asked: dict[str, _Asked] = {}
        origins = {one.origin for one in sent}
        purposes = {origin: self._purpose(origin) for origin in origins}
        written_to = {origin: self._written_to(origin, destination) for origin in origins}
        for one in sent:
            op_id, subject = one.delivery.op_id, self._known[one.person_id]
            if subject is None:
                refused[op_id] = Outcome(op_id, "suppressed", GONE)
            else:
                addresses = written_to[one.origin](one.delivery.payload)
                asked[op_id] = _Asked(one.origin, purposes[one.origin], subject, addresses)
        reasons = self._reasons(asked, destination, now)
        refused |= {op_id: Outcome(op_id, "suppressed", reason) for op_id, reason in reasons.items()}
        if destination.channel is None or self._project.contact_policy is None:
            return refused
        asleep, passed = self._asleep(destination, now), []
        for one in sent:
            op_id = one.delivery.op_id
            if one.delivery.kind == "act" and op_id not in refused:
                case = asked[op_id]
                passed.append(Turn(op_id, one.origin, case.purpose, case.subject, asleep(case)))
        return refused | self._turns.refusals(passed, destination, now)

    def barred(self, sync: Sync, people: pa.Table, destination: Destination, now: datetime) -> dict[str, str]:
        """Of some people (`person_id` and what the mapping names) those a sync must not put there, by id, and why."""
        return barred_people(self._subjects.everybody(), self._consents, self._project, sync, people, destination, now)

    def standing(self, trigger: Trigger, person_id: str, destination: Destination, now: datetime) -> str | None:
        """What would keep this from a person if it were sent now, by what they said, how often and when."""
        self._meet({person_id})
        subject = self._known[person_id]
        if subject is None:
            return GONE
        asked = _Asked(f"trigger:{trigger.name}", trigger.purpose, subject, NOBODYS)
        reason = self._reasons({person_id: asked}, destination, now).get(person_id)
        if reason is None and self._project.contact_policy is not None:
            turn = Turn("", asked.origin, asked.purpose, subject, self._asleep(destination, now)(asked))
            outcome = self._turns.against(turn, destination, now)
            reason = None if outcome is None else outcome.reason
        return reason

    def _reasons(self, asked: Mapping[str, _Asked], destination: Destination, now: datetime) -> dict[str, str]:
        """Why some must not be sent what is asked for, by what they and their addresses say at this instant."""
        prints, fingerprint, speak = self._prints, self._consents.fingerprint, dict[str, Sequence[Identifier]]()
        for key, one in asked.items():
            names = one.subject.identifiers
            others = [name for name in one.addresses if name not in names]
            speak[key] = names = (*names, *others) if others else names
            for name in names:
                if name not in prints:
                    prints[name] = fingerprint(name)
        about = {f"purpose:{one.purpose}" for one in asked.values()} | {f"channel:{destination.channel}"}
        heard = self._consents.heard_of({prints[name] for names in speak.values() for name in names}, about, now)
        policy, found = self._project.contact_policy, dict[str, str]()
        measured = {
            one: [] if policy is None else concerned(policy.controls, *one)
            for one in {(one.origin, one.purpose) for one in asked.values()}
        }
        for key, one in asked.items():
            voices = [(name, said) for name in speak[key] if (said := heard.get(prints[name])) is not None]
            reason = self._reason(one, voices, destination, measured[one.origin, one.purpose])
            if reason is not None:
                found[key] = REFUSED + reason
        return found

    def _meet(self, person_ids: set[str]) -> None:
        """Find out who some people are."""
        if len(self._known) > KEPT:
            self._known.clear()
            self._prints.clear()
        strangers = person_ids - self._known.keys()
        found = self._subjects.of(strangers)
        self._known |= {person_id: found.get(person_id) for person_id in strangers}

    def _due(self, destination: Destination, now: datetime) -> set[str]:
        """Whose turn it will soon be: asked together, because a question to the lake costs the same for one or many."""
        row = outbox.c
        waits = (row.destination == destination.name, sa.text("state IN ('pending', 'retry')"), row.next_at <= utc(now))
        with self._ledger.reading() as connection:
            return set(connection.execute(sa.select(row.person_id).where(*waits).limit(ASKED_AHEAD)).scalars())

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
    ) -> Callable[[Mapping[str, object]], Sequence[Identifier]]:
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

        return found if types or named else lambda _payload: NOBODYS

    def _reason(self, asked: _Asked, voices: Voices, destination: Destination, groups: Sequence[Control]) -> str | None:
        consent, person = self._project.consent, asked.subject
        place = None if consent is None else person.attributes.get(consent.jurisdiction or "")
        where = None if place is None else str(place)
        reason = refusal(consent, asked.purpose, destination.channel, voices, where, asked.addresses)
        if reason is None and groups:
            group = held_out(groups, person.person_id)
            reason = None if group is None else f"control group: {group}"
        return reason

    def _asleep(self, destination: Destination, now: datetime) -> Callable[[_Asked], datetime | None]:
        """Finds until when somebody is left in peace."""
        policy, zone = self._project.contact_policy, self._project.zone
        hours = [] if policy is None else policy.quiet_hours
        names = sorted({one.zone for one in hours if one.zone is not None})

        @cache
        def until(purpose: str | None, *said: object) -> datetime | None:
            known = dict(zip(names, said, strict=True))
            theirs = [(one, zone_of(one, known, zone)) for one in hours if one.concerns(destination.channel, purpose)]
            return longest(theirs, now)

        return lambda asked: until(asked.purpose, *map(asked.subject.attributes.get, names))

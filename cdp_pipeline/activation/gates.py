"""The gates every delivery passes at the moment it is sent, in order; each refusal is kept with its reason.

Erased or suppressed, purpose, channel, bounce or complaint, control group, frequency cap, quiet hours, budget. What
follows from what people said is consent/'s; how often and how much is turns.py's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import sqlalchemy as sa

from cdp_pipeline.activation.claims import Claimed
from cdp_pipeline.activation.controls import held_out
from cdp_pipeline.activation.ledger import Ledger, outbox, utc
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline.activation.quiet import longest, zone_of
from cdp_pipeline.activation.turns import REFUSED, Turn, Turns
from cdp_pipeline.consent.ledger import ConsentLedger, Identifier
from cdp_pipeline.consent.permissions import Voices, channel_refused, purpose_refused, suppressed, undeliverable
from cdp_pipeline.consent.subjects import Subject, Subjects
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.reach import WAYS
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline.spec.trigger import Trigger

ASKED_AHEAD = 20_000
TAKES_OUT = ("remove", "left")
GONE = f"{REFUSED}nobody has this id any more"


class Gates(Protocol):
    """Who may be sent what at this instant."""

    def refusals(self, claimed: Sequence[Claimed], destination: Destination, now: datetime) -> dict[str, Outcome]:
        """By op_id the operations that must not be sent now: 'suppressed', or 'waits' with how long.

        What takes somebody out of a destination ('remove', 'left') always passes.
        """


@dataclass(frozen=True)
class _Case:
    """What is asked for, and all there is to know about the person."""

    origin: str
    subject: Subject
    voices: Voices
    addresses: Collection[Identifier]
    purpose: str | None
    priority: int


class ContactGates:
    """The gates a project declares: its consent document and its contact policy, and whoever is suppressed.

    Who is who is asked once: open new ones for every round of deliveries.
    """

    def __init__(self, ledger: Ledger, project: Project, consents: ConsentLedger, subjects: Subjects) -> None:
        self._ledger = ledger
        self._project = project
        self._consents = consents
        self._subjects = subjects
        self._turns = Turns(ledger, project)
        self._about = _asked(project)
        self._known: dict[str, Subject | None] = {}

    def refusals(self, claimed: Sequence[Claimed], destination: Destination, now: datetime) -> dict[str, Outcome]:
        # What the other side has accepted already is only asked about: it has passed.
        asked = {
            one.delivery.op_id: one
            for one in claimed
            if one.person_id and one.delivery.kind not in TAKES_OUT and not one.delivery.reference
        }
        if not asked:
            return {}
        wanted = {
            op_id: (one.origin, one.person_id, self._written_to(one, destination)) for op_id, one in asked.items()
        }
        if any(one.person_id not in self._known for one in asked.values()):
            self._meet({one.person_id for one in asked.values()} | self._due(destination, now))
        refused: dict[str, Outcome] = {}
        passed = []
        counts = destination.channel is not None and self._project.contact_policy is not None
        for op_id, case in self._cases(wanted, now):
            reason = GONE if case is None else self._reason(case, destination)
            if reason is not None:
                refused[op_id] = Outcome(op_id, "suppressed", reason)
            elif case is not None and counts and asked[op_id].delivery.kind == "act":
                passed.append(self._turn(op_id, case, destination, now))
        return refused | self._turns.refusals(passed, destination, now)

    def barred(
        self, sync: Sync, people: Mapping[str, Mapping[str, object]], destination: Destination, now: datetime
    ) -> dict[str, str]:
        """Of some people (what is known of each, by id) those that a sync must not put anywhere, and why."""
        origin, mapped = f"sync:{sync.name}", self._named(sync)
        wanted = {
            person_id: (origin, person_id, _identifiers((name, known.get(name)) for name in mapped.values()))
            for person_id, known in people.items()
        }
        found = {
            person_id: GONE if case is None else self._reason(case, destination)
            for person_id, case in self._cases(wanted, now)
        }
        return {person_id: reason for person_id, reason in found.items() if reason is not None}

    def standing(self, trigger: Trigger, person_id: str, destination: Destination, now: datetime) -> str | None:
        """What speaks against ever sending this to a person as things are; when and how often is another matter."""
        asked = {person_id: (f"trigger:{trigger.name}", person_id, frozenset[Identifier]())}
        ((_, case),) = self._cases(asked, now)
        return GONE if case is None else self._reason(case, destination)

    def _cases(
        self, asked: Mapping[str, tuple[str, str, frozenset[Identifier]]], now: datetime
    ) -> Iterator[tuple[str, _Case | None]]:
        """Each with its case, None for somebody who is nobody any more. Asked are origin, person and addresses."""
        self._meet({person_id for _, person_id, _ in asked.values()})
        known = {key: subject for key, one in asked.items() if (subject := self._known[one[1]]) is not None}
        used = {each for key, subject in known.items() for each in subject.identifiers | asked[key][2]}
        heard = self._consents.heard(used, self._about, now)
        for key, (origin, _, addresses) in asked.items():
            if (subject := known.get(key)) is None:
                yield key, None
                continue
            voices = [(each, heard[each]) for each in subject.identifiers | addresses if each in heard]
            cause = self._cause(origin)
            purpose, priority = (None, 0) if cause is None else (cause.purpose, cause.priority)
            yield key, _Case(origin, subject, voices, addresses, purpose, priority)

    def _meet(self, person_ids: Collection[str]) -> None:
        """Find out who some people are, as of when the gates were opened."""
        strangers = [person_id for person_id in person_ids if person_id not in self._known]
        if strangers:
            found = self._subjects(strangers)
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

    def _named(self, cause: Trigger | Sync | None) -> dict[str, str]:
        """The fields of a sync that hold identifiers: attributes that are called as their type is."""
        if not isinstance(cause, Sync):
            return {}
        return {sent: name for sent, name in cause.mapping.items() if name in self._project.identifiers}

    def _written_to(self, one: Claimed, destination: Destination) -> frozenset[Identifier]:
        """The identifiers that the payload itself holds: who is written to, whoever that is by now."""
        way, data = WAYS.get(destination.channel or ""), one.delivery.payload.get("data")
        types = [] if way is None else [type_ for type_ in way.identifiers if type_ in self._project.identifiers]
        found = _identifiers((type_, one.delivery.payload.get("to")) for type_ in types)
        if isinstance(data, Mapping):
            named = self._named(self._cause(one.origin))
            found |= _identifiers((name, data.get(sent)) for sent, name in named.items())
        return found

    def _reason(self, case: _Case, destination: Destination) -> str | None:
        consent, policy = self._project.consent, self._project.contact_policy
        channel, voices = destination.channel, case.voices
        reason = suppressed(voices, channel)
        if reason is None and consent is not None:
            place = case.subject.attributes.get(consent.jurisdiction or "")
            where = None if place is None else str(place)
            reason = purpose_refused(consent, case.purpose, voices, where) or channel_refused(
                consent, channel, case.purpose, voices, where
            )
        if reason is None:
            reason = undeliverable(voices, channel, case.addresses)
        if reason is None and policy is not None:
            group = held_out(policy.controls, case.origin, case.purpose, case.subject.person_id)
            reason = None if group is None else f"control group: {group}"
        return None if reason is None else REFUSED + reason

    def _turn(self, op_id: str, case: _Case, destination: Destination, now: datetime) -> Turn:
        policy, zone = self._project.contact_policy, self._project.zone
        hours = [] if policy is None else policy.quiet_hours
        theirs = [
            (one, zone_of(one, case.subject.attributes, zone))
            for one in hours
            if one.concerns(destination.channel, case.purpose)
        ]
        until = longest(theirs, now)
        return Turn(
            op_id, case.origin, case.purpose, case.priority, case.subject.person_id,
            case.subject.ids, until,
        )  # fmt: skip


def _identifiers(pairs: Iterable[tuple[str, object]]) -> frozenset[Identifier]:
    return frozenset((type_, value) for type_, value in pairs if isinstance(value, str) and value)


def _asked(project: Project) -> list[str]:
    """All that anybody may have said something about, as far as it matters."""
    consent = project.consent
    if consent is None:
        return []
    return [*(f"purpose:{name}" for name in consent.purposes), *(f"channel:{name}" for name in consent.channels)]

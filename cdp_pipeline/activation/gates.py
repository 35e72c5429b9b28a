"""The gates every delivery passes at the moment it is sent, in order; each refusal is kept with its reason.

Erased or suppressed, purpose, channel, bounce or complaint, control group, frequency cap, quiet hours, budget. What
follows from what people said is consent/'s; how often and how much is turns.py's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cdp_pipeline.activation.controls import held_out
from cdp_pipeline.activation.ledger import Claimed, Ledger
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline.activation.quiet import longest, zone_of
from cdp_pipeline.activation.turns import REFUSED, Turn, Turns
from cdp_pipeline.consent.ledger import NOTHING, ConsentLedger, Identifier
from cdp_pipeline.consent.permissions import Voices, channel_refused, purpose_refused, suppressed, undeliverable
from cdp_pipeline.consent.subjects import Subject, Subjects
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.reach import WAYS
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline.spec.trigger import Trigger

TAKES_OUT = ("remove", "left")


class Gates(Protocol):
    """Who may be sent what at this instant."""

    def refusals(self, claimed: Sequence[Claimed], destination: Destination, now: datetime) -> dict[str, Outcome]:
        """By op_id the operations that must not be sent now: 'suppressed', or 'waits' with how long.

        What takes somebody out of a destination ('remove', 'left') always passes.
        """


@dataclass(frozen=True)
class _Case:
    """An operation, and all there is to know about it."""

    claimed: Claimed
    subject: Subject
    voices: Voices
    addresses: Collection[Identifier]
    purpose: str | None
    priority: int


class ContactGates:
    """The gates a project declares: its consent document and its contact policy, and whoever is suppressed."""

    def __init__(self, ledger: Ledger, project: Project, consents: ConsentLedger, subjects: Subjects) -> None:
        self._project = project
        self._consents = consents
        self._subjects = subjects
        self._turns = Turns(ledger, project)
        self._about = _asked(project)

    def refusals(self, claimed: Sequence[Claimed], destination: Destination, now: datetime) -> dict[str, Outcome]:
        # What the other side has accepted already is only asked about: it has passed.
        asked = [
            one
            for one in claimed
            if one.person_id and one.delivery.kind not in TAKES_OUT and not one.delivery.reference
        ]
        if not asked:
            return {}
        refused: dict[str, Outcome] = {}
        passed = []
        found = self._subjects({one.person_id for one in asked})
        for case in self._cases(asked, found, destination, now):
            reason = self._reason(case, destination)
            if reason is not None:
                refused[case.claimed.delivery.op_id] = Outcome(case.claimed.delivery.op_id, "suppressed", reason)
            elif case.claimed.delivery.kind == "act" and destination.channel is not None:
                passed.append(self._turn(case, destination, now))
        refused |= {
            one.delivery.op_id: Outcome(one.delivery.op_id, "suppressed", f"{REFUSED}nobody has this id any more")
            for one in asked
            if one.person_id not in found
        }
        return refused | self._turns.refusals(passed, destination, now)

    def _cases(
        self, asked: Sequence[Claimed], found: Mapping[str, Subject], destination: Destination, now: datetime
    ) -> Iterator[_Case]:
        addresses = {one.delivery.op_id: self._addresses(one, destination) for one in asked}
        known = [one for one in asked if one.person_id in found]
        wanted = {each for one in known for each in found[one.person_id].identifiers | addresses[one.delivery.op_id]}
        heard = self._consents.heard(wanted, self._about, now)
        for one in known:
            subject, used = found[one.person_id], addresses[one.delivery.op_id]
            voices = [(each, heard.get(each, NOTHING)) for each in subject.identifiers | used if each in heard]
            cause = self._cause(one.origin)
            yield _Case(
                one, subject, voices, used,
                None if cause is None else cause.purpose, 0 if cause is None else cause.priority,
            )  # fmt: skip

    def _cause(self, origin: str) -> Trigger | Sync | None:
        sort, _, name = origin.partition(":")
        if sort == "trigger":
            return self._project.triggers.get(name)
        return self._project.syncs.get(name) if sort == "sync" else None

    def _addresses(self, one: Claimed, destination: Destination) -> frozenset[Identifier]:
        """The identifiers that the payload itself holds: who is written to, whoever that is by now."""
        found = set()
        to = one.delivery.payload.get("to")
        way = WAYS.get(destination.channel or "")
        if isinstance(to, str) and way is not None:
            found |= {(type_, to) for type_ in way.identifiers if type_ in self._project.identifiers}
        cause, data = self._cause(one.origin), one.delivery.payload.get("data")
        if isinstance(cause, Sync) and isinstance(data, Mapping):
            for sent, name in cause.mapping.items():
                if name in self._project.identifiers and isinstance(data.get(sent), str):
                    found.add((name, data[sent]))
        return frozenset(found)

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
            group = held_out(policy.controls, case.claimed.origin, case.purpose, case.subject.person_id)
            reason = None if group is None else f"control group: {group}"
        return None if reason is None else REFUSED + reason

    def _turn(self, case: _Case, destination: Destination, now: datetime) -> Turn:
        policy, zone = self._project.contact_policy, self._project.zone
        hours = [] if policy is None else policy.quiet_hours
        theirs = [
            (one, zone_of(one, case.subject.attributes, zone))
            for one in hours
            if one.concerns(destination.channel, case.purpose)
        ]
        until = longest(theirs, now)
        return Turn(
            case.claimed.delivery.op_id, case.claimed.origin, case.purpose, case.priority, case.subject.person_id,
            case.subject.ids, until,
        )  # fmt: skip


def _asked(project: Project) -> list[str]:
    """All that anybody may have said something about, as far as it matters."""
    consent = project.consent
    if consent is None:
        return []
    return [*(f"purpose:{name}" for name in consent.purposes), *(f"channel:{name}" for name in consent.channels)]

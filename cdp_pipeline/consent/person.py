"""What one person permits and why, and how their word is written down when somebody gives it to us."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cdp_pipeline.consent.ledger import ConsentLedger, Decision, Identifier, Reason, Said, Suppression
from cdp_pipeline.consent.permissions import agreed, channel_refused, purpose_refused, suppressed, undeliverable
from cdp_pipeline.consent.subjects import Subject, everybody, subjects
from cdp_pipeline.identity.named import UnknownIdentifier, find_identifier, resolve_identifier, spellings
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake.lake import Lake
from cdp_pipeline.spec.project import Project


@dataclass(frozen=True)
class Whom:
    """Who is meant by an identifier or a person id: all their identifiers, and the person if there is one."""

    identifiers: frozenset[Identifier]
    subject: Subject | None = None


def whom(lake: Lake, project: Project, text: str) -> Whom:
    """The person of `type:value` or a person id; an identifier that nobody was seen with yet stands for itself."""
    identifiers, people = lake.read(IDENTIFIERS), lake.read(PEOPLE)
    type_, colon, value = text.partition(":")
    named: set[Identifier] = set()
    if colon and type_ in project.identifiers:
        named = {(type_, spelled) for spelled in spellings(type_, value, project) or [value]}
        try:
            found = find_identifier(text, identifiers, project)
        except UnknownIdentifier:
            return Whom(frozenset(named))
        named = {found.end}
        if found.person_id is None:
            return Whom(frozenset(named))
    person_id = resolve_identifier(text, identifiers, people, project)
    subject = subjects(everybody(lake, project), [person_id]).get(person_id)
    return Whom(frozenset(named.union(subject.identifiers if subject is not None else ())), subject)


def permitted(consents: ConsentLedger, project: Project, who: Whom, now: datetime) -> list[dict[str, Any]]:
    """For each purpose, and each channel that needs permission: what was said, whether it may be, and if not why."""
    consent, rows = project.consent, list[dict[str, Any]]()
    if consent is None:
        return rows
    about = [*(f"purpose:{name}" for name in consent.purposes), *(f"channel:{name}" for name in consent.channels)]
    heard = consents.heard(who.identifiers, about, now)
    voices = [(True, each) for each in heard.values()]
    said = None if who.subject is None else who.subject.attributes.get(consent.jurisdiction or "")
    place = None if said is None else str(said)
    for each in about:
        sort, _, name = each.partition(":")
        if sort == "purpose":
            why = suppressed(voices, None) or purpose_refused(consent, name, voices, place)
        else:
            needed = next(iter(consent.channels[name].purposes), None)  # type: ignore[index]
            why = suppressed(voices, name) or channel_refused(consent, name, needed, voices, place)
            why = why or undeliverable(voices, name)
        rows.append({"about": each, "said": agreed(voices, each) or "nothing", "may": why is None, "why": why})
    return rows


def suppressions_of(consents: ConsentLedger, who: Whom, now: datetime) -> list[dict[str, Any]]:
    """Which of their identifiers must not be used, by which channel, and why."""
    return [
        {"identifier": ":".join(identifier), "channel": channel or "all", "reason": reason}
        for identifier, heard in sorted(consents.heard(who.identifiers, [], now).items())
        for reason, channel in heard.suppressed
    ]


def decide(
    consents: ConsentLedger, project: Project, who: Whom, about: str, decision: Decision, by: str, proof: str | None,
    now: datetime,
) -> int:  # fmt: skip
    """Write down a person's word, given to somebody here: for every identifier they have."""
    consent = project.consent
    place = None if who.subject is None or consent is None else who.subject.attributes.get(consent.jurisdiction or "")
    said = (
        Said(
            _event(consents, identifier, about, decision, now), identifier, about, decision, now, f"by:{by}", proof,
            None if place is None else str(place),
        )
        for identifier in who.identifiers
    )  # fmt: skip
    return consents.record(said, now)


def exclude(
    consents: ConsentLedger, who: Whom, reason: Reason, channel: str | None, by: str, proof: str | None, now: datetime
) -> int:
    """Let nobody use any identifier of theirs any more, by a channel or at all."""

    def each() -> Iterator[Suppression]:
        for identifier in who.identifiers:
            event_id = _event(consents, identifier, channel or "", reason, now)
            yield Suppression(event_id, identifier, reason, now, f"by:{by}", channel, proof)

    return consents.suppress(each())


def _event(consents: ConsentLedger, *parts: object) -> str:
    return consents.fingerprint(("event", repr([str(part) for part in parts])))

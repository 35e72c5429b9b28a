"""Whether what is sent fits: triggers, syncs and guards, and what consent and contact policy say about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cdp_pipeline.spec import template
from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.consent import Consent
from cdp_pipeline.spec.contact_policy import ContactPolicy
from cdp_pipeline.spec.destination import UNSUBSCRIBE_PLACEHOLDER, Destination
from cdp_pipeline.spec.documents import DataPath
from cdp_pipeline.spec.guard import Guard
from cdp_pipeline.spec.references.declared import (
    BOOLEAN,
    DATES,
    STRING,
    Declared,
    Findings,
    band_fits,
    fragment_fits,
    trait_fits,
    word,
)
from cdp_pipeline.spec.references.rules import happening_findings, rule_findings
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline.spec.trigger import OF_EVENT, TEMPLATES, Act, DateReached, Trigger
from cdp_pipeline.spec.types import source_columns


def trigger_findings(trigger: Trigger, declared: Declared) -> Findings:
    yield from _purpose(trigger.purpose, declared)
    yield from declared.reference("audience", trigger.on.entered, ("on", "entered"))
    yield from declared.reference("audience", trigger.on.left, ("on", "left"))
    crossed = trigger.on.crossed
    if crossed is not None:
        yield from trait_fits(crossed.trait, declared, ("on", "crossed", "trait"))
        yield from band_fits(crossed.trait, crossed.to, declared, ("on", "crossed", "to"))
        yield from band_fits(crossed.trait, crossed.from_, declared, ("on", "crossed", "from"))
    for name in ("seen", "missing"):
        what = getattr(trigger.on, name)
        if what is not None:
            yield from happening_findings(what, declared, ("on", name))
    if trigger.on.missing is not None:
        yield from happening_findings(trigger.on.missing.after, declared, ("on", "missing", "after"))
    if trigger.on.date is not None:
        yield from _date_reached(trigger.on.date, declared, ("on", "date", "of"))
    for i, rule in enumerate(trigger.unless):
        yield from rule_findings(rule, declared, ("unless", i))
    for i, act in enumerate(trigger.do):
        yield from _act(act, trigger.on.event is not None, declared, ("do", i))


def _date_reached(date: DateReached, declared: Declared, path: DataPath) -> Findings:
    known = {**declared.traits, **declared.attributes}
    unreadable = any(declared.unreadable(kind, date.of) for kind in ("attribute", "trait"))
    if date.of in known:
        if known[date.of] not in DATES:
            yield path, f"should be a date or time, '{date.of}' is {word(known[date.of])}"
    elif not unreadable and date.of not in {*declared.of("attribute"), *declared.of("trait")}:
        yield path, unknown("attribute or trait", date.of, {*declared.of("attribute"), *declared.of("trait")})


def _act(act: Act, of_event: bool, declared: Declared, path: DataPath) -> Findings:
    yield from declared.reference("destination", act.destination, (*path, "destination"))
    told = {field: name for field, name in act.mapping.items() if name.startswith(OF_EVENT)}
    yield from _mapping({k: v for k, v in act.mapping.items() if k not in told}, declared, (*path, "mapping"))
    for field, name in told.items():
        column = name.removeprefix(OF_EVENT)
        if not of_event:
            yield (
                (*path, "mapping", field),
                f"there is no event: only what is 'seen' or 'missing' has one, got '{name}'",
            )
        elif declared.all_sources_known and column not in declared.event_columns:
            yield (*path, "mapping", field), unknown("column of an event", column, declared.event_columns)
    yield from declared.reference("attribute", act.to, (*path, "to"))
    type_ = declared.attributes.get(act.to or "", STRING)
    if type_ != STRING:
        yield (*path, "to"), f"should be string, attribute '{act.to}' is {word(type_)}"
    destination = declared.of("destination").get(act.destination)
    if destination is not None:
        yield from _fields_taken(act.mapping, destination, (*path, "mapping"))
        known_by = _known_by(destination)
        if known_by and not known_by & act.mapping.keys():
            which = " or ".join(sorted(known_by))
            yield (*path, "mapping"), f"should say {which}: by that '{act.destination}' finds people"
        for field in ("to", *TEMPLATES):
            given = getattr(act, field) is not None
            if field in destination.needed and not given:
                yield (*path, field), f"is missing, a message by {destination.type} needs it"
            if given and field not in (*destination.needed, *destination.words):
                yield (*path, field), f"a message by {destination.type} has none, '{act.destination}' is one"
            linked = UNSUBSCRIBE_PLACEHOLDER in (getattr(act, field) or "")
            if linked and getattr(destination, "unsubscribe_url", None) is None:
                yield (*path, field), f"'{act.destination}' has no unsubscribe_url to put in"
    for field in TEMPLATES:
        for problem in template.problems(getattr(act, field) or "", act.mapping, _sendable(declared)):
            yield (*path, field), problem


def sync_findings(sync: Sync, declared: Declared) -> Findings:
    yield from _purpose(sync.purpose, declared)
    yield from declared.reference("audience", sync.audience, ("audience",))
    yield from declared.reference("destination", sync.destination, ("destination",))
    yield from _mapping(sync.mapping, declared, ("mapping",))
    if sync.key not in sync.mapping:
        yield ("key",), unknown("mapping field", sync.key, sync.mapping)
    destination = declared.of("destination").get(sync.destination)
    if destination is None:
        return
    if destination.words and not destination.fields:
        yield ("destination",), f"'{destination.name}' takes messages, which triggers send; a sync has no words"
        return
    if destination.found_by and sync.key not in destination.found_by:
        yield ("key",), f"should be one of {', '.join(destination.found_by)}: by these {destination.type} finds people"
    yield from _fields_taken(sync.mapping, destination, ("mapping",))
    if destination.keyed_by is not None and sync.key != (known_by := getattr(destination, destination.keyed_by)):
        yield ("key",), f"should be '{known_by}', by which '{destination.name}' finds people ({destination.keyed_by}:)"
    needed = destination.removes_by
    if needed is not None and getattr(destination, needed) is None and sync.mode in ("mirror", "event"):
        yield ("mode",), f"'{sync.mode}' takes people out again, for which '{destination.name}' needs {needed}:"


def _known_by(destination: Destination) -> set[str]:
    """The fields one of which has to say whom a delivery is about; empty where any will do."""
    named = destination.keyed_by
    return set(destination.found_by) if named is None else {str(getattr(destination, named))}


def _fields_taken(mapping: Mapping[str, str], destination: Destination, path: DataPath) -> Findings:
    for name in mapping:
        if destination.takes and name not in destination.takes:
            yield (*path, name), unknown(f"field of {destination.type}", name, destination.takes)


def _purpose(purpose: str | None, declared: Declared) -> Findings:
    """Where purposes are declared, everything that uses people's data names one of them."""
    known = _purposes(declared)
    if known and purpose is None:
        names = ", ".join(sorted(known))
        yield ("purpose",), f"is missing: what is it for? There {'is only' if len(known) == 1 else 'are'} {names}"
    elif known and purpose not in known:
        yield ("purpose",), unknown("purpose", purpose, known)


def _purposes(declared: Declared) -> set[str]:
    """The declared purposes."""
    return {name for consent in declared.of("consent").values() for name in consent.purposes}


def guard_findings(guard: Guard, declared: Declared) -> Findings:
    for i, rule in enumerate(guard.when):
        yield from rule_findings(rule, declared, ("when", i))
    if declared.broken.get("consent") or declared.broken.get("trigger") or declared.strays:
        return
    # Where no purposes are declared, those there are that a trigger names.
    named = {trigger.purpose for trigger in declared.of("trigger").values() if trigger.purpose is not None}
    yield from _named(("purposes",), "purpose", guard.purposes, _purposes(declared) or named)


def _named(path: DataPath, what: str, names: Iterable[str], known: Iterable[str]) -> Findings:
    for i, name in enumerate(names):
        if name not in known:
            yield (*path, i), unknown(what, name, known)


def consent_findings(consent: Consent, declared: Declared) -> Findings:
    yield from _only_one("consent", consent.name, declared)
    yield from declared.reference("attribute", consent.jurisdiction, ("jurisdiction",))
    for field, some in (("purposes", consent.purposes), ("channels", consent.channels)):
        for name, default in some.items():
            if default.where and consent.jurisdiction is None:
                yield (field, name, "where"), "needs 'jurisdiction', the attribute that says where somebody lives"
    yield from _never_granted(consent, declared)
    for channel, permission in consent.channels.items():
        yield from _named(("channels", channel, "purposes"), "purpose", permission.purposes, consent.purposes)
    for i, said in enumerate(consent.said):
        path: DataPath = ("said", i)
        if said.purpose is not None and said.purpose not in consent.purposes:
            yield (*path, "purpose"), unknown("purpose", said.purpose, consent.purposes)
        if said.channel is not None and said.channel not in consent.channels:
            yield (*path, "channel"), unknown("channel with a permission", said.channel, consent.channels)
        fragments = ((said.when, "when", BOOLEAN), (said.decision, "decision", BOOLEAN), (said.proof, "proof", STRING))
        yield from _said_in(said.source, said.of, fragments, declared, path)
    for i, one in enumerate(consent.suppressed):
        yield from _said_in(one.source, one.of, ((one.when, "when", BOOLEAN),), declared, ("suppressed", i))


def _never_granted(consent: Consent, declared: Declared) -> Findings:
    """Purposes that something serves and to which nobody's yes would ever be heard, though sources are asked."""
    if not consent.said or declared.broken.get("consent"):
        return
    heard = {said.purpose for said in consent.said}
    served = {one.purpose for kind in ("trigger", "sync") for one in declared.of(kind).values()}
    for name, purpose in consent.purposes.items():
        if name in served - heard and "yes" not in (purpose.default, *purpose.where.values()):
            yield (
                ("purposes", name),
                f"nobody could say yes to it: silence is no yes, and none of `said:` is about `purpose: {name}` "
                "(leave to use a channel is another matter)",
            )


def _said_in(
    name: str, of: list[str], fragments: Iterable[tuple[str | None, str, str]], declared: Declared, path: DataPath
) -> Findings:
    yield from declared.reference("source", name, (*path, "source"))
    source = declared.of("source").get(name)
    if source is None:
        return
    if not source.identifier_columns:
        yield (*path, "source"), f"source '{name}' has no identifiers: nobody knows who said it"
    yield from _named((*path, "of"), "column with an identifier", of, source.identifier_columns)
    for fragment, field, wanted in fragments:
        yield from fragment_fits(fragment, source_columns(source), (*path, field), {wanted})


def _only_one(kind: str, name: str, declared: Declared) -> Findings:
    first = next(iter(declared.of(kind)))
    if name != first:
        yield ("kind",), f"a project has one {kind.replace('_', ' ')}, which is '{first}'"


def contact_policy_findings(policy: ContactPolicy, declared: Declared) -> Findings:
    yield from _only_one("contact_policy", policy.name, declared)
    parts: dict[str, list[Any]] = {
        "caps": policy.caps, "quiet_hours": policy.quiet_hours, "controls": policy.controls, "budgets": policy.budgets,
    }  # fmt: skip
    for field, some in parts.items():
        for i, part in enumerate(some):
            path: DataPath = (field, i)
            if not declared.broken.get("consent"):
                yield from _named((*path, "purposes"), "purpose", part.purposes, _purposes(declared))
            for kind in ("trigger", "sync"):
                for j, name in enumerate(getattr(part, f"{kind}s", [])):
                    yield from declared.reference(kind, name, (*path, f"{kind}s", j))
    for i, hours in enumerate(policy.quiet_hours):
        yield from declared.reference("attribute", hours.zone, ("quiet_hours", i, "zone"))
        if hours.zones and hours.zone is None:
            yield ("quiet_hours", i, "zones"), "needs 'zone', the attribute whose values these are"
    names = [control.name for control in policy.controls]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield ("controls", i, "name"), f"control '{name}' is already declared"


def _sendable(declared: Declared) -> set[str]:
    """The names whose values may be sent somewhere, those of unreadable documents included."""
    kinds = ("attribute", "trait", "prediction")
    return {"person_id", *declared.strays}.union(
        *({*declared.of(kind), *declared.broken.get(kind, ())} for kind in kinds)
    )


def _mapping(mapping: Mapping[str, str], declared: Declared, path: DataPath) -> Findings:
    known = _sendable(declared)
    for field, name in mapping.items():
        if name not in known:
            yield (*path, field), unknown("attribute, trait or prediction", name, known)

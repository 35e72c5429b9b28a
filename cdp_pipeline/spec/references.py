"""What documents say about each other: names that must exist, fragments that must fit, circles. One function per kind.

A finding is a path within the document and a message; where that stands in a file is load.py's business. Nothing is
said about a name whose own document could not be read: that document has its own problem, and this would only echo it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

from cdp_pipeline.spec import expressions, template
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.spec.audience import SUBJECTS, Audience, Happening, Rule
from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.consent import Consent
from cdp_pipeline.spec.contact_policy import ContactPolicy
from cdp_pipeline.spec.destination import UNSUBSCRIBE_PLACEHOLDER, Destination
from cdp_pipeline.spec.documents import DataPath
from cdp_pipeline.spec.group import Group, RollUp, Way
from cdp_pipeline.spec.guard import Guard
from cdp_pipeline.spec.identifier import Identifier
from cdp_pipeline.spec.match import Match
from cdp_pipeline.spec.operators import CHANGES, OPERATORS, Kind, misfit, unsuited
from cdp_pipeline.spec.prediction import EventTarget, Features, ItemFilter, Prediction, Ranking, ValueTarget
from cdp_pipeline.spec.project import ProjectSettings
from cdp_pipeline.spec.reach import CHANNELS, WAYS
from cdp_pipeline.spec.source import IBIS_TYPES, Check, EventMapping, Source
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline.spec.trait import EVALUATIONS, Trait
from cdp_pipeline.spec.trigger import OF_EVENT, TEMPLATES, Act, DateReached, Trigger
from cdp_pipeline.spec.types import (
    EVENT_COLUMNS,
    NUMERIC,
    UNION,
    WORDS,
    attribute_type,
    event_columns,
    fragment_names,
    source_columns,
    trait_types,
    traits_read,
)
from cdp_pipeline.spec.verdict import Verdict

Finding = tuple[DataPath, str]
Findings = Iterator[Finding]
STRING, BOOLEAN, DATE, TIMESTAMP = (IBIS_TYPES[word] for word in ("string", "boolean", "date", "timestamp"))
DATES = {DATE, TIMESTAMP}
KINDS: dict[str, Kind] = {STRING: "text", BOOLEAN: "boolean", DATE: "date", TIMESTAMP: "timestamp"}
RESERVED = {
    "source": {"quarantine", "loads", "verdict"},
    "audience": {"members", "changes", "sizes", "held"},
    "prediction": {"models"},
    "trait": {"person_id", "day"},
    "attribute": {"person_id"},
    "group": {"daily", "bands"},
    "rollup": {"group_id", "name", "people", "day"},
}

REACHED_BY = ("all", "any", "none", "trait", "attribute", "event", "identifier", "reachable")
"""What may be asked of people whom a prediction is to reach: nothing that may itself ask the prediction."""


@dataclass(frozen=True)
class Declared:
    """Everything a folder declares: sound documents by kind and name, and what is known of the others.

    broken: names by kind of documents that could not be read. strays: names in documents of no known kind, and in
    files that are not YAML.
    """

    sound: Mapping[str, Mapping[str, Any]]
    broken: Mapping[str, set[str]]
    strays: set[str]

    def of(self, kind: str) -> Mapping[str, Any]:
        return self.sound.get(kind, {})

    def unreadable(self, kind: str, name: str) -> bool:
        return name in self.broken.get(kind, ()) or name in self.strays

    def reference(self, kind: str, name: str | None, path: DataPath) -> Findings:
        if name is not None and name not in self.of(kind) and not self.unreadable(kind, name):
            yield path, unknown(kind, name, self.of(kind))

    @cached_property
    def settings(self) -> ProjectSettings | None:
        return None if self.broken.get("project") else next(iter(self.of("project").values()), None)

    @cached_property
    def all_sources_known(self) -> bool:
        return not self.broken.get("source") and not self.strays

    @cached_property
    def events(self) -> set[str]:
        return {
            name for source in self.of("source").values() for mapping in source.events for name in mapping.event_names
        }

    @cached_property
    def event_columns(self) -> dict[str, str]:
        return event_columns(self.of("source").values())

    @cached_property
    def traits(self) -> dict[str, str]:
        return trait_types(self.of("trait"), self.event_columns)

    @cached_property
    def attributes(self) -> dict[str, str]:
        found = {name: attribute_type(spec, self.of("source")) for name, spec in self.of("attribute").items()}
        return {name: type_ for name, type_ in found.items() if type_ is not None}


def findings(declared: Declared) -> Iterator[tuple[str, str, DataPath, str]]:
    """Everything wrong between the documents, as kind, name, path and message."""
    for kind, check in CHECKS.items():
        for name, spec in declared.of(kind).items():
            for path, message in check(spec, declared):
                yield kind, name, path, message
            for message in _name_findings(kind, name):
                yield kind, name, ("name",), message
    for kind, needs in (("trait", traits_read), ("audience", _audiences_read)):
        for circle in _circles({name: needs(spec) for name, spec in declared.of(kind).items()}):
            yield kind, circle[0], ("name",), f"{kind}s go round in a circle: {' -> '.join(circle)}"


def _name_findings(kind: str, name: str) -> Iterator[str]:
    if name in RESERVED.get(kind, ()) or (kind == "prediction" and name.endswith(("_training", "_model"))):
        yield f"'{name}' is a name the pipeline keeps for itself"
    if "__" in name:
        yield f"'{name}' should have no '__', which the pipeline keeps for itself"


def _circles(graph: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Each circle once, from its first name alphabetically back to it."""
    graph = {name: {other for other in others if other in graph} for name, others in graph.items()}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = error.args[1][:0:-1]
            start = circle.index(min(circle))
            yield [*circle[start:], *circle[: start + 1]]
            graph[circle[0]] = graph[circle[0]] - {circle[1 % len(circle)]}
        else:
            return


def project_findings(project: ProjectSettings, declared: Declared) -> Findings:
    for i, name in enumerate(project.alerts):
        yield from declared.reference("destination", name, ("alerts", i))
        destination = declared.of("destination").get(name)
        if destination is not None and not destination.alerts:
            able = sorted(each.name for each in declared.of("destination").values() if each.alerts)
            words = f", there are {', '.join(able)}" if able else ""
            yield ("alerts", i), f"'{name}' cannot tell of failures, it is {destination.type}{words}"


def source_findings(source: Source, declared: Declared) -> Findings:
    columns = source_columns(source)
    for i, name in enumerate(source.grain):
        yield from _column(name, columns, ("grain", i))
    if source.occurred_at is not None:
        yield from _column(source.occurred_at, columns, ("occurred_at",), {DATE, TIMESTAMP})
    for name, column in source.columns.items():
        path: DataPath = ("columns", name)
        if "__" in name:
            yield path, "should have no '__', which the pipeline keeps for itself"
        yield from declared.reference("identifier", column.identifier, (*path, "identifier"))
        if column.currency is not None and column.type != "money":
            yield (*path, "currency"), f"only money has a currency, this is {column.type}"
        elif column.currency is not None and not (len(column.currency) == 3 and column.currency.isupper()):
            yield from _column(column.currency, columns, (*path, "currency"), {STRING})
        if column.normalise is not None and column.type != "string":
            yield (*path, "normalise"), f"only strings are normalised, this is {column.type}"
        if column.format is not None and column.type not in ("date", "timestamp"):
            yield (*path, "format"), f"only dates and timestamps have a format, this is {column.type}"
        for i, check in enumerate(column.checks):
            yield from _check_findings(check, columns[name], columns, declared, (*path, "checks", i))
    for i, mapping in enumerate(source.events):
        yield from _mapping_findings(mapping, source, columns, declared, ("events", i))


def _check_findings(
    check: Check, type_: str, columns: Mapping[str, str], declared: Declared, path: DataPath
) -> Findings:
    for i, value in enumerate(check.accepted or []):
        yield from _value(value, type_, (*path, "accepted", i))
    if check.range is not None and type_ not in NUMERIC:
        yield (*path, "range"), f"only numbers have a range, this is {WORDS[type_]}"
    if check.pattern is not None and type_ != STRING:
        yield (*path, "pattern"), f"only strings have a pattern, this is {WORDS[type_]}"
    if check.expression is not None:
        yield from _fragment(check.expression, columns, (*path, "expression"), {BOOLEAN})
    if check.references is not None:
        name, dot, column = check.references.partition(".")
        if not dot:
            yield (*path, "references"), f"should be source.column, got '{check.references}'"
        elif name in declared.of("source"):
            yield from _column(column, source_columns(declared.of("source")[name]), (*path, "references"))
        else:
            yield from declared.reference("source", name, (*path, "references"))


def _mapping_findings(
    mapping: EventMapping, source: Source, columns: Mapping[str, str], declared: Declared, path: DataPath
) -> Findings:
    if mapping.column is not None:
        yield from _column(mapping.column, columns, (*path, "column"), {STRING})
    for field in ("when", "amount", "currency", "channel", "product_id", "category"):
        types = {"when": {BOOLEAN}, "amount": NUMERIC}.get(field, {STRING})
        yield from _fragment(getattr(mapping, field), columns, (*path, field), types)
    for i, name in enumerate(mapping.properties):
        here = (*path, "properties", i)
        yield from _column(name, columns, here)
        if name in EVENT_COLUMNS or name == "record_id":
            yield here, f"'{name}' is already a column of every event: give the source's column another name"
        elif name in columns and columns[name] != declared.event_columns[name]:
            other = _source_of_property(name, declared)
            yield here, f"'{name}' is {WORDS[columns[name]]} here and {WORDS[declared.event_columns[name]]} in {other}"


def _source_of_property(name: str, declared: Declared) -> str:
    return next(
        f"source '{source.name}'"
        for source in declared.of("source").values()
        if name in source.columns and any(name in mapping.properties for mapping in source.events)
    )


def attribute_findings(attribute: Attribute, declared: Declared) -> Findings:
    wanted = {
        "sum": NUMERIC, "longest": {STRING}, "any": {BOOLEAN}, "all": {BOOLEAN}, "most_restrictive": {BOOLEAN},
    }.get(attribute.survivorship)  # fmt: skip
    types = []
    for i, one in enumerate(attribute.sources):
        path: DataPath = ("sources", i)
        yield from declared.reference("source", one.source, (*path, "source"))
        if one.source in declared.of("source"):
            columns = source_columns(declared.of("source")[one.source])
            problems = list(_fragment(one.column, columns, (*path, "column"), wanted))
            yield from problems
            if not problems:
                types.append(_word(expressions.check(one.column, columns)))
    if len(types) == len(attribute.sources) and attribute_type(attribute, declared.of("source")) is None:
        yield ("sources",), f"should all be of one type, got {', '.join(types)}"


def trait_findings(trait: Trait, declared: Declared) -> Findings:
    yield from _events(trait.event, declared, ("event",))
    if declared.all_sources_known:
        of = EVALUATIONS[trait.evaluation].of
        wanted = NUMERIC if of == "number" else {STRING} if of == "text" else None
        yield from _fragment(trait.value, declared.event_columns, ("value",), wanted)
        yield from _fragment(trait.when, declared.event_columns, ("when",), {BOOLEAN})
        yield from _fragment(trait.weight, declared.event_columns, ("weight",), NUMERIC)
    for field in ("numerator", "denominator"):
        yield from _trait(getattr(trait, field), declared, (field,), NUMERIC)
    if trait.expression is not None:
        yield from _over_traits(trait.expression, declared, ("expression",))
    for i, state in enumerate(trait.states):
        if state.when is not None:
            yield from _over_traits(state.when, declared, ("states", i, "when"), {BOOLEAN})
    type_ = declared.traits.get(trait.name)
    if trait.bands and type_ is not None and type_ not in NUMERIC:
        yield ("bands",), f"only a number has bands, this is {_word(type_)}"


def _over_traits(fragment: str, declared: Declared, path: DataPath, wanted: Collection[str] | None = None) -> Findings:
    names = fragment_names(fragment)
    problems = [finding for name in sorted(names) for finding in declared.reference("trait", name, path)]
    yield from problems
    if not problems and names <= declared.traits.keys():
        yield from _fragment(fragment, declared.traits, path, wanted)


def prediction_findings(prediction: Prediction, declared: Declared) -> Findings:
    for field in ("target", "exposure", "treatment", "views"):
        target = getattr(prediction, field, None)
        if isinstance(target, EventTarget):
            yield from _event_target(target, declared, (field,))
    if isinstance(prediction, Ranking):
        if declared.all_sources_known and prediction.category not in declared.event_columns:
            yield ("category",), unknown("column of an event", prediction.category, declared.event_columns)
        for i, one in enumerate(prediction.filters):
            yield from _item_filter(one, declared, ("filters", i))
    if isinstance(prediction, Features):
        for i, name in enumerate(prediction.features):
            yield from _trait(name, declared, ("features", i), NUMERIC | {BOOLEAN})
        for i, name in enumerate(getattr(prediction, "slices", [])):
            yield from declared.reference("attribute", name, ("slices", i))
            yield from _told_by_features(name, prediction, declared)
    for item, rules in getattr(prediction, "reach", {}).items():
        for i, rule in enumerate(rules):
            yield from _rule(rule, declared, ("reach", item, i), subjects=REACHED_BY)
    for i, rule in enumerate(prediction.population):
        yield from _rule(rule, declared, ("population", i), subjects=("all", "any", "none", "trait"))


def _told_by_features(attribute: str, prediction: Features, declared: Declared) -> Findings:
    """Features that read a column from which an attribute is made by which the model is to be judged."""
    found = declared.of("attribute").get(attribute)
    columns = {name for one in found.sources for name in fragment_names(one.column)} if found is not None else set()
    for i, feature in enumerate(prediction.features):
        told = sorted(_columns_read(feature, declared) & columns)
        if told:
            yield (
                ("features", i),
                f"'{feature}' reads {', '.join(told)}, which tells the attribute '{attribute}': what a model is judged "
                "by is never a feature",
            )


def _columns_read(trait: str, declared: Declared) -> set[str]:
    """Columns of events that a trait reads, and those it is made of."""
    columns: set[str] = set()
    waiting, seen = [trait], set()
    while waiting:
        name = waiting.pop()
        found = declared.of("trait").get(name)
        if found is None or name in seen:
            continue
        seen.add(name)
        fragments = [one for one in (found.value, found.when, found.weight) if one is not None]
        columns |= {column for fragment in fragments for column in fragment_names(fragment)}
        waiting += traits_read(found)
    return columns


def _item_filter(one: ItemFilter, declared: Declared, path: DataPath) -> Findings:
    yield from declared.reference("source", one.source, (*path, "source"))
    source = declared.of("source").get(one.source)
    if source is not None:
        columns = source_columns(source)
        yield from _column(one.on, columns, (*path, "on"))
        yield from _fragment(one.when, columns, (*path, "when"), {BOOLEAN})


def _event_target(target: EventTarget, declared: Declared, path: DataPath) -> Findings:
    yield from _events(target.event, declared, (*path, "event"))
    if not declared.all_sources_known:
        return
    yield from _fragment(target.when, declared.event_columns, (*path, "when"), {BOOLEAN})
    if isinstance(target, ValueTarget):
        yield from _fragment(target.value, declared.event_columns, (*path, "value"), NUMERIC)
    for field in ("item", "same", "arm"):
        name = getattr(target, field, None)
        if name is not None and name not in declared.event_columns:
            yield (*path, field), unknown("column of an event", name, declared.event_columns)


def audience_findings(audience: Audience, declared: Declared) -> Findings:
    if declared.settings is not None and audience.cadence not in declared.settings.cadences:
        yield ("cadence",), unknown("cadence", audience.cadence, declared.settings.cadences)
    for i, rule in enumerate(audience.rules):
        yield from _rule(rule, declared, ("rules", i))
    yield from _tests(audience, declared)


def _tests(audience: Audience, declared: Declared) -> Findings:
    tests = audience.tests
    for field in ("must_include", "must_exclude"):
        for i, text in enumerate(getattr(tests, field)):
            yield from declared.reference("identifier", text.partition(":")[0], ("tests", field, i))
    for field in ("disjoint_from", "subset_of"):
        for i, name in enumerate(getattr(tests, field)):
            yield from declared.reference("audience", name, ("tests", field, i))
            if name == audience.name:
                yield ("tests", field, i), "an audience is not compared with itself"
    for name in tests.share_with:
        path: DataPath = ("tests", "share_with", name)
        type_ = declared.attributes.get(name, BOOLEAN)
        if name in CHANNELS or declared.unreadable("attribute", name):
            continue
        if name not in declared.of("attribute"):
            yield path, unknown("channel or attribute", name, {*CHANNELS, *declared.attributes})
        elif type_ != BOOLEAN:
            yield path, f"should be a channel or something true or false, attribute '{name}' is {_word(type_)}"


def trigger_findings(trigger: Trigger, declared: Declared) -> Findings:
    yield from _purpose(trigger.purpose, declared)
    yield from declared.reference("audience", trigger.on.entered, ("on", "entered"))
    yield from declared.reference("audience", trigger.on.left, ("on", "left"))
    crossed = trigger.on.crossed
    if crossed is not None:
        yield from _trait(crossed.trait, declared, ("on", "crossed", "trait"))
        yield from _band(crossed.trait, crossed.to, declared, ("on", "crossed", "to"))
        yield from _band(crossed.trait, crossed.from_, declared, ("on", "crossed", "from"))
    for name in ("seen", "missing"):
        what = getattr(trigger.on, name)
        if what is not None:
            yield from _happening(what, declared, ("on", name))
    if trigger.on.missing is not None:
        yield from _happening(trigger.on.missing.after, declared, ("on", "missing", "after"))
    if trigger.on.date is not None:
        yield from _date_reached(trigger.on.date, declared, ("on", "date", "of"))
    for i, rule in enumerate(trigger.unless):
        yield from _rule(rule, declared, ("unless", i))
    for i, act in enumerate(trigger.do):
        yield from _act(act, trigger.on.event is not None, declared, ("do", i))


def _date_reached(date: DateReached, declared: Declared, path: DataPath) -> Findings:
    known = {**declared.traits, **declared.attributes}
    unreadable = any(declared.unreadable(kind, date.of) for kind in ("attribute", "trait"))
    if date.of in known:
        if known[date.of] not in DATES:
            yield path, f"should be a date or time, '{date.of}' is {_word(known[date.of])}"
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
        yield (*path, "to"), f"should be string, attribute '{act.to}' is {_word(type_)}"
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
        yield ("purpose",), f"is missing: what is it for? There are {', '.join(sorted(known))}"
    elif known and purpose not in known:
        yield ("purpose",), unknown("purpose", purpose, known)


def _purposes(declared: Declared) -> set[str]:
    """The declared purposes."""
    return {name for consent in declared.of("consent").values() for name in consent.purposes}


def guard_findings(guard: Guard, declared: Declared) -> Findings:
    for i, rule in enumerate(guard.when):
        yield from _rule(rule, declared, ("when", i))
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
        yield from _fragment(fragment, source_columns(source), (*path, field), {wanted})


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


def identifier_findings(identifier: Identifier, declared: Declared) -> Findings:
    if identifier.people_by is not None and identifier.shared_above is None:
        yield ("people_by",), "needs shared_above, the number of people one value may have"
    for i, name in enumerate(identifier.people_by or ()):
        yield from declared.reference("identifier", name, ("people_by", i))
        other = declared.of("identifier").get(name)
        if other is not None and other.priority <= identifier.priority:
            weaker = f"{identifier.name} (priority {identifier.priority})"
            yield ("people_by", i), f"should be stronger than {weaker}, '{name}' has {other.priority}"


def match_findings(match: Match, declared: Declared) -> Findings:
    for i, comparison in enumerate(match.compare):
        for j, name in enumerate(comparison.attributes):
            path = (
                "compare",
                i,
                comparison.kind,
                *((j,) if isinstance(getattr(match.compare[i], comparison.kind), list) else ()),
            )
            yield from declared.reference("attribute", name, path)
            if declared.attributes.get(name) == UNION:
                yield path, f"a union of values cannot be compared, '{name}' is one"
    yield from match.disagreements()


def group_findings(group: Group, declared: Declared) -> Findings:
    for i, way in enumerate(group.by):
        yield from _way(way, declared, ("by", i))
    for i, figure in enumerate(group.rollup):
        yield from _roll_up(figure, declared, ("rollup", i))


def _way(way: Way, declared: Declared, path: DataPath) -> Findings:
    for j, name in enumerate(way.same or []):
        yield from declared.reference("attribute", name, (*path, "same", j))
        if declared.attributes.get(name) == UNION:
            yield (*path, "same", j), f"should be one value, '{name}' is {_word(UNION)}"
    yield from declared.reference("attribute", way.email_domain, (*path, "email_domain"))
    type_ = declared.attributes.get(way.email_domain or "", STRING)
    if type_ != STRING:
        yield (*path, "email_domain"), f"should be string, '{way.email_domain}' is {_word(type_)}"
    yield from declared.reference("identifier", way.identifier, (*path, "identifier"))
    yield from declared.reference("source", way.source, (*path, "source"))
    if way.column is not None and way.source is not None and way.source in declared.of("source"):
        yield from _column(way.column, source_columns(declared.of("source")[way.source]), (*path, "column"))
    directory = way.directory
    if directory is not None:
        path = (*path, "directory")
        yield from declared.reference("source", directory.source, (*path, "source"))
        if directory.source in declared.of("source"):
            columns = source_columns(declared.of("source")[directory.source])
            yield from _column(directory.key, columns, (*path, "key"))
            if directory.name is not None:
                yield from _column(directory.name, columns, (*path, "name"), {STRING})
            if directory.parent is not None:
                yield from _column(directory.parent, columns, (*path, "parent"))


def _roll_up(figure: RollUp, declared: Declared, path: DataPath) -> Findings:
    for message in _name_findings("rollup", figure.name):
        yield (*path, "name"), message
    yield from declared.reference("trait", figure.trait, (*path, "trait"))
    yield from declared.reference("attribute", figure.attribute, (*path, "attribute"))
    kind, name = ("trait", figure.trait) if figure.trait is not None else ("attribute", figure.attribute)
    type_ = (declared.traits if kind == "trait" else declared.attributes).get(name or "")
    if type_ is None:
        return
    if figure.evaluation in ("sum", "average") and type_ not in NUMERIC:
        yield (*path, kind), f"should be a number, {kind} '{name}' is {_word(type_)}"
    elif figure.evaluation in ("any", "all", "none", "at_least", "share") and type_ != BOOLEAN:
        yield (*path, kind), f"should be true or false, {kind} '{name}' is {_word(type_)}"
    elif figure.evaluation in ("min", "max") and type_ in (BOOLEAN, UNION):
        yield (*path, kind), f"should be something with an order, {kind} '{name}' is {_word(type_)}"


def verdict_findings(verdict: Verdict, declared: Declared) -> Findings:
    field = "link" if verdict.link is not None else "unlink"
    for i, (type_, _) in enumerate(verdict.ends):
        if type_ not in declared.of("identifier") and not declared.unreadable("identifier", type_):
            yield (field, i), unknown("identifier type", type_, declared.of("identifier"))
    about = _about(verdict, declared)
    if len(about) == 1:
        yield (field, 1), "is the same identifier as the first"
    for other in declared.of("verdict").values():
        if field == "unlink" and other.link is not None and _about(other, declared) == about:
            yield (field,), f"verdict '{other.name}' links the same two"


def _about(verdict: Verdict, declared: Declared) -> set[tuple[str, str]]:
    """The two identifiers, with capitals left out of account where a source leaves them out."""
    columns = [column for source in declared.of("source").values() for column in source.columns.values()]
    plain = {column.identifier for column in columns if column.normalise in ("email", "lower", "upper", "postcode")}
    return {(type_, value.casefold() if type_ in plain else value) for type_, value in verdict.ends}


def _rule(rule: Rule, declared: Declared, path: DataPath, subjects: tuple[str, ...] = SUBJECTS) -> Findings:
    subject = rule.subject
    if subject not in subjects:
        yield (*path, subject), f"has no place here, only {', '.join(subjects)}"
    for key in ("all", "any", "none"):
        for i, nested in enumerate(getattr(rule, key) or []):
            yield from _rule(nested, declared, (*path, key, i), subjects)
    if rule.trait is not None:
        yield from _trait(rule.trait, declared, (*path, "trait"))
        if rule.other_trait is not None:
            yield from _two_traits(rule, rule.trait, rule.other_trait, declared, path)
        else:
            yield from _asked(rule.op, rule.value, declared.traits.get(rule.trait), rule.trait, path)
        if rule.op in CHANGES and subjects != SUBJECTS:
            yield (*path, "op"), f"'{rule.op}' has no place here, where there is no day before"
    if rule.attribute is not None:
        for field, name in (("attribute", rule.attribute), ("longitude", rule.longitude)):
            if name is not None:
                yield from declared.reference("attribute", name, (*path, field))
                yield from _asked(rule.op, rule.value, declared.attributes.get(name), name, path)
    if rule.prediction is not None:
        yield from _prediction_rule(rule, rule.prediction, declared, path)
    if rule.band is not None:
        yield from _trait(rule.band, declared, (*path, "band"))
        yield from _band(rule.band, rule.is_, declared, (*path, "is"))
    if rule.event is not None:
        yield from _happening(rule, declared, path)
        yield from _figures(rule, declared, path)
    for i, step in enumerate(rule.sequence or []):
        yield from _happening(step, declared, (*path, "sequence", i))
    if rule.without is not None:
        yield from _happening(rule.without, declared, (*path, "without"))
    if declared.all_sources_known:
        yield from _fragment(rule.same, declared.event_columns, (*path, "same"))
    yield from _related(rule, declared, (*path, "related"))
    if rule.account is not None:
        yield from declared.reference("group", rule.account.group, (*path, "account", "group"))
        for i, nested in enumerate(rule.account.rules):
            yield from _rule(nested, declared, (*path, "account", "rules", i), subjects)
    yield from declared.reference("audience", rule.audience, (*path, "audience"))
    yield from declared.reference("identifier", rule.identifier, (*path, "identifier"))
    if rule.reachable is not None:
        ways = WAYS[rule.reachable].identifiers
        if not any(name in declared.of("identifier") or declared.unreadable("identifier", name) for name in ways):
            yield (*path, "reachable"), f"needs an identifier called {' or '.join(ways)}"


def _happening(what: Rule | Happening, declared: Declared, path: DataPath) -> Findings:
    for i, name in enumerate(what.event or []):
        place = (*path, "event", i) if len(what.event or []) > 1 else (*path, "event")
        yield from _events([name], declared, place)
    if declared.all_sources_known:
        yield from _fragment(what.when, declared.event_columns, (*path, "when"), {BOOLEAN})


def _figures(rule: Rule, declared: Declared, path: DataPath) -> Findings:
    """What is asked of the events' values: whether there are such values, and whether the question suits them."""
    for figure, of, asked in rule.measures:
        place = (*path, figure)
        if of is None:
            type_ = DATE if figure in ("first", "last") else IBIS_TYPES["integer"]
            yield from _asked(asked.op, asked.value, type_, figure, place)
        elif declared.all_sources_known:
            wanted = NUMERIC if figure in ("sum", "average") else None
            problems = list(_fragment(of, declared.event_columns, (*place, "of"), wanted))
            yield from problems
            if not problems:
                type_ = IBIS_TYPES["integer"] if figure == "distinct" else expressions.check(of, declared.event_columns)
                yield from _asked(asked.op, asked.value, type_, f"{figure} of {of}", place)


def _related(rule: Rule, declared: Declared, path: DataPath) -> Findings:
    """Whether each hop leads from columns there are to columns of the same type."""
    of_events = rule.event is not None
    before, whose = (declared.event_columns, "an event") if of_events else (declared.attributes, "a person")
    for i, hop in enumerate(rule.related or []):
        place = (*path, i)
        yield from declared.reference("source", hop.source, (*place, "source"))
        source = declared.of("source").get(hop.source)
        if not hop.on and (i or of_events):
            yield (*place, "on"), f"is missing: which column of {whose} equals which of '{hop.source}'"
        if source is None:
            return
        columns = source_columns(source)
        if not hop.on and not i and not of_events and not source.identifier_columns:
            yield (*place, "on"), f"is missing: '{hop.source}' has no identifiers to know its people by"
        for left, right in hop.on.items():
            here = (*place, "on", left)
            if not i and not of_events:
                yield from declared.reference("attribute", left, here)
            elif left not in before and (i or declared.all_sources_known):
                yield here, unknown(f"column of {whose}", left, before)
            yield from _column(right, columns, here)
            one, other = before.get(left), columns.get(right)
            if one is not None and other is not None and one != other:
                yield here, f"should be of one type, '{left}' is {_word(one)} and '{right}' is {_word(other)}"
        yield from _fragment(hop.when, columns, (*place, "when"), {BOOLEAN})
        before, whose = columns, f"'{hop.source}'"


def _prediction_rule(rule: Rule, name: str, declared: Declared, path: DataPath) -> Findings:
    yield from declared.reference("prediction", name, (*path, "prediction"))
    types = {"score": IBIS_TYPES["number"], "rank": IBIS_TYPES["integer"], "band": STRING}
    problems = list(_asked(rule.op, rule.value, types[rule.field], name, path))
    yield from problems
    prediction = declared.of("prediction").get(name)
    if prediction is not None and prediction.over_items and rule.item is None:
        yield path, f"needs 'item': '{name}' has a score for each of several"
    if prediction is not None and not prediction.over_items and rule.item is not None:
        yield (*path, "item"), f"has no place here: '{name}' has one score per person"
    if rule.field == "band" and prediction is not None and not problems and rule.op in ("=", "!=", "in", "not_in"):
        bands = [band.name for band in prediction.bands]
        for value in rule.value if isinstance(rule.value, list) else [rule.value]:
            if value not in bands:
                yield (*path, "value"), unknown("band", value, bands)


def _asked(op: str | None, value: object, type_: str | None, name: str, path: DataPath) -> Findings:
    """Whether operator and value suit the type of what is asked."""
    if type_ is None or op is None:
        return
    kind = _kind(type_)
    said = unsuited(op, kind, name, _word(type_))
    if said is not None:
        yield (*path, "op"), said
    elif OPERATORS[op].typed:
        for i, one in enumerate(value if isinstance(value, list) else [value]):
            yield from _value(one, type_, (*path, "value", i) if isinstance(value, list) else (*path, "value"))


def _two_traits(rule: Rule, name: str, other: str, declared: Declared, path: DataPath) -> Findings:
    """Whether two traits are of one kind, and the operator suits it."""
    yield from _trait(other, declared, (*path, "value", "trait"))
    one, two = declared.traits.get(name), declared.traits.get(other)
    said = unsuited(str(rule.op), _kind(one), name, _word(one)) if one is not None else None
    if said is not None:
        yield (*path, "op"), said
    elif one is not None and two is not None and _kind(one) != _kind(two):
        wanted = _words(NUMERIC) if one in NUMERIC else _word(one)
        yield (*path, "value", "trait"), f"should be {wanted} like '{name}', trait '{other}' is {_word(two)}"


def _value(value: object, type_: str, path: DataPath) -> Findings:
    """Whether a value written in YAML can be compared with this type."""
    said = misfit(value, _kind(type_))
    if said is not None:
        yield path, said


def _kind(type_: str) -> Kind:
    if type_ in NUMERIC:
        return "number"
    return "list" if type_ == UNION else KINDS[type_]


def _column(name: str, columns: Mapping[str, str], path: DataPath, wanted: Collection[str] | None = None) -> Findings:
    if name not in columns:
        yield path, unknown("column", name, columns)
    elif wanted is not None and columns[name] not in wanted:
        yield path, f"should be {_words(wanted)}, column '{name}' is {_word(columns[name])}"


def _fragment(
    fragment: str | None, columns: Mapping[str, str], path: DataPath, wanted: Collection[str] | None = None
) -> Findings:
    if fragment is None:
        return
    try:
        type_ = expressions.check(fragment, columns)
    except expressions.ExpressionError as error:
        yield path, str(error)
        return
    if wanted is not None and type_ not in wanted:
        yield path, f"should be {_words(wanted)}, '{fragment}' is {_word(type_)}"


def _events(names: Iterable[str], declared: Declared, path: DataPath) -> Findings:
    if declared.all_sources_known:
        for name in names:
            if name not in declared.events:
                yield path, unknown("event", name, declared.events)


def _trait(name: str | None, declared: Declared, path: DataPath, wanted: Collection[str] | None = None) -> Findings:
    yield from declared.reference("trait", name, path)
    type_ = declared.traits.get(name or "")
    if wanted is not None and type_ is not None and type_ not in wanted:
        yield path, f"should be {_words(wanted)}, trait '{name}' is {_word(type_)}"


def _band(trait: str, band: str | None, declared: Declared, path: DataPath) -> Findings:
    if band is not None and trait in declared.of("trait"):
        bands = declared.of("trait")[trait].band_names
        if not bands:
            yield path, f"trait '{trait}' has neither bands nor states"
        elif band not in bands:
            yield path, unknown("band", band, bands)


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


def _audiences_read(audience: Audience) -> set[str]:
    waiting, found = list(audience.rules), set()
    while waiting:
        rule = waiting.pop()
        found |= {rule.audience} if rule.audience is not None else set()
        waiting += rule.inner
    return found


def _word(type_: str) -> str:
    return "a list of strings" if type_ == UNION else WORDS[type_]


def _words(types: Collection[str]) -> str:
    if types == {BOOLEAN}:
        return "a condition"
    others = [_word(type_) for type_ in sorted(set(types) - NUMERIC)]
    return " or ".join(["a number", *others] if set(types) >= NUMERIC else others)


CHECKS: dict[str, Callable[[Any, Declared], Findings]] = {
    "project": project_findings,
    "source": source_findings,
    "identifier": identifier_findings,
    "match": match_findings,
    "attribute": attribute_findings,
    "trait": trait_findings,
    "prediction": prediction_findings,
    "audience": audience_findings,
    "trigger": trigger_findings,
    "guard": guard_findings,
    "destination": lambda destination, declared: iter(()),
    "sync": sync_findings,
    "verdict": verdict_findings,
    "group": group_findings,
    "consent": consent_findings,
    "contact_policy": contact_policy_findings,
}

"""The catalogue's lines become a project's documents, as far as its sources can tell; of others it says what lacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cdp_pipeline.shipped.facts import OF_EVERY_EVENT, Facts
from cdp_pipeline.shipped.words import Line, Words, words
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.base import counted, unknown
from cdp_pipeline.spec.documents import DataPath
from cdp_pipeline.spec.project import Project, ProjectSettings
from cdp_pipeline.spec.reach import WAYS
from cdp_pipeline.spec.types import fragment_names

PLACEHOLDER = re.compile(r"<([a-z_]+(?:\.[a-z]+)?)>")
OVER_EVENTS = ("value", "when", "weight")


class LacksError(Exception):
    """A project cannot tell what a line of the catalogue asks; the message says what lacks."""


@dataclass(frozen=True)
class Offer:
    """One trait or audience that the catalogue has, `each` filled in. `chosen`: the kind of `each` and which it is."""

    line: Line
    data: dict[str, Any]
    chosen: Mapping[str, str]

    @property
    def name(self) -> str:
        return str(self.data["name"])

    @property
    def takes_what_there_is(self) -> bool:
        """Whether it is made of those of several things that are known."""
        return "states" in self.data or "if_known" in repr(self.data.get("rules"))


@dataclass(frozen=True)
class Shipped:
    """What the catalogue gives a project: documents as a project would write them, and what lacks for the others."""

    documents: list[tuple[Offer, dict[str, Any]]]
    lacking: list[tuple[Offer, str]]


def offers(kind: str | None = None) -> Iterator[Offer]:
    """Everything the catalogue has."""
    about = words()
    for line in about.lines:
        if kind in (None, line.kind):
            yield from _offers(line, about)


def _offers(line: Line, about: Words) -> Iterator[Offer]:
    data = {key: value for key, value in line.data.items() if key != "each"}
    ((each, keys),) = line.data.get("each", {"": [""]}).items()
    for key in keys:
        row = about.each[each][key] if each else {}
        said = {each: key} | {f"{each}.{part}": text for part, text in row.items()}
        filled = _filled(data, said.get)
        if each == "span":
            filled.setdefault("window", row["window"])
        yield Offer(line, filled, {each: key} if each else {})


def _filled(data: Any, said: Callable[[str], str | None]) -> Any:
    """The data with every placeholder in its texts that is known; the others stay."""
    if isinstance(data, dict):
        return {key: _filled(value, said) for key, value in data.items()}
    if isinstance(data, list):
        return [_filled(value, said) for value in data]
    if isinstance(data, str):
        return PLACEHOLDER.sub(lambda found: said(found[1]) or found[0], data)
    return data


def shipped(
    settings: ProjectSettings, sound: Mapping[str, Mapping[str, Any]], taken: Mapping[str, set[str]]
) -> Shipped:
    """What the catalogue gives a project with these sound documents by kind and name.

    `taken` are the names, by kind, that the project declares itself, soundly or not: those it overrides.
    """
    facts = Facts(settings, words(), sound)
    documents: list[tuple[Offer, dict[str, Any]]] = []
    lacking: list[tuple[Offer, str]] = []
    known = {kind: set(taken.get(kind, ())) for kind in ("trait", "audience")}
    for kind, wanted in (("trait", settings.shipped.traits), ("audience", settings.shipped.audiences)):
        offered = [offer for offer in offers(kind) if offer.name not in known[kind]]
        if not wanted:
            lacking += [(offer, f"the project wants no shipped {kind}s") for offer in offered]
            continue
        # What takes what there is comes last, when it is known what there is.
        for late in (False, True):
            made, refused = _made([offer for offer in offered if offer.takes_what_there_is is late], facts, known)
            documents += made
            lacking += refused
    return Shipped(documents, lacking)


def _made(
    waiting: list[Offer], facts: Facts, known: Mapping[str, set[str]]
) -> tuple[list[tuple[Offer, dict[str, Any]]], list[tuple[Offer, str]]]:
    """The documents of all that can be told, and the others; what is made is known to the next."""
    made: list[tuple[Offer, dict[str, Any]]] = []
    while True:
        refused = []
        for offer in waiting:
            try:
                made.append((offer, _document(offer, facts, known)))
            except LacksError as problem:
                refused.append((offer, str(problem)))
            else:
                known[offer.line.kind].add(offer.name)
        if len(refused) == len(waiting):
            return made, refused
        waiting = [offer for offer, _ in refused]


def _document(offer: Offer, facts: Facts, known: Mapping[str, set[str]]) -> dict[str, Any]:
    if offer.name in facts.settings.shipped.drop:
        raise LacksError("dropped by the project")
    for need in offer.data.get("needs", []):
        _one_of(need.split(" | "), known["trait"])
    make = _trait if offer.line.kind == "trait" else _audience
    written = {key: value for key, value in offer.data.items() if key not in ("needs", "weights")}
    document = {"kind": offer.line.kind, "owner": facts.settings.owner} | make(offer, written, facts, known)
    return {key: value for key, value in document.items() if value is not None}


def _one_of(names: Collection[str], known: Collection[str]) -> None:
    if not set(names) & set(known):
        raise LacksError(f"needs trait {' or '.join(names)}")


def _trait(offer: Offer, data: dict[str, Any], facts: Facts, known: Mapping[str, set[str]]) -> dict[str, Any]:
    if "unit" in data:
        data["unit"] = data["unit"].replace("<currency>", facts.settings.currency)
    if "event" in data:
        return data | _over_events(offer, data, facts)
    reads = {data[field] for field in ("numerator", "denominator") if field in data}
    if "expression" in data:
        reads = fragment_names(data["expression"])
    if "states" in data:
        data = data | {"states": _states(data["states"], known["trait"])}
    if reads - known["trait"]:
        raise LacksError(f"needs {_listed('trait', sorted(reads - known['trait']))}")
    return data


def _over_events(offer: Offer, data: dict[str, Any], facts: Facts) -> dict[str, Any]:
    roles = data["event"] if isinstance(data["event"], list) else [data["event"]]
    events = facts.events(roles)
    if not events:
        usual = [name for role in roles for names in facts.words.roles[role] for name in names]
        raise LacksError(f"needs an event such as {' or '.join(usual[:4])} (role {' or '.join(roles)})")
    for each in ("medium", "place"):
        channels = facts.channels(events) if each in offer.chosen else None
        if channels is not None and offer.chosen[each] not in channels:
            raise LacksError(f"no {' or '.join(events)} comes from channel {offer.chosen[each]}")
    made = {"event": events} | {key: _asked(data[key], events, facts) for key in OVER_EVENTS if key in data}
    weight = _weight(offer.data.get("weights", {}), facts)
    if weight is not None:
        made["value" if data["evaluation"] == "decayed" else "weight"] = weight
    return made


def _asked(fragment: str, events: list[str], facts: Facts) -> str:
    """The fragment over what these events keep."""
    found = {name: facts.field(name, events) for name in PLACEHOLDER.findall(fragment)}
    for name, column in found.items():
        if column is None:
            usual = "" if name in OF_EVERY_EVENT else f" such as {' or '.join(facts.words.fields[name].names[:4])}"
            raise LacksError(f"needs {' or '.join(events[:4])} with its {name.replace('_', ' ')}{usual}")
    return str(_filled(fragment, found.get))


def _weight(weights: Mapping[str, int], facts: Facts) -> str | None:
    heavy = {weight: facts.roles[role] for role, weight in weights.items() if weight != 1 and facts.roles[role]}
    cases = (
        f"when event in ({', '.join(repr(event) for event in events)}) then {weight}"
        for weight, events in heavy.items()
    )
    return f"case {' '.join(cases)} else 1 end" if heavy else None


def _states(states: list[dict[str, Any]], known: Collection[str]) -> list[dict[str, Any]]:
    """The states that the known traits can tell; one that asks several things asks those that are known."""
    found = []
    for state in states:
        if "when" in state:
            asked = state["when"] if isinstance(state["when"], list) else [state["when"]]
            told = [condition for condition in asked if fragment_names(condition) <= set(known)]
            if told:
                found.append(state | {"when": told[0] if len(told) == 1 else " or ".join(f"({one})" for one in told)})
        else:
            found.append(state)
    if len(found) < min(len(states), 3):
        raise LacksError(f"of {counted(len(states), 'state')} the traits can tell {len(found)}")
    return found


def _audience(offer: Offer, data: dict[str, Any], facts: Facts, known: Mapping[str, set[str]]) -> dict[str, Any]:
    cadences = facts.settings.cadences
    if "daily" not in cadences:
        data = data | {"cadence": next(iter(cadences), "daily")}
    return data | {"rules": _rules(data["rules"], facts, known)}


def _rules(rules: list[dict[str, Any]], facts: Facts, known: Mapping[str, set[str]]) -> list[dict[str, Any]]:
    found = []
    for rule in rules:
        asked = {key: value for key, value in rule.items() if key != "if_known"}
        try:
            found.append(_rule(asked, facts, known))
        except LacksError:
            if not rule.get("if_known"):
                raise
    if not found:
        raise LacksError("nothing of what it asks is known")
    return found


def _rule(rule: dict[str, Any], facts: Facts, known: Mapping[str, set[str]]) -> dict[str, Any]:
    subject = next(key for key in rule if key not in ("op", "value"))
    asked = rule[subject]
    if subject in ("all", "any", "none"):
        return {subject: _rules(asked, facts, known)}
    if subject == "reach":
        rules = facts.reach(asked)
        if rules is None:
            raise LacksError(f"needs an identifier such as {' or '.join(WAYS[asked].identifiers)}")
        return {"all": rules}
    if subject == "identified":
        if not facts.identified():
            raise LacksError("needs an identifier of known people")
        return {"any": facts.identified()}
    if subject == "forecast":
        forecast = facts.foreseen_value(rule["value"]) if asked == "spends" else facts.forecast(asked == "buys")
        if forecast is None:
            what = "of type value: what people will spend" if asked == "spends" else f"of who {asked}"
            raise LacksError(f"needs a prediction {what}")
        return forecast
    if asked not in known[subject]:
        raise LacksError(f"needs {subject} {asked}")
    return rule


def lacking(project: Project) -> list[tuple[Offer, str]]:
    """What the catalogue has and this project cannot have or does not want, each with the reason."""
    own = [(kind, name) for (kind, name), place in project.places.items() if not place.startswith("shipped/")]
    taken = {kind: {name for of, name in own if of == kind} for kind in ("trait", "audience")}
    sound: dict[str, Mapping[str, Any]] = {
        "source": project.sources,
        "identifier": project.identifiers,
        "attribute": project.attributes,
        "prediction": project.predictions,
    }
    return shipped(project.settings, sound, taken).lacking


def settings_findings(
    settings: ProjectSettings, events: Collection[str], columns: Mapping[str, str]
) -> Iterator[tuple[DataPath, str]]:
    """What is wrong with what a project says about the catalogue.

    `events` are those that its sources declare, `columns` what an expression about an event may name, with types.
    """
    about, own = words(), settings.shipped
    for role, names in own.roles.items():
        if role not in about.roles:
            yield ("shipped", "roles", role), unknown("role", role, about.roles)
        for i, name in enumerate(names):
            if name not in events:
                yield ("shipped", "roles", role, i), unknown("event", name, events)
    for field, fragment in own.fields.items():
        try:
            expressions.check(fragment, columns)
        except expressions.ExpressionError as error:
            yield ("shipped", "fields", field), str(error)
        if field not in (*about.fields, *OF_EVERY_EVENT):
            yield ("shipped", "fields", field), unknown("field", field, [*about.fields, *OF_EVERY_EVENT])
    everything = {offer.name for offer in offers()}
    for i, name in enumerate(own.drop):
        if name not in everything:
            yield ("shipped", "drop", i), unknown("shipped trait or audience", name, everything)


def _listed(thing: str, names: list[str]) -> str:
    return f"{thing} {names[0]}" if len(names) == 1 else f"{thing}s {', '.join(names)}"

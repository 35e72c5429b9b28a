"""What a trait or an audience means, as a short word: equal versions make equal values of equal data.

A version covers all that a definition is made of: the traits and audiences it builds on, what the sources tell of its
events, the project's time zone. Words for people (description, owner, unit) are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Any

from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.spec.types import traits_read

# To be raised when the same definition gives another value than before.
METHOD = 1
FOR_PEOPLE = {"description", "owner", "unit", "name", "kind"}
BAND_FIELDS = {"bands", "dwell", "cool_down"}


def trait_versions(project: Project) -> dict[str, str]:
    """The version of every trait: of its values. How they are divided into bands has another, see band_versions."""
    told, found = _events_told(project), dict[str, str]()
    for name in _in_order({name: traits_read(trait) for name, trait in project.traits.items()}):
        trait = project.traits[name]
        made_of = [found[other] for other in sorted(traits_read(trait))]
        events = [told.get(event, []) for event in sorted(trait.event)]
        found[name] = _word(METHOD, project.settings.timezone, meaning(trait), made_of, events)
    return {name: found[name] for name in project.traits}


def band_versions(project: Project, versions: Mapping[str, str]) -> dict[str, str]:
    """The version of the bands or states of every trait that has some, given trait_versions."""
    return {
        name: _word(versions[name], trait.model_dump(mode="json", include=BAND_FIELDS))
        for name, trait in project.traits.items()
        if trait.band_names
    }


def audience_versions(project: Project) -> dict[str, str]:
    """The version of every audience: of who is in it. Predictions count by their definition, not by their model."""
    traits, told, found = trait_versions(project), _events_told(project), dict[str, str]()
    bands = band_versions(project, traits)
    settings = project.settings.timezone
    rules = {name: list(every_rule(audience.rules)) for name, audience in project.audiences.items()}
    for name in _in_order({name: {r.audience for r in asked if r.audience} for name, asked in rules.items()}):
        parts = [
            [
                traits.get(rule.trait or ""), bands.get(rule.band or ""), found.get(rule.audience or ""),
                [told.get(event) for event in _events_asked(rule)],
                _dumped(project.attributes, rule.attribute), _dumped(project.predictions, rule.prediction),
                _dumped(project.groups, rule.account.group if rule.account is not None else None),
                *([traits.get(rule.other_trait)] if rule.other_trait is not None else []),
            ]
            for rule in rules[name]
        ]  # fmt: skip
        own = [rule.model_dump(mode="json", exclude_defaults=True) for rule in project.audiences[name].rules]
        found[name] = _word(settings, own, parts)
    return {name: found[name] for name in project.audiences}


def _events_asked(rule: Rule) -> list[str]:
    happenings = [*(rule.sequence or []), *([rule.without] if rule.without is not None else [])]
    return [*(rule.event or []), *(event for one in happenings for event in one.event)]


def every_rule(rules: Iterable[Rule]) -> Iterator[Rule]:
    """The rules and all within them."""
    for rule in rules:
        yield rule
        yield from every_rule(rule.inner)


def meaning(trait: Trait) -> dict[str, Any]:
    """What makes a trait's values, as the document says it."""
    return trait.model_dump(mode="json", exclude=FOR_PEOPLE | BAND_FIELDS, exclude_defaults=True)


def _events_told(project: Project) -> dict[str, list[Any]]:
    """What the sources tell of each event."""
    found: dict[str, list[Any]] = {}
    for source in project.sources.values():
        for mapping in source.events:
            columns = {name: source.columns[name].type for name in mapping.properties if name in source.columns}
            told = [source.name, source.channel, mapping.model_dump(mode="json", exclude_defaults=True), columns]
            for event in mapping.event_names:
                found.setdefault(event, []).append(told)
    return found


def _dumped(documents: Mapping[str, Any], name: str | None) -> Any:
    return None if name is None else documents[name].model_dump(mode="json", exclude=FOR_PEOPLE)


def _in_order(needs: Mapping[str, set[str]]) -> Iterator[str]:
    return iter(TopologicalSorter(needs).static_order())


def _word(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=5).hexdigest()

"""Whether traits fit the events and traits they are made of."""

from __future__ import annotations

from collections.abc import Collection

from cdp_pipeline.spec.documents import DataPath
from cdp_pipeline.spec.references.declared import (
    BOOLEAN,
    STRING,
    Declared,
    Findings,
    events_exist,
    fragment_fits,
    trait_fits,
    word,
)
from cdp_pipeline.spec.trait import EVALUATIONS, Trait
from cdp_pipeline.spec.types import NUMERIC, fragment_names, traits_read


def trait_findings(trait: Trait, declared: Declared) -> Findings:
    yield from events_exist(trait.event, declared, ("event",))
    if declared.all_sources_known:
        of = EVALUATIONS[trait.evaluation].of
        wanted = NUMERIC if of == "number" else {STRING} if of == "text" else None
        yield from fragment_fits(trait.value, declared.event_columns, ("value",), wanted)
        yield from fragment_fits(trait.when, declared.event_columns, ("when",), {BOOLEAN})
        yield from fragment_fits(trait.weight, declared.event_columns, ("weight",), NUMERIC)
    for field in ("numerator", "denominator"):
        yield from trait_fits(getattr(trait, field), declared, (field,), NUMERIC)
    if trait.expression is not None:
        yield from _over_traits(trait.expression, declared, ("expression",))
    for i, state in enumerate(trait.states):
        if state.when is not None:
            yield from _over_traits(state.when, declared, ("states", i, "when"), {BOOLEAN})
    type_ = declared.traits.get(trait.name)
    if trait.bands and type_ is not None and type_ not in NUMERIC:
        yield ("bands",), f"only a number has bands, this is {word(type_)}"


def _over_traits(fragment: str, declared: Declared, path: DataPath, wanted: Collection[str] | None = None) -> Findings:
    names = fragment_names(fragment)
    problems = [finding for name in sorted(names) for finding in declared.reference("trait", name, path)]
    yield from problems
    if not problems and names <= declared.traits.keys():
        yield from fragment_fits(fragment, declared.traits, path, wanted)


def columns_read(trait: str, declared: Declared) -> set[str]:
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

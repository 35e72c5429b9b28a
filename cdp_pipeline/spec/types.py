"""What type every named thing of a project has: an event's columns, traits, attributes. Types are Ibis types' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter

from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.spec.source import IBIS_TYPES, Source
from cdp_pipeline.spec.trait import EVALUATIONS, Trait

WORDS = {ibis_type: word for word, ibis_type in IBIS_TYPES.items()}
"""The word for a type, as a source's columns say it."""
NUMERIC = {IBIS_TYPES[word] for word in ("integer", "number", "money")}
STRING = IBIS_TYPES["string"]
UNION = "array<string>"
EVENT_COLUMNS = {
    "occurred_at": IBIS_TYPES["timestamp"],
    "amount": IBIS_TYPES["money"],
    **dict.fromkeys(("event", "currency", "channel", "product_id", "category", "source"), IBIS_TYPES["string"]),
}
"""What is known of every event, beside the properties its source keeps."""


def source_columns(source: Source) -> dict[str, str]:
    return {name: IBIS_TYPES[column.type] for name, column in source.columns.items()}


def event_properties(sources: Iterable[Source]) -> dict[str, str]:
    """What events keep beside EVENT_COLUMNS, by name. Of two sources that disagree on a type, the first is heard."""
    columns: dict[str, str] = {}
    for source in sources:
        for mapping in source.events:
            for name in mapping.properties:
                if name in source.columns:
                    columns.setdefault(name, IBIS_TYPES[source.columns[name].type])
    return {"record_id": IBIS_TYPES["string"]} | dict(sorted(columns.items()))


def event_columns(sources: Iterable[Source]) -> dict[str, str]:
    """What an expression about an event may name; a property never hides what is known of every event."""
    return event_properties(sources) | EVENT_COLUMNS


def trait_types(traits: Mapping[str, Trait], events: Mapping[str, str]) -> dict[str, str]:
    """The type of each trait that has one: not of those in a circle, nor over something unknown."""
    sorter = TopologicalSorter({name: traits_read(trait) for name, trait in traits.items()})
    with suppress(CycleError):
        sorter.prepare()
    types: dict[str, str] = {}
    while ready := sorter.get_ready():
        for name in ready:
            type_ = _trait_type(traits[name], types, events) if name in traits else None
            if type_ is not None:
                types[name] = type_
        sorter.done(*ready)
    return types


def traits_read(trait: Trait) -> set[str]:
    """The other traits that a trait is made of."""
    fragments = [trait.expression, *(state.when for state in trait.states)]
    return {name for name in (trait.numerator, trait.denominator) if name is not None}.union(
        *(fragment_names(fragment) for fragment in fragments if fragment is not None)
    )


def fragment_names(fragment: str) -> set[str]:
    """What a fragment reads; nothing, where it is not one."""
    try:
        return expressions.names(fragment)
    except expressions.ExpressionError:
        return set()


def result_type(trait: Trait) -> str | None:
    """The type of a trait; None where it is that of its value or expression."""
    gives = EVALUATIONS[trait.evaluation].gives
    if gives == "value":
        return None
    return STRING if trait.report == "direction" else UNION if gives == "list" else IBIS_TYPES[gives]


def _trait_type(trait: Trait, types: Mapping[str, str], events: Mapping[str, str]) -> str | None:
    given = result_type(trait)
    if given is not None:
        return given
    try:
        if trait.expression is not None:
            return expressions.check(trait.expression, types)
        return expressions.check(trait.value or "", events)
    except expressions.ExpressionError:
        return None


def attribute_type(attribute: Attribute, sources: Mapping[str, Source]) -> str | None:
    """The type of an attribute's column: that of its values; a union is an array of texts."""
    return UNION if attribute.survivorship == "union" else value_type(attribute, sources)


def value_type(attribute: Attribute, sources: Mapping[str, Source]) -> str | None:
    """The type all its sources agree on, if they do: numbers widen, a date beside a time is a time."""
    try:
        types = {expressions.check(one.column, source_columns(sources[one.source])) for one in attribute.sources}
    except (KeyError, expressions.ExpressionError):
        return None
    if len(types) == 1:
        return types.pop()
    if types <= NUMERIC:
        return IBIS_TYPES["number" if IBIS_TYPES["number"] in types else "money"]
    return IBIS_TYPES["timestamp"] if types == {IBIS_TYPES["date"], IBIS_TYPES["timestamp"]} else None

"""What a folder declares, and what every check asks of it: whether names exist, and values and fragments fit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.documents import DataPath
from cdp_pipeline.spec.operators import OPERATORS, Kind, misfit, unsuited
from cdp_pipeline.spec.project import ProjectSettings
from cdp_pipeline.spec.source import IBIS_TYPES
from cdp_pipeline.spec.types import NUMERIC, UNION, WORDS, attribute_type, event_columns, trait_types

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


def name_findings(kind: str, name: str) -> Iterator[str]:
    if name in RESERVED.get(kind, ()) or (kind == "prediction" and name.endswith(("_training", "_model"))):
        yield f"'{name}' is a name the pipeline keeps for itself"
    if "__" in name:
        yield f"'{name}' should have no '__', which the pipeline keeps for itself"


def question_fits(op: str | None, value: object, type_: str | None, name: str, path: DataPath) -> Findings:
    """Whether operator and value suit the type of what is asked."""
    if type_ is None or op is None:
        return
    kind = kind_of(type_)
    said = unsuited(op, kind, name, word(type_))
    if said is not None:
        yield (*path, "op"), said
    elif OPERATORS[op].typed:
        for i, one in enumerate(value if isinstance(value, list) else [value]):
            yield from value_fits(one, type_, (*path, "value", i) if isinstance(value, list) else (*path, "value"))


def value_fits(value: object, type_: str, path: DataPath) -> Findings:
    """Whether a value written in YAML can be compared with this type."""
    said = misfit(value, kind_of(type_))
    if said is not None:
        yield path, said


def kind_of(type_: str) -> Kind:
    if type_ in NUMERIC:
        return "number"
    return "list" if type_ == UNION else KINDS[type_]


def column_fits(
    name: str, columns: Mapping[str, str], path: DataPath, wanted: Collection[str] | None = None
) -> Findings:
    if name not in columns:
        yield path, unknown("column", name, columns)
    elif wanted is not None and columns[name] not in wanted:
        yield path, f"should be {words(wanted)}, column '{name}' is {word(columns[name])}"


def fragment_fits(
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
        yield path, f"should be {words(wanted)}, '{fragment}' is {word(type_)}"


def events_exist(names: Iterable[str], declared: Declared, path: DataPath) -> Findings:
    if declared.all_sources_known:
        for name in names:
            if name not in declared.events:
                yield path, unknown("event", name, declared.events)


def trait_fits(name: str | None, declared: Declared, path: DataPath, wanted: Collection[str] | None = None) -> Findings:
    yield from declared.reference("trait", name, path)
    type_ = declared.traits.get(name or "")
    if wanted is not None and type_ is not None and type_ not in wanted:
        yield path, f"should be {words(wanted)}, trait '{name}' is {word(type_)}"


def band_fits(trait: str, band: str | None, declared: Declared, path: DataPath) -> Findings:
    if band is not None and trait in declared.of("trait"):
        bands = declared.of("trait")[trait].band_names
        if not bands:
            yield path, f"trait '{trait}' has neither bands nor states"
        elif band not in bands:
            yield path, unknown("band", band, bands)


def word(type_: str) -> str:
    return "a list of strings" if type_ == UNION else WORDS[type_]


def words(types: Collection[str]) -> str:
    if types == {BOOLEAN}:
        return "a condition"
    others = [word(type_) for type_ in sorted(set(types) - NUMERIC)]
    return " or ".join(["a number", *others] if set(types) >= NUMERIC else others)

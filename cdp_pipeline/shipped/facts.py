"""What a project can tell, in the catalogue's words: which events play a role, what they keep, who can be reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from cdp_pipeline.shipped.words import Words
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.spec.identifier import Identifier
from cdp_pipeline.spec.prediction import Binary, Features, Prediction, Value
from cdp_pipeline.spec.project import ProjectSettings
from cdp_pipeline.spec.reach import reached_by
from cdp_pipeline.spec.source import IBIS_TYPES, EventMapping, Source
from cdp_pipeline.spec.types import NUMERIC, attribute_type, event_columns, fragment_names

Foreseen = TypeVar("Foreseen", bound=Features)
OF_EVERY_EVENT = ("amount", "channel", "product_id", "category")
"""What a mapping says of an event, if it says it."""
KINDS = {
    "text": {IBIS_TYPES["string"]},
    "number": NUMERIC,
    "day": {IBIS_TYPES["date"], IBIS_TYPES["timestamp"]},
}


@dataclass(frozen=True)
class Facts:
    """What the catalogue asks of a project. Of documents by kind and name, those that are sound."""

    settings: ProjectSettings
    words: Words
    sound: Mapping[str, Mapping[str, Any]]

    @cached_property
    def mappings(self) -> list[tuple[Source, EventMapping]]:
        return [(source, mapping) for source in self.sound.get("source", {}).values() for mapping in source.events]

    @cached_property
    def declared_events(self) -> set[str]:
        return {name for _, mapping in self.mappings for name in mapping.event_names}

    @cached_property
    def columns(self) -> dict[str, str]:
        return event_columns(self.sound.get("source", {}).values())

    @cached_property
    def roles(self) -> dict[str, list[str]]:
        """The events that play each role: those the project names, else those that are called as is usual."""
        named = self.settings.shipped.roles
        usual = {
            role: [next((name for name in names if name in self.declared_events), None) for names in alternatives]
            for role, alternatives in self.words.roles.items()
        }
        found = {role: [name for name in names if name is not None] for role, names in usual.items()}
        declared = {role: [name for name in names if name in self.declared_events] for role, names in named.items()}
        return found | declared

    def events(self, roles: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(name for role in roles for name in self.roles[role]))

    def field(self, name: str, events: Iterable[str]) -> str | None:
        """The SQL by which events tell a field, or None where none of them keeps it."""
        about = [mapping for _, mapping in self._about(events)]
        if name in self.settings.shipped.fields:
            fragment = self.settings.shipped.fields[name]
            kept = {kept for mapping in about for kept in mapping.properties}
            reads = fragment_names(fragment)
            return f"({fragment})" if reads and reads <= kept | set(OF_EVERY_EVENT) else None
        if name == "channel":
            return name if any(self._channel(*one) is not None for one in self._about(events)) else None
        if name in OF_EVERY_EVENT:
            return name if any(getattr(mapping, name) is not None for mapping in about) else None
        field = self.words.fields[name]
        kept = {kept for mapping in about for kept in mapping.properties}
        found = [kind for kind in field.names if kind in kept and self.columns.get(kind) in KINDS[field.type]]
        return f"coalesce({', '.join(found)})" if len(found) > 1 else found[0] if found else None

    def channels(self, events: Iterable[str]) -> set[str] | None:
        """The channels these events can come from; None where that is not declared."""
        found: set[str] = set()
        for source, mapping in self._about(events):
            fragment = self._channel(source, mapping)
            accepted = _accepted(source, fragment) if fragment is not None else []
            if accepted is None:
                return None
            found |= set(accepted)
        return found

    def _about(self, events: Iterable[str]) -> list[tuple[Source, EventMapping]]:
        names = set(events)
        return [(source, mapping) for source, mapping in self.mappings if names & set(mapping.event_names)]

    def _channel(self, source: Source, mapping: EventMapping) -> str | None:
        return mapping.channel or (None if source.channel is None else f"'{source.channel}'")

    def reach(self, medium: str) -> list[dict[str, Any]] | None:
        """The rules by which somebody may be written to, or None where the project has no such identifier."""
        attributes: Mapping[str, Attribute] = self.sound.get("attribute", {})
        yes_or_no = [
            name for name, attribute in attributes.items()
            if attribute_type(attribute, self.sound["source"]) == IBIS_TYPES["boolean"]
        ]  # fmt: skip
        return reached_by(medium, self.sound.get("identifier", {}), yes_or_no)

    def identified(self) -> list[dict[str, Any]]:
        """The rules by which more is known of somebody than a device."""
        identifiers: Mapping[str, Identifier] = self.sound.get("identifier", {})
        return [{"identifier": name} for name, identifier in identifiers.items() if identifier.known]

    def forecast(self, buys: bool) -> dict[str, Any] | None:
        """The rule for whom a prediction says most clearly that they will buy (or will not)."""
        for prediction in self._of_purchases(Binary):
            name, bands = prediction.name, prediction.bands
            if prediction.target.happens is buys:
                if bands:
                    return {"prediction": name, "field": "band", "op": "=", "value": bands[-1].name}
                return {"prediction": name, "op": ">=", "value": 0.5}
        return None

    def foreseen_value(self, at_least: float) -> dict[str, Any] | None:
        """The rule for whom a prediction of what people will spend expects so much or more."""
        for prediction in self._of_purchases(Value):
            return {"prediction": prediction.name, "op": ">=", "value": at_least}
        return None

    def _of_purchases(self, type_: type[Foreseen]) -> Iterator[Foreseen]:
        predictions: Mapping[str, Prediction] = self.sound.get("prediction", {})
        for prediction in predictions.values():
            if isinstance(prediction, type_) and set(prediction.target.event) & set(self.roles["purchase"]):
                yield prediction


def _accepted(source: Source, fragment: str) -> list[str] | None:
    """The values a fragment can have: a constant, or a column whose contract lists what is accepted."""
    if fragment.startswith("'") and fragment.endswith("'") and "'" not in fragment[1:-1]:
        return [fragment[1:-1]]
    column = source.columns.get(fragment)
    lists = [check.accepted for check in column.checks if check.accepted is not None] if column is not None else []
    return [str(value) for value in lists[0]] if lists else None

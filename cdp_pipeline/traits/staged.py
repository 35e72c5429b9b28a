"""The staged plan behind as_of.py: how the events become the parts of all traits on all requested days, in few passes.

A stage reads the events once, computing each condition and value once, and aggregates them per person and cell of days
(see cells.py); then, for each requested day, it merges the cells that each window sees. So windows and days may be
many, and cost what their cells cost. Where the different values matter, parts are kept per value until the cells are
merged, and gathered then. What a part is, is up to evaluations.py.

All plain traits are one stage, and the first and last values one, since engines are slow where aggregates that keep
texts stand in one row with many others; spreads and quantiles are one, which has no cells, since nothing smaller than
all values tells them; those over the different values of one expression are one, and each window and period of a trend.
Windows that look ahead, and each sort of session, have stages of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import ibis

from cdp_pipeline.profile.timeline import event_scope
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.spec.types import result_type
from cdp_pipeline.traits import cells
from cdp_pipeline.traits.cells import Span, Spans
from cdp_pipeline.traits.evaluations import (
    EVALUATIONS,
    AsOf,
    AtOnce,
    Evaluation,
    OfOneEvent,
    OverValues,
    Parts,
    Rows,
    Trend,
    published_type,
)

Names = dict[str, dict[str, str]]
"""For each trait, the column of each of its parts."""


@dataclass
class Columns:
    """The columns of the timeline that traits look at, each computed once, by names they share."""

    timeline: ibis.Table
    named: dict[str, Any] = field(default_factory=dict)
    _names: dict[object, str] = field(default_factory=dict)

    @cached_property
    def _scope(self) -> dict[str, Any]:
        return {**event_scope(self.timeline), "_day": self.timeline._day}

    def condition(self, trait: Trait) -> str:
        key = (frozenset(trait.event), trait.when)
        if key not in self._names:
            self._names[key] = f"c{len(self._names)}"
            happened = _is_one_of(self.timeline.event, trait.event)
            if trait.when is not None:
                happened &= expressions.compile(trait.when, self._scope).fill_null(False)
            self.named[self._names[key]] = happened
        return self._names[key]

    def value(self, fragment: str | None) -> str | None:
        if fragment is not None and fragment not in self._names:
            self._names[fragment] = f"v{len(self._names)}"
            self.named[self._names[fragment]] = expressions.compile(fragment, self._scope)
        return None if fragment is None else self._names[fragment]


@dataclass
class Aggregates:
    """Aggregates by names of their own; traits that ask for the same share it."""

    prefix: str
    named: Parts = field(default_factory=dict)
    _names: dict[Any, str] = field(default_factory=dict)

    def names(self, asked: Parts) -> dict[str, str]:
        names = {
            part: self._names.setdefault(one.op(), f"{self.prefix}{len(self._names)}") for part, one in asked.items()
        }
        self.named |= {names[part]: one for part, one in asked.items()}
        return names


@dataclass(frozen=True)
class Member:
    """A trait of a stage, the columns it looks at, and what its window sees on each requested day."""

    trait: Trait
    evaluation: Evaluation
    condition: str
    value: str | None
    weight: str | None
    spans: Spans
    type: Any

    @property
    def window(self) -> tuple[Span, ...]:
        return tuple(self.spans.values())

    def result(self, parts: Parts, day: Any) -> Any:
        """The trait of people of whom the stage has parts."""
        return self.evaluation.result(parts, AsOf(day, self.spans)).cast(self.type)

    def known(self, found: Any, day: Any) -> Any:
        """What was found, or what is so of those of whom nothing was."""
        empty = self.evaluation.absent(AsOf(day, self.spans))
        return found if empty is None else ibis.coalesce(found, empty).cast(self.type)


def stages(timeline: ibis.Table, days: Sequence[date], traits: Mapping[str, Trait], zone: ZoneInfo) -> list[Stage]:
    """The stages that together have the parts of all these traits over events."""
    grouped: dict[tuple[object, ...], dict[str, Trait]] = {}
    apart = _events_apart(traits.values())
    for name, trait in traits.items():
        grouped.setdefault((apart[trait.event[0]], *_stage_of(trait)), {})[name] = trait
    return [Stage(timeline, tuple(days), members, zone) for members in grouped.values()]


def _events_apart(traits: Iterable[Trait]) -> dict[str, int]:
    """For each event the number of its set: no trait looks at events of two sets."""
    sets: list[set[str]] = []
    for trait in traits:
        ours = [events for events in sets if events & set(trait.event)]
        sets = [events for events in sets if events not in ours] + [set(trait.event).union(*ours)]
    return {event: number for number, events in enumerate(sets) for event in events}


def _stage_of(trait: Trait) -> tuple[object, ...]:
    reach = trait.window.reach
    events = (frozenset(trait.event), trait.gap) if reach == "session" else reach == "next"
    evaluation = EVALUATIONS[trait.evaluation]
    if issubclass(evaluation, Trend):
        return events, trait.window, trait.period
    if issubclass(evaluation, OverValues):
        return events, trait.value or "_day"
    return events, next((sort for sort in (OfOneEvent, AtOnce) if issubclass(evaluation, sort)), None)


@dataclass(frozen=True)
class Stage:
    """Traits whose parts are found together, from one reading of the timeline."""

    timeline: ibis.Table
    days: tuple[date, ...]
    traits: Mapping[str, Trait]
    zone: ZoneInfo

    @cached_property
    def _columns(self) -> Columns:
        return Columns(self.timeline)

    @cached_property
    def members(self) -> dict[str, Member]:
        return {name: self._member(trait) for name, trait in self.traits.items()}

    def _member(self, trait: Trait) -> Member:
        evaluation = EVALUATIONS[trait.evaluation].of(trait)
        value = self._columns.value("_day" if evaluation.of_days else trait.value)
        given = result_type(trait)
        type_ = published_type(self._columns.named[str(value)].type()) if given is None else ibis.dtype(given)
        spans = {day: evaluation.span(*trait.window.span(day)) for day in self.days}
        condition, weight = self._columns.condition(trait), self._columns.value(trait.weight)
        return Member(trait, evaluation, condition, value, weight, spans, type_)

    @cached_property
    def _together(self) -> Mapping[str, tuple[str, ...]]:
        """The values looked at under each condition."""
        together: dict[str, dict[str, None]] = {}
        for member in self.members.values():
            together.setdefault(member.condition, {}).update({} if member.value is None else {member.value: None})
        return {condition: tuple(values) for condition, values in together.items()}

    @property
    def _one(self) -> Member:
        """Any trait of the stage: what decides about the stage is the same for all."""
        return next(iter(self.members.values()))

    @property
    def _trend(self) -> Trend | None:
        return self._one.evaluation if isinstance(self._one.evaluation, Trend) else None

    @property
    def _key(self) -> str | None:
        """The column whose different values matter."""
        return self._one.value if isinstance(self._one.evaluation, OverValues) and self._trend is None else None

    def table(self) -> ibis.Table:
        """The traits by person_id and day, of people of whom there are events."""
        at_once = self._is_one_day or isinstance(self._one.evaluation, AtOnce)
        table, columns = self._at_once() if at_once else self._on_days(*self._in_cells())
        if isinstance(self._one.evaluation, OverValues):
            table, columns = self._gathered(table, columns)
        results = {name: m.result(_parts(table, columns[name]), table.day) for name, m in self.members.items()}
        return table.select("person_id", "day", **results)

    @property
    def _is_one_day(self) -> bool:
        """Whether there is only one day to ask of each event whether it is seen."""
        known_at_once = self._one.trait.window.reach not in ("next", "session")
        return len(self.days) == 1 and known_at_once and self._trend is None

    def _at_once(self) -> tuple[ibis.Table, Names]:
        """Parts per person and day, of the events that each trait's window sees; no cells in between."""
        windows = {member.window: member.spans for member in self.members.values()}
        number = {window: place for place, window in enumerate(windows)}
        if self._is_one_day:
            [day] = self.days
            events = self._events().mutate(cell=ibis.date(day))
            seen = [cells.within(events._day, *spans[day]) for spans in windows.values()]
        else:
            events = cells.on_days(self._events(), self.days, list(windows.values()))
            seen = [events[f"seen_{place}"] for place in number.values()]
        asked = dict.fromkeys((member.condition, number[member.window]) for member in self.members.values())
        events = events.mutate(
            **{f"{condition}__{place}": events[condition] & seen[place] for condition, place in asked}
        )
        parts, names = Aggregates("part_"), Names()
        for name, member in self.members.items():
            names[name] = parts.names(self._parts_of(member, events, f"{member.condition}__{number[member.window]}"))
        keys = [key for key in ("person_id", "day", self._key) if key in events.columns]
        table = events.group_by(*keys).aggregate(**parts.named)
        if self._is_one_day:
            table = table.mutate(day=ibis.date(self.days[0]))
        return table if self._key is None else table.rename(value=self._key), names

    def _in_cells(self) -> tuple[ibis.Table, Names]:
        """Parts per person and cell, of all events that count."""
        events, parts = self._events(), Aggregates("part_")
        names = {n: parts.names(self._parts_of(m, events, m.condition)) for n, m in self.members.items()}
        keys = [key for key in ("person_id", "cell", "since", "until", self._key) if key in events.columns]
        return events.group_by(*keys).aggregate(**parts.named), names

    def _parts_of(self, member: Member, events: ibis.Table, counts: str) -> Parts:
        """The parts of a trait, from the events that the column `counts` says count."""
        value, weight = (None if column is None else events[column] for column in (member.value, member.weight))
        return member.evaluation.parts(Rows(events, events[counts], value, weight, self._together[member.condition]))

    def _on_days(self, table: ibis.Table, columns: Names) -> tuple[ibis.Table, Names]:
        """Parts per person and day, of the cells that each trait's window sees."""
        windows = {member.window: member.spans for member in self.members.values()}
        number = {window: place for place, window in enumerate(windows)}
        table = cells.on_days(table, self.days, list(windows.values()))
        if self._key is not None:
            table = table.rename(value=self._key)
        if self._trend is not None:
            table = table.mutate(value=self._trend.period_of(table.cell, table.first_0, table.last_0))
        parts, names = Aggregates("part_"), Names()
        for name, member in self.members.items():
            seen = table[f"seen_{number[member.window]}"]
            names[name] = parts.names(member.evaluation.merged(_parts(table, columns[name]), seen, table.age))
        keys = [key for key in ("person_id", "day", "value") if key in table.columns]
        return table.group_by(*keys).aggregate(**parts.named), names

    def _gathered(self, table: ibis.Table, columns: Names) -> tuple[ibis.Table, Names]:
        """What the parts of all different values come to."""
        ranks, parts, names = Aggregates("rank_"), Aggregates("part_"), Names()
        members = {name: m.evaluation for name, m in self.members.items() if isinstance(m.evaluation, OverValues)}
        for name, evaluation in members.items():
            columns[name] |= ranks.names(evaluation.ranks(table.value, _parts(table, columns[name])))
        table = table.mutate(**ranks.named)
        for name, evaluation in members.items():
            names[name] = parts.names(evaluation.gathered(table.value, _parts(table, columns[name])))
        return table.group_by("person_id", "day").aggregate(**parts.named), names

    def _events(self) -> ibis.Table:
        """The events that may count: who, when, in which cell, and the columns that traits look at."""
        timeline, reach = self.timeline, self._one.trait.window.reach
        spans = [span for member in self.members.values() for span in member.window]
        ends = cells.cell_ends(spans if self._trend is None else self._trend.period_spans(spans))
        looked_at = _is_one_of(timeline.event, {event for trait in self.traits.values() for event in trait.event})
        seen = timeline.person_id.notnull() & looked_at & (timeline._day <= ibis.date(ends[-1]))
        firsts = [first for first, _ in spans if first is not None]
        if len(firsts) == len(spans):
            seen &= timeline._day >= ibis.date(min(firsts))
        kept = {name: timeline[name] for name in ("person_id", "_day", "occurred_at", "event_id")}
        if reach == "next":
            kept["since"] = cells.known_from(timeline._loaded_at, self.days, self.zone)
        events = timeline.filter(seen).select(**kept, **self._columns.named)
        if reach == "session":
            events = cells.last_sessions(events, self._one.trait.gap, self.days[0])
        if self._key is not None:
            events = events.filter(events[self._key].notnull())
        return events.mutate(cell=cells.cell(events._day, ends))


def _is_one_of(event: Any, events: Iterable[str]) -> Any:
    """In short lists: DuckDB 1.5 joins longer ones, and then loses track of fields of structs (an internal error)."""
    every = sorted(events)
    return ibis.or_(*(event.isin(every[start : start + 4]) for start in range(0, len(every), 4)))


def _parts(table: ibis.Table, columns: Mapping[str, str]) -> Parts:
    return {part: table[column] for part, column in columns.items()}

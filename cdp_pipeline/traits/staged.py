"""The staged plan behind as_of.py: events are read once, with each condition and value computed once.

What all requested days have in common (their core) is aggregated once per person; only events at the edges of the
windows, which count for some of the days, are aggregated per person and day. One day is all core. Distinct values are
grouped before they are counted. What an aggregate is, is up to evaluations.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from operator import or_
from typing import Any

import ibis

from cdp_pipeline.profile.timeline import event_scope
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.traits.evaluations import EVALUATIONS, Evaluation, Parts, Rows


def days_table(name: str, days: Iterable[date]) -> ibis.Table:
    """A table of these days, written into the query itself, so that every engine has it."""
    return ibis.array([ibis.date(day) for day in days]).unnest().name(name).as_table()


@dataclass(frozen=True)
class Span:
    """The first and last requested day. Windows are numbers of days; None is a lifetime."""

    first: date
    last: date

    def all_see(self, event_day: Any, window: int | None) -> Any:
        """Does every requested day see events of this day?"""
        seen = event_day <= ibis.date(self.first)
        return seen if window is None else seen & (event_day > ibis.date(self.last - timedelta(days=window)))

    def any_sees(self, event_day: Any, windows: set[int | None]) -> Any:
        """Does any requested day see events of this day, through any of these windows?"""
        seen = event_day <= ibis.date(self.last)
        longest = max((window for window in windows if window), default=0)
        return seen if None in windows else seen & (event_day > ibis.date(self.first - timedelta(days=longest)))

    def edge_days(self, windows: set[int | None]) -> list[date]:
        """The days of events that some but not all of the requested days may see."""
        steps = [timedelta(days=number) for number in range(1, (self.last - self.first).days + 1)]
        entering = {self.first + step for step in steps}
        leaving = {self.first - timedelta(days=window) + step for window in windows if window for step in steps}
        return sorted(entering | leaving)


def sees(day: Any, event_day: Any, window: int | None) -> Any:
    """Does `day` see, through the window, events of `event_day`? A date and a column, or two columns."""
    age = (ibis.date(day) if isinstance(day, date) else day).delta(event_day, unit="day")
    return age >= 0 if window is None else (age >= 0) & (age < window)


@dataclass(frozen=True)
class StagedTrait:
    """A trait over events: its evaluation, and the prepared columns that hold its condition and its value."""

    key: str
    name: str
    evaluation: Evaluation
    condition: str
    value: str | None
    window: int | None
    type: Any

    @property
    def counts(self) -> str:
        """The column that says whether a row counts for this trait; traits with one condition and window share it."""
        return f"{self.condition}_{self.window or 'ever'}"

    def parts(self, prefix: str, table: ibis.Table, where: Any) -> Parts:
        """The aggregates over the rows that count, under names by which `result` finds them again."""
        rows = Rows(table, None if self.value is None or self.evaluation.over_values else table[self.value])
        return {f"{prefix}_{self.key}_{part}": value for part, value in self.evaluation.parts(rows, where).items()}

    def result(self, table: ibis.Table, columns: Iterable[str]) -> Any:
        core, edge = (
            {column.removeprefix(start): table[column] for column in columns if column.startswith(start)}
            for start in (f"core_{self.key}_", f"edge_{self.key}_")
        )
        value = self.evaluation.result(self.evaluation.combine(core, edge) if edge else core, table.day)
        value = value.cast(self.type)
        return value if self.evaluation.empty is None else value.fill_null(self.evaluation.empty)


@dataclass(frozen=True)
class Plan:
    """The prepared events (person_id, _day, a column per condition and value, moment) and the traits made of them."""

    events: ibis.Table
    traits: list[StagedTrait]
    days: list[date]

    @classmethod
    def of(cls, timeline: ibis.Table, days: list[date], traits: Mapping[str, Trait]) -> Plan:
        scope = event_scope(timeline)
        conditions: dict[tuple[frozenset[str], str | None], str] = {}
        values: dict[str, str] = {}
        columns: dict[str, Any] = {}
        staged = []
        for number, (name, trait) in enumerate(traits.items()):
            evaluation, value = EVALUATIONS[trait.evaluation], None
            condition = conditions.setdefault((frozenset(trait.event), trait.when), f"c{len(conditions)}")
            columns[condition] = _condition(timeline, scope, trait)
            if trait.value is not None:
                value = values.setdefault(trait.value, f"v{len(values)}")
                columns[value] = expressions.compile(trait.value, scope)
            type_ = evaluation.type(columns[value].type() if value else None)
            staged.append(StagedTrait(str(number), name, evaluation, condition, value, _days(trait), type_))
        seen = Span(days[0], days[-1]).any_sees(timeline._day, {trait.window for trait in staged})
        named = timeline.event.isin(sorted({event for trait in traits.values() for event in trait.event}))
        events = timeline.filter(timeline.person_id.notnull() & named & seen)
        if dated := {t.condition: columns[t.condition] for t in staged if t.evaluation.needs_moment}:
            # Structs compare field by field, so that ties always fall the same way. Other rows are spared the cost.
            moment = ibis.struct({"at": timeline.occurred_at, "id": timeline.event_id})
            columns["moment"] = ibis.ifelse(_any(dated.values()), moment, ibis.null(moment.type()))
        return cls(events.select("person_id", "_day", **columns), staged, days)

    @property
    def span(self) -> Span:
        return Span(self.days[0], self.days[-1])

    def stages(self) -> Iterator[tuple[ibis.Table, ibis.Table | None]]:
        """For each stage the core aggregates by person_id and, for several days, the edge ones by person_id and day."""
        if plain := [trait for trait in self.traits if not trait.evaluation.over_values]:
            yield self._core(plain), self._edge(plain) if len(self.days) > 1 else None
        for value in dict.fromkeys(trait.value for trait in self.traits if trait.evaluation.over_values):
            traits = [trait for trait in self.traits if trait.evaluation.over_values and trait.value == value]
            known = self._known_values(str(value), traits)
            edge = self._changing_values(known, str(value), traits) if len(self.days) > 1 else None
            yield self._lasting_values(known, traits), edge

    def _core(self, traits: list[StagedTrait]) -> ibis.Table:
        counts = {t.counts: self.events[t.condition] & self.span.all_see(self.events._day, t.window) for t in traits}
        events = self.events.mutate(**counts)
        return events.group_by("person_id").aggregate(
            **_merged(trait.parts("core", events, events[trait.counts]) for trait in traits)
        )

    def _edge(self, traits: list[StagedTrait]) -> ibis.Table:
        windows = {trait.window for trait in traits}
        pairs = days_table("event_day", self.span.edge_days(windows)).cross_join(days_table("day", self.days))
        pairs = pairs.mutate(
            **{
                f"in_{window}": sees(pairs.day, pairs.event_day, window) & ~self.span.all_see(pairs.event_day, window)
                for window in windows
            }
        ).filter(lambda pair: _any(pair[f"in_{window}"] for window in windows))
        events = self.events.join(pairs, self.events._day == pairs.event_day)
        events = events.mutate(**{t.counts: events[t.condition] & events[f"in_{t.window}"] for t in traits})
        return events.group_by("person_id", "day").aggregate(
            **_merged(trait.parts("edge", events, events[trait.counts]) for trait in traits)
        )

    def _known_values(self, value: str, traits: list[StagedTrait]) -> ibis.Table:
        """Per person and value, for each condition, the last day up to the first requested one, and the next after."""
        conditions = sorted({trait.condition for trait in traits})
        first = ibis.date(self.span.first)
        events = self.events.filter(self.events[value].notnull() & self._seen_by_any(traits))
        return events.group_by("person_id", value).aggregate(
            **{f"last_{c}": events._day.max(where=events[c] & (events._day <= first)) for c in conditions},
            **{f"next_{c}": events._day.min(where=events[c] & (events._day > first)) for c in conditions},
        )

    def _seen_by_any(self, traits: list[StagedTrait]) -> Any:
        events = self.events
        return _any(
            {t.counts: events[t.condition] & self.span.any_sees(events._day, {t.window}) for t in traits}.values()
        )

    def _lasts(self, known: ibis.Table, trait: StagedTrait) -> Any:
        """Was the value known on the first day, and stays in the window to the last without being seen again?"""
        lasts = self.span.all_see(known[f"last_{trait.condition}"], trait.window)
        return lasts.fill_null(False) & known[f"next_{trait.condition}"].isnull()

    def _lasting_values(self, known: ibis.Table, traits: list[StagedTrait]) -> ibis.Table:
        return known.group_by("person_id").aggregate(
            **_merged(trait.parts("core", known, self._lasts(known, trait)) for trait in traits)
        )

    def _changing_values(self, known: ibis.Table, value: str, traits: list[StagedTrait]) -> ibis.Table:
        """Values that count on some of the days: until they are forgotten or seen again, and from then on."""
        days = days_table("day", self.days)
        conditions = sorted({trait.condition for trait in traits})
        fading = known.filter(
            _any(
                sees(self.span.first, known[f"last_{t.condition}"], t.window).fill_null(False) & ~self._lasts(known, t)
                for t in traits
            )
        ).cross_join(days)
        fading = fading.filter(_any(fading[f"last_{condition}"] <= fading.day for condition in conditions))
        until = {c: (fading[f"next_{c}"] > fading.day).fill_null(True) for c in conditions}
        faded = fading.group_by("person_id", "day").aggregate(
            **_merged(
                trait.parts(
                    "edge",
                    fading,
                    sees(fading.day, fading[f"last_{trait.condition}"], trait.window)
                    & until[trait.condition]
                    & ~self._lasts(fading, trait),
                )
                for trait in traits
            )
        )
        later = self.events.filter(self.events[value].notnull() & self._seen_by_any(traits))
        later = later.filter(later._day > ibis.date(self.span.first))
        later = later.join(days, later._day <= days.day)
        later = later.group_by("person_id", "day", value).aggregate(
            **{f"last_{c}": later._day.max(where=later[c]) for c in conditions}
        )
        entered = later.group_by("person_id", "day").aggregate(
            **_merged(
                trait.parts("edge", later, sees(later.day, later[f"last_{trait.condition}"], trait.window))
                for trait in traits
            )
        )
        both = faded.union(entered)
        return both.group_by("person_id", "day").aggregate(
            **{column: both[column].sum() for column in both.columns if column not in ("person_id", "day")}
        )


def _days(trait: Trait) -> int | None:
    if trait.window.reach not in ("lifetime", "last") or trait.window.unit not in ("day", "week"):
        raise NotImplementedError(f"window '{trait.window}' is not computed yet")
    return trait.window.number * (7 if trait.window.unit == "week" else 1) or None


def _condition(timeline: ibis.Table, scope: Mapping[str, Any], trait: Trait) -> Any:
    happened = timeline.event.isin(sorted(trait.event))
    return happened if trait.when is None else happened & expressions.compile(trait.when, scope).fill_null(False)


def _any(conditions: Iterable[Any]) -> Any:
    return reduce(or_, conditions)


def _merged(parts: Iterable[Parts]) -> Parts:
    return {name: value for found in parts for name, value in found.items()}

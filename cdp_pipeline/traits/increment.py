"""One more day of traits from a day that is known: only what the days between can have changed is computed again.

Whoever did nothing on a day that came into a window or left it has the value they had, or had it grown older. So
yesterday's rows are all that is kept; there are no partial results beside them. Which people must be looked at for
other reasons (late, corrected or withdrawn events, merges and splits) the caller says, who sees what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from operator import or_
from typing import Any

import ibis

from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trait import OVER_TRAITS, PERIODS, Trait
from cdp_pipeline.spec.types import EVENT_COLUMNS
from cdp_pipeline.traits.as_of import as_of, derived
from cdp_pipeline.traits.cells import ONE_DAY, Span, within

Days = tuple[Span, ...]


@dataclass(frozen=True)
class KnownDay:
    """A day whose traits are known: rows of traits.daily, which traits mean the same now, and who was disturbed since.

    `disturbed` (person_id) must name everybody of whom an event up to `day` was written or removed since.
    """

    day: date
    rows: ibis.Table
    same: Collection[str]
    disturbed: ibis.Table


def one_more_day(
    timeline: ibis.Table,
    people: ibis.Table,
    day: date,
    project: Project,
    known: KnownDay,
    held: Callable[[ibis.Table], ibis.Table] = lambda rows: rows,
) -> ibis.Table:
    """What as_of(timeline, people, [day], project) says: person_id, day, one column per trait.

    `held` may compute a table once that is read several times.
    """
    people = people.filter(people.first_day <= day) if "first_day" in people.columns else people
    people = people.select("person_id")
    traits = {name: trait for name, trait in project.traits.items() if trait.evaluation not in OVER_TRAITS}
    # What is to come is seen as far as it was loaded, so that its days alone do not tell what changed.
    carried = {name: t for name, t in traits.items() if name in known.same and t.window.reach != "next"}
    anew = {name: trait for name, trait in traits.items() if name not in carried}
    table = _carried(timeline, people, day, carried, known, project, held) if carried else people
    if anew:
        found = as_of(timeline, people, [day], project, list(anew)).drop("day")
        table = table.left_join(found, "person_id").drop("person_id_right")
    table = table.mutate(day=ibis.date(day))
    return derived(table, project.traits, list(project.traits)).select("person_id", "day", *project.traits)


@dataclass(frozen=True)
class _Group:
    """Traits that change by the same events: those of these names on these days."""

    name: str
    events: frozenset[str]
    days: Days
    traits: dict[str, Trait]

    def changed_by(self, timeline: ibis.Table) -> Any:
        return timeline.event.isin(sorted(self.events)) & _on_any(timeline._day, self.days)

    @property
    def by_period(self) -> bool:
        return any(trait.period for trait in self.traits.values())

    def first_seen(self, day: date) -> date:
        firsts = [trait.window.span(day)[0] for trait in self.traits.values()]
        return min((first or date.min) for first in firsts)


def _carried(
    timeline: ibis.Table,
    people: ibis.Table,
    day: date,
    traits: Mapping[str, Trait],
    known: KnownDay,
    project: Project,
    held: Callable[[ibis.Table], ibis.Table],
) -> ibis.Table:
    groups, before = _groups(traits, known.day, day), known.rows.select("person_id", *traits)
    names = [group.name for group in groups]
    timeline = _needed(timeline, traits)
    timeline = timeline.filter(timeline.person_id.notnull())
    slices = timeline.filter(_on_any(timeline._day, {days for group in groups for days in group.days}))
    moved = slices.select("person_id", **{group.name: group.changed_by(slices) for group in groups})
    strangers = people.anti_join(before, "person_id")
    whole = ibis.union(known.disturbed.select("person_id"), strangers)
    whole = whole.mutate(**{name: ibis.literal(True) for name in names})
    touched = ibis.union(moved, whole).group_by("person_id").aggregate(
        **{name: (lambda table, name=name: table[name].any()) for name in names}
    )  # fmt: skip
    touched = touched.filter(_any(touched[name] for name in names))
    touched = held(touched.semi_join(people, "person_id"))
    events = held(_events_of(touched, groups, timeline, day))
    changed = touched
    # Apart, because what goes by periods changes of many more people.
    for by_period in (False, True):
        some = [group for group in groups if group.by_period == by_period]
        if some:
            theirs = touched.filter(_any(touched[group.name] for group in some)).select("person_id")
            asked = [name for group in some for name in group.traits]
            found = held(as_of(events.semi_join(theirs, "person_id"), theirs, [day], project, asked))
            found = found.select("person_id", **{f"new_{name}": found[name] for name in asked})
            changed = changed.left_join(found, "person_id").drop("person_id_right")
    # Read once: of what is read twice in a query, DuckDB keeps all columns.
    table = people.left_join(before, "person_id").drop("person_id_right")
    table = table.left_join(changed, "person_id").drop("person_id_right")
    values = dict(_grown(table, traits, (day - known.day).days))
    for group in groups:
        for name in group.traits:
            values[name] = ibis.ifelse(table[group.name], table[f"new_{name}"], values[name])
    return table.select("person_id", **values)


def _events_of(touched: ibis.Table, groups: Sequence[_Group], timeline: ibis.Table, day: date) -> ibis.Table:
    """Of each person the events of each name from the first day on that a group in which they are touched sees."""
    names = sorted({event for group in groups for event in group.events})
    since = {
        f"since_{number}": ibis.least(
            ibis.date(day + ONE_DAY),
            *(
                ibis.ifelse(touched[group.name], ibis.date(group.first_seen(day)), ibis.date(day + ONE_DAY))
                for group in groups
                if name in group.events
            ),
        )
        for number, name in enumerate(names)
    }
    events = timeline.inner_join(touched.select("person_id", **since), "person_id")
    seen = _any((events.event == name) & (events._day >= events[f"since_{n}"]) for n, name in enumerate(names))
    return events.filter(seen).drop(*since)


def _grown(table: ibis.Table, traits: Mapping[str, Trait], days: int) -> Iterable[tuple[str, Any]]:
    """The values so many days later, of people who saw no event come or go."""
    for name, trait in traits.items():
        value = table[name]
        if trait.evaluation in ("days_since", "days_since_first"):
            value = value + days
        elif trait.evaluation == "decayed" and trait.half_life is not None:
            value = value * 0.5 ** (days / trait.half_life.days)
        yield name, value.cast(table[name].type())


def _groups(traits: Mapping[str, Trait], known: date, day: date) -> list[_Group]:
    found: dict[tuple[frozenset[str], Days, str | None], dict[str, Trait]] = {}
    for name, trait in traits.items():
        key = frozenset(trait.event), changing_days(trait, known, day), trait.period
        found.setdefault(key, {})[name] = trait
    return [
        _Group(f"group_{number}", events, days, asked)
        for number, ((events, days, _), asked) in enumerate(found.items())
    ]


def changing_days(trait: Trait, known: date, day: date) -> Days:
    """The days whose events `day` does not see as the `known` day did: those that came, left or moved to a period."""
    parts = [_periods(trait, known), _periods(trait, day)] if trait.period else None
    if parts is None:
        return _apart(trait.window.span(known), trait.window.span(day))
    if len(parts[0]) != len(parts[1]):  # there is one period more or less, and every total counts otherwise
        return (*parts[0], *parts[1])
    apart = [days for one, other in zip(*parts, strict=True) for days in _apart(one, other)]
    return tuple(dict.fromkeys(apart))


def _periods(trait: Trait, day: date) -> list[Span]:
    first, last = trait.window.span(day)
    assert first is not None and trait.period is not None
    length = PERIODS[trait.period]
    count = ((last - first).days + 1) // length
    return [
        (last - timedelta(days=(back + 1) * length - 1), last - timedelta(days=back * length)) for back in range(count)
    ]


def _apart(one: Span, other: Span) -> Days:
    """The days in one of two spans and not in the other."""
    (first_a, last_a), (first_b, last_b) = one, other
    if one == other:
        return ()
    if first_a is None or first_b is None:
        assert first_a == first_b
        return ((min(last_a, last_b) + timedelta(days=1), max(last_a, last_b)),)
    if last_a < first_b or last_b < first_a:
        return (one, other)
    found: list[Span] = []
    if first_a != first_b:
        found.append((min(first_a, first_b), max(first_a, first_b) - timedelta(days=1)))
    if last_a != last_b:
        found.append((min(last_a, last_b) + timedelta(days=1), max(last_a, last_b)))
    return tuple(found)


def _on_any(day: Any, spans: Iterable[Span]) -> Any:
    """Is a day in any of these spans? Single days are listed, because files without any of them are not even opened."""
    spans = sorted(spans)
    single = [first for first, last in spans if first == last]
    return day.isin(single) | _any(within(day, *span) for span in spans if span[0] != span[1])


def _any(conditions: Iterable[Any]) -> Any:
    return reduce(or_, conditions, ibis.literal(False))


def _needed(timeline: ibis.Table, traits: Mapping[str, Trait]) -> ibis.Table:
    """The timeline's events of these traits with the columns and properties that they ask for."""
    asked: set[str] = set()
    for trait in traits.values():
        for fragment in (trait.when, trait.value, trait.weight):
            asked |= expressions.names(fragment) if fragment else set()
    properties = timeline["properties"]
    kept = {name: properties[name] for name in properties.type().names if name in asked - set(EVENT_COLUMNS)}
    asked |= {"event", "occurred_at"}
    columns: dict[str, Any] = {n: timeline[n] if n in asked else ibis.null(timeline[n].type()) for n in EVENT_COLUMNS}
    named = timeline.filter(timeline.event.isin(sorted({event for trait in traits.values() for event in trait.event})))
    kept = kept or {"record_id": ibis.null("string")}
    columns["properties"] = ibis.struct(kept)
    return named.select("event_id", "person_id", "_day", "_loaded_at", **columns)

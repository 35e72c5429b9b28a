"""Whom a trigger leaves alone: those for whom its own `unless` or a guard of its purpose holds, by what is known now.

Known are the traits and scores of the newest day, and what happened since: what the timeline has, and what was told of
a source before it was loaded (told.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import date

import ibis
import pyarrow as pa

from cdp_pipeline.audiences.accounts import with_their_groups
from cdp_pipeline.audiences.look import scope_of
from cdp_pipeline.audiences.rules import every_rule, gathered, holds_all, leaves
from cdp_pipeline.audiences.scope import Scope, persons
from cdp_pipeline.lake.questions import Asked
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trigger import Trigger
from cdp_pipeline.traits.as_of import as_of, in_order

UNLESS = "unless"
"""What a trigger's own conditions are called among the guards."""


def guards_of(project: Project, trigger: Trigger) -> dict[str, list[Rule]]:
    """By name the guards a trigger heeds; each holds where all its rules do."""
    own = {UNLESS: [Rule(any=trigger.unless)]} if trigger.unless else {}
    shared = {guard.name: guard.when for guard in project.guards.values() if trigger.purpose in guard.purposes}
    return own | shared


def heeded(project: Project, trigger: Trigger) -> set[str]:
    """The events that the guards of a trigger ask about, themselves or by way of traits."""
    asked = _conditions(project, trigger)
    traits = [name for batch in in_order(project.traits, _traits_of(asked)) for name in batch]
    happenings = [one for rule in asked for one in (rule, *(rule.sequence or []), rule.without) if one is not None]
    return {event for one in (*happenings, *(project.traits[name] for name in traits)) for event in one.event or []}


def guarded(
    asked: Asked,
    project: Project,
    trigger: Trigger,
    person_ids: Collection[str],
    day: date,
    today: date,
    told: pa.Table | None = None,
) -> dict[str, list[str]]:
    """Those of these people whom a guard keeps from the trigger today, with the guards' names.

    `day` is the newest that traits were computed for; of those whom `told` (rows of the timeline, which may have some
    of them) is about, they are found anew. Bands and attributes are those of the last run.
    """
    guards = guards_of(project, trigger)
    if not guards or not person_ids:
        return {}
    rules = [rule for each in guards.values() for rule in each]
    conditions = _conditions(project, trigger)

    def answer(people: ibis.Table, scope: Scope) -> ibis.Table:
        scope = scope.of_people(with_their_groups(leaves(every_rule(project, rules)), scope, people))
        table = gathered(project, rules, scope, [today])
        held = table.select("person_id", **{name: holds_all(each, table) for name, each in guards.items()})
        return held.semi_join(people, "person_id")

    def of_the_run(people: ibis.Table) -> ibis.Table:
        return answer(people, _as_if_of(today, scope_of(asked, project), people, day))

    def of_the_told(told: ibis.Table) -> ibis.Table:
        people = told.select("person_id").distinct()
        scope = _as_if_of(today, scope_of(asked, project), people, day)
        assert scope.timeline is not None
        known = scope.timeline
        timeline = known.union(told.select(*known.columns).anti_join(known.semi_join(people, "person_id"), "event_id"))
        names = _traits_of(conditions)
        if names:
            now = as_of(timeline.semi_join(people, "person_id"), people, [today], project, names)
            mine = scope.traits.filter(scope.traits.day == ibis.date(today)).drop(*names)
            mine = mine.semi_join(people, "person_id").inner_join(now.drop("day"), "person_id")
            others = scope.traits.anti_join(people, "person_id")
            scope = replace(scope, traits=others.union(mine.select(*others.columns).cast(others.schema())))
        return answer(people, replace(scope, timeline=timeline))

    about = set() if told is None else set(told["person_id"].to_pylist())
    parts: list[tuple[str, Callable[[ibis.Table], ibis.Table], pa.Table]] = [
        ("guards", of_the_run, persons([one for one in person_ids if one not in about]))
    ]
    if told is not None:
        parts.append(("guards of the told", of_the_told, told))
    found: dict[str, list[str]] = {}
    for kind, question, given in parts:
        if given.num_rows:
            rows = asked.answer((kind, trigger.name), question, given, when=(day, today)).to_pylist()
            found |= {str(row["person_id"]): [name for name in guards if row[name]] for row in rows}
    return {person_id: found[person_id] for person_id in person_ids if found.get(person_id)}


def _conditions(project: Project, trigger: Trigger) -> list[Rule]:
    rules = [rule for each in guards_of(project, trigger).values() for rule in each]
    return list(leaves(every_rule(project, rules)))


def _traits_of(conditions: Collection[Rule]) -> list[str]:
    return sorted({name for rule in conditions for name in rule.traits})


def _as_if_of(today: date, scope: Scope, people: ibis.Table, day: date) -> Scope:
    """What is asked of a day, asked of today: as on the newest day there is. Of whom nothing is known, nothing is."""
    traits = scope.traits
    if day != today:
        newest = traits.filter(traits.day == ibis.date(day)).mutate(day=ibis.date(today))
        traits = traits.filter(traits.day < ibis.date(today)).union(newest.select(*traits.columns))
    there = traits.filter(traits.day == ibis.date(today))
    nothing = {name: ibis.null(type_) for name, type_ in traits.schema().items() if name not in ("person_id", "day")}
    new = people.anti_join(there, "person_id").select("person_id", day=ibis.date(today), **nothing)
    return replace(
        scope,
        traits=traits.union(new.select(*traits.columns)),
        predictions={name: _newest(scores, today) for name, scores in scope.predictions.items()},
    )


def _newest(scores: ibis.Table, today: date) -> ibis.Table:
    known = scores.filter(scores.day <= ibis.date(today))
    return known.filter(known.day == known.day.max().as_scalar()).mutate(day=ibis.date(today)).select(*scores.columns)

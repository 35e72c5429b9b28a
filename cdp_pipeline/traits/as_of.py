"""What every trait of every person was at the end of each requested day, as one query.

How events are aggregated is staged.py; here traits meet people and days, and traits over other traits are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from graphlib import TopologicalSorter
from typing import Any
from zoneinfo import ZoneInfo

import ibis

from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trait import OVER_TRAITS, Trait
from cdp_pipeline.spec.types import traits_read
from cdp_pipeline.traits.cells import days_table
from cdp_pipeline.traits.evaluations import published_type
from cdp_pipeline.traits.staged import Member, stages


def as_of(
    timeline: ibis.Table,
    people: ibis.Table,
    days: Sequence[date],
    project: Project,
    names: Sequence[str] | None = None,
) -> ibis.Table:
    """The traits `names` (default: all) of `people` at the end of each of `days`: person_id, day, one column each.

    A row exists for every person from their `first_day` on (a column of `people`; without it, on every day).
    """
    names = [name for name in project.traits if names is None or name in names]
    wanted = {name: project.traits[name] for batch in in_order(project.traits, names) for name in batch}
    observable = {n: t for n, t in wanted.items() if t.evaluation not in OVER_TRAITS}
    table = observed(timeline, people, days, observable, project.zone)
    return derived(table, project.traits, names).select("person_id", "day", *names)


def derived(table: ibis.Table, traits: Mapping[str, Trait], names: Sequence[str]) -> ibis.Table:
    """The table, which has the traits over events that these need, with those over other traits added."""
    for batch in in_order(traits, names):
        made = {name: _derived(traits[name], table) for name in batch if traits[name].evaluation in OVER_TRAITS}
        table = table.mutate(**made) if made else table
    return table


def observed(
    timeline: ibis.Table, people: ibis.Table, days: Sequence[date], traits: Mapping[str, Trait], zone: ZoneInfo
) -> ibis.Table:
    """Traits that look at events, under the given names, for every person and day."""
    days = sorted(set(days))
    if not days:
        raise ValueError("traits need at least one day")
    table = people.cross_join(days_table("day", days))
    if "first_day" in people.columns:
        table = table.filter(table.first_day <= table.day)
    return observed_beside(table.select("person_id", "day"), timeline, days, traits, zone)


def observed_beside(
    table: ibis.Table, timeline: ibis.Table, days: Sequence[date], traits: Mapping[str, Trait], zone: ZoneInfo
) -> ibis.Table:
    """A table of people and days (person_id, day, and more), with traits that look at events as further columns."""
    kept = table.columns
    known: dict[str, Member] = {}
    for number, stage in enumerate(stages(timeline, days, traits, zone)):
        found = stage.table().rename({f"person_{number}": "person_id", f"day_{number}": "day"})
        table = table.left_join(found, [("person_id", f"person_{number}"), ("day", f"day_{number}")])
        known |= stage.members
    return table.select(*kept, **{name: known[name].known(table[name], table.day) for name in traits})


def in_order(traits: Mapping[str, Trait], names: Sequence[str]) -> list[tuple[str, ...]]:
    """The traits and all they are made from, in batches: each needs only those of earlier batches."""
    needed: dict[str, set[str]] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = traits_read(traits[name])
            waiting.extend(needed[name])
    return in_batches(needed)


def in_batches(needs: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """Names in batches, given what each needs: those of a batch need only those of earlier batches."""
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    batches = []
    while sorter.is_active():
        batches.append(tuple(sorted(sorter.get_ready())))
        sorter.done(*batches[-1])
    return batches


def _derived(trait: Trait, table: ibis.Table) -> Any:
    if trait.evaluation == "ratio":
        return table[trait.numerator].cast("float64") / table[trait.denominator].cast("float64").nullif(0)
    scope = {name: table[name] for name in traits_read(trait)}
    if trait.evaluation == "state":
        holds = [
            (expressions.compile(state.when, scope).fill_null(False) if state.when else ibis.literal(True), state.name)
            for state in trait.states
        ]
        return ibis.cases(*holds)
    value = expressions.compile(str(trait.expression), scope)
    return value.cast(published_type(value.type()))

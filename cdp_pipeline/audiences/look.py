"""What a marketer asks of an audience in a lake: how large, who, why so many, who else, what sets it apart.

Always under the definition as it is now, unless another is asked for. What each answer means is waterfall.py's,
overlap.py's, breakdown.py's and compare.py's business; here the tables they ask are found, on any day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.breakdown import Difference as Distinction
from cdp_pipeline.audiences.breakdown import breakdowns, people_of
from cdp_pipeline.audiences.compare import Difference, Side, compare
from cdp_pipeline.audiences.explain import Answer, explain
from cdp_pipeline.audiences.members import HELD, MEMBERS, SIZES, held_now, members, sizes
from cdp_pipeline.audiences.overlap import Overlaps, overlaps
from cdp_pipeline.audiences.reach import reach
from cdp_pipeline.audiences.rules import Scope, every_rule, gathered, leaves
from cdp_pipeline.audiences.sql import sql_of
from cdp_pipeline.audiences.waterfall import Waterfall, misses, waterfalls
from cdp_pipeline.identity.living import living
from cdp_pipeline.identity.people import PEOPLE
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.operators import CHANGES, whole_days
from cdp_pipeline.spec.versions import trait_versions
from cdp_pipeline.traits.as_of import as_of, in_order
from cdp_pipeline.traits.bands import BANDS, crossings, state_before

if TYPE_CHECKING:
    from cdp_pipeline.lake import Lake, LakeView
    from cdp_pipeline.spec.project import Project


class NothingComputedError(LookupError):
    """Audiences are asked of tables that do not exist yet, or of a day they were not computed for."""


def scope_of(lake: LakeView, project: Project) -> Scope:
    """The tables that conditions are asked of, as far as they exist."""

    def table(name: str) -> ibis.Table | None:
        return lake.table(name) if lake.exists(name) else None

    traits = table("traits.daily")
    if traits is None:
        raise NothingComputedError("no traits were computed yet: cdp run")
    scores: Mapping[str, ibis.Table | None] = {name: table(f"predictions.{name}") for name in project.predictions}
    return Scope(
        traits=traits,
        customers=table("profile.customers"),
        predictions={name: found for name, found in scores.items() if found is not None},
        bands=table("traits.bands"),
        timeline=table("profile.timeline"),
        identifiers=table("identity.identifiers"),
        groups=table("identity.group_members"),
        sources={name: found for name in _sources_asked(project) if (found := table(f"sources.{name}")) is not None},
    )


def _sources_asked(project: Project) -> list[str]:
    """The sources that conditions follow rows through."""
    rules = [rule for audience in project.audiences.values() for rule in audience.rules]
    rules += [rule for trigger in project.triggers.values() for rule in trigger.unless]
    rules += [rule for guard in project.guards.values() for rule in guard.when]
    return sorted({hop.source for rule in leaves(rules) for hop in rule.related or []})


def rules_of(project: Project, names: Sequence[str]) -> list[Rule]:
    """Every condition of these audiences and of those they build on, at any depth."""
    return list(leaves(every_rule(project, [Rule(audience=name) for name in names])))


def scope_on(
    lake: LakeView, project: Project, names: Sequence[str], day: date, published: Project | None = None
) -> Scope:
    """The tables as these audiences ask them on a day. Traits that were not computed for it are computed now.

    So are those that `project` defines otherwise than `published`, the project whose traits the lake holds. Bands of
    a day without traits are those of the last day that has some, moved on by that day's values. Scores are only known
    for days they were made for; attributes and identifiers are as they are now.
    """
    scope = scope_of(lake, project)
    rules = rules_of(project, names)
    banded = sorted({rule.band for rule in rules if rule.band})
    asked = {name for rule in rules for name in rule.traits}
    wanted = sorted(asked | set(banded))
    every = [name for batch in in_order(project.traits, wanted) for name in batch]
    other = []
    if published is not None:
        _same_elsewhere(project, published, rules, every)
        mine, theirs = trait_versions(project), trait_versions(published)
        other = [name for name in every if mine[name] != theirs.get(name)]
    known = () if scope.customers is None else scope.customers.columns
    for name in {name for rule in rules for name in (rule.attribute, rule.longitude) if name is not None}:
        if name not in known:
            raise NothingComputedError(f"profile.customers has no '{name}' yet: cdp run")
    days = days_asked(rules, day)
    there = scope.traits.filter(scope.traits.day == ibis.date(day)).count().to_pyarrow().as_py()
    for name in sorted({rule.prediction for rule in rules if rule.prediction}):
        scores = scope.predictions.get(name)
        if scores is None or not scores.filter(scores.day == ibis.date(day)).count().to_pyarrow().as_py():
            if there and scores is not None:
                continue  # A day on which everybody was too new to be scored.
            raise NothingComputedError(f"no scores of '{name}' were made for {day}: cdp run --day {day}")
    if there and not other and asked <= set(scope.traits.columns):
        return scope
    told = lake.read(timeline_table(project))
    if there == 0 and told.filter(told._day <= ibis.date(day)).count().to_pyarrow().as_py() == 0:
        raise NothingComputedError(f"nothing is known of {day} or before")
    traits = as_of(told, living(lake.read(PEOPLE), project), days, project, wanted)
    if banded and not there:
        bands = lake.read(BANDS)
        moved = crossings(traits, state_before(bands, day), project, [day])
        bands = bands.filter(bands.day < ibis.date(day)).cast(BANDS.schema).union(moved.cast(BANDS.schema))
        return replace(scope, traits=traits, bands=bands)
    return replace(scope, traits=traits)


def days_asked(rules: Sequence[Rule], day: date) -> list[date]:
    """The day, and those before it that conditions on a change of a trait look back to."""
    back = {whole_days(rule.value["over"]) for rule in rules if rule.op in CHANGES and isinstance(rule.value, dict)}
    return [day, *(day - timedelta(days=days) for days in sorted(back))]


def _same_elsewhere(project: Project, published: Project, rules: Sequence[Rule], traits: Sequence[str]) -> None:
    """What only a run can compute must be defined alike."""

    def told(one: Project, event: str) -> list[Any]:
        return [(s.name, mapping) for s in one.sources.values() for mapping in s.events if event in mapping.event_names]

    pairs: list[tuple[str, Any, Any]] = []
    for rule in rules:
        for kind, name in (("prediction", rule.prediction), ("attribute", rule.attribute), ("trait", rule.band)):
            if name:
                what = f"the bands of trait '{name}'" if rule.band else f"{kind} '{name}'"
                pairs.append((what, getattr(project, f"{kind}s")[name], getattr(published, f"{kind}s").get(name)))
    happenings = [one for rule in rules for one in (rule, *(rule.sequence or []), rule.without) if one is not None]
    events = {event for one in (*happenings, *(project.traits[name] for name in traits)) for event in one.event or []}
    pairs += [(f"event '{event}'", told(project, event), told(published, event)) for event in sorted(events)]
    for what, there, here in pairs:
        if there != here:
            raise NothingComputedError(f"{what} is defined otherwise there, and only a run computes it: cdp diff")


def listed(lake: LakeView, project: Project) -> list[dict[str, Any]]:
    """Every declared audience with its newest size, nothing where it was not computed yet, and why it is held."""
    told = lake.read(SIZES)
    newest = told.semi_join(told.group_by("audience").agg(day=told.day.max()), ["audience", "day"])
    found = {row["audience"]: row for row in newest.to_pyarrow().to_pylist()}
    held = held_now(told, lake.read(HELD))
    return [
        {
            "audience": name,
            **{column: found.get(name, {}).get(column) for column in SIZES.columns if column != "audience"},
            "held": held.get(name, ""),
        }
        for name in project.audiences
    ]


def size_now(lake: LakeView, project: Project, name: str, day: date | None) -> dict[str, Any]:
    """Size and reach, computed now from the traits of the day (default: the newest), and the share of everybody."""
    day = newest_day(lake, project) if day is None else day
    scope = scope_on(lake, project, [name], day)
    assert scope.identifiers is not None
    there = scope.traits.filter(scope.traits.day == ibis.date(day)).count()
    rows = members(project, [name], scope, [day])
    counted = sizes(rows, reach(project, rows, scope.identifiers, scope.customers), [name], [day])
    [found] = counted.mutate(everybody=there.as_scalar()).to_pyarrow().to_pylist()
    everybody = found.pop("everybody")
    return found | {"everybody": everybody, "share": found["people"] / everybody if everybody else 0.0}


def preview(lake: LakeView, project: Project, name: str, day: date | None, limit: int) -> list[dict[str, Any]]:
    """The first members by person id, with the traits the audience asks about and their profile."""
    day = newest_day(lake, project) if day is None else day
    scope = scope_on(lake, project, [name], day)
    rows = members(project, [name], scope, [day]).select("person_id")
    asked = list(dict.fromkeys(trait for rule in rules_of(project, [name]) for trait in rule.traits))
    traits = scope.traits.filter(scope.traits.day == ibis.date(day)).select("person_id", *asked)
    rows = rows.left_join(traits, "person_id").drop("person_id_right")
    if scope.customers is not None:
        known = scope.customers.drop(*[column for column in asked if column in scope.customers.columns])
        rows = rows.left_join(known, "person_id").drop("person_id_right")
    return rows.order_by("person_id").limit(limit).to_pyarrow().to_pylist()


def waterfall_now(lake: LakeView, project: Project, name: str, day: date | None) -> Waterfall:
    """How many people each condition leaves, and whom one condition alone keeps out."""
    day = newest_day(lake, project) if day is None else day
    table = gathered(project, [Rule(audience=name)], scope_on(lake, project, [name], day), [day])
    return waterfalls(project, [name], table, day)[0]


def misses_now(lake: LakeView, project: Project, name: str, day: date | None, limit: int) -> list[dict[str, str]]:
    """Some of those who would be members but for one condition."""
    day = newest_day(lake, project) if day is None else day
    table = gathered(project, [Rule(audience=name)], scope_on(lake, project, [name], day), [day])
    return misses(project, name, table, limit)


def overlap_now(lake: LakeView, project: Project, names: Sequence[str], day: date | None) -> Overlaps:
    """What these audiences have in common, all under today's definition."""
    day = newest_day(lake, project) if day is None else day
    return overlaps(members(project, names, scope_on(lake, project, names, day), [day]))


def breakdown_now(lake: Lake, project: Project, name: str, day: date | None) -> list[Distinction]:
    """What sets an audience apart from everybody, the clearest first."""
    day = newest_day(lake, project) if day is None else day
    scope = scope_of(lake, project)
    inside = lake.held(members(project, [name], scope_on(lake, project, [name], day), [day]))
    people = lake.held(people_of(project, scope, day))
    return breakdowns(project, [name], people, inside)[name]


def members_on(lake: LakeView, project: Project, name: str, day: date | None, definition: str) -> list[str]:
    """The members by person id at the end of a day: as today's definition has it (HEAD), or as was found then."""
    if definition == "HEAD":
        day = newest_day(lake, project) if day is None else day
        rows = members(project, [name], scope_on(lake, project, [name], day), [day])
    else:
        told = lake.read(SIZES)
        told = told.filter(told.audience == name)
        day = told.day.max().to_pyarrow().as_py() if day is None else day
        if day is None or not told.filter(told.day == ibis.date(day)).count().to_pyarrow().as_py():
            when = "yet" if day is None else f"for {day}"
            raise NothingComputedError(f"audience '{name}' was not computed {when}; --definition HEAD works it out now")
        rows = lake.read(MEMBERS)
        rows = rows.filter((rows.audience == name) & (rows.day == ibis.date(day)))
    return sorted(rows.person_id.to_pyarrow().to_pylist())


def diff_of_days(lake: LakeView, project: Project, name: str, first: date, last: date, sample: int) -> Difference:
    """Who entered and left between two days, both under today's definition."""
    before, after = (Side(project, name, scope_on(lake, project, [name], day), day) for day in (first, last))
    return compare(before, after, sample)


def diff_of_projects(
    lake: LakeView, project: Project, other: Project, name: str, day: date | None, sample: int
) -> Difference:
    """Who would enter and leave if another project's definition of the audience were in force on the day."""
    if name not in other.audiences:
        raise NothingComputedError(f"{other.folder}: {unknown('audience', name, other.audiences)}")
    day = newest_day(lake, project) if day is None else day
    before = Side(project, name, scope_on(lake, project, [name], day), day)
    return compare(before, Side(other, name, scope_on(lake, other, [name], day, published=project), day), sample)


def sql_now(lake: LakeView, project: Project, name: str, day: date | None) -> str:
    """The audience as one SELECT over the lake."""
    scope = scope_of(lake, project)
    for rule in rules_of(project, [name]):
        for trait in rule.traits:
            if trait not in scope.traits.columns:
                raise NothingComputedError(f"traits.daily has no '{trait}' yet: cdp run")
    return sql_of(project, name, scope, newest_day(lake, project) if day is None else day)


def explain_now(lake: LakeView, project: Project, name: str, person_id: str, day: date | None) -> Answer:
    """Why a person is in the audience or not, from the traits of the day (default: the newest)."""
    day = newest_day(lake, project) if day is None else day
    answer = explain(project, name, person_id, scope_on(lake, project, [name], day), day)
    if answer is None:
        raise NothingComputedError(f"{person_id} has no traits on {day}: first seen later, or not computed since")
    return answer


def newest_day(lake: LakeView, project: Project) -> date:
    """The newest day traits were computed for."""
    found = scope_of(lake, project).traits.day.max().to_pyarrow().as_py()
    if found is None:
        raise NothingComputedError("no traits were computed yet: cdp run")
    return found

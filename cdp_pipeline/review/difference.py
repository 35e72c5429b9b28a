"""What a change of YAML does to people: two projects compared over the same rows, on one day, publishing nothing.

Only what the projects define otherwise is computed, on both sides by the functions that run the pipeline; all else is
read as it was published. What differs is documents.py's business, how it is told words.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.activation.fire import known_people
from cdp_pipeline.activation.plan import SyncPlan, plan
from cdp_pipeline.activation.what_if import people_under
from cdp_pipeline.audiences.look import NothingComputedError, days_asked, rules_of, scope_of
from cdp_pipeline.audiences.members import members
from cdp_pipeline.audiences.scope import Scope
from cdp_pipeline.identity.living import living
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake.questions import Questions
from cdp_pipeline.profile.customers import customers, customers_table, provenance
from cdp_pipeline.profile.timeline import timeline, timeline_table
from cdp_pipeline.review.documents import DocumentChange, Touched, documents, touched
from cdp_pipeline.review.values import Moves, ValueChange, moves, value_changes
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec.versions import trait_versions
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.bands import BANDS, crossings, state_after, state_before
from cdp_pipeline.traits.daily import trait_types
from cdp_pipeline.traits.runs import recorded_versions

if TYPE_CHECKING:
    from cdp_pipeline.activation.plan import Held
    from cdp_pipeline.identity.consequences import Consequences
    from cdp_pipeline.lake import Lake
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.sync import Sync

NEVER_PERSONAL = ("int64", "float64", "decimal(18, 4)", "boolean", "date", "timestamp(6)")


@dataclass(frozen=True)
class AudienceChange:
    """An audience on both sides: sizes, how many enter and leave, and a few of them by id."""

    name: str
    before: int
    after: int
    enter: int
    leave: int
    entering: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """What the change does, as of the end of `day`. `sends`: by sync, operations it adds by kind; `fires`: by trigger,
    people who would set it off. `unseen`: what only a run can show.
    """

    day: date
    people: int
    documents: list[DocumentChange]
    identity: Consequences | None
    attributes: list[ValueChange]
    traits: list[ValueChange]
    bands: list[Moves]
    audiences: list[AudienceChange]
    sends: dict[str, Counter[str]]
    fires: dict[str, int]
    unseen: list[str] = field(default_factory=list)


def difference(
    lake: Lake,
    project: Project,
    other: Project,
    now: datetime,
    holds: Callable[[Sync], Mapping[str, Held]] | None = None,
    day: date | None = None,
    sample: int = 5,
) -> Difference:
    """Compare what `project` and `other` make of the rows in the lake, on `day` (default: the newest computed).

    `holds` says what the destination of a sync is known to hold; without it syncs are left out.
    """
    if not lake.exists("traits.daily"):
        raise NothingComputedError("no traits were computed yet: cdp run")
    stored = lake.table("traits.daily")
    day = stored.day.max().to_pyarrow().as_py() if day is None else day
    if day is None or not stored.filter(stored.day == ibis.date(day)).count().to_pyarrow().as_py():
        raise NothingComputedError(f"no traits were computed for {day}: cdp run --day {day}")
    reach = touched(project, other)
    unseen = list(reach.unseen)
    identity, then = people_under(lake, project, other, now) if reach.identity else (None, None)
    defined, only = reach, None  # what is defined otherwise, and whom it concerns
    else_alike = not (reach.timeline or reach.attributes or reach.traits or reach.bands or reach.audiences)
    if identity is not None and else_alike:
        only = identity.before | identity.after  # nobody else sees a difference
    somebody = identity is not None and only != frozenset()
    if somebody:
        reach = replace(
            reach, traits={*project.traits, *other.traits}, audiences={*project.audiences, *other.audiences},
            attributes={*project.attributes, *other.attributes}, bands=reach.bands | {*project.traits, *other.traits},
        )  # fmt: skip
    before = _Side.of(lake, project, reach.audiences, defined, day, None, only)
    then = then or {"identifiers": lake.read(IDENTIFIERS), "people": lake.read(PEOPLE)}
    after = _Side.of(lake, other, reach.audiences, reach, day, _Anew(then, somebody, now), only)
    names = sorted(reach.traits)
    shown = {name for one in (project, other) for name in _not_personal(one)}
    moved = _audiences(lake, before, after, sorted(reach.audiences), sample, unseen)
    bands = list(_band_moves(lake, before, after, sorted(reach.bands)))
    traits = value_changes(lake.held(before.of_day()), lake.held(after.of_day()), names, shown, sample) if names else []
    attributes = value_changes(before.customers, after.customers, sorted(reach.attributes), (), sample)
    changed = {one.name for one in (*traits, *attributes)}
    unseen += [
        f"group {group.name}: its {figure.name} follows {figure.trait or figure.attribute}"
        for group in other.groups.values()
        for figure in group.rollup
        if changed & {figure.trait, figure.attribute}
    ]
    return Difference(
        day=day,
        people=stored.filter(stored.day == ibis.date(day)).count().to_pyarrow().as_py(),
        documents=documents(project, other),
        identity=identity,
        attributes=attributes,
        traits=traits,
        bands=bands,
        audiences=moved,
        sends=_sends(lake, before, after, reach, {one.name for one in moved}, changed, holds) if holds else {},
        fires=_fires(other, moved, bands),
        unseen=unseen,
    )


@dataclass(frozen=True)
class _Anew:
    """For the project as it would be: identifiers and people, whether they are others than now, and when now is."""

    then: Mapping[str, ibis.Table]
    identity: bool
    now: datetime


@dataclass(frozen=True)
class _Side:
    """One project's view of people on the day: its profiles, traits, bands and whatever its audiences ask."""

    project: Project
    day: date
    scope: Scope
    customers: ibis.Table

    @classmethod
    def of(
        cls,
        lake: Lake,
        project: Project,
        audiences: set[str],
        reach: Touched,
        day: date,
        anew: _Anew | None,
        only: frozenset[str] | None,
    ) -> _Side:
        """What is published of the people `only` (default: everybody), but for what `reach` says must be computed."""

        def concerned(table: ibis.Table) -> ibis.Table:
            return table if only is None else table.filter(table.person_id.isin(sorted(only)))

        identifiers = concerned(lake.read(IDENTIFIERS) if anew is None else anew.then["identifiers"])
        everybody = concerned(lake.read(PEOPLE) if anew is None else anew.then["people"])
        told, known = (concerned(lake.read(table(project))) for table in (timeline_table, customers_table))
        if anew is not None and (anew.identity or reach.timeline or reach.attributes):
            sources = {name: lake.read(source_table(source)) for name, source in project.sources.items()}
            if reach.timeline or anew.identity:
                told = timeline(sources, identifiers, project)
                told = lake.held(told.filter(told.person_id.notnull()))
            if reach.attributes:
                known = lake.held(customers(provenance(sources, identifiers, project, anew.now), everybody, project))
        days = days_asked(rules_of(project, [name for name in project.audiences if name in audiences]), day)
        stored = concerned(lake.table("traits.daily"))
        stored = stored.filter(stored.day.isin(days))
        people = lake.held(living(everybody, project))
        whole = anew is not None and anew.identity
        traits = _traits(lake, project, reach, days, told, people, None if whole else stored)
        scope = replace(
            scope_of(lake, project), traits=traits, customers=known, timeline=told, identifiers=identifiers,
            bands=_bands(lake, project, reach, traits, day),
        )  # fmt: skip
        return cls(project, day, scope, known)

    def of_day(self) -> ibis.Table:
        return self.scope.traits.filter(self.scope.traits.day == ibis.date(self.day))


def _traits(
    lake: Lake, project: Project, reach: Touched, days: Sequence[date], told: ibis.Table, people: ibis.Table,
    stored: ibis.Table | None,
) -> ibis.Table:  # fmt: skip
    """The project's traits on these days: those that differ, or were not `stored` like this, are computed now."""
    if stored is None:
        return lake.held(as_of(told, people, days, project))
    versions, recorded = trait_versions(project), recorded_versions(lake).get(days[0], {})
    anew = [
        name for name in project.traits
        if name in reach.traits or name not in stored.columns or recorded.get(name, versions[name]) != versions[name]
    ]  # fmt: skip
    rows = stored.select("person_id", "day", *(name for name in project.traits if name not in anew))
    if anew:
        rows = rows.left_join(as_of(told, people, days, project, anew), ["person_id", "day"])
        rows = lake.held(rows.select("person_id", "day", *project.traits))
    return rows


def _bands(lake: Lake, project: Project, reach: Touched, traits: ibis.Table, day: date) -> ibis.Table:
    """Every band as of the day, moved from where people were when it began; what does not differ is as published."""
    bands = lake.read(BANDS)
    anew = {name: trait for name, trait in project.traits.items() if trait.band_names and name in reach.bands}
    kept = bands.filter((bands.day <= ibis.date(day)) & ~bands.trait.isin(list(reach.bands)))
    if not anew:
        return kept
    begun = bands.filter((bands.day < ibis.date(day)) & bands.trait.isin(list(anew)))
    dwell = max((trait.dwell or timedelta(0) for trait in anew.values()), default=timedelta(0))
    earlier = lake.table("traits.daily")
    earlier = earlier.filter((earlier.day < ibis.date(day)) & (earlier.day > ibis.date(day - dwell)))
    columns = ["person_id", "day", *anew]
    rows = traits.filter(traits.day == ibis.date(day)).select(columns)
    if dwell and set(anew) <= set(earlier.columns):
        rows = rows.union(earlier.select(columns).cast(rows.schema()))
    moved = crossings(rows, state_before(begun, day), replace(project, traits=anew), [day])
    return lake.held(ibis.union(*(part.cast(BANDS.schema) for part in (kept, begun, moved))))


def _band_moves(lake: Lake, before: _Side, after: _Side, names: Sequence[str]) -> Iterator[Moves]:
    """Of the traits that have bands on both sides, who is in another one."""
    was, becomes = (side.project.traits for side in (before, after))
    names = [name for name in names if name in was and name in becomes]
    names = [name for name in names if was[name].band_names and becomes[name].band_names]
    if not names:
        return
    sides = [
        lake.held(state_after(_there(side.scope.bands), side.day).semi_join(side.of_day(), "person_id"))
        for side in (before, after)
    ]
    for name in names:
        here, there = (state.filter(state.trait == name).select("person_id", "band") for state in sides)
        found = moves(here, there, name, (was[name].band_names[0], becomes[name].band_names[0]))
        if found is not None:
            yield found


def _there(table: ibis.Table | None) -> ibis.Table:
    assert table is not None
    return table


def _audiences(
    lake: Lake, before: _Side, after: _Side, names: list[str], sample: int, unseen: list[str]
) -> list[AudienceChange]:
    """Those that differ in members, and those only one project has."""
    found = []
    for side in (before, after):
        mine = []
        for name in names:
            if name in side.project.audiences and (why := _unanswerable(side, name)) is not None:
                unseen.append(f"audience {name}: {why}")
            elif name in side.project.audiences:
                mine.append(name)
        rows = (
            members(side.project, mine, side.scope, [side.day])
            if mine
            else ibis.memtable([], schema={"audience": "string", "person_id": "string", "day": "date"})
        )
        found.append((mine, lake.held(rows.select("audience", "person_id"))))
    (were, was), (are, becomes) = found
    both = [name for name in names if (name in were) + (name in are) == _declared(before, after, name)]
    sizes = [_counted(table) for table in (was, becomes)]
    entering, leaving = (
        becomes.anti_join(was, ["audience", "person_id"]),
        was.anti_join(becomes, ["audience", "person_id"]),
    )
    counts = [_counted(table) for table in (entering, leaving)]
    some = [_some(table, sample) for table in (entering, leaving)]
    return [
        AudienceChange(
            name, sizes[0].get(name, 0), sizes[1].get(name, 0), counts[0].get(name, 0), counts[1].get(name, 0),
            tuple(some[0].get(name, ())), tuple(some[1].get(name, ())),
        )
        for name in both
        if name in counts[0] or name in counts[1] or not (name in were and name in are)
    ]  # fmt: skip


def _declared(before: _Side, after: _Side, name: str) -> int:
    return (name in before.project.audiences) + (name in after.project.audiences)


def _unanswerable(side: _Side, name: str) -> str | None:
    for rule in rules_of(side.project, [name]):
        if rule.prediction and rule.prediction not in side.scope.predictions:
            return f"prediction {rule.prediction} has no scores yet"
        if rule.account and side.scope.groups is None:
            return "who belongs together was not decided yet"
    return None


def _counted(rows: ibis.Table) -> dict[str, int]:
    counted = rows.group_by("audience").agg(people=ibis._.count()).to_pyarrow().to_pylist()
    return {row["audience"]: row["people"] for row in counted}


def _some(rows: ibis.Table, sample: int) -> dict[str, list[str]]:
    numbered = rows.mutate(number=ibis.row_number().over(group_by="audience", order_by="person_id"))
    found: dict[str, list[str]] = {}
    for row in numbered.filter(numbered.number < sample).order_by("audience", "person_id").to_pyarrow().to_pylist():
        found.setdefault(row["audience"], []).append(row["person_id"])
    return found


def _sends(
    lake: Lake, before: _Side, after: _Side, reach: Touched, moved: set[str], changed: set[str],
    holds: Callable[[Sync], Mapping[str, Held]],
) -> dict[str, Counter[str]]:  # fmt: skip
    """What each sync's next plan would hold with the change and not without it."""
    found = {}
    for name, sync in after.project.syncs.items():
        if not (name in reach.syncs or sync.audience in moved or changed & set(sync.mapping.values())):
            continue
        plans: list[SyncPlan | None] = []
        for side in (before, after):
            mine = side.project.syncs.get(name)
            if mine is None or _unanswerable(side, mine.audience) is not None:
                plans.append(None)
                continue
            inside = members(side.project, [mine.audience], side.scope, [side.day]).person_id.to_pyarrow().to_pylist()
            plans.append(plan(mine, inside, _facts(lake, side, inside, set(mine.mapping.values())), holds(mine)))
        was, becomes = plans
        if becomes is not None:
            known = {op.op_id for op in was.ops} if was is not None else set()
            kinds = Counter(
                op.kind if op.state == "pending" else op.state for op in becomes.ops if op.op_id not in known
            )
            if kinds:
                found[name] = kinds
    return found


def _facts(lake: Lake, side: _Side, people: Sequence[str], names: set[str]) -> dict[str, dict[str, object]]:
    """What a sync that sends these names says of each person."""
    facts = known_people(Questions().of(lake), side.project, people, side.day, names)
    for table in (side.customers, side.of_day()):
        table = table.select("person_id", *(name for name in table.columns if name in names and name != "person_id"))
        for row in table.filter(table.person_id.isin(list(people))).to_pyarrow().to_pylist():
            facts[row["person_id"]].update(row)
    return facts


def _fires(other: Project, audiences: list[AudienceChange], bands: list[Moves]) -> dict[str, int]:
    """By trigger, the people the change itself would set it off for, before cool-downs and guards."""
    enter, leave = ({one.name: getattr(one, way) for one in audiences} for way in ("enter", "leave"))
    crossed = {one.name: one.moves for one in bands}
    found = {}
    for name, trigger in other.triggers.items():
        on = trigger.on
        count = enter.get(on.entered or "", 0) + leave.get(on.left or "", 0)
        if on.crossed is not None:
            count = sum(
                people for was, becomes, people in crossed.get(on.crossed.trait, ())
                if becomes == on.crossed.to and on.crossed.from_ in (None, was)
            )  # fmt: skip
        if count:
            found[name] = count
    return found


def _not_personal(project: Project) -> set[str]:
    types = trait_types(project)
    return {name for name, trait in project.traits.items() if types[name] in NEVER_PERSONAL or trait.states}

"""Households and accounts as Dagster assets: who is in which group, and what the people of each come to.

What makes a group is declared (`kind: group`) and decided in identity/groups.py; this module fetches and publishes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import ibis

from cdp_pipeline.identity.belonging import claims, listed
from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.groups import GROUPS, LINKS, MEMBERS, regroup
from cdp_pipeline.identity.hierarchy import lineage
from cdp_pipeline.identity.living import living
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake import Lake, LakeView, Mirror
from cdp_pipeline.orchestration import checks
from cdp_pipeline.orchestration.assets import source_tables
from cdp_pipeline.orchestration.describe import asset_arguments, asset_spec, key_of, note, published
from cdp_pipeline.orchestration.partitions import yesterday
from cdp_pipeline.orchestration.resources import RESOURCES
from cdp_pipeline.profile.customers import customers_table
from cdp_pipeline.spec.group import Group
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.daily import daily_table
from cdp_pipeline.traits.rollup import rollup, rollup_table

TOO_LARGE_BUDGET = 0.05


def group_assets(project: Project) -> Iterator[dg.AssetsDefinition]:
    """Three tables that are published together, and one with the figures of each kind of group that declares some."""
    if not project.groups:
        return
    owner, tables = project.settings.owner, (GROUPS, MEMBERS, LINKS)

    @dg.multi_asset(
        name="groups",
        specs=[asset_spec(table, _asked(project), owner, {"ibis", "scipy"}) for table in tables],
        check_specs=_check_specs(),
        required_resource_keys=RESOURCES,
    )
    def put_together(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        sources, now = source_tables(lake, project), context.resources.clock()
        customers, identifiers, links = (lake.read(table) for table in (customers_table(project), IDENTIFIERS, EDGES))
        said = {
            name: claims(group, customers, identifiers, links, sources, project, now)
            for name, group in project.groups.items()
        }
        directories = {name: listed(group, sources) for name, group in project.groups.items()}
        before = [lake.read(table).to_pyarrow() for table in tables]
        people = lake.read(PEOPLE).to_pyarrow()
        grouping = regroup(project.groups, _here(lake, said), _here(lake, directories), people, *before)
        result = lake.publish(
            Mirror(GROUPS, grouping.groups),
            Mirror(MEMBERS, grouping.members),
            Mirror(LINKS, grouping.links),
            note=note(context),
        )
        figures = {f"{kind}: {what}": n for kind, found in grouping.figures.items() for what, n in found.items()}
        results = list(_check_results(lake, project, grouping.figures))
        for table in tables:
            yield dg.MaterializeResult(
                asset_key=key_of(table),
                metadata=published(result.counts[table.name], figures if table is GROUPS else None),
                check_results=[one for one in results if one.asset_key == dg.AssetKey(key_of(table))],
            )

    yield put_together
    yield from (rollup_asset(project, group) for group in project.groups.values() if group.rollup)


def rollup_asset(project: Project, group: Group) -> dg.AssetsDefinition:
    """`traits.<group>`: the figures of one kind of group, as of the newest day people's own were computed for."""
    table, profiles = rollup_table(group, project), customers_table(project)
    of_people = daily_table(project, {figure.trait for figure in group.rollup if figure.trait is not None})

    @dg.asset(
        **asset_arguments(table, group.owner or project.settings.owner, {"ibis"}),
        deps=[key_of(each) for each in (GROUPS, MEMBERS, of_people, profiles)],
        required_resource_keys=RESOURCES,
    )
    def add_up(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        lake: Lake = context.resources.lake
        traits, groups = lake.read(of_people), lake.read(GROUPS)
        day = traits.day.max().to_pyarrow().as_py() or yesterday(project, context.resources.clock())
        of_kind = groups.filter(groups.kind == group.name).select("group_id", "parent_group_id", "status")
        above = lake.engine.table(lineage(of_kind.to_pyarrow()))
        rows = rollup(group, groups, lake.read(MEMBERS), above, traits, lake.read(profiles), day, project)
        result = lake.publish(Mirror(table, rows), note=note(context))
        return dg.MaterializeResult(metadata=published(result.counts[table.name], {"as of": str(day)}))

    return add_up


def _asked(project: Project) -> list[list[str]]:
    """The tables that the declared ways look into."""
    ways = [way for group in project.groups.values() for way in group.by]
    found = {tuple(key_of(PEOPLE)), tuple(key_of(IDENTIFIERS))}
    for way in ways:
        if way.same is not None or way.email_domain is not None:
            found.add(tuple(key_of(customers_table(project))))
        if way.identifier is not None:
            found.add(tuple(key_of(EDGES)))
        read = [way.source, way.directory.source if way.directory is not None else None]
        found.update(("sources", name) for name in read if name is not None)
    return [list(key) for key in sorted(found)]


def _here(lake: LakeView, tables: Mapping[str, ibis.Table]) -> dict[str, Any]:
    return {name: lake.engine.materialize(table).to_pyarrow() for name, table in tables.items()}


def _check_specs() -> list[dg.AssetCheckSpec]:
    groups, members = key_of(GROUPS), key_of(MEMBERS)
    return [
        checks.spec(members, "members_living", "Everybody in a household or an account is a person there is still."),
        checks.spec(members, "one_of_each_kind", "Nobody is in two groups of one kind."),
        checks.spec(groups, "no_circles", "No account stands above itself: parents that go round in a circle."),
        checks.spec(groups, "few_too_large", f"At most {TOO_LARGE_BUDGET:.0%} of the groups of a kind are too large."),
    ]


def _check_results(
    lake: LakeView, project: Project, figures: Mapping[str, Mapping[str, int]]
) -> Iterator[dg.AssetCheckResult]:
    members, groups = lake.read(MEMBERS), lake.read(GROUPS)
    strangers = members.anti_join(living(lake.read(PEOPLE), project), "person_id").count().to_pyarrow().as_py()
    each = members.group_by("kind", "person_id").agg(groups=members.group_id.nunique())
    several = each.filter(each.groups > 1).count().to_pyarrow().as_py()
    key = key_of(MEMBERS)
    yield checks.result("members_living", not strangers, key, severe=True, people_who_are_not=strangers)
    yield checks.result("one_of_each_kind", not several, key, severe=True, people_in_several=several)
    below = groups.filter(groups.parent_group_id.notnull())
    wrong = below.filter((below.level <= 0) | (below.root_group_id == below.group_id)).count().to_pyarrow().as_py()
    circles = {kind: found["in a circle"] for kind, found in figures.items()}
    key = key_of(GROUPS)
    yield checks.result("no_circles", not wrong and not any(circles.values()), key, in_a_circle=sum(circles.values()))
    shares = [found["too large"] / max(found["groups"] + found["too large"], 1) for found in figures.values()]
    worst = max(shares, default=0.0)
    yield checks.result(
        "few_too_large", worst <= TOO_LARGE_BUDGET, key, share=worst, limit=TOO_LARGE_BUDGET,
        too_large=sum(found["too large"] for found in figures.values()),
    )  # fmt: skip

"""Every table as a Dagster asset: fetch inputs from the lake, call one domain function, publish, describe.

No rule about customers belongs here: if a shell needs an `if` about people, its domain package does.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import ibis

from cdp_pipeline.activation.receipts import reads_receipts
from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.guard import ACCEPT
from cdp_pipeline.identity.history import QUALITY, figures_before, figures_of_day, read_truth
from cdp_pipeline.identity.matching.matches import COMPARED, MATCHES
from cdp_pipeline.identity.people import CHANGES, IDENTIFIERS, PEOPLE
from cdp_pipeline.identity.quality import quality
from cdp_pipeline.identity.runs import RUNS
from cdp_pipeline.identity.step import decide_who_is_who
from cdp_pipeline.lake import Counts, Lake, LakeView, Mirror
from cdp_pipeline.orchestration import checks
from cdp_pipeline.orchestration.activation import activation_assets
from cdp_pipeline.orchestration.audiences import audience_assets, audience_tables
from cdp_pipeline.orchestration.describe import asset_arguments, asset_spec, disagreeing, key_of, note, published, shown
from cdp_pipeline.orchestration.installation import models_folder
from cdp_pipeline.orchestration.partitions import SINGLE_RUN, daily, is_filed_by_day, requested_days
from cdp_pipeline.orchestration.predictions import model_list, newest_day, prediction_assets
from cdp_pipeline.orchestration.receive import take_in_all
from cdp_pipeline.orchestration.resources import RESOURCES
from cdp_pipeline.profile.customers import (
    PROVENANCE,
    customers,
    customers_table,
    disagreements,
    over_bounds,
    provenance,
)
from cdp_pipeline.profile.timeline import timeline, timeline_table
from cdp_pipeline.profile.watermarks import WATERMARKS, watermarks
from cdp_pipeline.sources.load import load
from cdp_pipeline.sources.tables import LOADS, QUARANTINE, source_table
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source
from cdp_pipeline.traits.bands import BANDS, crossings, state_before
from cdp_pipeline.traits.daily import daily_table
from cdp_pipeline.traits.history import DEFINITIONS, FORMER, RESTATED
from cdp_pipeline.traits.runs import RUNS as TRAIT_RUNS
from cdp_pipeline.traits.runs import steps


def project_assets(project: Project) -> list[dg.AssetsDefinition]:
    """All assets, in the order a row walks."""
    cadences = sorted({audience.cadence for audience in project.audiences.values()})
    upstream = [
        *(source_asset(project, source) for source in project.sources.values()),
        *source_ledgers(project),
        *identity_assets(project),
        *profile_assets(project),
        traits_asset(project),
        *trait_history(project),
        *(asset for prediction in project.predictions.values() for asset in prediction_assets(project, prediction)),
        *model_list(project),
        *(audience_assets(project, cadence) for cadence in cadences),
        *audience_tables(project),
    ]
    concern = [key for asset in upstream for key in asset.check_keys]
    return [*upstream, *activation_assets(project, concern)]


def source_tables(lake: LakeView, project: Project) -> dict[str, ibis.Table]:
    return {name: lake.read(source_table(source)) for name, source in project.sources.items()}


def source_asset(project: Project, source: Source) -> dg.AssetsDefinition:
    """`sources.<source>`: loads what arrived for the days asked for, or all that is new where days have no files."""
    by_day = is_filed_by_day(source)
    kind = (source.files.format or Path(source.files.path.removesuffix(".gz")).suffix[1:]) if source.files else "sql"

    referenced = {
        check.references.partition(".")[0] for column in source.columns.values() for check in column.checks
        if check.references is not None
    }  # fmt: skip

    @dg.asset(
        **asset_arguments(source_table(source), source.owner or project.settings.owner, {"duckdb", kind}),
        deps=[["sources", name] for name in sorted(referenced - {source.name})],
        partitions_def=daily(project) if by_day else None,
        backfill_policy=SINGLE_RUN if by_day else None,
        check_specs=checks.source_specs(source),
        required_resource_keys=RESOURCES,
    )
    def load_source(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        lake: Lake = context.resources.lake
        if reads_receipts(source, project, Path.cwd()):
            take_in_all(project, context.resources.clock())
        report = load(lake, source, project, requested_days(context), context.resources.clock(), context.run_id)
        rows = lake.read(source_table(source)).count().to_pyarrow().as_py()
        last_day = max(requested_days(context) or [newest_day(lake, project, context)])
        return dg.MaterializeResult(
            metadata={"dagster/row_count": rows, **report.metadata()},
            check_results=list(checks.source_results(lake, source, last_day)),
        )

    return load_source


def source_ledgers(project: Project) -> Iterator[dg.AssetsDefinition]:
    """`sources.quarantine` and `sources.loads` are written by the loads; here they are counted and shown."""
    sources = [["sources", name] for name in project.sources]
    for table, by in ((QUARANTINE, "reason"), (LOADS, "status")):
        yield shown(table, sources, project.settings.owner, by)


def identity_assets(project: Project) -> Iterator[dg.AssetsDefinition]:
    """Who is who: tables that are published together or not at all, and how good they are."""
    deps = [["sources", name] for name, source in project.sources.items() if source.identifier_columns]
    tables = (EDGES, IDENTIFIERS, PEOPLE, CHANGES, RUNS, *((MATCHES, COMPARED) if project.matches else ()))
    owner = project.settings.owner

    @dg.multi_asset(
        name="identity",
        specs=[asset_spec(table, deps, owner, {"duckdb", "scipy"}) for table in tables],
        check_specs=[*checks.guard_specs(project), *checks.match_specs(project)],
        required_resource_keys=RESOURCES,
    )
    def resolve_people(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        lake: Lake = context.resources.lake
        now = context.resources.clock()

        def profiles(identifiers: ibis.Table, people: ibis.Table, only: Project) -> ibis.Table:
            return customers(provenance(source_tables(lake.local, project), identifiers, only, now), people, only)

        found = decide_who_is_who(lake, project, now, profiles, models_folder(project))
        today = now.astimezone(project.zone).date()
        withheld = found.verdict.withheld(os.environ.get(ACCEPT), today)
        results = list(checks.guard_results(found.verdict, withheld=withheld is not None))
        results += checks.match_results(found.cards)
        if withheld is not None:
            yield from results
            raise withheld
        result = lake.publish(*found.writes, note=note(context))
        for table in tables:
            yield dg.MaterializeResult(
                asset_key=key_of(table),
                metadata=published(result.counts[table.name], found.verdict.figures if table is PEOPLE else None),
                check_results=results if table is PEOPLE else [],
            )

    yield resolve_people

    @dg.asset(
        **asset_arguments(QUALITY, owner, {"duckdb"}),
        deps=[key_of(PEOPLE)],
        check_specs=checks.quality_specs(project),
        required_resource_keys=RESOURCES,
    )
    def identity_quality(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        lake: Lake = context.resources.lake
        now = context.resources.clock()
        truth = read_truth(project, lake.ibis)
        here = lake.local
        figures = quality(here.read(IDENTIFIERS), here.read(PEOPLE), here.read(EDGES), truth)
        before = figures_before(here.read(QUALITY), now, project)
        rows = figures_of_day(figures, now, project)
        result = lake.publish(
            Mirror(QUALITY, rows, within={"day": rows["day"].unique().to_pylist()}), note=note(context)
        )
        return dg.MaterializeResult(
            metadata=published(result.counts[QUALITY.name], figures),
            check_results=list(checks.quality_results(figures, before, project)),
        )

    yield identity_quality


def profile_assets(project: Project) -> Iterator[dg.AssetsDefinition]:
    """The 360° profile: what is known of everybody and where it comes from, and everything they did."""
    owner = project.settings.owner
    used = {source.source for attribute in project.attributes.values() for source in attribute.sources}
    table = customers_table(project)
    told_by = [key_of(PEOPLE), key_of(IDENTIFIERS), *(["sources", name] for name in sorted(used))]

    @dg.multi_asset(
        name="profile",
        specs=[asset_spec(each, told_by, owner, {"ibis"}) for each in (table, PROVENANCE)],
        check_specs=[
            checks.spec(key_of(table), "one_row_per_person", "Every living person has exactly one profile."),
            *checks.attribute_specs(project),
        ],
        required_resource_keys=RESOURCES,
    )  # fmt: skip
    def unify(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        people = lake.local.read(PEOPLE)
        won = provenance(source_tables(lake, project), lake.read(IDENTIFIERS), project, context.resources.clock())
        values = lake.held(won)  # two tables are made of it
        result = lake.publish(
            Mirror(PROVENANCE, values),
            Mirror(table, customers(values, people, project)),
            note=note(context),
        )
        living = people.filter(people.merged_into.isnull() & (people.identifiers > 0)).count().to_pyarrow().as_py()
        rows = result.counts[table.name].rows
        yield dg.MaterializeResult(
            asset_key=key_of(table),
            metadata=published(result.counts[table.name]),
            check_results=[
                checks.result("one_row_per_person", rows == living, key_of(table), people=living, profiles=rows)
            ],
        )
        yield dg.MaterializeResult(
            asset_key=key_of(PROVENANCE),
            metadata=published(result.counts[PROVENANCE.name], disagreeing(disagreements(values))),
            check_results=list(checks.attribute_results(over_bounds(values, project), project)),
        )

    yield unify
    events = timeline_table(project)

    deps = [key_of(IDENTIFIERS), *(["sources", name] for name, source in project.sources.items() if source.events)]

    @dg.multi_asset(
        name="tell_timeline",
        specs=[asset_spec(each, deps, owner, {"ibis"}) for each in (events, WATERMARKS)],
        required_resource_keys=RESOURCES,
    )
    def tell_timeline(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        rows = timeline(source_tables(lake, project), lake.read(IDENTIFIERS), project)
        reached = watermarks(lake.local.read(LOADS), project)
        result = lake.publish(Mirror(events, rows), Mirror(WATERMARKS, reached), note=note(context))
        table = lake.read(events)
        nobodys = table.filter(table.person_id.isnull()).count().to_pyarrow().as_py()
        counts = published(result.counts[events.name], {"events of nobody known": nobodys})
        yield dg.MaterializeResult(asset_key=key_of(events), metadata=counts)
        yield dg.MaterializeResult(asset_key=key_of(WATERMARKS), metadata=published(result.counts[WATERMARKS.name]))

    yield tell_timeline


def traits_asset(project: Project) -> dg.AssetsDefinition:
    """Indicators and bands of the days asked for, and of those that late rows have made stale."""
    table, events = daily_table(project), timeline_table(project)
    owner = project.settings.owner

    @dg.multi_asset(
        name="traits",
        specs=[
            asset_spec(table, [key_of(events), key_of(PEOPLE)], owner, {"ibis"}),
            asset_spec(TRAIT_RUNS, [key_of(events), key_of(PEOPLE)], owner, {"ibis"}),
            asset_spec(BANDS, [key_of(table)], owner, {"ibis"}),
        ],
        partitions_def=daily(project),
        backfill_policy=SINGLE_RUN,
        required_resource_keys=RESOURCES,
    )
    def evaluate(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        asked = requested_days(context) or []
        done, made = [], Counts(0, 0, 0, 0)
        for step in steps(lake, project, asked, context.resources.clock()):
            made += lake.publish(*step.writes, note=note(context)).counts[table.name]
            done.append(step)
        days, modes = sorted({day for step in done for day in step.days}), [s.mode for s in done for _ in s.days]
        # A restated day moves the bands of every later day that was computed before.
        banded = [name for name, trait in project.traits.items() if trait.band_names]
        computed = lake.read(daily_table(project, banded))
        later = computed.filter(computed.day >= min(days)).select("day").distinct().day.to_pyarrow().to_pylist()
        following = sorted({*days, *later})
        bands = lake.publish(
            Mirror(
                BANDS,
                crossings(computed, state_before(lake.read(BANDS), following[0]), project, following),
                within={"day": following},
            ),
            note=note(context),
        )
        yield dg.MaterializeResult(
            asset_key=key_of(table),
            metadata=published(
                made,
                {
                    "days restated for late rows": len(set(days) - set(asked)),
                    **{f"days computed from {mode}": count for mode, count in sorted(Counter(modes).items())},
                },
            ),
        )
        yield dg.MaterializeResult(asset_key=key_of(TRAIT_RUNS), metadata={"dagster/row_count": len(days)})
        yield dg.MaterializeResult(asset_key=key_of(BANDS), metadata=published(bands.counts[BANDS.name]))

    return evaluate


def trait_history(project: Project) -> Iterator[dg.AssetsDefinition]:
    """Definitions and the values they replaced are written as traits are computed; here they are counted and shown."""
    for table in (DEFINITIONS, RESTATED, FORMER):
        yield shown(table, [key_of("traits.daily")], project.settings.owner, "trait")

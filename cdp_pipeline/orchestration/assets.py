"""Every table as a Dagster asset: fetch inputs from the lake, call one domain function, publish, describe.

No rule about customers belongs here: if a shell needs an `if` about people, its domain package does.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import dagster as dg
import ibis

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.fire import fire, merged_people
from cdp_pipeline.activation.guards import guards_of
from cdp_pipeline.activation.plan import PLAN
from cdp_pipeline.activation.receipts import note_sent, reads_receipts
from cdp_pipeline.activation.refresh import members_now, plan_all
from cdp_pipeline.activation.sync import conservation
from cdp_pipeline.activation.tables import (
    CONTACTS,
    DELIVERIES,
    OUTBOX,
    PREVENTED,
    contact_rows,
    delivery_rows,
    outbox_rows,
    prevented_rows,
)
from cdp_pipeline.audiences.look import scope_of
from cdp_pipeline.audiences.rules import Scope, matching
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.guard import ACCEPT
from cdp_pipeline.identity.history import QUALITY, figures_before, figures_of_day, read_truth
from cdp_pipeline.identity.living import living
from cdp_pipeline.identity.matching.matches import COMPARED, MATCHES
from cdp_pipeline.identity.people import CHANGES, IDENTIFIERS, PEOPLE
from cdp_pipeline.identity.quality import quality
from cdp_pipeline.identity.runs import RUNS
from cdp_pipeline.identity.step import decide_who_is_who
from cdp_pipeline.lake import Counts, Lake, LakeView, Mirror
from cdp_pipeline.lake.table import Table
from cdp_pipeline.orchestration import checks
from cdp_pipeline.orchestration.audiences import asked_of, audience_assets, audience_tables
from cdp_pipeline.orchestration.describe import asset_arguments, disagreeing, note, published, shown
from cdp_pipeline.orchestration.partitions import SINGLE_RUN, daily, is_filed_by_day, requested_days
from cdp_pipeline.orchestration.resources import consents_of, gates_of, ledger_of, models_folder
from cdp_pipeline.orchestration.upstream import wrong_upstream
from cdp_pipeline.predictions.champions import card_of, register
from cdp_pipeline.predictions.charts import drift_chart, learning_charts
from cdp_pipeline.predictions.drift import MOVED
from cdp_pipeline.predictions.kind import AsOf, Known, Watchful
from cdp_pipeline.predictions.kinds import kind_of
from cdp_pipeline.predictions.leaks import can_leak, looked_for
from cdp_pipeline.predictions.registry import MODELS, champion, renew
from cdp_pipeline.predictions.scores import CHUNK
from cdp_pipeline.predictions.training import traits_asked
from cdp_pipeline.predictions.windows import cutoffs
from cdp_pipeline.profile.customers import (
    PROVENANCE,
    customers,
    customers_table,
    disagreements,
    over_bounds,
    provenance,
)
from cdp_pipeline.profile.timeline import timeline, timeline_table
from cdp_pipeline.profile.told import TOLD, told
from cdp_pipeline.sources.days import newest_complete_day
from cdp_pipeline.sources.load import load
from cdp_pipeline.sources.tables import LOADS, QUARANTINE, source_table
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.prediction import Prediction
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source
from cdp_pipeline.spec.trigger import Trigger
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.bands import BANDS, crossings, state_before
from cdp_pipeline.traits.daily import daily_table
from cdp_pipeline.traits.history import DEFINITIONS, FORMER, RESTATED
from cdp_pipeline.traits.runs import RUNS as TRAIT_RUNS
from cdp_pipeline.traits.runs import steps

RESOURCES = {"lake", "clock"}


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


def key_of(table: Table | str) -> list[str]:
    return (table if isinstance(table, str) else table.name).split(".")


def asset_spec(table: Table, deps: Sequence[Any], owner: str | None, kinds: set[str]) -> dg.AssetSpec:
    """One table of a step that makes several."""
    return dg.AssetSpec(**asset_arguments(table, owner, kinds), deps=list(deps))


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
            with ledger_of(project) as ledger:
                note_sent(ledger, project, context.resources.clock())
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
        specs=[asset_spec(each, deps, owner, {"ibis"}) for each in (events, TOLD)],
        required_resource_keys=RESOURCES,
    )
    def tell_timeline(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        rows = timeline(source_tables(lake, project), lake.read(IDENTIFIERS), project)
        reached = told(lake.local.read(LOADS), project)
        result = lake.publish(Mirror(events, rows), Mirror(TOLD, reached), note=note(context))
        table = lake.read(events)
        nobodys = table.filter(table.person_id.isnull()).count().to_pyarrow().as_py()
        counts = published(result.counts[events.name], {"events of nobody known": nobodys})
        yield dg.MaterializeResult(asset_key=key_of(events), metadata=counts)
        yield dg.MaterializeResult(asset_key=key_of(TOLD), metadata=published(result.counts[TOLD.name]))

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


def newest_day(lake: LakeView, project: Project, context: dg.AssetExecutionContext) -> date:
    """The newest day that is over, at the time of the run."""
    return newest_complete_day(lake.read(LOADS), project, context.resources.clock())


def population(project: Project, prediction: Prediction) -> Any:
    """Keeps the rows of a traits table for which the prediction's rules hold."""

    def select(rows: ibis.Table, days: Sequence[date]) -> ibis.Table:
        chosen = matching(project, prediction.population, Scope(traits=rows), days)
        return rows.semi_join(chosen, ["person_id", "day"])

    return select


def together(project: Project, context: dg.AssetExecutionContext, last_day: date) -> AsOf:
    """`as_of` for all predictions that this run trains: what one of them asks is computed with what all will ask.

    Of other events than everybody's, such as those known by a day, they ask different days, but the same traits.
    """
    chosen, once = context.run.asset_selection, context.resources.traits
    trained = [
        prediction
        for prediction in project.predictions.values()
        if chosen is None or dg.AssetKey(["predictions", f"{prediction.name}_training"]) in chosen
    ]
    asked = {prediction.name: traits_asked(prediction, project) for prediction in trained}
    windows = [cutoffs(one, last_day, project.settings.first_day) for one in trained if asked[one.name]]
    all_names = {name for names in asked.values() for name in names}
    all_days = {day for window in windows for day in window.days}
    everybody = context.resources.lake.read(timeline_table(project))

    def of_all(
        timeline: ibis.Table, people: ibis.Table, days: Sequence[date], project: Project, names: Sequence[str]
    ) -> ibis.Table:
        if not names:
            return as_of(timeline, people, days, project, names)
        others = all_days if timeline.equals(everybody) else ()
        return once.as_of(timeline, people, days, project, names, others, all_names)

    return of_all


def beginning(stream: Any) -> tuple[Any, Any]:
    """The first batch of a stream of batches, as a table, and the whole stream."""
    import pyarrow as pa

    first = next(iter(stream), None)
    if first is None:
        return stream.schema.empty_table(), stream
    return pa.Table.from_batches([first]), pa.RecordBatchReader.from_batches(stream.schema, chain([first], stream))


def prediction_assets(project: Project, prediction: Prediction) -> Iterator[dg.AssetsDefinition]:
    """One prediction: what is learned from, the model that must prove itself, and everybody's score."""
    name, owner = prediction.name, prediction.owner or project.settings.owner
    kind, daily_traits, events = kind_of(prediction), daily_table(project), timeline_table(project)
    training = kind.training_table(prediction, project, daily_traits.schema)
    scored = kind.scores_table(prediction)
    model_key = ["predictions", f"{name}_model"]
    sliced = bool(getattr(prediction, "slices", []))
    asked = sorted([*asked_of(project, prediction.asks), *(["sources", source] for source in prediction.reads)])

    def known(lake: Lake, as_of: AsOf = as_of) -> Known:
        people = living(lake.read(PEOPLE), project)
        sources = {name: lake.read(source_table(project.sources[name])) for name in prediction.reads}

        attributes = lake.read(customers_table(project)) if sliced else None

        def members(rules: Sequence[Rule], days: Sequence[date]) -> ibis.Table:
            return matching(project, rules, scope_of(lake, project), days)

        return Known(as_of, lake.read(events), people, population(project, prediction), sources, members, attributes)

    @dg.asset(
        **asset_arguments(training, owner, {"ibis"}),
        deps=[key_of(events), key_of(PEOPLE), *([key_of(customers_table(project))] if sliced else [])],
        check_specs=checks.training_specs(prediction),
        required_resource_keys={*RESOURCES, "traits"},
    )
    def gather(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        lake: Lake = context.resources.lake
        last_day = newest_day(lake, project, context)
        windows = cutoffs(prediction, last_day, project.settings.first_day)
        what = known(lake, together(project, context, last_day))
        rows = kind.training_set(what, prediction, project, windows)
        result = lake.publish(Mirror(training, rows), note=note(context))
        said = {"train cut-offs": ", ".join(map(str, windows.train)), "test cut-off": str(windows.test)}
        found = []
        if can_leak(prediction):
            made = lake.read(training).to_pyarrow()
            found = looked_for(what, prediction, project, made, windows.test)
        return dg.MaterializeResult(
            metadata=published(result.counts[training.name], said),
            check_results=list(checks.training_results(prediction, found)),
        )

    yield gather

    @dg.asset(
        key=model_key,
        group_name="predictions",
        description=f"The model behind '{name}': proven on the newest days, promoted only if it passes its gates.",
        owners=[owner] if owner else [],
        kinds={"scikitlearn"},
        deps=[key_of(training)],
        check_specs=[checks.gates_spec(model_key)],
        required_resource_keys=RESOURCES,
    )
    def learn(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        lake: Lake = context.resources.lake
        rows = lake.read(training).order_by(*training.key).to_pyarrow()
        newest = lake.as_of(lake.latest()).read(MODELS).to_pyarrow()
        renewed = renew(rows, prediction, newest, models_folder(project), context.resources.clock(), lake.snapshot)
        found = card_of([register(lake, renewed, note(context))], name)
        versions = [row for row in lake.read(MODELS).to_pyarrow().to_pylist() if row["name"] == name]
        pictures = kind.charts(found["card"], prediction, project) | learning_charts(versions)
        return dg.MaterializeResult(
            metadata={
                "version": found["version"],
                "status": found["status"],
                **{metric: float(value) for metric, value in found["metrics"].items()},
                **{title: dg.MetadataValue.md(image) for title, image in pictures.items()},
            },
            check_results=[checks.gates_result(model_key, found, versions)],
        )

    yield learn

    @dg.asset(
        **asset_arguments(scored, owner, {"scikitlearn"}),
        deps=[model_key, *asked],
        check_specs=checks.score_specs(prediction),
        partitions_def=daily(project),
        backfill_policy=SINGLE_RUN,
        required_resource_keys=RESOURCES,
    )
    def foresee(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        lake: Lake = context.resources.lake
        best = champion(prediction, lake.read(MODELS).to_pyarrow(), models_folder(project), list(training.columns))
        made, drift = Counts(0, 0, 0, 0), {}
        # Day by day: a single day's query needs no edges of windows, and memory stays that of a day.
        for day in requested_days(context) or []:
            inputs = kind.inputs(known(lake), prediction, project, day)
            in_order = inputs.order_by(*(name for name in ("person_id", "item") if name in inputs.columns))
            stream = in_order.to_pyarrow_batches(chunk_size=CHUNK)
            first, stream = beginning(stream)
            rows = kind.score(stream, best, prediction, project, day)
            made += lake.publish(Mirror(scored, rows, within={"day": [day]}), note=note(context)).counts[scored.name]
            drift = best.scorer.drift(first) if isinstance(best.scorer, Watchful) else {}
        said: dict[str, Any] = {"model version": best.version or "none", "basis": best.why_prior or "model"}
        if drift:
            said["drift"] = dg.MetadataValue.md(drift_chart(drift, MOVED, {}))
        return dg.MaterializeResult(
            metadata=published(made, said),
            check_results=list(checks.score_results(prediction, drift)),
        )

    yield foresee


def model_list(project: Project) -> Iterator[dg.AssetsDefinition]:
    """`predictions.models` is written by each model's asset; here it is counted and shown."""
    if project.predictions:
        deps = [["predictions", f"{name}_model"] for name in project.predictions]
        yield shown(MODELS, deps, project.settings.owner, "status")


def watched_by(project: Project, trigger: Trigger) -> set[str]:
    """The tables that tell whether a trigger is set off, and whether a guard keeps it."""
    on = trigger.on
    found = {f"audiences.{name}" for name in (on.entered, on.left) if name is not None}
    if on.crossed is not None:
        found.add(BANDS.name)
    if on.event is not None:
        found.add(timeline_table(project).name)
    if on.date is not None:
        found.add((customers_table if on.date.of in project.attributes else daily_table)(project).name)
    asked = [rule for rules in guards_of(project, trigger).values() for rule in rules]
    return found.union(".".join(key) for key in asked_of(project, asked)) if asked else found


def activation_assets(project: Project, upstream: Sequence[dg.AssetCheckKey]) -> Iterator[dg.AssetsDefinition]:
    """What is to be sent, what was decided, what was delivered and who was reached."""
    owner = project.settings.owner
    synced = sorted({sync.audience for sync in project.syncs.values()})
    watched = sorted({table for trigger in project.triggers.values() for table in watched_by(project, trigger)})
    told_by = [key_of(table) for table in watched]

    @dg.asset(
        **asset_arguments(PLAN, owner, {"sqlalchemy"}),
        deps=[
            *(["audiences", name] for name in synced),
            key_of(customers_table(project)),
            key_of(daily_table(project)),
        ],
        check_specs=[checks.plans_spec(key_of(PLAN))],
        required_resource_keys=RESOURCES,
    )
    def plan_syncs(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        lake: Lake = context.resources.lake
        clock = context.resources.clock
        with ledger_of(project) as ledger, gates_of(project, ledger, clock, lambda: lake) as gates:
            wrong = wrong_upstream(project, clock(), context.instance, upstream)
            planned = plan_all(ledger, lake, project, now=clock(), gates=gates, upstream=wrong)
        result = lake.publish(Mirror(PLAN, planned.rows), note=note(context))
        said: dict[str, Any] = {
            f"{sync} {state}": n for sync, states in planned.counts.items() for state, n in states.items()
        }
        if lines := planned.lines():
            said["by sync"] = dg.MetadataValue.table(
                [dg.TableRecord({name: str(value) for name, value in line.items()}) for line in lines]
            )
        return dg.MaterializeResult(
            metadata=published(result.counts[PLAN.name], said),
            check_results=[checks.plans_result(key_of(PLAN), lines)],
        )

    yield plan_syncs

    @dg.multi_asset(
        name="triggers",
        specs=[
            asset_spec(OUTBOX, [key_of(PLAN), *told_by], owner, {"sqlalchemy"}),
            asset_spec(PREVENTED, told_by, owner, {"sqlalchemy"}),
        ],
        required_resource_keys=RESOURCES,
    )
    def decide(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        with ledger_of(project) as ledger:
            fired = fire(ledger, lake, project, now=context.resources.clock())
            result = lake.publish(
                Mirror(OUTBOX, outbox_rows(ledger)), Mirror(PREVENTED, prevented_rows(ledger)), note=note(context)
            )
        said = {f"{trigger} {state}": n for trigger, states in fired.items() for state, n in states.items()}
        yield dg.MaterializeResult(asset_key=key_of(OUTBOX), metadata=published(result.counts[OUTBOX.name], said))
        yield dg.MaterializeResult(asset_key=key_of(PREVENTED), metadata=published(result.counts[PREVENTED.name]))

    yield decide
    complete = checks.spec(
        key_of(DELIVERIES), "people_accounted_for",
        "Everybody in a synchronised audience was delivered, suppressed, failed or is still due; nobody is lost.",
    )  # fmt: skip

    @dg.multi_asset(
        name="deliveries",
        specs=[asset_spec(table, [key_of(OUTBOX)], owner, {"sqlalchemy"}) for table in (DELIVERIES, CONTACTS)],
        check_specs=[complete],
        required_resource_keys=RESOURCES,
    )
    def deliver_due(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        clock = context.resources.clock
        with ledger_of(project) as ledger:
            with gates_of(project, ledger, clock) as gates:
                summary = deliver(
                    ledger, project, now=clock(), connect=destination_for, worker="run", gates=gates,
                    consents=partial(consents_of, ledger),
                )  # fmt: skip
            result = lake.publish(
                Mirror(OUTBOX, outbox_rows(ledger)),
                Mirror(DELIVERIES, delivery_rows(ledger)),
                Mirror(CONTACTS, contact_rows(ledger, project)),
                note=note(context),
            )
            missing = {
                sync.name: conservation(ledger, sync.name, members_now(lake, sync.audience), merged_people(lake))
                for sync in project.syncs.values()
            }
        said = {f"{name} {state}": n for name, states in summary.by_destination.items() for state, n in states.items()}
        lost = {name: found.missing for name, found in missing.items() if not found.holds}
        yield dg.MaterializeResult(
            asset_key=key_of(DELIVERIES),
            metadata=published(result.counts[DELIVERIES.name], said),
            check_results=[
                checks.result(
                    complete.name, not lost, key_of(DELIVERIES), severe=True, lost=dg.MetadataValue.json(lost)
                )
            ],
        )
        yield dg.MaterializeResult(asset_key=key_of(CONTACTS), metadata=published(result.counts[CONTACTS.name]))

    yield deliver_due

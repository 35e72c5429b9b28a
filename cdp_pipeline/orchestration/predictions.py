"""Predictions as Dagster assets: what is learned from, the model that must prove itself, everybody's score.

What a prediction is stands in `predictions/`; here tables are fetched, one function is called, results are published.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import chain
from typing import Any

import dagster as dg
import ibis

from cdp_pipeline.audiences.look import scope_of
from cdp_pipeline.audiences.rules import Scope, matching
from cdp_pipeline.identity.living import living
from cdp_pipeline.identity.people import PEOPLE
from cdp_pipeline.lake import Counts, Lake, LakeView, Mirror
from cdp_pipeline.orchestration import checks
from cdp_pipeline.orchestration.audiences import asked_of
from cdp_pipeline.orchestration.describe import asset_arguments, key_of, note, published, shown
from cdp_pipeline.orchestration.installation import models_folder
from cdp_pipeline.orchestration.partitions import SINGLE_RUN, daily, requested_days
from cdp_pipeline.orchestration.resources import RESOURCES
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
    customers_table,
)
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.sources.days import newest_complete_day
from cdp_pipeline.sources.tables import LOADS, source_table
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.prediction import Prediction
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.daily import daily_table


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

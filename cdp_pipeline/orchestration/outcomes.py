"""What came of the scores, as Dagster assets: figures that plot over time, once the days foreseen have passed.

What an outcome is, is said by each type of prediction; which days are due, in predictions/outcomes.py.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from cdp_pipeline.lake import Counts, Lake, Mirror
from cdp_pipeline.orchestration import checks
from cdp_pipeline.orchestration.describe import asset_spec, key_of, note, published
from cdp_pipeline.orchestration.partitions import SINGLE_RUN, daily, requested_days
from cdp_pipeline.orchestration.predictions import newest_day
from cdp_pipeline.orchestration.resources import RESOURCES
from cdp_pipeline.predictions.charts import HEADLINE, realised_chart
from cdp_pipeline.predictions.kinds import kind_of
from cdp_pipeline.predictions.outcomes import (
    OUTCOMES,
    REALISED,
    broken_promises,
    due,
    joined,
    labelled_to,
    realised,
    scored_days,
)
from cdp_pipeline.predictions.registry import MODELS
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.prediction import Prediction
from cdp_pipeline.spec.project import Project

KEPT = checks.spec(
    key_of(REALISED), "promises_kept",
    "The newest scores whose days have passed were as good as the gates of their model demanded.",
)  # fmt: skip


def outcome_assets(project: Project) -> Iterator[dg.AssetsDefinition]:
    """Every score beside what then happened, and how good the scores of each day have proved to be."""
    if not project.predictions:
        return
    scored = [key_of(kind_of(prediction).scores_table(prediction)) for prediction in project.predictions.values()]
    deps = [*scored, key_of(timeline_table(project))]

    @dg.multi_asset(
        name="outcomes",
        specs=[asset_spec(table, deps, project.settings.owner, {"ibis"}) for table in (OUTCOMES, REALISED)],
        partitions_def=daily(project),
        backfill_policy=SINGLE_RUN,
        check_specs=[KEPT],
        required_resource_keys=RESOURCES,
    )
    def look_back(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        over = newest_day(lake, project, context)
        days = [day for day in requested_days(context) or [] if day <= over]
        made = {OUTCOMES.name: Counts(0, 0, 0, 0), REALISED.name: Counts(0, 0, 0, 0)}
        for prediction in project.predictions.values():
            for name, counts in _looked_up(lake, project, prediction, days, context).items():
                made[name] += counts
        figures: dict[str, Any] = {}
        broken: list[str] = []
        known = lake.read(REALISED).to_pyarrow().to_pylist()
        for name, prediction in project.predictions.items():
            mine = [row for row in known if row["prediction"] == name]
            newest = max((row["day"] for row in mine), default=None)
            of_newest = {row["metric"]: row["value"] for row in mine if row["day"] == newest}
            told = [metric for metric in HEADLINE if metric in of_newest]
            figures |= {f"{name} {metric}": of_newest[metric] for metric in told}
            if told:
                figures[f"{name} over time"] = dg.MetadataValue.md(realised_chart(mine, told[:2]))
            broken += broken_promises(mine, prediction)
        yield dg.MaterializeResult(asset_key=key_of(OUTCOMES), metadata=published(made[OUTCOMES.name]))
        yield dg.MaterializeResult(
            asset_key=key_of(REALISED),
            metadata=published(made[REALISED.name], figures),
            check_results=[
                checks.result(
                    KEPT.name, not broken, key_of(REALISED), why="; ".join(broken), broken="; ".join(broken) or "none"
                )
            ],
        )

    yield look_back


def _looked_up(
    lake: Lake, project: Project, prediction: Prediction, days: list[Any], context: dg.AssetExecutionContext
) -> dict[str, Counts]:
    """Publish the outcomes of the days of scores that are due; none where none is."""
    kind, name = kind_of(prediction), prediction.name
    scores = lake.read(kind.scores_table(prediction))
    known = lake.read(REALISED)
    before = known.filter(known.prediction == name).to_pyarrow().to_pylist()
    scored = scored_days(scores)
    wanted = due(scored, before, prediction.horizon, days) if days else []
    happened = kind.outcomes(lake.read(timeline_table(project)), prediction, wanted) if wanted else None
    if happened is None:
        return {}
    rows = joined(scores, happened, prediction, wanted).to_pyarrow().cast(OUTCOMES.schema.to_pyarrow())
    seen = labelled_to(lake.read(MODELS).to_pyarrow().to_pylist(), prediction)
    within: dict[str, list[Any]] = {"prediction": [name], "day": wanted}
    return lake.publish(
        Mirror(OUTCOMES, rows, within=within),
        Mirror(REALISED, realised(rows, scored, prediction, seen, kind.realised), within=within),
        note=note(context),
    ).counts

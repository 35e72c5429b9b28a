"""The days Dagster knows: one daily partition per day of the project, today included, and what a run asked for."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import dagster as dg

from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source

SINGLE_RUN = dg.BackfillPolicy.single_run()
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def daily(project: Project) -> dg.DailyPartitionsDefinition:
    """Days from the project's first one to today (today is open: it is computed anew at each tick)."""
    return dg.DailyPartitionsDefinition(
        start_date=project.settings.first_day.isoformat(), timezone=project.settings.timezone, end_offset=1
    )


def is_filed_by_day(source: Source) -> bool:
    """Whether each day of the source lies in files of its own, so that a day is a partition of it."""
    return source.mode == "events" and source.files is not None and "{day}" in source.files.path


def requested_days(context: dg.AssetExecutionContext) -> list[date] | None:
    """The days of this run's partitions, oldest first; None for an asset without partitions."""
    # A run over a range of days tags every step of it, those of assets without days too.
    if context.assets_def.partitions_def is None:
        return None
    return sorted(date.fromisoformat(key) for key in context.partition_keys)


def range_tags(first: date, last: date) -> dict[str, str]:
    """The run tags that ask for every day from first to last in one run."""
    return {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()}


def yesterday(project: Project, now: datetime) -> date:
    """The newest day that is over in the project's time zone."""
    return now.astimezone(project.zone).date() - timedelta(days=1)

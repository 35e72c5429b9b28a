"""traits.daily: every trait of every person at the end of each day, and which of its days late rows have made stale."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec import types as spec_types
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of

NOTHING_LOADED = datetime(1970, 1, 1)


def trait_types(project: Project) -> dict[str, str]:
    """The Ibis type of each trait's column, in declared order."""
    types = spec_types.trait_types(project.traits, spec_types.event_columns(project.sources.values()))
    return {name: types[name] for name in project.traits}


def daily_table(project: Project, names: Collection[str] | None = None) -> Table:
    """traits.daily as this project's traits make it; to read only some of them is cheaper where there are hundreds."""
    types = {name: type_ for name, type_ in trait_types(project).items() if names is None or name in names}
    return Table(
        name="traits.daily",
        description="Every indicator of every person at the end of each day.",
        columns={
            "person_id": Column("string", "The person."),
            "day": Column("date", "As of the end of this day, in the project's time zone."),
            **{name: Column(type_, project.traits[name].description) for name, type_ in types.items()},
            "_computed_at": Column("timestamp(6)", "Rows loaded up to this moment (UTC) have been counted."),
        },
        key=("person_id", "day"),
        month_of="day",
        derived=True,
    )


def daily(timeline: ibis.Table, people: ibis.Table, days: Sequence[date], project: Project) -> ibis.Table:
    """The rows of traits.daily for these days. Equal data gives equal rows: `_computed_at` is the newest load seen."""
    loaded = timeline.filter(timeline._day <= ibis.date(max(days))).aggregate(_computed_at=timeline._loaded_at.max())
    loaded = loaded.mutate(_computed_at=loaded._computed_at.fill_null(ibis.timestamp(NOTHING_LOADED)))
    return as_of(timeline, people, days, project).cross_join(loaded)


def stale_days(timeline: ibis.Table, daily: ibis.Table, runs: ibis.Table) -> ibis.Table:
    """The days of traits.daily that must be computed again, because rows that belong to them were loaded since.

    When a day was computed is told by traits.runs, or where that knows nothing of it by the day's rows.
    """
    rows = daily.group_by("day").aggregate(stamped=daily._computed_at.min())
    computed = rows.left_join(runs.select("day", "loaded"), "day").drop("day_right")
    computed = computed.select("day", computed_at=ibis.coalesce(computed.loaded, computed.stamped))
    loads = timeline.group_by("_day").aggregate(loaded_at=timeline._loaded_at.max())
    late = computed.join(loads, (loads._day <= computed.day) & (loads.loaded_at > computed.computed_at))
    return late.select("day").distinct().order_by("day")

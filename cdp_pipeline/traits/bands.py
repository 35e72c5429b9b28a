"""traits.bands: who moved into which named band of a trait, once per move however often a day is computed.

A band is entered where the value goes past its threshold and left where it comes back to its exit; in between, people
stay where they are, and so they do while the value is unknown. Several days are followed in order within one query.
What is done about a move is not decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import reduce
from typing import Any

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trait import Band, Trait

BANDS = Table(
    name="traits.bands",
    description="Every move of a person from one band of an indicator into another.",
    columns={
        "person_id": Column("string", "The person."),
        "trait": Column("string", "The indicator."),
        "day": Column("date", "At the end of this day the value lay in the new band."),
        "at": Column("timestamp(6)", "The end of that day (UTC)."),
        "from_band": Column("string", "The band left; empty where bands were new to everybody and nothing moved."),
        "to_band": Column("string", "The band entered."),
        "value_before": Column("float64", "The value one day earlier, if it was computed."),
        "value_after": Column("float64", "The value that crossed."),
    },
    key=("person_id", "trait", "day"),
    month_of="day",
    derived=True,
)


def state_before(bands: ibis.Table, day: date) -> ibis.Table:
    """The band everybody was in when the day began: person_id, trait, band. Who is missing is in the first band."""
    return band_state(bands.filter(bands.day < ibis.date(day)))


def state_after(bands: ibis.Table, day: date) -> ibis.Table:
    """The band everybody was in when the day ended: person_id, trait, band. Who is missing is in the first band."""
    return band_state(bands.filter(bands.day <= ibis.date(day)))


def band_state(bands: ibis.Table) -> ibis.Table:
    return bands.group_by("person_id", "trait").aggregate(band=bands.to_band.argmax(bands.day))


def crossings(daily: ibis.Table, state: ibis.Table, project: Project, days: Sequence[date]) -> ibis.Table:
    """The rows of BANDS for these days.

    `daily` holds the traits of all these days (and, for `value_before`, of the day before), `state` is
    `state_before(bands, days[0])`. After a day is restated, pass every computed day from there on. A trait of which
    the state knows nobody is new: its first day sets the baseline, for everybody, with no band left. So it is for those
    whose band has another name now: renaming moves nobody.
    """
    banded = [trait for name, trait in project.traits.items() if trait.bands and name in daily.columns]
    if not banded:
        return daily.limit(0).select(**{name: ibis.null(column.type) for name, column in BANDS.columns.items()})
    return reduce(ibis.Table.union, [_crossings(trait, daily, state, project, sorted(set(days))) for trait in banded])


def _crossings(trait: Trait, daily: ibis.Table, state: ibis.Table, project: Project, days: list[date]) -> ibis.Table:
    names = [band.name for band in trait.bands]
    values = daily.select("person_id", "day", value_after=daily[trait.name].cast("float64"))
    by_day = ibis.window(group_by="person_id", order_by="day")
    values = values.mutate(value_before=values.value_after.lag().over(by_day), before=values.day.lag().over(by_day))
    values = values.mutate(
        value_before=ibis.ifelse(
            values.day.delta(values.before, unit="day") == 1, values.value_before, ibis.null("float64")
        )
    ).filter(values.day.isin(days))

    known = state.filter(state.trait == trait.name)
    start = known.select(
        "person_id",
        start=ibis.cases(*[(known.band == name, step) for step, name in enumerate(names)], else_=0),
        renamed=~known.band.isin(names),
    )
    introduced = known.aggregate(is_new=known.count() == 0)
    steps = values.left_join(start, "person_id").drop("person_id_right").cross_join(introduced)
    steps = steps.mutate(start=steps.start.fill_null(0), number=steps.day.delta(ibis.date(days[0]), unit="day"))
    steps = steps.mutate(step=_step(trait, steps))
    steps = steps.mutate(lagged=steps.step.lag().over(by_day))
    new_to_all = steps.is_new & (steps.day == ibis.date(days[0]))
    new_name = steps.renamed.fill_null(False) & steps.lagged.isnull()
    steps = steps.mutate(left=steps.lagged.fill_null(steps.start), baseline=new_to_all | new_name)
    named = ibis.array(names)
    moved = steps.filter((steps.step != steps.left) | steps.baseline)
    return moved.select(
        "person_id",
        "day",
        trait=ibis.literal(trait.name),
        at=_ends(moved.day, days, project),
        from_band=ibis.ifelse(moved.baseline, ibis.null("string"), named[moved.left]),
        to_band=named[moved.step],
        value_before=moved.value_before,
        value_after=moved.value_after,
    ).select(*BANDS.columns)


def _step(trait: Trait, steps: ibis.Table) -> Any:
    """The number of the band each day ends in: the highest whose latch is on.

    A band's latch is set past its threshold, released at its exit and otherwise stays as it was. The latest day that
    decided is found as the running maximum of (day number, decision), which every engine can do.
    """
    so_far = ibis.window(group_by="person_id", order_by="day", preceding=None, following=0)
    found = ibis.literal(0)
    for number, band in enumerate(trait.bands):
        if number == 0:
            continue
        enters, leaves = _thresholds(band, steps.value_after)
        decided = ibis.cases((enters, steps.number * 2 + 1), (leaves, steps.number * 2), else_=ibis.null("int64"))
        latest = decided.max().over(so_far)
        latched = ibis.ifelse(latest.isnull(), steps.start >= number, latest % 2 == 1)
        found = ibis.ifelse(latched, number, found)
    return found


def _thresholds(band: Band, value: Any) -> tuple[Any, Any]:
    """Does the value enter the band, does it leave it?"""
    if band.above is not None:
        return value > band.above, value <= (band.above if band.exit is None else band.exit)
    assert band.below is not None
    return value < band.below, value >= (band.below if band.exit is None else band.exit)


def _ends(day: Any, days: list[date], project: Project) -> Any:
    """When each day ended, in UTC: days have 23 or 25 hours when the clocks change."""
    midnights = [datetime.combine(day + timedelta(days=1), time(), project.zone) for day in days]
    ends = [midnight.astimezone(UTC).replace(tzinfo=None) for midnight in midnights]
    return ibis.cases(*[(day == ibis.date(d), ibis.timestamp(end)) for d, end in zip(days, ends, strict=True)])

"""The shop's own clock: a day is as long as people act on it. By it a busy season is no change of anybody's rhythm.

On the calendar, whoever bought before Christmas looks like a frequent buyer in January: on Online Retail II, with a
year behind, totals were off by .36 in logarithms, by this clock by .17 (cut-offs from 2010-12-28 to 2011-01-13).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import ibis

from cdp_pipeline.predictions.level import YEAR
from cdp_pipeline.predictions.targets import at_each, target_events
from cdp_pipeline.spec.prediction import Value

CLOCK = {
    "_recency_clock": "days since the last {event}, each as long as people were busy on it",
    "_since_first_clock": "days since the first {event}, each as long as people were busy on it",
    "_ahead": "how many average days the days ahead are likely to be, going by the year before",
}
COMPARED, AT_LEAST = 91, 28
"""Days over which this year is compared with the last: at most a quarter; fewer than four weeks say nothing."""


def with_clock(rows: ibis.Table, timeline: ibis.Table, prediction: Value, days: Sequence[date]) -> ibis.Table:
    """Rows that have person_id, day, _recency and _since_first, with the columns CLOCK beside them.

    The clock of a day knows what had happened up to that day. Its unit is the average day so far.
    """
    ticks = _ticks(timeline, prediction, days)
    for name in ("_recency", "_since_first"):
        at = ticks.select("day", **{name: ticks.ago.cast("float64"), f"{name}_clock": ticks.since / ticks.rate})
        # A view: Ibis would take the column for the one it was computed from, before an earlier join.
        rows = rows.view().left_join(at, ["day", name]).drop("day_right", f"{name}_right")
    rows = rows.left_join(_ahead(ticks, prediction.labelled.days), "day").drop("day_right")
    filled = rows._ahead.fill_null(float(prediction.labelled.days))
    return rows.mutate(
        _recency_clock=rows._recency_clock.round(6), _since_first_clock=rows._since_first_clock.round(6),
        _ahead=filled.round(6),
    )  # fmt: skip


def _ticks(timeline: ibis.Table, prediction: Value, days: Sequence[date]) -> ibis.Table:
    """(day, ago, acts, since, rate, oldest): how many people acted so many days ago, and since then up to the day; per
    day how many do on an average day so far, and how many days ago the first did."""
    events = target_events(timeline, prediction)
    acts = events.group_by("_day").agg(acts=events.person_id.nunique().cast("float64"))
    past = at_each(acts, days).mutate(ago=lambda t: t.day.delta(t._day, unit="day").cast("int64"))
    past = past.filter(past.ago >= 0)
    of_day = ibis.window(group_by="day")
    later = ibis.window(group_by="day", order_by="ago", preceding=(None, 1), following=None)
    past = past.mutate(
        since=past.acts.sum().over(later).fill_null(0.0),
        all=past.acts.sum().over(of_day),
        oldest=past.ago.max().over(of_day),
    )
    return past.mutate(rate=past["all"] / (past.oldest + 1))


def _ahead(ticks: ibis.Table, horizon: int) -> ibis.Table:
    """(day, _ahead): the horizon in average days: as many as the same days of last year, times what this year is of the
    last so far; days whose last year is unknown are average days."""
    compared = ibis.least(ticks.oldest - YEAR + 1, COMPARED)
    known = ibis.greatest(0, ibis.least(horizon, ticks.oldest - (YEAR - horizon) + 1))
    sums = ticks.group_by("day").agg(
        ahead=ticks.acts.sum(where=(ticks.ago >= YEAR - horizon) & (ticks.ago < YEAR)).fill_null(0.0),
        now=ticks.acts.sum(where=ticks.ago < compared),
        then=ticks.acts.sum(where=(ticks.ago >= YEAR) & (ticks.ago < YEAR + compared)),
        compared=compared.max(),
        known=known.max(),
        rate=ticks.rate.max(),
    )
    growth = ibis.ifelse(sums.compared >= AT_LEAST, sums.now / sums.then.nullif(0), 1.0).fill_null(1.0)
    return sums.select("day", _ahead=sums.ahead * growth / sums.rate + (horizon - sums.known).cast("float64"))

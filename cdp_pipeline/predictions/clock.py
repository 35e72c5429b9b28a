"""The clock of the season: a day is as long as people were busy on it, so that a season is no change of a rhythm.

On the calendar, whoever bought before Christmas looks like a frequent buyer in January: on Online Retail II, with a
year behind, totals were off by .36 in logarithms, by this clock by .12 (six windows from 2010-12-28 to 2011-01-13).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import ibis

from cdp_pipeline.predictions.level import FURTHEST, YEAR
from cdp_pipeline.predictions.targets import at_each, target_events
from cdp_pipeline.spec.prediction import Value

CLOCK = {
    "_recency_clock": "days since the last {event}, each as long as its season was busy",
    "_since_first_clock": "days since the first {event}, each as long as its season was busy",
    "_ahead": "how many average days the days ahead are likely to be, going by the year before",
}
COMPARED, AT_LEAST = 91, 28
"""Days over which this year is compared with the last: at most a quarter; fewer than four weeks say nothing."""


def with_clock(rows: ibis.Table, timeline: ibis.Table, prediction: Value, days: Sequence[date]) -> ibis.Table:
    """Rows that have person_id, day, _recency and _since_first, with the columns CLOCK beside them.

    The clock of a day knows what had happened up to that day. It goes by the calendar until a year and AT_LEAST days
    are known: before, nobody can tell a season from a trend.
    """
    ticks = _ticks(timeline, prediction, days)
    for name in ("_recency", "_since_first"):
        at = ticks.select("day", **{name: ticks.ago.cast("float64"), f"{name}_clock": ticks.clock})
        # A view: Ibis would take the column for the one it was computed from, before an earlier join.
        rows = rows.view().left_join(at, ["day", name]).drop("day_right", f"{name}_right")
    horizon = prediction.labelled.days
    rows = rows.left_join(_ahead(ticks, horizon), "day").drop("day_right")
    return rows.mutate(
        _recency_clock=rows._recency_clock.round(6), _since_first_clock=rows._since_first_clock.round(6),
        _ahead=rows._ahead.fill_null(float(horizon)).round(6),
    )  # fmt: skip


def _ticks(timeline: ibis.Table, prediction: Value, days: Sequence[date]) -> ibis.Table:
    """(day, ago, busy, clock, rate, seasonal): how busy the day so long ago was, the time since then by the clock, and
    per day how busy an average day was and whether there is a year to tell it from.

    Busy is how many people acted, at the level of today: growth from year to year is no season.
    """
    events = target_events(timeline, prediction)
    acts = events.group_by("_day").agg(acts=events.person_id.nunique().cast("float64"))
    past = at_each(acts, days).mutate(ago=lambda t: t.day.delta(t._day, unit="day").cast("int64"))
    past = past.filter(past.ago >= 0)
    of_day = ibis.window(group_by="day")
    past = past.mutate(oldest=past.ago.max().over(of_day))
    past = past.mutate(compared=ibis.least(past.oldest - YEAR + 1, COMPARED))

    def people(newest: int) -> ibis.Value:
        within = (past.ago >= newest) & (past.ago < past.compared + newest)
        return ibis.ifelse(within, past.acts, 0.0).sum().over(of_day)

    past = past.mutate(now=people(0), then=people(YEAR))
    seasonal = (past.compared >= AT_LEAST) & (past.now > 0) & (past.then > 0)
    bounded = ibis.greatest(ibis.least(past.now / past.then.nullif(0), FURTHEST), 1 / FURTHEST).fill_null(1.0)
    past = past.mutate(seasonal=seasonal, busy=past.acts * (bounded.ln() * past.ago / YEAR).exp())
    later = ibis.window(group_by="day", order_by="ago", preceding=(None, 1), following=None)
    since = past.busy.sum().over(later).fill_null(0.0)
    past = past.mutate(since=since, rate=past.busy.sum().over(of_day) / (past.oldest + 1))
    return past.mutate(clock=ibis.ifelse(past.seasonal, past.since / past.rate, past.ago.cast("float64")))


def _ahead(ticks: ibis.Table, horizon: int) -> ibis.Table:
    """(day, _ahead): the horizon in average days: as many as the same days of last year were."""
    sums = (
        ticks.filter(ticks.seasonal)
        .group_by("day")
        .agg(
            busy=lambda t: t.busy.sum(where=(t.ago >= YEAR - horizon) & (t.ago < YEAR)).fill_null(0.0),
            rate=lambda t: t.rate.max(),
        )
    )
    return sums.select("day", _ahead=sums.busy / sums.rate + float(max(horizon - YEAR, 0)))

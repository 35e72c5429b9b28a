"""What a prediction foresees, read off the timeline: its target events, and who had them within the horizon.

Pure functions over the timeline. Features and training windows belong to training.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import ibis

from cdp_pipeline.profile.timeline import event_scope
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.prediction import Binary, EventTarget, Features, ValueTarget


def target_events(timeline: ibis.Table, prediction: Features) -> ibis.Table:
    """The rows of identified people that count as the target event."""
    return events_of(timeline, prediction.target)


def events_of(timeline: ibis.Table, target: EventTarget) -> ibis.Table:
    """The rows of identified people that are one of these events, and fulfil its condition."""
    found = timeline.filter(timeline.person_id.notnull() & timeline.event.isin(list(target.event)))
    if target.when is None:
        return found
    return found.filter(expressions.compile(target.when, event_scope(found)))


def worth(events: ibis.Table, prediction: Features) -> ibis.Value:
    """What each target event brings: the declared value, or its amount."""
    target = prediction.target
    if isinstance(target, ValueTarget):
        return expressions.compile(target.value, event_scope(events))
    return events.amount


def at_each(table: ibis.Table, days: Sequence[date]) -> ibis.Table:
    """Every row once per day, in a column `day`."""
    listed = ibis.array([ibis.literal(day, type="date") for day in sorted(set(days))])
    return table.mutate(day=listed.unnest())


def totals(timeline: ibis.Table, prediction: Features, cutoffs: Sequence[date], within: timedelta) -> ibis.Table:
    """(person_id, day, label) for everybody seen up to each cut-off: what the target events of (cut, cut + within]
    brought together; 0 where there were none, less than 0 where returns are among them and exceed the rest."""
    known = _seen_by(timeline, cutoffs)
    events = target_events(timeline, prediction)
    of_days = events.group_by("person_id", "_day").agg(worth=worth(events, prediction).sum())
    ahead = at_each(of_days, cutoffs).mutate(ahead=lambda t: t._day.delta(t.day, unit="day"))
    came = (
        ahead.filter(ahead.ahead.between(1, within.days)).group_by("person_id", "day").agg(came=lambda t: t.worth.sum())
    )
    joined = known.left_join(came, ["person_id", "day"])
    return joined.select("person_id", "day", label=joined.came.coalesce(0).cast("float64").round(6))


def _seen_by(timeline: ibis.Table, days: Sequence[date]) -> ibis.Table:
    """(person_id, first_seen, day) for everybody who had been seen by each day."""
    seen = timeline.filter(timeline.person_id.notnull()).group_by("person_id").agg(first_seen=lambda t: t._day.min())
    return at_each(seen, days).filter(lambda t: t.first_seen <= t.day)


def labels(timeline: ibis.Table, prediction: Binary, cutoffs: Sequence[date]) -> ibis.Table:
    """(person_id, day, label) for everybody seen up to each cut-off: did the target happen in (cut, cut + horizon]?

    Windows are whole days, open at the cut-off and closed at the end, so neighbouring windows share no event.
    With `happens: false` the label says that it did not happen.
    """
    horizon = prediction.horizon.days
    known = _seen_by(timeline, cutoffs)
    events = target_events(timeline, prediction).select("person_id", "_day")
    events = events.filter((events._day > min(cutoffs)) & (events._day.delta(max(cutoffs), unit="day") <= horizon))
    hits = (
        at_each(events.distinct(), cutoffs)
        .mutate(ahead=lambda t: t._day.delta(t.day, unit="day"))
        .filter(lambda t: t.ahead.between(1, horizon))
        .select("person_id", "day")
        .distinct()
        .mutate(hit=True)
    )
    joined = known.left_join(hits, ["person_id", "day"])
    happened = joined.hit.notnull()
    return joined.select("person_id", "day", label=(happened if prediction.target.happens else ~happened).cast("int64"))

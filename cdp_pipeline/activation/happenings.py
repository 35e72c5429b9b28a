"""From rows of the timeline to occasions: an event was seen, or none came for a time after another.

Pure, and the same for the sensor's tick, a run and the resident worker: an occasion's text names the event's id, so
that whoever finds it first has found it for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta

import ibis
import pyarrow as pa

from cdp_pipeline.activation.triggers import CATCH_UP, Occasion, Row
from cdp_pipeline.profile.timeline import event_scope
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.audience import Happening
from cdp_pipeline.spec.trigger import Change, Missing

BEFORE_IT_BEGAN = timedelta(days=1)
"""How far before its first evaluation a trigger looks."""


def since(now: datetime, begun: datetime | None) -> datetime:
    """The moment after which an event must have happened to be an occasion: two days ago.

    A trigger that was first evaluated less than a day ago (`begun`) does not look back further than it did then. So
    neither a new trigger, nor a backfill of past days, nor a long outage sends what nobody expects any more.
    """
    return max(now - CATCH_UP, (now if begun is None else begun) - BEFORE_IT_BEGAN)


def occasions_of_events(on: Change, timeline: ibis.Table, *, after: datetime, until: datetime) -> list[Occasion]:
    """What sets off a trigger on `seen` or `missing`, oldest first.

    `timeline` has the columns of profile.timeline, all of it or only the rows that are new (for `missing`: all of it).
    An event counts when it happened after `after` and not after `until`; an event missing, when the wait ended then.
    Both are naive UTC, as in the timeline. Events of nobody known are no occasions yet.
    """
    if on.seen is not None:
        found, at = seen(on.seen, timeline), timeline.occurred_at
        found = found.filter(at > ibis.timestamp(after), at <= ibis.timestamp(until))
        return occasions_of("seen", found.to_pyarrow())
    if on.missing is not None:
        return occasions_of("missing", _missing(on.missing, timeline, after, until).to_pyarrow())
    return []


def seen(what: Happening, timeline: ibis.Table) -> ibis.Table:
    """The events of this kind, whenever they were, of people who are known."""
    return timeline.filter(timeline.person_id.notnull(), _is(what, timeline))


def _missing(what: Missing, timeline: ibis.Table, after: datetime, until: datetime) -> ibis.Table:
    """The events that nothing came after for the time: neither what was missed, nor another such event.

    The wait begins anew with each: who puts a second thing into the cart is reminded after that one. Of events at the
    same instant, what is missed comes last, and so is not missed.
    """
    rows = timeline.mutate(_begins=_is(what.after, timeline), _ends=_is(what, timeline))
    at = rows.occurred_at
    rows = rows.filter(
        rows.person_id.notnull(),
        rows._begins | rows._ends,
        at > ibis.timestamp(after - what.for_),
        at <= ibis.timestamp(until),
    )
    order = ibis.window(group_by="person_id", order_by=["occurred_at", "_ends", "event_id"])
    rows = rows.mutate(_next=rows.occurred_at.lead().over(order))
    over = rows.occurred_at + ibis.interval(seconds=int(what.for_.total_seconds()))
    quiet = rows._next.isnull() | (rows._next > over)
    return rows.filter(rows._begins, ~rows._ends, quiet, over <= ibis.timestamp(until)).drop(
        "_begins", "_ends", "_next"
    )


def _is(what: Happening, timeline: ibis.Table) -> ibis.Value:
    named = timeline.event.isin(what.event)
    if what.when is None:
        return named
    return named & expressions.compile(what.when, event_scope(timeline)).fill_null(False)


def occasions_of(subject: str, rows: pa.Table) -> list[Occasion]:
    """What these rows of a timeline are occasions of, oldest first."""
    found = sorted(rows.to_pylist(), key=lambda row: (row["occurred_at"], row["event_id"]))
    return [
        Occasion(str(row["person_id"]), f"{subject}:{row['event_id']}", _day(row), event_facts(row)) for row in found
    ]


def event_facts(row: Row) -> dict[str, object]:
    """What a message may say of an event, by the names that conditions on events use."""
    properties = row["properties"]
    facts = dict(properties) if isinstance(properties, Mapping) else {}
    known = ("occurred_at", "event", "channel", "amount", "currency", "product_id", "category", "source")
    return facts | {name: row[name] for name in known}


def _day(row: Row) -> date:
    day = row["_day"]
    assert isinstance(day, date)
    return day


def low_watermark(watermarks: ibis.Table, sources: Iterable[str], now: datetime) -> datetime:
    """The moment (naive UTC) up to which all these sources have told what happened, but not after `now`.

    `watermarks`: the columns of profile.watermarks. Only before that moment is an event that is not there a missing
    one. A source that was never loaded is not waited for.
    """
    found = watermarks.filter(watermarks.source.isin(list(sources))).until.min().to_pyarrow().as_py()
    return now if found is None else min(found, now)

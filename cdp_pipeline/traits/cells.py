"""Which days see which events: the borders of all windows of all requested days cut time into cells.

A cell is a run of days that every window of every requested day sees whole or not at all; it goes by its last day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from functools import reduce
from operator import or_
from typing import Any
from zoneinfo import ZoneInfo

import ibis

from cdp_pipeline.spec.window import midnight

Span = tuple[date | None, date]
"""The first and the last day a window sees; without a first, all before the last."""
Spans = Mapping[date, Span]
"""The span of a window for each requested day."""
ONE_DAY = timedelta(days=1)


def days_table(name: str, days: Iterable[date]) -> ibis.Table:
    """A table of these days, written into the query itself, so that every engine has it."""
    return ibis.array([ibis.date(day) for day in days]).unnest().name(name).as_table()


def number(value: float) -> Any:
    """A float64 written out: from text, because engines read 0.5 as a decimal."""
    return ibis.literal(repr(float(value))).cast("float64")


def per_day(day: Any, values: Mapping[date, Any], written: Callable[[Any], Any]) -> Any:
    """What each requested day has, as a column beside the day; None for no day is NULL for all."""
    by_value: dict[Any, list[date]] = {}
    for one, value in values.items():
        by_value.setdefault(value, []).append(one)
    known = [(day.isin(days), written(value)) for value, days in by_value.items() if value is not None]
    if len(by_value) > 1:
        return ibis.cases(*known)
    return known[0][1] if known else None


def cell_ends(spans: Iterable[Span]) -> list[date]:
    """The last day of each cell, in order."""
    ends: set[date] = set()
    for first, last in spans:
        ends |= {last} if first is None else {first - ONE_DAY, last}
    return sorted(ends)


def cell(day: Any, ends: Sequence[date]) -> Any:
    """The cell a day is in: the least end that is not before it, found by halving; cells of single days are easy."""
    if len(ends) == 1:
        return ibis.date(ends[0])
    if (ends[-1] - ends[0]).days == len(ends) - 1:
        return ibis.greatest(day, ibis.date(ends[0]))
    half = len(ends) // 2
    return ibis.ifelse(day <= ibis.date(ends[half - 1]), cell(day, ends[:half]), cell(day, ends[half:]))


def on_days(cells: ibis.Table, days: Sequence[date], windows: Sequence[Spans]) -> ibis.Table:
    """Every row of `cells` beside every requested day that sees it, with `seen_<n>`: does the n-th window see it?

    A row with `since` is not known before that day, one with `until` has its day no more. `age` is the days from the
    cell's end to the day.
    """

    def borders(day: Any) -> dict[str, Any]:
        columns = {}
        for number, spans in enumerate(windows):
            for which, border in enumerate(("first", "last")):
                values = {one: span[which] for one, span in spans.items()}
                if None not in values.values():
                    columns[f"{border}_{number}"] = per_day(day, values, ibis.date)
        return columns

    if len(days) == 1:
        day = ibis.date(days[0])
        table = cells.mutate(day=day, **borders(day))
    else:
        asked = days_table("day", days)
        table = cells.cross_join(asked.mutate(**borders(asked.day)))
    seen = {f"seen_{number}": _sees(table, number) for number in range(len(windows))}
    table = table.mutate(**seen, age=table.day.delta(table.cell, unit="day"))
    return table.filter(reduce(or_, (table[name] for name in seen)))


def within(day: Any, first: date | None, last: date) -> Any:
    """Is a day one of these?"""
    return day <= ibis.date(last) if first is None else (day >= ibis.date(first)) & (day <= ibis.date(last))


def _sees(table: ibis.Table, number: int) -> Any:
    sees = table.cell <= table[f"last_{number}"]
    if f"first_{number}" in table.columns:
        sees &= table.cell >= table[f"first_{number}"]
    if "since" in table.columns:
        sees &= table.since <= table.day
    if "until" in table.columns:
        sees &= table.until.isnull() | (table.until > table.day)
    return sees


def known_from(loaded_at: Any, days: Sequence[date], zone: ZoneInfo) -> Any:
    """The first requested day at whose end a row had been loaded (times are UTC); NULL if that is after them all."""
    return ibis.cases(*[(loaded_at < ibis.timestamp(midnight(day + ONE_DAY, zone)), ibis.date(day)) for day in days])


def last_sessions(events: ibis.Table, gap: timedelta, day: date) -> ibis.Table:
    """The events that are in the last session (events without a longer gap between two) of any day from `day` on.

    `until` is the day on which the next session begins, from which on an event is not in the last one; NULL if none is.
    """
    in_order = ibis.window(group_by="person_id", order_by=["occurred_at", "event_id"])
    events = events.mutate(before=events.occurred_at.lag().over(in_order))
    begins = events.occurred_at > events.before + ibis.interval(seconds=int(gap.total_seconds()))
    events = events.mutate(begins_on=ibis.ifelse(begins.fill_null(True), events._day, ibis.null("date")))
    later = ibis.window(group_by="person_id", order_by=["occurred_at", "event_id"], following=(1, None))
    events = events.mutate(until=events.begins_on.min().over(later)).drop("before", "begins_on")
    return events.filter(events.until.isnull() | (events.until > ibis.date(day)))

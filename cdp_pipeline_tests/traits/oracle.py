"""What a trait is, spelled out in plain Python for one person and one day: no engine, and none of the package's code.

Windows are told from their words, with calendars of their own (dateutil, pandas); statistics come from NumPy and SciPy.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from dateutil.relativedelta import relativedelta
from scipy.stats import linregress

from cdp_pipeline.spec.trait import Trait

Row = dict[str, Any]
ONE = timedelta(days=1)
LONDON = ZoneInfo("Europe/London")
CONDITIONS: dict[str | None, Callable[[Row], bool | None]] = {
    None: lambda row: True,
    "channel = 'web'": lambda row: row["channel"] == "web",
    "amount > 0 or gift": lambda row: (row["amount"] is not None and row["amount"] > 0) or row["gift"],
}
VALUES: dict[str, Callable[[Row], Any]] = {
    "amount * quantity": lambda row: (
        None if None in (row["amount"], row["quantity"]) else row["amount"] * row["quantity"]
    ),
    "quantity * 3": lambda row: None if row["quantity"] is None else row["quantity"] * 3,
}
FREQUENCIES = {"week": "W-SUN", "month": "M", "quarter": "Q", "year": "Y"}


def value_of(fragment: str, row: Row) -> Any:
    return VALUES[fragment](row) if fragment in VALUES else row[fragment]


@lru_cache(4096)
def days_seen(window: str, day: date) -> tuple[date, date]:
    """The first and last day a window sees, from its words."""
    words = window.split()
    if window in ("lifetime", "last session"):
        return date.min, day
    if words[0] in ("this", "previous"):
        period = pd.Period(day, FREQUENCIES[words[1]]) - int(words[0] == "previous")
        return period.start_time.date(), day if words[0] == "this" else period.end_time.date()
    if words[0] == "between":
        far, near = (days_seen(f"last {number} {words[4]}", day)[0] for number in (words[1], words[3]))
        return far, near - ONE
    step = relativedelta(**{words[2].rstrip("s") + "s": int(words[1])})
    return (day + ONE - step, day) if words[0] == "last" else (day + ONE, day + ONE + step - ONE)


def seen(one: Trait, rows: list[Row], person: str, day: date, zone: ZoneInfo) -> list[Row]:
    """The events that count, the oldest first."""
    theirs = [row for row in rows if row["person_id"] == person and row["event"] in one.event]
    theirs.sort(key=lambda row: (row["occurred_at"], row["event_id"]))
    first, last = days_seen(str(one.window), day)
    theirs = [row for row in theirs if first <= row["_day"] <= last]
    if str(one.window).startswith("next"):
        end = datetime.combine(day + ONE, time(), zone).astimezone(UTC).replace(tzinfo=None)
        theirs = [row for row in theirs if row["_loaded_at"] < end]
    if str(one.window) == "last session":
        while any(b["occurred_at"] - a["occurred_at"] > one.gap for a, b in pairwise(theirs)):
            theirs = theirs[1:]
    return [row for row in theirs if CONDITIONS[one.when](row)]


def expected(one: Trait, rows: list[Row], person: str, day: date, zone: ZoneInfo = LONDON) -> Any:
    """The trait of a person at the end of a day."""
    events = seen(one, rows, person, day, zone)
    if one.evaluation == "trend":
        return trend(one, events, day)
    if one.value is not None:
        events = [row for row in events if value_of(one.value, row) is not None]
    return OF_EVENTS[one.evaluation](one, events, day)


def values(one: Trait, events: list[Row]) -> list[Any]:
    return [value_of(str(one.value), row) for row in events]


def floats(one: Trait, events: list[Row]) -> list[float]:
    return [float(value) for value in values(one, events)]


def fading(one: Trait, row: Row, day: date) -> float:
    return 0.5 ** ((day - row["_day"]).days / one.half_life.days) if one.half_life else 1.0


def days_between(one: Trait, events: list[Row], day: date) -> float | None:
    days = sorted({row["_day"] for row in events})
    return statistics.mean((b - a).days for a, b in pairwise(days)) if len(days) > 1 else None


def ranked(one: Trait, events: list[Row], day: date) -> list[Any]:
    """The different values, the weightiest first."""
    weights: dict[Any, float] = {}
    last: dict[Any, tuple[Any, ...]] = {}
    for row in events:
        value, weight = value_of(str(one.value), row), 1 if one.weight is None else value_of(one.weight, row)
        weights[value] = weights.get(value, 0) + float(weight or 0) * fading(one, row, day)
        last[value] = (row["occurred_at"], value)

    def key(value: Any) -> tuple[Any, ...]:
        weight = weights[value]  # weights that differ by rounding are alike
        return weight > 0, round(math.log(weight) if weight > 0 else weight, 9), last[value]

    return sorted(weights, key=key, reverse=True)


def nps(one: Trait, events: list[Row], day: date) -> float | None:
    answers = [value for value in floats(one, events) if 0 <= value <= 10]
    net = sum(answer >= 9 for answer in answers) - sum(answer <= 6 for answer in answers)
    return 100 * net / len(answers) if answers else None


def trend(one: Trait, events: list[Row], day: date) -> float | str | None:
    first, last = days_seen(str(one.window), day)
    length = {"day": 1, "week": 7, "month": 30}[str(one.period)]
    totals = []
    while last - timedelta(days=length) >= first - ONE:
        inside = [row for row in events if last - timedelta(days=length) < row["_day"] <= last]
        one_each = [1 if one.value is None else value_of(one.value, row) for row in inside]
        totals.insert(0, float(sum(value for value in one_each if value is not None)))
        last -= timedelta(days=length)
    if len(totals) < 3:
        return None
    line = linregress(range(len(totals)), totals)
    if math.isclose(min(totals), max(totals), rel_tol=1e-9, abs_tol=1e-12):
        return {"slope": 0.0, "standard_error": 0.0, "direction": "flat"}[one.report]
    if one.report == "direction":
        return "flat" if line.pvalue > 1 - one.confidence else "up" if line.slope > 0 else "down"
    return float(line.slope if one.report == "slope" else line.stderr)


OF_EVENTS: dict[str, Callable[[Trait, list[Row], date], Any]] = {
    "count": lambda one, events, day: len(events),
    "happened": lambda one, events, day: bool(events),
    "days_since": lambda one, events, day: min(((day - row["_day"]).days for row in events), default=None),
    "days_since_first": lambda one, events, day: max(((day - row["_day"]).days for row in events), default=None),
    "days_between": days_between,
    "sum": lambda one, events, day: sum(values(one, events)),
    "average": lambda one, events, day: float(sum(values(one, events))) / len(events) if events else None,
    "min": lambda one, events, day: min(values(one, events), default=None),
    "max": lambda one, events, day: max(values(one, events), default=None),
    "stddev": lambda one, events, day: statistics.stdev(floats(one, events)) if len(events) > 1 else None,
    "median": lambda one, events, day: statistics.median(floats(one, events)) if events else None,
    "quantile": lambda one, events, day: float(np.quantile(floats(one, events), one.quantile)) if events else None,
    "first": lambda one, events, day: values(one, events)[0] if events else None,
    "last": lambda one, events, day: values(one, events)[-1] if events else None,
    "most_frequent": lambda one, events, day: ranked(one, events, day)[0] if events else None,
    "top": lambda one, events, day: ranked(one, events, day)[: one.n],
    "unique_count": lambda one, events, day: len(set(values(one, events))),
    "unique_list": lambda one, events, day: sorted(set(values(one, events))),
    "decayed": lambda one, events, day: math.fsum(
        fading(one, row, day) * (1.0 if one.value is None else float(value_of(one.value, row))) for row in events
    ),
    "nps": nps,
    "csat": lambda one, events, day: (
        sum(value >= one.satisfied_from for value in floats(one, events)) / len(events) if events else None
    ),
    "ces": lambda one, events, day: statistics.mean(floats(one, events)) if events else None,
}  # fmt: skip


def same(found: Any, wanted: Any, within: float = 1e-9) -> bool:
    """Equal; numbers that were divided, to nine digits."""
    if isinstance(found, float) and isinstance(wanted, int | float | Decimal):
        return math.isclose(found, float(wanted), rel_tol=within, abs_tol=within)
    return type(found) is not float and found == wanted

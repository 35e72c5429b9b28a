"""What every operator of a condition does, as Ibis expressions: true, false, or NULL where nothing is known.

Which operator suits which values is in spec/operators.py. Text is compared without regard to capitals by all but the
operators that ask for the very same value (=, !=, in, not_in, and those of lists). Days are the project's days, and
'the next 7 days' begin with the day after: it is always the end of a day that is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import reduce
from math import cos, radians
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any
from zoneinfo import ZoneInfo

import ibis

from cdp_pipeline.spec.operators import day_meant, whole_days
from cdp_pipeline.spec.window import midnight

LONGEST_DECIMAL = 38
"""Digits of a decimal, on every engine."""
EARTH_KM = 6371.0088
"""The mean radius of the earth (IUGG), for the haversine formula."""


def compare(op: str, column: Any, value: Any, day: Any) -> Any:
    """A column compared with a value as it stands in YAML, at the end of a day (a column)."""
    if op in BY_THE_DAY:
        return BY_THE_DAY[op](column, value, day)
    return OPERATORS[op](column, value)


def _alike(column: Any, values: Sequence[Any]) -> tuple[Any, list[Any]]:
    """A column and YAML values, brought to types that every engine compares alike and without rounding money."""
    type_ = column.type()
    exact = _exact(type_, values) if type_.is_decimal() else None
    if exact is not None:
        return column, [ibis.literal(Decimal(str(value)), exact) for value in values]
    if type_.is_decimal() or type_.is_floating() or any(isinstance(value, float) for value in values):
        return column.cast("float64"), [ibis.literal(float(value), "float64") for value in values]
    if type_.is_date():
        return column, [ibis.literal(date.fromisoformat(str(value)), "date") for value in values]
    if type_.is_timestamp():
        return column, [ibis.literal(datetime.fromisoformat(str(value)), "timestamp(6)") for value in values]
    return column, [ibis.literal(str(value) if type_.is_string() else value, type_) for value in values]


def _exact(type_: Any, values: Sequence[Any]) -> Any:
    """The column's own decimal type, widened for values that are longer; None where no decimal holds them."""
    parts = [Decimal(str(value)).as_tuple() for value in values]
    scale = max(type_.scale, *(-int(part.exponent) for part in parts))
    whole = max(type_.precision - type_.scale, *(len(part.digits) + int(part.exponent) for part in parts))
    return ibis.dtype(f"decimal({whole + scale}, {scale})") if whole + scale <= LONGEST_DECIMAL else None


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def compared(column: Any, value: Any) -> Any:
        column, [value] = _alike(column, [value])
        return compare(column, value)

    return compared


def compare_two(op: str, one: Any, other: Any) -> Any:
    """One column compared with another of its kind: numbers exactly, unless one of them has no exact values anyway."""
    if one.type().is_floating() or other.type().is_floating():
        one, other = one.cast("float64"), other.cast("float64")
    return COMPARISONS[op](one, other)


def _is_in(column: Any, values: list[Any]) -> Any:
    column, values = _alike(column, values)
    return column.isin(values)


def _between(column: Any, ends: list[Any]) -> Any:
    return OPERATORS[">="](column, ends[0]) & OPERATORS["<="](column, ends[1])


def _contains(column: Any, value: Any) -> Any:
    if column.type().is_array():
        return column.contains(value)
    return column.lower().contains(str(value).lower())


def _starts(column: Any, value: Any) -> Any:
    return column.lower().startswith(str(value).lower())


def _ends(column: Any, value: Any) -> Any:
    return column.lower().endswith(str(value).lower())


def _like(column: Any, pattern: str) -> Any:
    return column.lower().like(pattern.lower())


def _matches(column: Any, pattern: str) -> Any:
    return column.re_search(f"(?i){pattern}")


def _has(combine: Callable[[Any, Any], Any]) -> Callable[[Any, list[str]], Any]:
    return lambda column, values: reduce(combine, (column.contains(value) for value in values))


def _not(operator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda column, value: ~operator(column, value)


COMPARISONS = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    **{op: _compared(compare) for op, compare in COMPARISONS.items()},
    "between": _between,
    "not_between": _not(_between),
    "in": _is_in,
    "not_in": _not(_is_in),
    "contains": _contains,
    "not_contains": _not(_contains),
    "starts_with": _starts,
    "not_starts_with": _not(_starts),
    "ends_with": _ends,
    "not_ends_with": _not(_ends),
    "like": _like,
    "not_like": _not(_like),
    "matches": _matches,
    "not_matches": _not(_matches),
    "is_null": lambda column, value: column.isnull(),
    "not_null": lambda column, value: column.notnull(),
    "is_true": lambda column, value: column,
    "is_false": lambda column, value: ~column,
    "has_any": _has(or_),
    "has_all": _has(and_),
    "has_none": _not(_has(or_)),
    "size_is": lambda column, size: column.length() == size,
    "size_at_least": lambda column, size: column.length() >= size,
    "size_at_most": lambda column, size: column.length() <= size,
}
"""Operators over one column: column and YAML value to boolean."""


def _age(column: Any, day: Any) -> Any:
    """The days from a date to the day; below zero where it is still to come."""
    return day.delta(column, unit="day")


def _ago(value: Any) -> int | None:
    """How many days before the day a relative day lies; None for a day of the calendar."""
    some = date(2000, 1, 1)
    at, other = (day_meant(value, day) for day in (some, some + timedelta(days=1)))
    return None if at == other else (some - at).days


def _before(column: Any, value: Any, day: Any) -> Any:
    ago = _ago(value)
    return column < ibis.date(date.fromisoformat(value)) if ago is None else _age(column, day) > ago


def _after(column: Any, value: Any, day: Any) -> Any:
    ago = _ago(value)
    return column > ibis.date(date.fromisoformat(value)) if ago is None else _age(column, day) < ago


def _within_last(column: Any, value: Any, day: Any) -> Any:
    age = _age(column, day)
    return (age >= 0) & (age < whole_days(value))


def _within_next(column: Any, value: Any, day: Any) -> Any:
    age = _age(column, day)
    return (age < 0) & (age >= -whole_days(value))


def _anniversary(column: Any, value: Any, day: Any) -> Any:
    """Whether month and day of the date come round in the days (day, day + value]; 29 February falls on the 28th."""
    start, end = (days_later(day, number) for number in (1, whole_days(value)))
    after_start = _calendar(column, start.year()) >= _calendar(start)
    before_end = _calendar(column, end.year()) <= _calendar(end)
    comes = ibis.ifelse(start.year() == end.year(), after_start & before_end, after_start | before_end)
    return comes & (column <= day)


def _calendar(date_: Any, year: Any = None) -> Any:
    """Month and day as one number that sorts like the calendar, as they fall in a year."""
    number = date_.month() * 100 + date_.day()
    if year is None:
        return number
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    return ibis.ifelse((number == 229) & ~leap, 228, number)


def days_later(day: Any, days: int) -> Any:
    """A column of dates, so many days later."""
    return (day.cast("timestamp") + ibis.interval(days=days)).cast("date")


BY_THE_DAY: dict[str, Callable[[Any, Any, Any], Any]] = {
    "before": _before,
    "after": _after,
    "within_last": _within_last,
    "not_within_last": lambda column, value, day: ~_within_last(column, value, day),
    "within_next": _within_next,
    "anniversary_within": _anniversary,
}
"""Operators over a date and the day it is asked on."""


def by_the_clock(op: str, column: Any, value: Any, day: Any, days: Sequence[date], zone: ZoneInfo) -> Any:
    """The operators of BY_THE_DAY over a time (UTC): which day it falls on is told by the project's zone."""

    def within(asked_on: date) -> Any:
        first, last = _span(op, value, asked_on)
        ends = []
        if first is not None:
            ends.append(column >= _moment(first, zone))
        if last is not None:
            ends.append(column < _moment(last + timedelta(days=1), zone))
        held = reduce(and_, ends)
        return ~held if op == "not_within_last" else held

    return ibis.cases(*((day == ibis.date(asked_on), within(asked_on)) for asked_on in days), else_=False)


def _span(op: str, value: Any, day: date) -> tuple[date | None, date | None]:
    """The first and last day an operator means on a day, both included."""
    if op == "before":
        return None, day_meant(value, day) - timedelta(days=1)
    if op == "after":
        return day_meant(value, day) + timedelta(days=1), None
    length = timedelta(days=whole_days(value))
    if op == "within_next":
        return day + timedelta(days=1), day + length
    return day - length + timedelta(days=1), day


def _moment(day: date, zone: ZoneInfo) -> Any:
    return ibis.literal(midnight(day, zone), "timestamp(6)")


def distance_km(lat: Any, lon: Any, place: dict[str, Any]) -> Any:
    """The way from a place over the earth's surface (haversine formula, a sphere: off by at most 0.6 %)."""
    lat, lon = (degrees.cast("float64").radians() for degrees in (lat, lon))
    there_lat, there_lon = radians(place["lat"]), radians(place["lon"])
    half_lat, half_lon = (lat - there_lat) / 2, (lon - there_lon) / 2
    part = half_lat.sin() * half_lat.sin() + half_lon.sin() * half_lon.sin() * lat.cos() * cos(there_lat)
    return ibis.least(part, ibis.literal(1.0, "float64")).sqrt().asin() * (2 * EARTH_KM)


def changed(op: str, now: Any, then: Any, change: dict[str, Any]) -> Any:
    """Whether a number moved at least so far, up, down or either way; a share is one of what it was (not of 0)."""
    if not now.type().is_decimal():
        now, then = now.cast("float64"), then.cast("float64")
    moved = {"increased_by": now - then, "decreased_by": then - now, "changed_by": (now - then).abs()}[op]
    if "by" in change:
        return OPERATORS[">="](moved, change["by"])
    # A share of money is a product of decimals: 398.00 is not 397.99999999999994.
    _, [percent] = _alike(then, [change["percent"]])
    return (moved * 100 >= then.abs() * percent) & (then != 0)

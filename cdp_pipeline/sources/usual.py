"""Whether what came lately is what usually comes: as many rows, as often twice, of the same size, of every kind.

A feed that stalls, an amount in another unit, rows delivered twice and a country that is missing all keep to the
contract; they show only beside the weeks before. How rows are read and refused is not decided here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from itertools import pairwise
from math import exp, log
from statistics import median
from typing import Any

import ibis

from cdp_pipeline.spec.source import Source

WEEKS = 8
YEAR = 52
FEW_VALUES = 100
LEAST_ROWS = 50
ROWS_FACTOR, SIZE_FACTOR, REPEATED_FACTOR = 3.0, 4.0, 3.0
REPEATED_SLACK = 0.02
VALUE_EACH_WEEK = 40
PAUSE_SLACK = 2
Weeks = Mapping[int, float]


def weekly(table: ibis.Table, source: Source, last_day: date) -> ibis.Table:
    """(what, name, value, week, figure) of the last weeks and of those a year before; week 0 ends with `last_day`.

    rows: how many. repeated: how many have a grain that another row has. size: mean logarithm of a number. value: rows
    with this value, of text columns of few values that say nothing about a person. day: rows of the day so long ago.
    """
    ago = ibis.literal(last_day).delta(table._day, unit="day")
    past = table.mutate(ago=ago).filter(lambda t: (t.ago >= 0) & (t.ago < 7 * (YEAR + WEEKS + 1)))
    past = past.mutate(week=(past.ago // 7).cast("int64"))
    weeks = past.filter((past.week <= WEEKS) | (past.week >= YEAR - WEEKS))
    parts = [
        _figure(past.group_by(week=past.ago.cast("int64")).agg(figure=lambda t: t.count()), "day"),
        _figure(weeks.group_by("week").agg(figure=lambda t: t.count()), "rows"),
    ]
    if source.repeatable:
        grain = ibis.literal("\x1f").join([weeks[name].cast("string").fill_null("") for name in source.grain])
        repeated = weeks.mutate(grain=grain).group_by("week").agg(figure=lambda t: t.count() - t.grain.nunique())
        parts.append(_figure(repeated, "repeated"))
    for name, column in source.columns.items():
        if column.pii or column.identifier:
            continue
        if column.type in ("money", "number", "integer"):
            size = weeks[name].cast("float64").abs()
            sized = weeks.mutate(size=size).filter(lambda t: t.size > 0)
            parts.append(_figure(sized.group_by("week").agg(figure=lambda t: t.size.ln().mean()), "size", name))
        elif column.type == "string" and name not in source.grain:
            counts = weeks.group_by("week", value=weeks[name]).agg(figure=lambda t: t.count())
            few = counts.aggregate(values=counts["value"].nunique())
            counts = counts.cross_join(few).filter(lambda t: t.value.notnull() & (t["values"] <= FEW_VALUES))
            parts.append(_figure(counts, "value", name))
    return ibis.union(*parts)


def _figure(table: ibis.Table, what: str, name: str = "") -> ibis.Table:
    value = table["value"] if "value" in table.columns else ibis.null("string")
    return table.select(
        what=ibis.literal(what), name=ibis.literal(name), value=value.cast("string"),
        week=table.week, figure=table.figure.cast("float64"),
    )  # fmt: skip


def oddities(found: Iterable[Mapping[str, Any]], last_day: date) -> list[str]:
    """What is unusual about the last week, in words; `found` are rows of `weekly`."""
    measures: dict[tuple[str, str, str | None], dict[int, float]] = defaultdict(dict)
    for row in found:
        measures[row["what"], row["name"], row["value"]][row["week"]] = row["figure"]
    rows, days = measures[("rows", "", None)], measures.pop(("day", "", None), {})
    if sum(1 for week in range(1, WEEKS + 1) if rows.get(week)) <= WEEKS // 2:
        return []
    named = [*_pause(days, last_day), *_volume(rows)]
    if not rows.get(0):
        return named
    for (what, name, value), weeks in sorted(measures.items(), key=str):
        if what == "repeated":
            named += _repeated(weeks, rows)
        elif what == "size":
            named += _size(name, weeks)
        elif what == "value":
            named += _missing(name, str(value), weeks, rows)
    return named


def _before(weeks: Weeks) -> list[float]:
    return [weeks.get(week, 0.0) for week in range(1, WEEKS + 1)]


def _pause(days: Weeks, last_day: date) -> Iterator[str]:
    """No row for longer than any pause of the last weeks, or of the same weeks of last year."""
    ages = sorted(days)
    if not ages:
        return
    recent = [age for age in ages if age <= 7 * WEEKS]
    a_year_ago = [age for age in ages if 7 * (YEAR - 3) <= age <= 7 * (YEAR + 3)]
    pauses = [b - a for same in (recent, a_year_ago) for a, b in pairwise(same)]
    if ages[0] > max(pauses, default=1) + PAUSE_SLACK:
        yield (
            f"no row since {last_day - timedelta(days=ages[0])}, {ages[0]} days: the longest pause is usually "
            f"{max(pauses, default=1) - 1}"
        )


def _volume(rows: Weeks) -> Iterator[str]:
    now, usual = rows.get(0, 0.0), median(_before(rows))
    if usual < LEAST_ROWS:
        return
    then = rows.get(YEAR, 0.0)
    around = median([rows[week] for week in range(YEAR - WEEKS, YEAR + WEEKS + 1) if rows.get(week)] or [0])
    factor = max(now, 1) / usual
    # What came as little, or as much, in the same week of last year is the season.
    season = max(then, 1) / around if around >= LEAST_ROWS else 1.0
    if factor * ROWS_FACTOR < 1 and not season < 0.5:
        yield f"{now:,.0f} rows in the last week, usually {usual:,.0f}"
    if factor > ROWS_FACTOR and not season > 2:
        yield f"{now:,.0f} rows in the last week, usually {usual:,.0f}"


def _repeated(weeks: Weeks, rows: Weeks) -> Iterator[str]:
    shares = [weeks.get(week, 0.0) / rows[week] for week in range(1, WEEKS + 1) if rows.get(week)]
    now, usual = weeks.get(0, 0.0) / rows[0], median(shares)
    if now > REPEATED_FACTOR * usual + REPEATED_SLACK and rows[0] >= LEAST_ROWS:
        yield f"{now:.1%} of the rows of the last week are there twice or more, usually {usual:.1%}"


def _size(name: str, weeks: Weeks) -> Iterator[str]:
    before = [weeks[week] for week in range(1, WEEKS + 1) if week in weeks]
    if 0 in weeks and len(before) > WEEKS // 2 and abs(weeks[0] - median(before)) > log(SIZE_FACTOR):
        yield (
            f"'{name}' was about {exp(weeks[0]):,.2f} in the last week, usually {exp(median(before)):,.2f}: is it in "
            "another unit or currency?"
        )


def _missing(name: str, value: str, weeks: Weeks, rows: Weeks) -> Iterator[str]:
    before = _before(weeks)
    # A quiet week of all rows takes some of each value with it.
    quiet = rows[0] < median(_before(rows)) / 2
    if min(before) >= VALUE_EACH_WEEK and not weeks.get(0) and not quiet:
        yield f"no row with {name} = {value} in the last week, usually {median(before):,.0f}"

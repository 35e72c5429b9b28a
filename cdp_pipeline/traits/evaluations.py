"""The ways a person's events become one value: one small class each, so that adding one is adding a class.

What is aggregated when, and over which days, is decided in as_of.py. Two rules hold for all: a value that is NULL is
not looked at (a count counts rows and needs no value), and where nothing was seen the result is NULL, or 0 for
counts and sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import ibis
import ibis.expr.datatypes as dt

Parts = dict[str, Any]
"""Named aggregates (or, once aggregated, columns) from which a result is made."""

MONEY = dt.Decimal(18, 4)


def published_type(type_: dt.DataType) -> dt.DataType:
    """The one type in which values of this sort are published, so that tables do not drift with an engine's taste."""
    if type_.is_integer():
        return dt.int64
    if type_.is_floating():
        return dt.float64
    if type_.is_decimal():
        return MONEY
    if type_.is_timestamp():
        return dt.Timestamp(scale=6)
    return type_


@dataclass(frozen=True)
class Rows:
    """The events (for `unique_count`: the distinct values) that are aggregated, seen from one trait."""

    table: ibis.Table
    value: Any = None


class Evaluation(ABC):
    """`parts` of two disjoint spans of days, once combined, equal the parts of both together.

    That is all as_of.py needs to compute any number of days from one pass over the events that they share.
    """

    name: ClassVar[str]
    empty: ClassVar[int | None] = None
    over_values: ClassVar[bool] = False
    needs_moment: ClassVar[bool] = False

    def type(self, value: dt.DataType | None) -> dt.DataType:
        assert value is not None
        return published_type(value)

    @abstractmethod
    def parts(self, rows: Rows, where: Any) -> Parts: ...

    @abstractmethod
    def combine(self, one: Parts, other: Parts) -> Parts: ...

    @abstractmethod
    def result(self, parts: Parts, day: Any) -> Any: ...


def _known(combined: Any, one: Any, other: Any) -> Any:
    """What was combined, or where one side saw nothing the other side."""
    return ibis.coalesce(combined, one, other)


def _chosen(condition: Any, one: Parts, other: Parts) -> Parts:
    """The parts of one side where the condition holds or the other side saw nothing."""
    return {part: _known(ibis.ifelse(condition, one[part], other[part]), one[part], other[part]) for part in one}


class Count(Evaluation):
    """How many events."""

    name = "count"
    empty = 0

    def type(self, value: dt.DataType | None) -> dt.DataType:
        return dt.int64

    def parts(self, rows: Rows, where: Any) -> Parts:
        return {"count": rows.table.count(where=where)}

    def combine(self, one: Parts, other: Parts) -> Parts:
        return {"count": _known(one["count"] + other["count"], one["count"], other["count"])}

    def result(self, parts: Parts, day: Any) -> Any:
        return parts["count"]


class UniqueCount(Count):
    """How many different values. Exact; its rows are the distinct values, each with the last day it was seen."""

    name = "unique_count"
    over_values = True


class Sum(Evaluation):
    """The values added up; money stays exact."""

    name = "sum"
    empty = 0

    def parts(self, rows: Rows, where: Any) -> Parts:
        return {"sum": rows.value.sum(where=where)}

    def combine(self, one: Parts, other: Parts) -> Parts:
        return {"sum": _known(one["sum"] + other["sum"], one["sum"], other["sum"])}

    def result(self, parts: Parts, day: Any) -> Any:
        return parts["sum"]


class Average(Evaluation):
    """The mean of the values, as a float64 also for money (added up exactly, divided once)."""

    name = "average"

    def type(self, value: dt.DataType | None) -> dt.DataType:
        return dt.float64

    def parts(self, rows: Rows, where: Any) -> Parts:
        return {"sum": rows.value.sum(where=where), "count": rows.value.count(where=where)}

    def combine(self, one: Parts, other: Parts) -> Parts:
        return {part: _known(one[part] + other[part], one[part], other[part]) for part in ("sum", "count")}

    def result(self, parts: Parts, day: Any) -> Any:
        return parts["sum"].cast("float64") / parts["count"].nullif(0).cast("float64")


class Stddev(Evaluation):
    """The sample standard deviation; NULL below two values. Spans are merged by Chan's formula, which is stable."""

    name = "stddev"

    def type(self, value: dt.DataType | None) -> dt.DataType:
        return dt.float64

    def parts(self, rows: Rows, where: Any) -> Parts:
        value = rows.value.cast("float64")
        return {
            "count": value.count(where=where).cast("float64"),
            "mean": value.mean(where=where),
            "variance": value.var(where=where, how="pop"),
        }

    def combine(self, one: Parts, other: Parts) -> Parts:
        count = one["count"] + other["count"]
        share = other["count"] / count.nullif(0)
        apart = other["mean"] - one["mean"]
        variance = one["variance"] * (1 - share) + other["variance"] * share + apart * apart * share * (1 - share)
        return {
            "count": _known(count, one["count"], other["count"]),
            "mean": _known(one["mean"] + apart * share, one["mean"], other["mean"]),
            "variance": _known(variance, one["variance"], other["variance"]),
        }

    def result(self, parts: Parts, day: Any) -> Any:
        sample = parts["count"] / (parts["count"] - 1).nullif(0)
        return (parts["variance"] * sample).sqrt()


class Min(Evaluation):
    """The smallest value."""

    name = "min"

    def parts(self, rows: Rows, where: Any) -> Parts:
        return {"min": rows.value.min(where=where)}

    def combine(self, one: Parts, other: Parts) -> Parts:
        return _chosen(one["min"] < other["min"], one, other)

    def result(self, parts: Parts, day: Any) -> Any:
        return parts["min"]


class Max(Evaluation):
    """The largest value."""

    name = "max"

    def parts(self, rows: Rows, where: Any) -> Parts:
        return {"max": rows.value.max(where=where)}

    def combine(self, one: Parts, other: Parts) -> Parts:
        return _chosen(one["max"] > other["max"], one, other)

    def result(self, parts: Parts, day: Any) -> Any:
        return parts["max"]


class First(Evaluation):
    """The oldest known value; of two at the same instant, that of the smaller event id."""

    name = "first"
    needs_moment = True

    def parts(self, rows: Rows, where: Any) -> Parts:
        where = where & rows.value.notnull()
        return {
            "value": rows.value.argmin(rows.table.moment, where=where),
            "moment": rows.table.moment.min(where=where),
        }

    def combine(self, one: Parts, other: Parts) -> Parts:
        return _chosen(one["moment"] < other["moment"], one, other)

    def result(self, parts: Parts, day: Any) -> Any:
        return parts["value"]


class Last(First):
    """The newest known value; of two at the same instant, that of the larger event id."""

    name = "last"

    def parts(self, rows: Rows, where: Any) -> Parts:
        where = where & rows.value.notnull()
        return {
            "value": rows.value.argmax(rows.table.moment, where=where),
            "moment": rows.table.moment.max(where=where),
        }

    def combine(self, one: Parts, other: Parts) -> Parts:
        return _chosen(one["moment"] > other["moment"], one, other)


class DaysSince(Evaluation):
    """Whole days between the newest event and the day; 0 on the day itself."""

    name = "days_since"

    def type(self, value: dt.DataType | None) -> dt.DataType:
        return dt.int64

    def parts(self, rows: Rows, where: Any) -> Parts:
        return {"max": rows.table._day.max(where=where)}

    def combine(self, one: Parts, other: Parts) -> Parts:
        return Max().combine(one, other)

    def result(self, parts: Parts, day: Any) -> Any:
        return day.delta(parts["max"], unit="day")


EVALUATIONS: dict[str, Evaluation] = {
    evaluation.name: evaluation
    for evaluation in (Count(), UniqueCount(), Sum(), Average(), Stddev(), Min(), Max(), First(), Last(), DaysSince())
}

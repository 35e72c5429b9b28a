"""The ways a person's events become one value: one small class each, so that adding one is adding a class.

Which events count, and for which days, is decided in staged.py; what each evaluation means to a marketer, needs and
gives is said in spec/trait.py. Two rules hold for all: a value that is NULL is not looked at (a count counts events
and needs no value), and where nothing was seen the result is `empty`: NULL, or 0, false or an empty list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import Any, ClassVar, Self

import ibis
import ibis.expr.datatypes as dt

from cdp_pipeline.spec.trait import LEAST_PERIODS, PERIODS, Trait
from cdp_pipeline.traits.cells import ONE_DAY, Span, Spans, number, per_day

Parts = dict[str, Any]
"""Named aggregates (or, once aggregated, columns) from which a result is made."""

MONEY = dt.Decimal(18, 4)
NO_TEXTS = ibis.literal([], type="array<string>")


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
    """The events as one trait sees them: which count (`where`), and what of them is looked at.

    cell is the last day of the run of days that an event is aggregated with. `together` are the columns of all values
    that traits look at under the same condition.
    """

    table: ibis.Table
    where: Any
    value: Any = None
    weight: Any = None
    together: tuple[str, ...] = ()

    @property
    def faded_by(self) -> Any:
        """The days between an event and the end of its cell."""
        return self.table.cell.delta(self.table._day, unit="day")


@dataclass(frozen=True)
class AsOf:
    """The day a result is for, as a column, and which days it may be with the first and last day its window sees."""

    day: Any
    spans: Spans

    def each(self, of: Callable[[date | None, date], float | None]) -> Any:
        """Something of the window, as a float64 column that depends on the day."""
        found = per_day(self.day, {day: of(*span) for day, span in self.spans.items()}, number)
        return ibis.null("float64") if found is None else found


@dataclass(frozen=True)
class Evaluation(ABC):
    """Events become parts, once for each cell of days; the cells that a window sees are merged; parts become a result.

    `merges` says how the parts of disjoint cells become the part of all of them.
    """

    merges: ClassVar[Mapping[str, str]] = {}
    empty: ClassVar[Any] = None
    of_days: ClassVar[bool] = False

    @classmethod
    def of(cls, trait: Trait) -> Self:
        """The evaluation with its fields as the trait gives them."""
        given = {field.name: getattr(trait, field.name) for field in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value is not None})

    def span(self, first: date | None, last: date) -> Span:
        """The days of the window that are looked at."""
        return first, last

    @abstractmethod
    def parts(self, rows: Rows) -> Parts: ...

    def merged(self, parts: Parts, seen: Any, age: Any) -> Parts:
        """`age`: the days from the end of a cell to the day asked for."""
        return {name: getattr(part, self.merges[name])(where=seen) for name, part in parts.items()}

    @abstractmethod
    def result(self, parts: Parts, asked: AsOf) -> Any: ...

    def absent(self, asked: AsOf) -> Any:
        """The result where there is nothing to make it of."""
        return self.empty


class Count(Evaluation):
    merges = {"count": "sum"}
    empty = 0

    def parts(self, rows: Rows) -> Parts:
        return {"count": rows.table.count(where=rows.where)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["count"]


class Happened(Count):
    empty = False

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["count"] > 0


class Sum(Evaluation):
    merges = {"sum": "sum"}
    empty = 0

    def parts(self, rows: Rows) -> Parts:
        return {"sum": rows.value.sum(where=rows.where)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["sum"]


class Average(Evaluation):
    """Money is added up exactly and divided once."""

    merges = {"sum": "sum", "known": "sum"}

    def parts(self, rows: Rows) -> Parts:
        return {"sum": rows.value.sum(where=rows.where), "known": rows.value.count(where=rows.where)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["sum"].cast("float64") / parts["known"].cast("float64").nullif(0)


class Min(Evaluation):
    merges = {"min": "min"}

    def parts(self, rows: Rows) -> Parts:
        return {"min": rows.value.min(where=rows.where)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["min"]


class Max(Evaluation):
    merges = {"max": "max"}

    def parts(self, rows: Rows) -> Parts:
        return {"max": rows.value.max(where=rows.where)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["max"]


class OfOneEvent(Evaluation):
    """The value of the oldest or the newest event that has one; of two at one instant, the event's id decides.

    Most events have all values that are asked for, so that the one event is found once for all of them. Each value is
    looked at alone only in events that lack another. Structs compare field by field.
    """

    def parts(self, rows: Rows) -> Parts:
        values = {name: rows.table[name] for name in rows.together}
        has_all = ibis.and_(*(value.notnull() for value in values.values()))

        def extreme(part: str, of: dict[str, Any], where: Any) -> Any:
            moment = {"at": rows.table.occurred_at, "id": rows.table.event_id}
            return getattr(ibis.struct({**moment, **of}), self.merges[part])(where=where)

        alone = {rows.value.get_name(): rows.value}
        return {
            "whole": extreme("whole", values, rows.where & has_all),
            "alone": extreme("alone", alone, rows.where & rows.value.notnull() & ~has_all),
        }

    def result(self, parts: Parts, asked: AsOf) -> Any:
        whole, alone = parts["whole"], parts["alone"]
        value = alone.type().names[-1]
        wins = (whole["at"] < alone["at"]) | ((whole["at"] == alone["at"]) & (whole["id"] < alone["id"]))
        if self.merges["whole"] == "max":
            wins = ~wins
        return ibis.ifelse(alone.isnull() | wins, whole[value], alone[value])


class First(OfOneEvent):
    merges = {"whole": "min", "alone": "min"}


class Last(OfOneEvent):
    merges = {"whole": "max", "alone": "max"}


class DaysSince(Evaluation):
    merges = {"newest": "max"}

    def parts(self, rows: Rows) -> Parts:
        return {"newest": rows.table._day.max(where=rows.where)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return asked.day.delta(parts["newest"], unit="day")


class DaysSinceFirst(Evaluation):
    merges = {"oldest": "min"}

    def parts(self, rows: Rows) -> Parts:
        return {"oldest": rows.table._day.min(where=rows.where)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return asked.day.delta(parts["oldest"], unit="day")


def _halved(days: Any, half_life: timedelta) -> Any:
    return number(0.5) ** (ibis.greatest(days, 0).cast("float64") / half_life.days)


@dataclass(frozen=True)
class Decayed(Evaluation):
    """What fades by half in every half-life fades to the end of its cell first, and from there to the day."""

    empty = number(0)
    half_life: timedelta

    def parts(self, rows: Rows) -> Parts:
        value = number(1) if rows.value is None else rows.value.cast("float64")
        faded = value * _halved(rows.faded_by, self.half_life)
        return {"faded": faded.sum(where=rows.where)}

    def merged(self, parts: Parts, seen: Any, age: Any) -> Parts:
        return {"faded": (parts["faded"] * _halved(age, self.half_life)).sum(where=seen)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["faded"]


class Nps(Evaluation):
    """Reichheld, The One Number You Need to Grow (2003)."""

    merges = {"promoters": "sum", "detractors": "sum", "answers": "sum"}

    def parts(self, rows: Rows) -> Parts:
        def answers(low: int, high: int) -> Any:
            return rows.table.count(where=rows.where & rows.value.between(low, high))

        return {
            "promoters": rows.table.count(where=rows.where & (rows.value >= 9) & (rows.value <= 10)),
            "detractors": answers(0, 6),
            "answers": answers(0, 10),
        }

    def result(self, parts: Parts, asked: AsOf) -> Any:
        net = (parts["promoters"] - parts["detractors"]).cast("float64")
        return net * 100 / parts["answers"].cast("float64").nullif(0)


@dataclass(frozen=True)
class Csat(Evaluation):
    merges = {"satisfied": "sum", "known": "sum"}
    satisfied_from: float

    def parts(self, rows: Rows) -> Parts:
        satisfied = rows.value.cast("float64") >= number(self.satisfied_from)
        return {
            "satisfied": rows.table.count(where=rows.where & satisfied),
            "known": rows.value.count(where=rows.where),
        }

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["satisfied"].cast("float64") / parts["known"].cast("float64").nullif(0)


class AtOnce(Evaluation):
    """An evaluation of all events that a window sees, without parts that could be merged."""


class Stddev(AtOnce):
    def parts(self, rows: Rows) -> Parts:
        return {"spread": rows.value.cast("float64").std(how="sample", where=rows.where)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["spread"]


@dataclass(frozen=True)
class Quantile(AtOnce):
    """Between the two values nearest to the place `quantile` * (number - 1), in proportion (as NumPy's `linear`)."""

    quantile: float

    def parts(self, rows: Rows) -> Parts:
        return {"quantile": rows.value.cast("float64").quantile(self.quantile, where=rows.where)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["quantile"]


class Median(Quantile):
    @classmethod
    def of(cls, trait: Trait) -> Self:
        return cls(0.5)


class OverValues(Count):
    """An evaluation of the different values: parts are kept for each, and gathered once the cells are merged.

    Before they are gathered, `ranks` may look across all values of a person on a day. Values not seen have no count.
    """

    empty: ClassVar[Any] = None

    def ranks(self, value: Any, parts: Parts) -> Parts:
        return {}

    @abstractmethod
    def gathered(self, value: Any, parts: Parts) -> Parts: ...


_OF_ONE = {"group_by": ("person_id", "day")}


class UniqueCount(OverValues):
    empty = 0

    def gathered(self, value: Any, parts: Parts) -> Parts:
        return {"different": value.count(where=parts["count"] > 0)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["different"]


class UniqueList(OverValues):
    empty = NO_TEXTS

    def gathered(self, value: Any, parts: Parts) -> Parts:
        return {"values": value.collect(where=parts["count"] > 0)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["values"].sort()


class DaysBetween(OverValues):
    """Its values are days: from the first to the last, in as many steps as there are days less one."""

    of_days = True

    def gathered(self, value: Any, parts: Parts) -> Parts:
        seen = parts["count"] > 0
        return {"days": value.count(where=seen), "oldest": value.min(where=seen), "newest": value.max(where=seen)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        days = parts["newest"].delta(parts["oldest"], unit="day").cast("float64")
        return days / (parts["days"] - 1).cast("float64").nullif(0)


@dataclass(frozen=True)
class Weighed(OverValues):
    """Values by weight: the number of events, or the sum of what each weighs, faded where there is a half-life."""

    half_life: timedelta | None = None

    def parts(self, rows: Rows) -> Parts:
        parts = {"count": rows.table.count(where=rows.where), "seen": rows.table.occurred_at.max(where=rows.where)}
        if self.half_life is not None:
            return parts | Decayed(self.half_life).parts(Rows(rows.table, rows.where, rows.weight))
        return parts if rows.weight is None else {**parts, "weight": rows.weight.sum(where=rows.where)}

    def merged(self, parts: Parts, seen: Any, age: Any) -> Parts:
        merged = {"count": parts["count"].sum(where=seen), "seen": parts["seen"].max(where=seen)}
        if self.half_life is not None:
            return merged | Decayed(self.half_life).merged(parts, seen, age)
        return {**merged, "weight": parts["weight"].sum(where=seen)} if "weight" in parts else merged

    def _heaviest(self, value: Any, parts: Parts) -> dict[str, Any]:
        """What values are compared by, the first first. Weights that differ by rounding, as sums do, are alike."""
        weight = parts.get("faded", parts.get("weight"))
        weight = parts["count"] if weight is None else weight.fill_null(0)
        by: dict[str, Any] = {"weight": weight}
        if weight.type().is_floating():
            size = ibis.ifelse(weight > 0, weight, ibis.null("float64")).ln()
            by = {"some": (weight > 0).cast("int8"), "weight": ibis.coalesce(size, weight).round(9)}
        return {**by, "seen": parts["seen"], "value": value}


class MostFrequent(Weighed):
    def gathered(self, value: Any, parts: Parts) -> Parts:
        return {"best": ibis.struct(self._heaviest(value, parts)).max(where=parts["count"] > 0)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        return parts["best"]["value"]


@dataclass(frozen=True)
class Top(Weighed):
    n: int = 3
    empty = NO_TEXTS

    def ranks(self, value: Any, parts: Parts) -> Parts:
        order = [(parts["count"] > 0).cast("int8"), *self._heaviest(value, parts).values()]
        return {"rank": ibis.row_number().over(ibis.window(**_OF_ONE, order_by=[by.desc() for by in order]))}

    def gathered(self, value: Any, parts: Parts) -> Parts:
        seen = parts["count"] > 0
        return {str(rank): value.max(where=seen & (parts["rank"] == rank)) for rank in range(self.n)}

    def result(self, parts: Parts, asked: AsOf) -> Any:
        found = [parts[str(rank)] for rank in range(self.n)]
        fewer = [(found[rank].isnull(), ibis.array(found[:rank]) if rank else NO_TEXTS) for rank in range(self.n)]
        return ibis.cases(*fewer, else_=ibis.array(found))


@dataclass(frozen=True)
class Trend(OverValues):
    """The textbook least-squares line; its values are the numbers of periods, the middle of the window being 0.

    Totals of periods are brought together by mean and variance, which lose no digits where they hardly differ; that
    is decided at a billionth, so that what is level but for rounding has slope 0 and is flat.
    """

    period: str
    report: str = "slope"
    confidence: float = 0.95

    @property
    def days(self) -> int:
        return PERIODS[self.period]

    def parts(self, rows: Rows) -> Parts:
        return {"total": rows.table.count(where=rows.where) if rows.value is None else rows.value.sum(where=rows.where)}

    def merged(self, parts: Parts, seen: Any, age: Any) -> Parts:
        return {"total": parts["total"].sum(where=seen)}

    def span(self, first: date | None, last: date) -> Span:
        """The whole periods; none, if they are too few."""
        assert first is not None
        whole = ((last - first).days + 1) // self.days
        return last - timedelta(days=self.days * (whole if whole >= LEAST_PERIODS else 0)) + ONE_DAY, last

    def periods(self, first: date | None, last: date) -> int | None:
        assert first is not None
        return (last + ONE_DAY - first).days // self.days or None

    def period_spans(self, spans: Iterable[Span]) -> list[Span]:
        """Each period of these spans."""
        step = timedelta(days=self.days)
        lasts = {last - step * number for first, last in spans for number in range(self.periods(first, last) or 0)}
        return [(last - step + ONE_DAY, last) for last in lasts] or list(spans)

    def period_of(self, cell: Any, first: Any, last: Any) -> Any:
        """The number of the period a cell is in, the newest having the largest."""

        def days(start: Any, end: Any) -> Any:
            return end.delta(start, unit="day").cast("float64")

        middle = ((days(first, last) + 1) / self.days - 1) / 2
        return middle - (days(cell, last) / self.days).floor()

    def gathered(self, value: Any, parts: Parts) -> Parts:
        total = parts["total"].cast("float64")
        return {
            "eventful": total.count(),
            "mean": total.mean(),
            "variance": total.var(how="pop"),
            "slanted": (value * total).sum(),
        }

    def result(self, parts: Parts, asked: AsOf) -> Any:
        from scipy.special import stdtrit

        periods = asked.each(self.periods)
        eventful, mean, variance, slanted = (
            parts[name].cast("float64") for name in ("eventful", "mean", "variance", "slanted")
        )
        spread = eventful * variance + eventful * (periods - eventful) / periods * mean * mean
        differ = spread > number(1e-18) * eventful * (variance + mean * mean)
        width = periods * (periods * periods - 1) / 12
        slope = ibis.ifelse(differ, slanted / width, periods * 0)
        if self.report == "slope":
            return slope
        off = ibis.greatest(spread - slanted * slanted / width, periods * 0)
        error = ibis.ifelse(differ, (off / (periods - 2) / width).sqrt(), periods * 0)
        if self.report == "standard_error":
            return error

        def likely(first: date | None, last: date) -> float | None:
            whole = self.periods(first, last)
            return None if whole is None else float(stdtrit(whole - 2, (1 + self.confidence) / 2))

        sure = error * asked.each(likely)
        return ibis.cases((slope > sure, "up"), (slope < -sure, "down"), (periods.notnull(), "flat"))

    def absent(self, asked: AsOf) -> Any:
        periods = asked.each(self.periods)
        return ibis.ifelse(periods.notnull(), "flat", None) if self.report == "direction" else periods * 0


EVALUATIONS: dict[str, type[Evaluation]] = {
    "count": Count, "happened": Happened, "days_since": DaysSince, "days_since_first": DaysSinceFirst,
    "days_between": DaysBetween, "sum": Sum, "average": Average, "min": Min, "max": Max, "stddev": Stddev,
    "median": Median, "quantile": Quantile, "first": First, "last": Last, "most_frequent": MostFrequent, "top": Top,
    "unique_count": UniqueCount, "unique_list": UniqueList, "decayed": Decayed, "trend": Trend, "nps": Nps,
    "csat": Csat, "ces": Average,
}  # fmt: skip

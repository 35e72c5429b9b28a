"""Two tables of people's values side by side: how many differ, in which direction, and a few of those people.

People are named by their opaque ids only. Values are shown where they are numbers, dates, truths or names a project
itself gives (states, bands); text that people or sources wrote is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ibis


@dataclass(frozen=True)
class ValueChange:
    """One trait or attribute whose values differ: of `people` there in both, so many have another value.

    gained, lost: those who had none, and those who have none now. before, after: the mean where it is a number.
    sample: person id, value before, value after; without values where they are nobody's business.
    """

    name: str
    change: str
    people: int
    changed: int
    gained: int
    lost: int
    before: float | None
    after: float | None
    sample: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Moves:
    """People by where they were and where they would be."""

    name: str
    moves: tuple[tuple[str, str, int], ...]


def value_changes(
    before: ibis.Table, after: ibis.Table, names: Sequence[str], shown: Collection[str], sample: int
) -> list[ValueChange]:
    """Compare the columns `names` of two tables with one row per person_id; a column one of them lacks is empty there.

    Of `shown` the sample tells values.
    """
    names = [name for name in names if name in before.columns or name in after.columns]
    if not names:
        return []
    both = _beside(before, after, dict(enumerate(names)))
    figures: dict[str, Any] = {"people": both.count()}
    for i in range(len(names)):
        old, new = both[f"was_{i}"], both[f"is_{i}"]
        figures[f"changed_{i}"] = (~old.identical_to(new)).sum()
        figures[f"gained_{i}"] = (old.isnull() & new.notnull()).sum()
        figures[f"lost_{i}"] = (old.notnull() & new.isnull()).sum()
        if old.type().is_numeric():
            figures |= {f"mean_was_{i}": old.cast("float64").mean(), f"mean_is_{i}": new.cast("float64").mean()}
    [row] = both.aggregate(**figures).to_pyarrow().to_pylist()
    found = []
    for i, name in enumerate(names):
        if row[f"changed_{i}"]:
            columns = ["person_id", *([f"was_{i}", f"is_{i}"] if name in shown else [])]
            alone = _beside(before, after, {i: name})
            some = alone.filter(~alone[f"was_{i}"].identical_to(alone[f"is_{i}"]))
            some = some.order_by("person_id").limit(sample).select(*columns).to_pyarrow()
            change = "changed" if name in before.columns and name in after.columns else "new"
            found.append(
                ValueChange(
                    name, change if name in after.columns else "gone", row["people"],
                    row[f"changed_{i}"], row[f"gained_{i}"], row[f"lost_{i}"],
                    row.get(f"mean_was_{i}"), row.get(f"mean_is_{i}"),
                    tuple(tuple(one.values()) for one in some.to_pylist()),
                )
            )  # fmt: skip
    return found


def _beside(before: ibis.Table, after: ibis.Table, names: Mapping[int, str]) -> ibis.Table:
    """Who is in both tables, with these columns of each as was_<number> and is_<number>."""
    was = before.select("person_id", **{f"was_{i}": before[n] for i, n in names.items() if n in before.columns})
    becomes = after.select("person_id", **{f"is_{i}": after[n] for i, n in names.items() if n in after.columns})
    both = was.inner_join(becomes, "person_id")
    return both.select("person_id", **dict(pair for i in names for pair in _pair(both, i)))


def _pair(both: ibis.Table, number: int) -> list[tuple[str, Any]]:
    """The two sides of one column, brought to one type."""
    names = [f"was_{number}", f"is_{number}"]
    sides = [both[name] if name in both.columns else None for name in names]
    types = {side.type().copy(nullable=True) for side in sides if side is not None}
    type_ = types.pop() if len(types) == 1 else None
    if type_ is None:
        type_ = (
            ibis.dtype("float64")
            if all(one.type().is_numeric() for one in sides if one is not None)
            else ibis.dtype("string")
        )
    return [
        (name, ibis.null(type_) if side is None else side.cast(type_)) for name, side in zip(names, sides, strict=True)
    ]


def moves(before: ibis.Table, after: ibis.Table, name: str, first: tuple[str, str]) -> Moves | None:
    """Compare where people are: person_id and band on each side; who is missing is in the first band of that side."""
    was, becomes = before.select("person_id", was="band"), after.select("person_id", becomes="band")
    both = was.outer_join(becomes, "person_id")
    both = both.select(was=both.was.fill_null(first[0]), becomes=both.becomes.fill_null(first[1]))
    counted = both.filter(both.was != both.becomes).group_by("was", "becomes").agg(people=ibis._.count())
    rows = counted.order_by(ibis.desc("people"), "was", "becomes").to_pyarrow().to_pylist()
    return Moves(name, tuple((row["was"], row["becomes"], row["people"]) for row in rows)) if rows else None

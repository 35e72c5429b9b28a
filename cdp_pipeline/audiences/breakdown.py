"""What sets an audience apart: the traits, attributes and scores that are more, or less, common in it than elsewhere.

Everything is cut into segments, numbers at nothing and at the quarters of those who have some. Only counts of people
leave this module, and attributes marked as personal data are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from math import asin, sqrt
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.rules import Scope, every_rule, leaves
from cdp_pipeline.spec.audience import Rule

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.spec.project import Project

SURE = 2.0
"""Standard errors from the base from which on a difference is more than chance (95 %)."""
QUARTERS = (0.25, 0.5, 0.75)
UNKNOWN = "unknown"
AT_ONCE = 16
"""Columns held in memory at a time."""


@dataclass(frozen=True)
class Segments:
    """How a column cuts people: the segment of each row, by number. A list puts its row into several."""

    says: Sequence[str]
    rows: np.ndarray
    segments: np.ndarray


@dataclass(frozen=True)
class Difference:
    """How common a segment is in an audience and among everybody. `index`: 100 is as common as among everybody.

    `sure`: standard errors between the two shares. `asked`: the audience itself asks about it.
    """

    what: str
    says: str
    people: int
    share: float
    share_of_everybody: float
    sure: float
    asked: bool

    @property
    def index(self) -> int:
        return round(100 * self.share / self.share_of_everybody) if self.share_of_everybody else 0

    @property
    def effect(self) -> float:
        """Cohen's h: the distance of two shares, comparable for rare and common ones."""
        return 2 * (asin(sqrt(self.share)) - asin(sqrt(self.share_of_everybody)))

    def row(self) -> dict[str, Any]:
        return {
            "what": self.what, "segment": self.says, "people": self.people, "share": round(self.share, 4),
            "share_of_everybody": round(self.share_of_everybody, 4), "index": self.index, "asked": self.asked,
        }  # fmt: skip


def people_of(project: Project, scope: Scope, day: date) -> ibis.Table:
    """Everybody there is on a day: person_id, and one column per trait, attribute that is not personal, and score."""
    rows = scope.traits.filter(scope.traits.day == ibis.date(day))
    rows = rows.select("person_id", *[name for name in project.traits if name in rows.columns])
    if scope.customers is not None:
        known = scope.customers
        names = [
            name for name, one in project.attributes.items()
            if not one.pii and name in known.columns and name not in rows.columns
        ]  # fmt: skip
        rows = rows.left_join(known.select("person_id", *names), "person_id").drop("person_id_right")
    for name, scores in scope.predictions.items():
        if "item" in scores.columns:
            continue  # It says as much of a person as there are items.
        bands = scores.filter(scores.day == ibis.date(day)).select("person_id", **{f"{name} score": "band"})
        rows = rows.left_join(bands, "person_id").drop("person_id_right")
    return rows


def breakdowns(
    project: Project, names: Sequence[str], people: ibis.Table, members: ibis.Table, least: int = 1
) -> dict[str, list[Difference]]:
    """For each audience its differences from everybody, the clearest first, those it asks about itself last.

    `people` is people_of (or a sample of it), `members` has the columns audience and person_id. Segments that fewer
    than `least` of everybody are in are left out, so that none can point at a person.
    """
    import numpy as np
    import pyarrow.compute as pc

    ids = people.select("person_id").to_pyarrow()["person_id"].combine_chunks()
    told = members.select("audience", "person_id").to_pyarrow()
    places = pc.index_in(told["person_id"], value_set=ids)
    inside = {
        name: places.filter(pc.equal(told["audience"], name)).drop_null().to_numpy().astype("int64") for name in names
    }
    found: dict[str, list[Difference]] = {name: [] for name in names}
    asked = {name: _asked(project, name) for name in names}
    columns = [name for name in people.columns if name != "person_id"]
    for first in range(0, len(columns), AT_ONCE):
        some = columns[first : first + AT_ONCE]
        values = people.select("person_id", *some).to_pyarrow()
        if not values["person_id"].combine_chunks().equals(ids):
            values = values.take(pc.index_in(ids, value_set=values["person_id"]))
        for what in some:
            cut = _cut(values[what])
            if cut is None:
                continue
            usual = np.bincount(cut.segments, minlength=len(cut.says))
            for name, rows in inside.items():
                if not len(rows):
                    continue
                here = np.zeros(len(ids), dtype=bool)
                here[rows] = True
                counts = np.bincount(cut.segments[here[cut.rows]], minlength=len(cut.says))
                found[name] += [
                    _difference(what, says, int(counts[i]), len(rows), int(usual[i]), len(ids), asked[name])
                    for i, says in enumerate(cut.says)
                    if least <= usual[i] < len(ids)
                ]
    for differences in found.values():
        differences.sort(key=_clarity)
    return found


def _clarity(one: Difference) -> tuple[Any, ...]:
    return one.asked, abs(one.sure) < SURE, -round(abs(one.effect), 9), -one.share, one.what, one.says


def clearest(differences: Iterable[Difference], most: int) -> list[Difference]:
    """The clearest difference of each trait, attribute or score that is more than chance and not asked for anyway."""
    best: dict[str, Difference] = {}
    for one in differences:
        if not one.asked and one.says != UNKNOWN and abs(one.sure) >= SURE:
            best.setdefault(one.what, one)
    return list(best.values())[:most]


def _difference(
    what: str, says: str, people: int, size: int, of_everybody: int, total: int, asked: set[str]
) -> Difference:
    share, usual = people / size, of_everybody / total
    sure = (share - usual) / sqrt(usual * (1 - usual) / size)
    return Difference(what, says, people, share, usual, sure, what in asked)


def _asked(project: Project, name: str) -> set[str]:
    rules = list(leaves(every_rule(project, [Rule(audience=name)])))
    said = {name for rule in rules for name in (*rule.traits, rule.attribute, rule.band)}
    return {name for name in said if name} | {f"{rule.prediction} score" for rule in rules if rule.prediction}


def _cut(column: pa.ChunkedArray) -> Segments | None:
    """The segments of a column; None where its type has none (days and times)."""
    import pyarrow as pa
    import pyarrow.types as types

    kind = column.type
    if types.is_boolean(kind):
        return _by_value(column.cast(pa.string()), {"true": "yes", "false": "no"})
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return _by_quarter(column)
    if types.is_string(kind) or types.is_large_string(kind):
        return _by_value(column, {})
    if types.is_list(kind) and types.is_string(kind.value_type):
        return _by_item(column)
    return None


def _by_value(column: pa.ChunkedArray, words: dict[str, str]) -> Segments:
    import numpy as np

    coded = column.combine_chunks().dictionary_encode()
    says = [words.get(value, value) for value in coded.dictionary.to_pylist()]
    codes = coded.indices.fill_null(len(says)).to_numpy()
    return Segments([*says, UNKNOWN], np.arange(len(codes)), codes)


def _by_item(column: pa.ChunkedArray) -> Segments:
    import numpy as np
    import pyarrow.compute as pc

    lists = column.combine_chunks()
    coded = pc.list_flatten(lists).dictionary_encode()
    pairs = np.stack([pc.list_parent_indices(lists).to_numpy(), coded.indices.fill_null(0).to_numpy()])
    rows, segments = np.unique(pairs, axis=1)  # Once per person, however often it is in their list.
    return Segments(coded.dictionary.to_pylist(), rows, segments)


def _by_quarter(column: pa.ChunkedArray) -> Segments:
    import numpy as np
    import pyarrow as pa

    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    known = ~np.isnan(values)
    some = values[known & (values != 0)]
    quarters = np.quantile(some, QUARTERS).tolist() if len(some) else []
    cuts = sorted({*quarters, *([0.0] if (values == 0).any() else [])})
    codes = np.where(known, np.searchsorted(cuts, values, side="left"), len(cuts) + 1)
    return Segments([*_ranges(cuts, bool((values < 0).any())), UNKNOWN], np.arange(len(values)), codes)


def _ranges(cuts: Sequence[float], negative: bool) -> Iterator[str]:
    """What the segments between cuts are called; each ends with its cut."""
    if not cuts:
        yield "any"
        return
    yield "0" if cuts[0] == 0 and not negative else f"up to {cuts[0]:,.6g}"
    yield from (f"more than {low:,.6g}, up to {high:,.6g}" for low, high in pairwise(cuts))
    yield f"more than {cuts[-1]:,.6g}"

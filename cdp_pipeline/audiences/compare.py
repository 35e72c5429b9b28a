"""Who would enter and leave an audience under another definition of it, or from one day to another, and why.

The conditions that keep people out are counted: an entered person failed them before, one who left fails them after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.rules import Scope, gathered, holds, holds_all
from cdp_pipeline.audiences.waterfall import conditions, sentence
from cdp_pipeline.spec.audience import Rule

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project

NOT_THERE = "nobody knew them then"
GONE = "merged into somebody else, or erased"


@dataclass(frozen=True)
class Side:
    """An audience as one project defines it, on one day, as the tables of `scope` have it."""

    project: Project
    name: str
    scope: Scope
    day: date

    def rules(self) -> list[Rule]:
        return list(conditions(self.project.audiences[self.name].rules))

    def people(self) -> ibis.Table:
        """Everybody there was: person_id, whether they are `inside`, and `c0`, `c1`, …, one per condition."""
        table = gathered(self.project, [Rule(audience=self.name)], self.scope, [self.day])
        rules = self.rules()
        return table.select(
            "person_id", inside=holds_all(rules, table), **{f"c{i}": holds(rule, table) for i, rule in enumerate(rules)}
        )


@dataclass(frozen=True)
class Moved:
    """People who move one way: how many, how many of them each condition kept out, and some of them."""

    people: int
    because: tuple[tuple[str, int], ...]
    sample: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "people": self.people,
            "because": [{"condition": says, "people": n} for says, n in self.because],
            "sample": list(self.sample),
        }


@dataclass(frozen=True)
class Difference:
    """An audience before and after: how many are in both, who would enter and who would leave."""

    audience: str
    before: int
    after: int
    stay: int
    entered: Moved
    left: Moved

    def as_json(self) -> dict[str, Any]:
        return {
            "audience": self.audience, "before": self.before, "after": self.after, "stay": self.stay,
            "entered": self.entered.as_json(), "left": self.left.as_json(),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """In words, for people to read."""
        said = [f"{self.audience}: {self.before:,} people before, {self.after:,} after, {self.stay:,} stay"]
        for verb, why, moved in (("enter", "did not hold before", self.entered), ("leave", "does not hold", self.left)):
            said.append(f"{moved.people:,} {verb}")
            for says, n in moved.because:
                said.append(f"  {n:,}: {says}" + ("" if says in (NOT_THERE, GONE) else f" ({why})"))
            if moved.sample:
                said.append(f"  for example {', '.join(moved.sample)}")
        return said


def compare(before: Side, after: Side, sample: int = 5) -> Difference:
    """Compare two sides person by person. Under two days a person who was merged is somebody else."""
    was, becomes = before.people(), after.people()
    both = was.select("person_id", was="inside").outer_join(becomes.select("person_id", becomes="inside"), "person_id")
    was_in, is_in = both.was.fill_null(False), both.becomes.fill_null(False)
    [counts] = _rows(both.aggregate(before=was_in.sum(), after=is_in.sum(), stay=(was_in & is_in).sum()))
    counts = {name: value or 0 for name, value in counts.items()}
    entered = _moved(becomes, was, before.rules(), NOT_THERE, sample)
    left = _moved(was, becomes, after.rules(), GONE, sample)
    return Difference(after.name, counts["before"], counts["after"], counts["stay"], entered, left)


def _moved(inside: ibis.Table, other: ibis.Table, rules: Sequence[Rule], absent: str, sample: int) -> Moved:
    """Those who are inside on one side and not on the other, where `rules` are asked."""
    moved = (
        inside.filter(inside.inside)
        .select("person_id")
        .left_join(other.mutate(there=True), "person_id")
        .drop("person_id_right")
    )
    moved = moved.filter(~moved.inside.fill_null(False))
    counts = {f"c{i}": (~moved[f"c{i}"]).fill_null(False).sum() for i in range(len(rules))}
    [row] = _rows(moved.aggregate(people=moved.count(), absent=moved.there.isnull().sum(), **counts))
    because = [(sentence(rule), row[f"c{i}"] or 0) for i, rule in enumerate(rules)] + [(absent, row["absent"] or 0)]
    because = sorted((one for one in because if one[1]), key=lambda one: -one[1])
    some = _rows(moved.select("person_id").order_by("person_id").limit(sample)) if row["people"] else []
    return Moved(row["people"], tuple(because), tuple(one["person_id"] for one in some))


def _rows(table: ibis.Table) -> list[dict[str, Any]]:
    return table.to_pyarrow().to_pylist()

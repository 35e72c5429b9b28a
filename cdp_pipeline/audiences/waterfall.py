"""How an audience comes about: how many people each condition leaves, and whom one condition alone keeps out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.explain import words
from cdp_pipeline.audiences.rules import holds
from cdp_pipeline.spec.audience import Rule

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project


AT_ONCE = 50
"""Audiences counted in one query: the time to write one grows faster than what it counts."""


@dataclass(frozen=True)
class Step:
    """One condition: of how many people it holds, how many are left after it, and how many fail it and nothing else."""

    says: str
    holds_for: int
    left: int
    removed: int
    fail_only_this: int


@dataclass(frozen=True)
class Waterfall:
    """From everybody there is on a day to the members of an audience. `steps` in the order they are declared."""

    audience: str
    day: date
    everybody: int
    steps: tuple[Step, ...]

    @property
    def members(self) -> int:
        return self.steps[-1].left if self.steps else self.everybody

    @property
    def closest(self) -> Step | None:
        """The condition that alone keeps most people out, if any does."""
        best = max(self.steps, key=lambda step: step.fail_only_this, default=None)
        return best if best is not None and best.fail_only_this else None

    def rows(self) -> list[dict[str, Any]]:
        """The steps as a table for people, everybody first."""
        steps = [Step("everybody", self.everybody, self.everybody, 0, 0), *self.steps]
        return [
            {
                "condition": step.says,
                "people left": step.left,
                "removed": step.removed,
                "left of everybody": f"{step.left / self.everybody:.1%}" if self.everybody else "",
                "fail only this": step.fail_only_this,
                "holds for": step.holds_for,
            }
            for step in steps
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "audience": self.audience, "day": self.day, "everybody": self.everybody, "members": self.members,
            "steps": [{"condition": step.says, **{k: v for k, v in vars(step).items() if k != "says"}}
                      for step in self.steps],
        }  # fmt: skip


def waterfalls(project: Project, names: Sequence[str], table: ibis.Table, day: date) -> list[Waterfall]:
    """The waterfall of each audience, counted over what rules.gathered says of them on a day, many in one query."""
    return [
        found
        for first in range(0, len(names), AT_ONCE)
        for found in _counted(project, names[first : first + AT_ONCE], table, day)
    ]


def _counted(project: Project, names: Sequence[str], table: ibis.Table, day: date) -> list[Waterfall]:
    every = {name: list(conditions(project.audiences[name].rules)) for name in names}
    # Named columns first: a condition is asked once, however many counts need it.
    held = {f"c{n}_{i}": holds(rule, table) for n, rules in enumerate(every.values()) for i, rule in enumerate(rules)}
    table = table.select("person_id", **held)
    counts: dict[str, Any] = {"everybody": table.count()}
    for n, rules in enumerate(every.values()):
        columns = [table[f"c{n}_{i}"] for i in range(len(rules))]
        failed = reduce(lambda total, one: total + (~one).cast("int64"), columns, ibis.literal(0))
        for i, column in enumerate(columns):
            counts[f"alone_{n}_{i}"] = column.sum()
            counts[f"left_{n}_{i}"] = reduce(and_, columns[: i + 1]).sum()
            counts[f"only_{n}_{i}"] = (~column & (failed == 1)).sum()
    row = {name: value or 0 for name, value in table.aggregate(**counts).to_pyarrow().to_pylist()[0].items()}
    return [
        Waterfall(name, day, row["everybody"], tuple(_steps(n, rules, row)))
        for n, (name, rules) in enumerate(every.items())
    ]


def _steps(n: int, rules: Sequence[Rule], row: dict[str, int]) -> Iterator[Step]:
    before = row["everybody"]
    for i, rule in enumerate(rules):
        left = row[f"left_{n}_{i}"]
        yield Step(sentence(rule), row[f"alone_{n}_{i}"], left, before - left, row[f"only_{n}_{i}"])
        before = left


def misses(project: Project, name: str, table: ibis.Table, limit: int) -> list[dict[str, str]]:
    """The first people by person id who would be members but for one condition, and which it is."""
    rules = list(conditions(project.audiences[name].rules))
    held = {f"c{i}": holds(rule, table) for i, rule in enumerate(rules)}
    rows = table.select("person_id", **held)
    columns = [rows[name] for name in held]
    failed = reduce(lambda total, one: total + (~one).cast("int64"), columns, ibis.literal(0))
    fails = ibis.cases(*((~column, i) for i, column in enumerate(columns)))
    found = rows.filter(failed == 1).select("person_id", fails=fails.cast("int64"))
    found = found.order_by("person_id").limit(limit)
    return [
        {"person_id": row["person_id"], "fails only": sentence(rules[row["fails"]])}
        for row in found.to_pyarrow().to_pylist()
    ]


def conditions(rules: Sequence[Rule]) -> Iterator[Rule]:
    """The conditions that must all hold, one by one: groups of `all` are opened, and `none` asks each of its own."""
    for rule in rules:
        if rule.all is not None:
            yield from conditions(rule.all)
        elif rule.none is not None and len(rule.none) > 1:
            yield from (Rule(none=[one]) for one in rule.none)
        else:
            yield rule


def sentence(rule: Rule) -> str:
    """A condition in one line, groups with what is in them."""
    match rule.subject:
        case "all":
            return " and ".join(map(_part, rule.all or []))
        case "any":
            return " or ".join(map(_part, rule.any or []))
        case "none":
            return f"not ({' or '.join(map(_part, rule.none or []))})"
    return words(rule)


def _part(rule: Rule) -> str:
    return f"({sentence(rule)})" if rule.subject in ("all", "any") else sentence(rule)

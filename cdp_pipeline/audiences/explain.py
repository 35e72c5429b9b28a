"""Why one person is, or is not, in an audience: its conditions as a tree, with what was found of the person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.rules import Scope, column_of, gathered, holds
from cdp_pipeline.spec.audience import Rule

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project


@dataclass(frozen=True)
class Answer:
    """One condition, whether it holds, what was found (a value, a count, a band), and what it is made of."""

    says: str
    holds: bool
    found: Any = None
    inner: tuple[Answer, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self._lines(0))

    def _lines(self, depth: int) -> Iterator[str]:
        found = "" if self.found is None or isinstance(self.found, bool) else f" (it is {self.found})"
        yield f"{'  ' * depth}{'yes' if self.holds else 'no '}  {self.says}{found}"
        for answer in self.inner:
            yield from answer._lines(depth + 1)


def explain(project: Project, name: str, person_id: str, scope: Scope, day: date) -> Answer | None:
    """The answer of an audience about a person as of a day; nothing if the person was not there that day."""
    whole = Rule(audience=name)
    table = gathered(project, [whole], _of_person(scope, person_id), [day])
    every = list(_nodes(project, [whole]))
    columns = {f"holds_{number}": holds(rule, table) for number, rule in enumerate(every)}
    columns |= {f"found_{number}": table[column_of(r)] for number, r in enumerate(every) if not _inner(project, r)}
    rows = table.select(**columns).to_pyarrow().to_pylist()
    return _answer(project, whole, iter(range(len(every))), rows[0]) if rows else None


def _of_person(scope: Scope, person_id: str) -> Scope:
    def only(table: ibis.Table | None) -> ibis.Table | None:
        return None if table is None else table.filter(table.person_id == person_id)

    return replace(
        scope,
        traits=scope.traits.filter(scope.traits.person_id == person_id),
        customers=only(scope.customers),
        predictions={name: table.filter(table.person_id == person_id) for name, table in scope.predictions.items()},
        bands=only(scope.bands),
        timeline=only(scope.timeline),
        identifiers=only(scope.identifiers),
    )


def _inner(project: Project, rule: Rule) -> Sequence[Rule]:
    if rule.audience is not None:
        return project.audiences[rule.audience].rules
    return rule.all or rule.any or rule.none or ()


def _nodes(project: Project, rules: Sequence[Rule]) -> Iterator[Rule]:
    """Every rule of a tree, each before what it is made of."""
    for rule in rules:
        yield rule
        yield from _nodes(project, _inner(project, rule))


def _answer(project: Project, rule: Rule, numbers: Iterator[int], row: dict[str, Any]) -> Answer:
    number = next(numbers)
    inner = tuple(_answer(project, part, numbers, row) for part in _inner(project, rule))
    return Answer(words(rule), row[f"holds_{number}"], row.get(f"found_{number}"), inner)


OPERATORS = {
    "in": "is one of", "not_in": "is none of", "between": "is between", "starts_with": "starts with",
    "is_null": "is unknown", "not_null": "is known",
}  # fmt: skip
GROUPS = {"all": "all of these hold", "any": "at least one of these holds", "none": "none of these holds"}


def words(rule: Rule) -> str:
    """A condition in words."""
    match rule.subject:
        case "all" | "any" | "none" as group:
            return GROUPS[group]
        case "audience":
            return f"is in the audience {rule.audience}"
        case "identifier":
            return f"has an identifier of type {rule.identifier}"
        case "band":
            return f"{rule.band} is in the band {rule.is_}"
        case "event":
            times = "" if rule.count == 1 else f" at least {rule.count} times"
            when = f" where {rule.when}" if rule.when else ""
            return f"{'did' if rule.did else 'did not do'} {rule.event}{times}{when}, {rule.window}"
    what = rule.trait or rule.attribute or f"{rule.field} of {rule.prediction}"
    value = "" if rule.value is None else f" {_listed(rule.value)}"
    return f"{what} {OPERATORS.get(str(rule.op), rule.op)}{value}"


def _listed(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)

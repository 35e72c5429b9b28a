"""Rows of sources that belong to a person or to an event, followed from source to source: a marketer's entities.

Of a snapshot source the rows as they are now count; of an events source those up to the end of the day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.audiences.scope import Found, Scope, digest, given
from cdp_pipeline.identity.rows import person_of_rows
from cdp_pipeline.spec import expressions
from cdp_pipeline.traits.cells import days_table

if TYPE_CHECKING:
    from cdp_pipeline.spec.audience import Hop, Rule
    from cdp_pipeline.spec.project import Project


def related_column(rule: Rule) -> str:
    """The column that says how many rows of the first source lead to what a rule asks for."""
    return f"related_{digest(rule.related)}"


def related(project: Project, asked: Sequence[Rule], scope: Scope, days: Sequence[date]) -> Iterator[Found]:
    """How many rows each person has that lead through all hops; one question at a time."""
    for column, rule in {related_column(r): r for r in asked if r.subject == "related"}.items():
        first, *others = rule.related or []
        rows = _rows_of(first, project, scope, days)
        if others:
            rows = leading_to(rows, others, project, scope, days)
        if first.on:
            owners = given("customers", scope.customers)
            owners = owners.select("person_id", **{f"_{name}": owners[name] for name in first.on})
            rows = owners.inner_join(rows, [owners[f"_{left}"] == rows[right] for left, right in first.on.items()])
        else:
            rows = person_of_rows(rows, project.sources[first.source], given("identifiers", scope.identifiers), project)
            rows = rows.filter(rows.person_id.notnull())
        if project.sources[first.source].mode == "events":
            every = days_table("day", days)
            rows = rows.join(every, rows["_day"] <= every["day"])
        keys = [key for key in ("person_id", "day") if key in rows.columns]
        yield Found(rows.group_by(keys).aggregate(**{column: rows.count()}), {column: 0})


def leading_to(
    rows: ibis.Table, hops: Sequence[Hop], project: Project, scope: Scope, days: Sequence[date], prefix: str = ""
) -> ibis.Table:
    """The rows from which every hop finds a next one; their columns have this prefix."""
    first, *others = hops
    found = _rows_of(first, project, scope, days)
    if others:
        found = leading_to(found, others, project, scope, days)
    pairs = list(first.on.items())
    keys = found.select(**{f"_key_{number}": found[right] for number, (_, right) in enumerate(pairs)}).distinct()
    return rows.semi_join(
        keys, [rows[f"{prefix}{left}"] == keys[f"_key_{number}"] for number, (left, _) in enumerate(pairs)]
    )


def _rows_of(hop: Hop, project: Project, scope: Scope, days: Sequence[date]) -> ibis.Table:
    """The rows of a hop's source that count."""
    rows, source = given(f"sources.{hop.source}", scope.sources.get(hop.source)), project.sources[hop.source]
    rows = rows.filter(
        rows["_valid_to"].isnull() if source.mode == "snapshot" else rows["_day"] <= ibis.date(max(days))
    )
    if hop.when is not None:
        condition = expressions.compile(hop.when, {name: rows[name] for name in source.columns})
        rows = rows.filter(condition.fill_null(False))
    return rows

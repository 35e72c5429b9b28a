"""What conditions ask of events: how often, what their values come to, when first and last, all found as traits are.

Events that must lead to related rows are counted under a name of their own, so that nothing else need know of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.related import leading_to
from cdp_pipeline.audiences.scope import Scope, digest, given
from cdp_pipeline.profile.timeline import event_scope
from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.traits.as_of import observed_beside

if TYPE_CHECKING:
    from cdp_pipeline.spec.audience import Rule
    from cdp_pipeline.spec.project import Project

EVALUATIONS = {"distinct": "unique_count", "first": "days_since_first", "last": "days_since"}
"""The evaluations that find a figure, where they have another name."""


def figure_columns(rule: Rule) -> list[str]:
    """The columns an event's condition is answered from, one for each of its measures."""
    return [_column(rule, figure, of) for figure, of, _ in rule.measures]


def _column(rule: Rule, figure: str, of: str | None) -> str:
    related = [hop.model_dump_json() for hop in rule.related or []]
    return f"event_{digest(sorted(rule.event or []), rule.when, str(rule.window), rule.gap, related, figure, of)}"


def with_figures(
    table: ibis.Table, project: Project, asked: Sequence[Rule], scope: Scope, days: Sequence[date]
) -> ibis.Table:
    """The table (person_id, day and more) with every figure about events that is asked for, in one pass over them."""
    rules = [rule for rule in asked if rule.event]
    if not rules:
        return table
    told = [given("timeline", scope.timeline)]
    for rule in {_named(rule): rule for rule in rules if rule.related}.values():
        told.append(_leading(project, rule, scope, days))
    figures = {_column(r, figure, of): (figure, _trait(r, figure, of)) for r in rules for figure, of, _ in r.measures}
    traits = {column: trait for column, (_, trait) in figures.items()}
    timeline = ibis.union(*told) if len(told) > 1 else told[0]
    table = observed_beside(table, timeline, days, traits, project.zone)
    dated = {
        column: (table.day.cast("timestamp") - table[column].as_interval("D")).cast("date")
        for column, (figure, _) in figures.items()
        if figure in ("first", "last")
    }
    return table.mutate(**dated) if dated else table


def _trait(rule: Rule, figure: str, of: str | None) -> Trait:
    """The trait that finds a figure."""
    fields: dict[str, Any] = {"value": of, "gap": rule.gap}
    return Trait(
        kind="trait",
        name="asked",
        description="What a condition asks.",
        evaluation=EVALUATIONS.get(figure, figure),  # type: ignore[arg-type]
        event=[_named(rule)] if rule.related else rule.event or [],
        when=rule.when,
        window=rule.window,
        **{name: value for name, value in fields.items() if value is not None},
    )


def _named(rule: Rule) -> str:
    """The name of the events that lead to a rule's related rows."""
    return f"related_{digest(sorted(rule.event or []), rule.related)}"


def _leading(project: Project, rule: Rule, scope: Scope, days: Sequence[date]) -> ibis.Table:
    """The events that lead to the rows a rule asks for, under a name of their own."""
    timeline, hops = given("timeline", scope.timeline), rule.related or []
    columns, kept = event_scope(timeline), timeline.columns
    rows = timeline.filter(timeline.event.isin(rule.event))
    rows = rows.mutate(**{f"_{column}": columns[column] for column in hops[0].on})
    return (
        leading_to(rows, hops, project, scope, days, prefix="_").select(kept).mutate(event=ibis.literal(_named(rule)))
    )

"""How far people got in a sequence of steps: one pass over the events that matter, whatever the number of days.

Events follow each other by time; of events at the same instant, those of earlier steps come first, then those of no
step, then by event id. For every event that is a step, the latest chain of events that leads to it is remembered: the
latest begins last, its last event is nearest, and the fewest events lie between. So if any chain keeps to `within`,
the gaps and `without`, that one does, and no chain need ever be tried twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.scope import Found, Scope, digest, given
from cdp_pipeline.profile.timeline import event_scope
from cdp_pipeline.spec import expressions

if TYPE_CHECKING:
    from cdp_pipeline.spec.audience import Happening, Rule
    from cdp_pipeline.spec.project import Project


def sequence_column(rule: Rule) -> str:
    """The column that says how many of a sequence's steps a person has come to."""
    return f"sequence_{digest(rule.sequence, rule.within, rule.strict, rule.without, rule.same, str(rule.window))}"


def sequences(project: Project, asked: Sequence[Rule], scope: Scope, days: Sequence[date]) -> Iterator[Found]:
    """How many steps each person has come to at the end of each day, for every sequence that is asked for."""
    for column, rule in {sequence_column(rule): rule for rule in asked if rule.sequence}.items():
        reached = _reached(_chains(rule, given("timeline", scope.timeline), days), rule, days)
        yield Found(reached.rename({column: "steps"}), {column: 0})


def _chains(rule: Rule, timeline: ibis.Table, days: Sequence[date]) -> ibis.Table:
    """Every event of the windows in its order, with the chain that ends there, step by step.

    `start_<k>` and `began_<k>` are time and day of the first event of a chain of k events that ends with this row,
    NULL where there is none. `_day` is the row's own day.
    """
    steps = rule.sequence or []
    rows = _prepared(rule, timeline, days)
    partition = ["person_id", "anchor"] if rule.same is not None else ["person_id"]
    before = ibis.window(group_by=partition, order_by=["at", "place", "id"], rows=(-1 if rule.strict else None, -1))
    if rule.without is not None:
        broken = rows.broken.cast("int64")
        rows = rows.mutate(breaks=broken.sum().over(before).fill_null(0))
        rows = rows.mutate(breaks_after=rows.breaks + rows.broken.cast("int64"))
    rows = rows.mutate(start_1=_where(rows.step_1, rows["at"]), began_1=_where(rows.step_1, rows._day))
    for number, step in enumerate(steps[1:], start=2):
        was = rows[f"start_{number - 1}"]
        # All of these grow along the rows, so that the largest of each is that of the latest chain.
        last = {"start": was, "began": rows[f"began_{number - 1}"]}
        if step.within is not None:
            last["at"] = _where(was.notnull(), rows["at"])
        if rule.without is not None:
            last["breaks"] = _where(was.notnull(), rows.breaks_after)
        rows = rows.mutate(**{f"last_{name}": value.max().over(before) for name, value in last.items()})
        goes_on = rows[f"step_{number}"] & rows.last_start.notnull()
        for since, longest in (("last_at", step.within), ("last_start", rule.within)):
            if longest is not None:
                goes_on &= rows["at"] <= rows[since] + ibis.interval(seconds=int(longest.total_seconds()))
        if rule.without is not None:
            goes_on &= rows.last_breaks == rows.breaks
        goes_on = goes_on.fill_null(False)
        rows = rows.mutate(
            **{
                f"start_{number}": _where(goes_on, rows.last_start),
                f"began_{number}": _where(goes_on, rows.last_began),
            }
        ).drop(*[f"last_{name}" for name in last])
    return rows


def _prepared(rule: Rule, timeline: ibis.Table, days: Sequence[date]) -> ibis.Table:
    """The events that may matter: person_id, _day, at, id, place (their order at one instant), step_<k>, broken."""
    steps, scope = rule.sequence or [], event_scope(timeline)
    windows = [rule.window.span(day) for day in days]
    rows = timeline.person_id.notnull() & (timeline._day <= ibis.date(max(last for _, last in windows)))
    firsts = [first for first, _ in windows if first is not None]
    if len(firsts) == len(windows):
        rows &= timeline._day >= ibis.date(min(firsts))
    is_step = [_is(timeline, scope, step) for step in steps]
    broken = _is(timeline, scope, rule.without) if rule.without is not None else ibis.literal(False)
    place = ibis.cases(*((one, number) for number, one in enumerate(is_step)), else_=len(steps))
    anchor = {"anchor": expressions.compile(rule.same, scope)} if rule.same is not None else {}
    if not rule.strict:
        rows &= reduce(or_, [*is_step, broken])
    found = timeline.filter(rows).select(
        person_id=timeline.person_id,
        _day=timeline._day,
        at=timeline.occurred_at,
        id=timeline.event_id,
        place=place,
        broken=broken,
        **{f"step_{number}": one for number, one in enumerate(is_step, start=1)},
        **anchor,
    )
    return found.filter(found.anchor.notnull()) if anchor else found


def _is(timeline: ibis.Table, scope: dict[str, ibis.Value], what: Happening) -> Any:
    named = timeline.event.isin(sorted(what.event))
    return named if what.when is None else named & expressions.compile(what.when, scope).fill_null(False)


def _where(condition: Any, value: Any) -> Any:
    return ibis.ifelse(condition, value, ibis.null(value.type()))


def _reached(chains: ibis.Table, rule: Rule, days: Sequence[date]) -> ibis.Table:
    """The longest chain inside each day's window: person_id, day, steps. People with none have no row."""
    numbers = range(1, len(rule.sequence or []) + 1)
    latest = chains.group_by("person_id", "_day").aggregate(
        **{f"began_{number}": chains[f"began_{number}"].max() for number in numbers}
    )
    windows = []
    for day in days:
        first, last = rule.window.span(day)
        windows.append(
            {"day": ibis.date(day), "last": ibis.date(last)} | ({"first": ibis.date(first)} if first else {})
        )
    spans = ibis.array([ibis.struct(window) for window in windows]).unnest().name("span").as_table().unpack("span")
    seen = latest.join(spans, latest._day <= spans["last"])
    inside = {n: seen[f"began_{n}"] >= seen["first"] if "first" in spans.columns else seen[f"began_{n}"].notnull()
              for n in numbers}  # fmt: skip
    steps = ibis.cases(*((inside[n].fill_null(False), n) for n in reversed(numbers)), else_=0)
    return seen.group_by("person_id", "day").aggregate(steps=steps.max().cast("int64"))

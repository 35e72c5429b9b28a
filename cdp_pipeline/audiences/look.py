"""What a marketer asks of an audience: how large, who, for example. Always under the definition as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.explain import Answer, explain
from cdp_pipeline.audiences.members import SIZES, members, sizes
from cdp_pipeline.audiences.rules import Scope, leaves

if TYPE_CHECKING:
    from cdp_pipeline.lake import LakeView
    from cdp_pipeline.spec.project import Project


class NothingComputedError(LookupError):
    """Audiences are asked of traits, and none were computed for the day."""


def scope_of(lake: LakeView, project: Project) -> Scope:
    """The tables that conditions are asked of, as far as they exist."""

    def table(name: str) -> ibis.Table | None:
        return lake.table(name) if lake.exists(name) else None

    traits = table("traits.daily")
    if traits is None:
        raise NothingComputedError("no traits were computed yet: cdp run")
    scores: Mapping[str, ibis.Table | None] = {name: table(f"predictions.{name}") for name in project.predictions}
    return Scope(
        traits=traits,
        customers=table("profile.customers"),
        predictions={name: found for name, found in scores.items() if found is not None},
        bands=table("traits.bands"),
        timeline=table("profile.timeline"),
        identifiers=table("identity.identifiers"),
        groups=table("identity.group_members"),
        sources={name: found for name in _sources_asked(project) if (found := table(f"sources.{name}")) is not None},
    )


def _sources_asked(project: Project) -> list[str]:
    """The sources that conditions follow rows through."""
    rules = [rule for audience in project.audiences.values() for rule in audience.rules]
    rules += [rule for trigger in project.triggers.values() for rule in trigger.unless]
    return sorted({hop.source for rule in leaves(rules) for hop in rule.related or []})


def listed(lake: LakeView, project: Project) -> list[dict[str, Any]]:
    """Every declared audience with its newest size; nothing where it was not computed yet."""
    told = lake.read(SIZES)
    newest = told.semi_join(told.group_by("audience").agg(day=told.day.max()), ["audience", "day"])
    found = {row["audience"]: row for row in newest.to_pyarrow().to_pylist()}
    return [
        {
            "audience": name,
            **{column: found.get(name, {}).get(column) for column in SIZES.columns if column != "audience"},
        }
        for name in project.audiences
    ]


def size_now(lake: LakeView, project: Project, name: str, day: date | None) -> dict[str, Any]:
    """Size and reach, computed now from the traits of the day (default: the newest)."""
    scope = scope_of(lake, project)
    day = _day(scope, day)
    assert scope.identifiers is not None
    rows = sizes(members(project, [name], scope, [day]), scope.identifiers, [name], [day])
    return rows.to_pyarrow().to_pylist()[0]


def preview(lake: LakeView, project: Project, name: str, day: date | None, limit: int) -> list[dict[str, Any]]:
    """The first members by person id with their profile."""
    scope = scope_of(lake, project)
    rows = members(project, [name], scope, [_day(scope, day)]).select("person_id")
    if scope.customers is not None:
        rows = rows.left_join(scope.customers, "person_id").drop("person_id_right")
    return rows.order_by("person_id").limit(limit).to_pyarrow().to_pylist()


def explain_now(lake: LakeView, project: Project, name: str, person_id: str, day: date | None) -> Answer:
    """Why a person is in the audience or not, from the traits of the day (default: the newest)."""
    scope = scope_of(lake, project)
    day = _day(scope, day)
    answer = explain(project, name, person_id, scope, day)
    if answer is None:
        raise NothingComputedError(f"{person_id} has no traits on {day}: first seen later, or not computed since")
    return answer


def _day(scope: Scope, day: date | None) -> date:
    days = scope.traits.day
    found = days.max().to_pyarrow().as_py() if day is None else day
    if found is None or scope.traits.filter(days == ibis.date(found)).count().to_pyarrow().as_py() == 0:
        raise NothingComputedError(f"no traits were computed for {found}: cdp run --day {found}")
    return found

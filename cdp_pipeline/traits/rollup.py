"""traits.<group>: what the people of a household or an account come to, on the newest day and with groups below.

Who is in a group is identity's business (groups.py); a person's own figures are daily.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.profile.customers import customers_table
from cdp_pipeline.traits.daily import trait_types
from cdp_pipeline.traits.evaluations import published_type

if TYPE_CHECKING:
    from cdp_pipeline.spec.group import Group, RollUp
    from cdp_pipeline.spec.project import Project


def rollup_table(group: Group, project: Project) -> Table:
    """traits.<group> as the group's figures make it."""
    known = {"trait": trait_types(project), "attribute": customers_table(project).schema}
    figures = {figure.name: Column(_type(figure, known), figure.description) for figure in group.rollup}
    return Table(
        name=f"traits.{group.name}",
        description=f"{group.description} What the people in each come to, as of the newest day.",
        columns={
            "group_id": Column("string", f"The {group.type}."),
            "name": Column("string", "What it is called, where it has a name."),
            "day": Column("date", "The day whose traits were counted; attributes are those of now."),
            "people": Column("int64", "How many people are in it, those of groups below it left out."),
            **figures,
        },
        key=("group_id",),
        derived=True,
    )


def rollup(
    group: Group,
    groups: ibis.Table,
    members: ibis.Table,
    lineage: ibis.Table,
    daily: ibis.Table,
    customers: ibis.Table,
    day: date,
    project: Project,
) -> ibis.Table:
    """One row per living group of this kind, also one with nobody in it.

    `groups` and `members` are identity's tables, `lineage` is hierarchy.lineage() of the former, `daily` traits.daily,
    `customers` profile.customers. A person is in one group, and a group once below each above it, so that nobody is
    counted twice. Money is summed exactly; an average is a number. Where nobody has a value there is none.
    """
    living = groups.filter((groups["kind"] == group.name) & (groups["status"] != "gone"))
    inside = members.filter(members["kind"] == group.name).select("group_id", "person_id")
    valued = _valued(group, inside, daily.filter(daily["day"] == ibis.date(day)), customers)
    reach = {
        "members": valued.rename(whole_id="group_id"),
        "hierarchy": valued.join(lineage, "group_id").drop("group_id").rename(whole_id="above_id"),
    }
    figures = [figure for figure in group.rollup if figure.over == "members"]
    own = _figures(reach["members"], figures, people=True)
    joined = living.left_join(own, living["group_id"] == own["whole_id"]).drop("whole_id")
    wide = [figure for figure in group.rollup if figure.over == "hierarchy"]
    if wide:
        whole = _figures(reach["hierarchy"], wide, people=False)
        joined = joined.left_join(whole, joined["group_id"] == whole["whole_id"])
    schema = rollup_table(group, project).schema
    empty = {figure.name for figure in group.rollup if figure.evaluation == "count"} | {"people"}
    return joined.select(
        group_id="group_id",
        name="name",
        day=ibis.date(day),
        **{
            name: (joined[name].fill_null(0) if name in empty else joined[name]).cast(schema[name])
            for name in ["people", *(figure.name for figure in group.rollup)]
        },
    )


def _valued(group: Group, inside: ibis.Table, daily: ibis.Table, customers: ibis.Table) -> ibis.Table:
    """The members with the values the figures ask for, as `trait_<name>` and `attribute_<name>`."""
    for what, table in (("trait", daily), ("attribute", customers)):
        names = sorted({str(getattr(figure, what)) for figure in group.rollup if getattr(figure, what) is not None})
        if names:
            values = table.select(**{f"{what}_of": "person_id"}, **{f"{what}_{name}": table[name] for name in names})
            inside = inside.left_join(values, inside["person_id"] == values[f"{what}_of"]).drop(f"{what}_of")
    return inside


def _figures(rows: ibis.Table, figures: list[RollUp], people: bool) -> ibis.Table:
    found = {figure.name: _figure(rows, figure) for figure in figures}
    return rows.group_by("whole_id").agg(**({"people": rows.count()} if people else {}), **found)


def _figure(rows: ibis.Table, figure: RollUp) -> ibis.Value:
    if figure.trait is None and figure.attribute is None:
        return rows.count()
    value = rows[f"trait_{figure.trait}" if figure.trait is not None else f"attribute_{figure.attribute}"]
    if figure.least is not None:
        return _yes(value) >= figure.least
    return _EVALUATIONS[figure.evaluation](value)


def _yes(value: ibis.Value) -> ibis.Value:
    """How many of the known answers are yes; NULL where nobody's is known."""
    return value.cast("int64").sum()


def _count(value: ibis.Value) -> ibis.Value:
    return value.ifelse(1, 0).sum() if value.type().is_boolean() else value.count()


_EVALUATIONS: dict[str, Callable[[ibis.Value], ibis.Value]] = {
    "sum": lambda value: value.sum(),
    "average": lambda value: value.sum().cast("float64") / value.count(),
    "min": lambda value: value.min(),
    "max": lambda value: value.max(),
    "any": lambda value: _yes(value) > 0,
    "all": lambda value: _yes(value) == value.count(),
    "none": lambda value: _yes(value) == 0,
    "share": lambda value: _yes(value).cast("float64") / value.count(),
    "count": _count,
}


_TYPES = {
    "count": "int64",
    **dict.fromkeys(("average", "share"), "float64"),
    **dict.fromkeys(("any", "all", "none", "at_least"), "boolean"),
}


def _type(figure: RollUp, known: Mapping[str, Mapping[str, Any]]) -> str:
    if figure.evaluation in _TYPES:
        return _TYPES[figure.evaluation]
    type_ = known["trait"][figure.trait] if figure.trait is not None else known["attribute"][str(figure.attribute)]
    return str(published_type(ibis.dtype(type_)))

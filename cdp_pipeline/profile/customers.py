"""One profile per person: for every attribute the value that wins, and where it comes from.

Which rows are whose is decided in identity/; which value wins is declared per attribute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ibis
import ibis.expr.datatypes as dt

from cdp_pipeline.identity.rows import person_of_rows
from cdp_pipeline.identity.seen import happened_at
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.source import IBIS_TYPES

if TYPE_CHECKING:
    from cdp_pipeline.spec.attribute import Attribute
    from cdp_pipeline.spec.project import Project

PROVENANCE = Table(
    name="profile.provenance",
    description="Where every value of every profile comes from, and by which rule it won.",
    columns={
        "person_id": Column("string", "The person."),
        "attribute": Column("string", "The attribute."),
        "value": Column("string", "The value that won, as text; of a union one value per line.", pii=True),
        "source": Column("string", "The source it comes from; of a sum or union, the latest that gave to it."),
        "record_id": Column("string", "The row it comes from."),
        "rule": Column("string", "The rule by which it won."),
        "at": Column("timestamp(6)", "When that row says it was so (UTC)."),
    },
    key=("person_id", "attribute"),
    kinds=frozenset({"ibis"}),
)
_BETWEEN = "\n"  # between the values of a union


def customers_table(project: Project) -> Table:
    """`profile.customers`: person_id, then every declared attribute with the type of its value."""
    columns = {"person_id": Column("string", "The person's stable id.")}
    for attribute in project.attributes.values():
        columns[attribute.name] = Column(attribute_type(attribute, project), attribute.description, attribute.pii)
    return Table(
        name="profile.customers",
        description="One row per person, known or anonymous, with the best value of every attribute.",
        columns=columns,
        key=("person_id",),
        kinds=frozenset({"ibis"}),
    )


def attribute_type(attribute: Attribute, project: Project) -> str:
    """The Ibis type of an attribute's column: that of its value; a sum is no narrower, a union is an array of texts."""
    if attribute.survivorship == "union":
        return "array<string>"
    return str(_value_type(attribute, project))


def _value_type(attribute: Attribute, project: Project) -> dt.DataType:
    types = {ibis.dtype(expressions.check(one.column, _column_types(project, one.source))) for one in attribute.sources}
    if len(types) == 1:
        return types.pop()
    if all(type_.is_numeric() and not type_.is_boolean() for type_ in types):
        return ibis.dtype("float64") if any(t.is_floating() for t in types) else ibis.dtype("decimal(18, 4)")
    return ibis.dtype("timestamp(6)") if all(type_.is_temporal() for type_ in types) else ibis.dtype("string")


def _column_types(project: Project, source: str) -> dict[str, str]:
    return {name: IBIS_TYPES[column.type] for name, column in project.sources[source].columns.items()}


def provenance(sources: Mapping[str, ibis.Table], identifiers: ibis.Table, project: Project) -> ibis.Table:
    """The winning value per person and attribute: person_id, attribute, value, source, record_id, rule, at.

    A snapshot source speaks with its current rows; only `first` also hears the rows that were.
    """
    owned = {
        name: person_of_rows(rows, project.sources[name], identifiers, project).filter(ibis._["person_id"].notnull())
        for name, rows in sources.items()
        if project.sources[name].identifier_columns
    }
    winners = []
    for attribute in project.attributes.values():
        values = _values(attribute, owned, project)
        if values is not None:
            winners.append(_winners(values, attribute))
    return ibis.union(*winners) if winners else ibis.memtable([], schema=PROVENANCE.schema)


def _values(attribute: Attribute, owned: Mapping[str, ibis.Table], project: Project) -> ibis.Table | None:
    """Every value the sources give: person_id, value, trust (0 is the most trusted), source, record_id, at, version."""
    type_ = _value_type(attribute, project)
    parts = []
    for trust, one in enumerate(attribute.sources):
        if one.source not in owned:
            continue
        rows, source = owned[one.source], project.sources[one.source]
        if source.mode == "snapshot" and attribute.survivorship != "first":
            rows = rows.filter(rows["_valid_to"].isnull())
        value = expressions.compile(one.column, {name: rows[name] for name in source.columns})
        parts.append(
            rows.select(
                person_id=rows["person_id"],
                value=value.cast(type_),
                trust=ibis.literal(trust, type="int32"),
                source=ibis.literal(one.source),
                record_id=rows["_record_id"],
                at=happened_at(rows),
                version=rows["_valid_from"] if source.mode == "snapshot" else ibis.null("timestamp(6)"),
            ).filter(ibis._["value"].notnull())
        )
    return ibis.union(*parts) if parts else None


def _winners(values: ibis.Table, attribute: Attribute) -> ibis.Table:
    rule, value = attribute.survivorship, ibis._["value"]
    if rule == "most_frequent":
        values = values.mutate(times=ibis._.count().over(group_by=["person_id", "value"]))
    latest = [ibis.desc("at"), ibis.asc("trust")]
    leading = {
        "first": [ibis.asc("at"), ibis.asc("trust")],
        "source_priority": [ibis.asc("trust"), ibis.desc("at")],
        "most_frequent": [ibis.desc("times"), *latest],
        "longest": [ibis.desc(value.cast("string").length()), *latest],
        "min": [ibis.asc("value"), *latest],
        "max": [ibis.desc("value"), *latest],
        "any": [ibis.desc("value"), *latest],
        "all": [ibis.asc("value"), *latest],
        "most_restrictive": [ibis.asc("value"), *latest],
    }.get(rule, latest)
    # The record and its version settle every tie, so that no two engines or runs choose differently.
    version = ibis.asc("version") if rule == "first" else ibis.desc("version")
    place = ibis.row_number().over(group_by="person_id", order_by=[*leading, ibis.asc("record_id"), version])
    first = values.mutate(place=place).filter(ibis._["place"] == 0)
    text = first["value"].cast("string")
    if rule in ("sum", "union"):
        totals = _totals(values, rule)
        first = first.left_join(totals, "person_id")
        text = first["total"]
    return first.select(
        person_id="person_id",
        attribute=ibis.literal(attribute.name),
        value=text,
        source="source",
        record_id="record_id",
        rule=ibis.literal(rule),
        at="at",
    )


def _totals(values: ibis.Table, rule: str) -> ibis.Table:
    if rule == "sum":
        total = values["value"].sum().cast(values["value"].type()).cast("string")
        return values.group_by("person_id").agg(total=total)
    distinct = values.select("person_id", value=values["value"].cast("string")).distinct()
    return (
        distinct.group_by("person_id")
        .agg(all=distinct["value"].collect())
        .select("person_id", total=lambda person: person["all"].sort().join(_BETWEEN))
    )


def customers(provenance: ibis.Table, people: ibis.Table, project: Project) -> ibis.Table:
    """One row per living person, known or anonymous, whether or not any attribute is known."""
    living = people.filter(people["merged_into"].isnull() & (people["identifiers"] > 0)).select("person_id")
    names = list(project.attributes)
    if not names:
        return living
    wide = provenance.group_by("person_id").agg(
        **{name: provenance["value"].max(where=provenance["attribute"] == name) for name in names}
    )
    schema = customers_table(project).schema
    joined = living.left_join(wide, "person_id")
    return joined.select("person_id", **{name: _typed(joined[name], schema[name]) for name in names})


def _typed(text: ibis.Value, type_: dt.DataType) -> ibis.Value:
    return text.split(_BETWEEN) if type_.is_array() else text.cast(type_)

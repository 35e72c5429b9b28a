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

    A snapshot source speaks with its current rows; only `first` also hears the rows that were. All attributes are read
    in one pass over a source (one more where some are counted, and where some are added up), and win in one window.
    """
    owned = {
        name: person_of_rows(rows, project.sources[name], identifiers, project).filter(ibis._["person_id"].notnull())
        for name, rows in sources.items()
        if project.sources[name].identifier_columns
    }
    by_way: dict[str, list[Attribute]] = {}
    for attribute in project.attributes.values():
        apart = attribute.survivorship in ("most_frequent", "sum", "union")
        by_way.setdefault(attribute.survivorship if apart else "compared", []).append(attribute)
    winners = []
    for way, attributes in by_way.items():
        values = _values(attributes, owned, project)
        if values is not None and way == "most_frequent":
            times = ibis._.count().over(group_by=["person_id", "attribute", "value"])
            winners.append(_winners(values.mutate(whole=times.cast("int64"))))
        elif values is not None and way in ("sum", "union"):
            latest = _winners(values.mutate(**{key: ibis.null(type_) for key, type_ in _KEYS.items()})).drop("value")
            winners.append(latest.join(_totals(values, way), ["person_id", "attribute"]))
        elif values is not None:
            winners.append(_winners(values))
    columns = list(PROVENANCE.columns)
    return ibis.union(*(rows.select(columns) for rows in winners)) if winners else _none()


def _none() -> ibis.Table:
    return ibis.memtable([], schema=PROVENANCE.schema)


# What values are compared by before their time: greater wins, but of `low` the smaller. All but one are null.
_KEYS = {"whole": "int64", "exact": "decimal(18, 4)", "real": "float64", "high": "string", "low": "string"}


def _values(attributes: list[Attribute], owned: Mapping[str, ibis.Table], project: Project) -> ibis.Table | None:
    """Every value the sources give for these attributes, one row each, with the keys it is compared by."""
    parts = []
    for name, rows in owned.items():
        source = project.sources[name]
        declared = {column: rows[column] for column in source.columns}
        version = (rows["_valid_from"] if source.mode == "snapshot" else ibis.null()).cast("timestamp(6)")
        told = []
        for attribute in attributes:
            for trust, one in enumerate(attribute.sources):
                if one.source != name:
                    continue
                value = expressions.compile(one.column, declared).cast(_value_type(attribute, project))
                if source.mode == "snapshot" and attribute.survivorship != "first":
                    value = rows["_valid_to"].isnull().ifelse(value, ibis.null(value.type()))
                keys = _keys(attribute.survivorship, value, trust, happened_at(rows), version)
                fields = {
                    "attribute": ibis.literal(attribute.name),
                    "rule": ibis.literal(attribute.survivorship),
                    "trust": ibis.literal(trust, type="int32"),
                    "value": value.cast("string"),
                }
                fields |= {key: keys.get(key, ibis.null()).cast(type_) for key, type_ in _KEYS.items()}
                told.append(ibis.struct(fields))
        if told:
            each = rows.select(
                person_id=rows["person_id"],
                source=ibis.literal(name),
                record_id=rows["_record_id"],
                at=happened_at(rows),
                version=version,
                told=ibis.array(told).unnest(),
            )
            parts.append(each.unpack("told").filter(ibis._["value"].notnull()))
    return ibis.union(*parts) if parts else None


def _keys(rule: str, value: ibis.Value, trust: int, at: ibis.Value, version: ibis.Value) -> dict[str, ibis.Value]:
    """What a value is compared by under a rule; times compare as text, which sorts as they do."""
    if rule == "source_priority":
        return {"whole": ibis.literal(-trust)}
    if rule == "longest":
        return {"whole": value.cast("string").length()}
    if rule == "first":
        return {"low": at.cast("string") + " " + version.cast("string").fill_null("")}
    if rule in ("most_recent", "most_frequent", "union"):
        return {}
    smaller = rule in ("min", "all", "most_restrictive")
    type_ = value.type()
    if type_.is_boolean() or type_.is_integer():
        key, number = "whole", value.cast("int64")
    elif type_.is_decimal():
        key, number = "exact", value
    elif type_.is_floating():
        key, number = "real", value
    else:
        return {"low" if smaller else "high": value.cast("string")}
    return {key: -number if smaller else number}


def _winners(values: ibis.Table) -> ibis.Table:
    """The best value per person and attribute; the record and its version settle every tie, on every engine alike."""
    keys = [ibis.asc(key) if key == "low" else ibis.desc(key) for key in _KEYS]
    ties = [ibis.desc("at"), ibis.asc("trust"), ibis.asc("record_id"), ibis.desc("version")]
    place = ibis.row_number().over(group_by=["person_id", "attribute"], order_by=[*keys, *ties])
    return values.mutate(place=place).filter(ibis._["place"] == 0)


def _totals(values: ibis.Table, rule: str) -> ibis.Table:
    person = ["person_id", "attribute"]
    if rule == "sum":
        sums = values.group_by(person).agg(**{key: values[key].sum() for key in ("whole", "exact", "real")})
        text = ibis.coalesce(*(sums[key].cast(_KEYS[key]).cast("string") for key in ("whole", "exact", "real")))
        return sums.select(*person, value=text)
    all_ = values.select(*person, "value").distinct()
    lists = all_.group_by(person).agg(all=all_["value"].collect())
    return lists.select(*person, value=lists["all"].sort().join(_BETWEEN))


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

"""One profile per person: for every attribute the value that wins, and where it comes from.

Which rows are whose is decided in identity/; which value wins is declared per attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        derived=True,
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

    Where several rows say the winning value, `first`, `min`, `all` and `most_restrictive` name the earliest, the
    other rules the latest; then the more trusted source. A snapshot source speaks with its current rows; only `first`
    also hears the rows that were.
    """
    owned = {
        name: person_of_rows(rows, project.sources[name], identifiers, project).filter(ibis._["person_id"].notnull())
        for name, rows in sources.items()
        if project.sources[name].identifier_columns
    }
    by_way: dict[Callable[[_Said], ibis.Table], list[Attribute]] = {}
    for attribute in project.attributes.values():
        by_way.setdefault(_WAYS.get(attribute.survivorship, _greatest), []).append(attribute)
    said = [(way, _said(attributes, owned, project)) for way, attributes in by_way.items()]
    winners = [way(statements) for way, statements in said if statements]
    return ibis.union(*winners) if winners else ibis.memtable([], schema=PROVENANCE.schema)


# What a source says of people: its rows, and for every attribute a struct of what a row says of it.
_Said = list[tuple[ibis.Table, list[ibis.Value]]]
# A struct compares field by field: first these, of which an attribute uses at most one, then time, trust and record.
_KEYS = {"whole": "int64", "exact": "decimal(18, 4)", "real": "float64", "text": "string"}
_LATER = ("at", "trust", "record_id", "version", "source", "rule")
_LEAST = ("first", "min", "all", "most_restrictive")


def _said(attributes: list[Attribute], owned: Mapping[str, ibis.Table], project: Project) -> _Said:
    found: _Said = []
    for name, rows in owned.items():
        source = project.sources[name]
        declared = {column: rows[column] for column in source.columns}
        statements = []
        for attribute in attributes:
            rule, type_ = attribute.survivorship, _value_type(attribute, project)
            for place, one in enumerate(attribute.sources):
                if one.source != name:
                    continue
                value = expressions.compile(one.column, declared).cast(type_)
                if source.mode == "snapshot" and rule != "first":
                    value = rows["_valid_to"].isnull().ifelse(value, ibis.null(type_))
                at = happened_at(rows).cast("timestamp(6)")
                keys = _keys(rule, value, place)
                fields = {key: keys.get(key, ibis.literal(0)).cast(type_) for key, type_ in _KEYS.items()} | {
                    "at": at,
                    "trust": ibis.literal(place if rule in _LEAST else -place, type="int64"),
                    "record_id": rows["_record_id"],
                    "version": rows["_valid_from"].cast("timestamp(6)") if source.mode == "snapshot" else at,
                    "source": ibis.literal(name),
                    "rule": ibis.literal(rule),
                    "type": ibis.literal(next(iter(keys), "")),
                    "attribute": ibis.literal(attribute.name),
                    "value": value.cast("string"),
                }
                statements.append(ibis.struct(fields))
        if statements:
            found.append((rows, statements))
    return found


def _keys(rule: str, value: ibis.Value, place: int) -> dict[str, ibis.Value]:
    """What a value is compared by under a rule, before its time."""
    if rule == "source_priority":
        return {"whole": ibis.literal(-place)}
    if rule == "longest":
        return {"whole": value.cast("string").length()}
    if rule not in ("min", "max", "any", "all", "most_restrictive", "sum"):
        return {}
    type_ = value.type()
    if type_.is_boolean() or type_.is_integer():
        return {"whole": value}
    if type_.is_decimal() or type_.is_floating():
        return {"exact" if type_.is_decimal() else "real": value}
    return {"text": value}  # dates and times too: written out, they sort as they do


def _long(said: _Said, best: Callable[[ibis.Value, ibis.Value], ibis.Value] | None = None) -> ibis.Table:
    """One row per statement that gives a value: person_id, attribute, told. With `best`, one per person and source."""
    parts = []
    for rows, statements in said:
        if best is not None:
            names = [f"told_{place}" for place in range(len(statements))]
            # Named first: Sail names an aggregate by the fields of its struct, and all structs have the same.
            rows = rows.select("person_id", **dict(zip(names, statements, strict=True)))
            bests = {name: best(rows[name], rows[name]["value"].notnull()) for name in names}
            rows = rows.group_by("person_id").agg(**bests)
            statements = [rows[name] for name in names]
        each = rows.select("person_id", told=ibis.array(statements).unnest())
        parts.append(each.filter(each["told"]["value"].notnull()))
    union = ibis.union(*parts)
    return union.select("person_id", attribute=union["told"]["attribute"], told=union["told"])


def _greatest(said: _Said) -> ibis.Table:
    said_best = _long(said, lambda told, present: told.max(where=present))
    return _winner(said_best.group_by("person_id", "attribute").agg(told=said_best["told"].max()))


def _least(said: _Said) -> ibis.Table:
    said_best = _long(said, lambda told, present: told.min(where=present))
    return _winner(said_best.group_by("person_id", "attribute").agg(told=said_best["told"].min()))


def _most_frequent(said: _Said) -> ibis.Table:
    each = _long(said)
    each = each.mutate(value=each["told"]["value"])
    values = each.group_by("person_id", "attribute", "value").agg(times=each.count(), told=each["told"].max())
    most = values.group_by("person_id", "attribute").agg(
        most=ibis.struct({"times": values["times"], "told": values["told"]}).max()
    )
    return _winner(most.select("person_id", "attribute", told=most["most"]["told"]))


def _sum(said: _Said) -> ibis.Table:
    each = _long(said)
    told = each["told"]
    sums = each.group_by("person_id", "attribute").agg(
        told=_latest(told), type=told["type"].max(), **{key: told[key].sum() for key in ("whole", "exact", "real")}
    )
    texts = {key: sums[key].cast(_KEYS[key]).cast("string") for key in ("whole", "exact", "real")}
    value = ibis.cases(*((sums["type"] == key, text) for key, text in texts.items()))
    return _winner(sums.select("person_id", "attribute", "told", value=value))


def _union(said: _Said) -> ibis.Table:
    each = _long(said)
    lists = each.group_by("person_id", "attribute").agg(
        told=_latest(each["told"]), all=each["told"]["value"].collect(distinct=True)
    )
    return _winner(lists.select("person_id", "attribute", "told", value=lists["all"].sort().join(_BETWEEN)))


def _latest(told: ibis.Value) -> ibis.Value:
    return ibis.struct({name: told[name] for name in _LATER}).max()


def _winner(won: ibis.Table) -> ibis.Table:
    told = won["told"]
    return won.select(
        "person_id",
        "attribute",
        value=won["value"] if "value" in won.columns else told["value"],
        source=told["source"],
        record_id=told["record_id"],
        rule=told["rule"],
        at=told["at"],
    )


_WAYS: dict[str, Callable[[_Said], ibis.Table]] = {
    **dict.fromkeys(_LEAST, _least),
    "most_frequent": _most_frequent,
    "sum": _sum,
    "union": _union,
}


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

"""One profile per person: for every attribute the value that wins, and where it comes from.

Which rows are whose is decided in identity/; which value wins is declared per attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import ibis
import ibis.expr.datatypes as dt

from cdp_pipeline.identity.rows import person_of_rows
from cdp_pipeline.identity.seen import happened_at
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.attribute import COMBINING
from cdp_pipeline.spec.types import attribute_type, value_type

if TYPE_CHECKING:
    from cdp_pipeline.spec.attribute import Attribute
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.source import Source

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
        "values_seen": Column(
            "int64",
            "How many different values sources give, whatever their case: 1 where all agree; "
            f"empty for {', '.join(COMBINING)}, which combine them.",
        ),
    },
    key=("person_id", "attribute"),
)
_BETWEEN = "\n"  # between the values of a union


def customers_table(project: Project) -> Table:
    """`profile.customers`: person_id, then every declared attribute with the type of its value."""
    columns = {"person_id": Column("string", "The person's stable id.")}
    for attribute in project.attributes.values():
        columns[attribute.name] = Column(_type(attribute, project), attribute.description, attribute.pii)
    return Table(
        name="profile.customers",
        description="One row per person, known or anonymous, with the best value of every attribute.",
        columns=columns,
        key=("person_id",),
        derived=True,
    )


def _type(attribute: Attribute, project: Project) -> str:
    type_ = attribute_type(attribute, project.sources)
    assert type_ is not None, attribute.name  # cdp check lets no other project through
    return type_


def provenance(
    sources: Mapping[str, ibis.Table], identifiers: ibis.Table, project: Project, now: datetime
) -> ibis.Table:
    """The winning value per person and attribute, where it comes from, and how many values there were to choose from.

    Where several rows say the winning value, `first`, `min`, `all` and `most_restrictive` name the earliest, the
    other rules the latest; then the more trusted source. A snapshot source speaks with its current rows; only `first`
    also hears the rows that were. `most_trusted_and_fresh` takes the most trusted of the values that are not older
    than `fresh_for` at `now`, and where all are older, the most recent. `most_restrictive` hears, of each log and each
    identity in it, the latest word, so that who withdrew may agree again; between identities and sources one no
    outweighs every yes. What nobody said stays empty: it is no consent.
    """
    owned = {
        name: _subjects(
            person_of_rows(rows, project.sources[name], identifiers, project), project.sources[name], project
        )
        for name, rows in sources.items()
        if project.sources[name].identifier_columns
    }
    by_way: dict[Callable[[_Said], ibis.Table], list[Attribute]] = {}
    for attribute in project.attributes.values():
        by_way.setdefault(_WAYS.get(attribute.survivorship, _greatest), []).append(attribute)
    moment = now.astimezone(UTC).replace(tzinfo=None)
    said = [(way, _said(attributes, owned, project, moment)) for way, attributes in by_way.items()]
    winners = [way(statements) for way, statements in said if statements]
    return ibis.union(*winners) if winners else ibis.memtable([], schema=PROVENANCE.schema)


def _subjects(rows: ibis.Table, source: Source, project: Project) -> ibis.Table:
    """The rows that are somebody's, with whom their source means: in a log the strongest identifier on the row."""
    if source.mode == "snapshot":
        subject = rows["_record_id"]
    else:
        columns = sorted(source.identifier_columns.items(), key=lambda column: -project.identifiers[column[1]].priority)
        subject = ibis.coalesce(*(rows[column].cast("string") for column, _ in columns))
    return rows.mutate(_subject=subject).filter(rows["person_id"].notnull())


def disagreements(provenance: ibis.Table) -> ibis.Table:
    """Per attribute whose rule chooses: of how many people sources give a value, and of how many they disagree."""
    chosen = provenance.filter(provenance["values_seen"].notnull())
    return chosen.group_by("attribute").agg(people=chosen.count(), disagree=(chosen["values_seen"] > 1).sum())


def over_bounds(provenance: ibis.Table, project: Project) -> dict[str, tuple[int, int]]:
    """Per attribute with `at_most`: of how many people sources give a value, and of how many more than that many."""
    bounds = {one.name: one.at_most for one in project.attributes.values() if one.at_most is not None}
    if not bounds:
        return {}
    names = provenance["attribute"]
    bound = ibis.cases(*((names == name, at_most) for name, at_most in bounds.items()))
    counts = provenance.group_by("attribute").agg(
        people=provenance.count(), over=(provenance["values_seen"] > bound).sum()
    )
    found = {row["attribute"]: (row["people"], int(row["over"] or 0)) for row in counts.to_pyarrow().to_pylist()}
    return {name: found.get(name, (0, 0)) for name in bounds}


# What a source says of people: its rows, and for every attribute a struct of what a row says of it.
_Said = list[tuple[ibis.Table, list[ibis.Value]]]
# A struct compares field by field: first these, of which an attribute uses at most one, then time, trust and record.
_KEYS = {"whole": "int64", "exact": "decimal(18, 4)", "real": "float64", "text": "string"}
_LATER = ("at", "trust", "record_id", "version", "source", "rule")
_LEAST = ("first", "min", "all", "most_restrictive")


def _said(attributes: list[Attribute], owned: Mapping[str, ibis.Table], project: Project, now: datetime) -> _Said:
    found: _Said = []
    for name, rows in owned.items():
        source = project.sources[name]
        declared = {column: rows[column] for column in source.columns}
        statements = []
        for attribute in attributes:
            rule, type_ = attribute.survivorship, ibis.dtype(value_type(attribute, project.sources))
            for place, one in enumerate(attribute.sources):
                if one.source != name:
                    continue
                value = expressions.compile(one.column, declared).cast(type_)
                if source.mode == "snapshot" and rule != "first":
                    value = rows["_valid_to"].isnull().ifelse(value, ibis.null(type_))
                at = happened_at(rows).cast("timestamp(6)")
                keys = _keys(attribute, value, at, place, now)
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


def _keys(attribute: Attribute, value: ibis.Value, at: ibis.Value, place: int, now: datetime) -> dict[str, ibis.Value]:
    """What a value is compared by under its rule, before its time."""
    rule = attribute.survivorship
    if rule == "source_priority":
        return {"whole": ibis.literal(-place)}
    if rule == "most_trusted_and_fresh":
        assert attribute.fresh_for is not None
        fresh = at >= ibis.literal(now - attribute.fresh_for, type="timestamp(6)")
        return {"whole": fresh.ifelse(-place, -len(attribute.sources))}
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


def _long(said: _Said) -> ibis.Table:
    """One row per statement that gives a value: person_id, _subject, attribute, told."""
    parts = []
    for rows, statements in said:
        each = rows.select("person_id", "_subject", told=ibis.array(statements).unnest())
        parts.append(each.filter(each["told"]["value"].notnull()))
    union = ibis.union(*parts)
    return union.select("person_id", "_subject", attribute=union["told"]["attribute"], told=union["told"])


def _bests(said: _Said, best: Callable[[ibis.Value, ibis.Value], ibis.Value]) -> ibis.Table:
    """Each source's best statement on a person, once per different value it gave: person_id, attribute, told, seen."""
    parts = []
    for rows, statements in said:
        names = [f"told_{place}" for place in range(len(statements))]
        # Named first: Sail names an aggregate by the fields of its struct, and all structs have the same.
        rows = rows.select("person_id", **dict(zip(names, statements, strict=True)))
        bests = {name: best(rows[name], rows[name]["value"].notnull()) for name in names}
        seen = {f"seen_{name}": _seen(rows[name]).collect(distinct=True) for name in names}
        rows = rows.group_by("person_id").agg(**bests, **seen)
        pairs = [ibis.struct({"told": rows[name], "seen": rows[f"seen_{name}"]}) for name in names]
        each = rows.select("person_id", pair=ibis.array(pairs).unnest())
        each = each.filter(each["pair"]["told"]["value"].notnull())
        parts.append(each.select("person_id", told=each["pair"]["told"], seen=each["pair"]["seen"].unnest()))
    union = ibis.union(*parts)
    return union.select("person_id", attribute=union["told"]["attribute"], told=union["told"], seen=union["seen"])


def _seen(told: ibis.Value) -> ibis.Value:
    """What tells a value from others: letters in upper or lower case are one. The same for all where values combine."""
    value = told["value"]
    return told["rule"].isin(COMBINING).ifelse(value.notnull().ifelse("", ibis.null("string")), value.lower().strip())


def _greatest(said: _Said) -> ibis.Table:
    bests = _bests(said, lambda told, present: told.max(where=present))
    return _winner(bests.group_by("person_id", "attribute").agg(told=bests["told"].max(), seen=bests["seen"].nunique()))


def _least(said: _Said) -> ibis.Table:
    bests = _bests(said, lambda told, present: told.min(where=present))
    return _winner(bests.group_by("person_id", "attribute").agg(told=bests["told"].min(), seen=bests["seen"].nunique()))


def _most_restrictive(said: _Said) -> ibis.Table:
    each = _long(said)
    moment = ibis.struct({name: each["told"][name] for name in ("at", "record_id", "version")})
    each = each.mutate(moment=moment, source=each["told"]["source"])
    latest = each.group_by("person_id", "attribute", "source", "_subject").agg(told=each["told"].argmax(each["moment"]))
    return _winner(
        latest.group_by("person_id", "attribute").agg(told=latest["told"].min(), seen=_seen(latest["told"]).nunique())
    )


def _most_frequent(said: _Said) -> ibis.Table:
    each = _long(said)
    each = each.mutate(value=each["told"]["value"])
    values = each.group_by("person_id", "attribute", "value").agg(times=each.count(), told=each["told"].max())
    most = values.group_by("person_id", "attribute").agg(
        most=ibis.struct({"times": values["times"], "told": values["told"]}).max(),
        seen=_seen(values["told"]).nunique(),
    )
    return _winner(most.select("person_id", "attribute", "seen", told=most["most"]["told"]))


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
    seen = won["seen"].cast("int64") if "seen" in won.columns else ibis.literal(0)
    return won.select(
        "person_id",
        "attribute",
        value=won["value"] if "value" in won.columns else told["value"],
        source=told["source"],
        record_id=told["record_id"],
        rule=told["rule"],
        at=told["at"],
        values_seen=told["rule"].isin(COMBINING).ifelse(ibis.null("int64"), seen),
    )


_WAYS: dict[str, Callable[[_Said], ibis.Table]] = {
    **dict.fromkeys(_LEAST, _least),
    "most_restrictive": _most_restrictive,
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

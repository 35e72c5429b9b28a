"""Whether sources and attributes fit what they name: columns, identifiers, checks, events."""

from __future__ import annotations

from collections.abc import Mapping

from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.spec.documents import DataPath
from cdp_pipeline.spec.project import ProjectSettings
from cdp_pipeline.spec.references.declared import (
    BOOLEAN,
    DATE,
    STRING,
    TIMESTAMP,
    Declared,
    Findings,
    column_fits,
    fragment_fits,
    value_fits,
    word,
)
from cdp_pipeline.spec.source import Check, EventMapping, Source
from cdp_pipeline.spec.types import EVENT_COLUMNS, NUMERIC, WORDS, attribute_type, source_columns


def project_findings(project: ProjectSettings, declared: Declared) -> Findings:
    for i, name in enumerate(project.alerts):
        yield from declared.reference("destination", name, ("alerts", i))
        destination = declared.of("destination").get(name)
        if destination is not None and not destination.alerts:
            able = sorted(each.name for each in declared.of("destination").values() if each.alerts)
            words = f", there are {', '.join(able)}" if able else ""
            yield ("alerts", i), f"'{name}' cannot tell of failures, it is {destination.type}{words}"


def source_findings(source: Source, declared: Declared) -> Findings:
    columns = source_columns(source)
    for i, name in enumerate(source.grain):
        yield from column_fits(name, columns, ("grain", i))
    if source.occurred_at is not None:
        yield from column_fits(source.occurred_at, columns, ("occurred_at",), {DATE, TIMESTAMP})
    for name, column in source.columns.items():
        path: DataPath = ("columns", name)
        if "__" in name:
            yield path, "should have no '__', which the pipeline keeps for itself"
        yield from declared.reference("identifier", column.identifier, (*path, "identifier"))
        if column.currency is not None and column.type != "money":
            yield (*path, "currency"), f"only money has a currency, this is {column.type}"
        elif column.currency is not None and not (len(column.currency) == 3 and column.currency.isupper()):
            yield from column_fits(column.currency, columns, (*path, "currency"), {STRING})
        if column.normalise is not None and column.type != "string":
            yield (*path, "normalise"), f"only strings are normalised, this is {column.type}"
        if column.format is not None and column.type not in ("date", "timestamp"):
            yield (*path, "format"), f"only dates and timestamps have a format, this is {column.type}"
        for i, check in enumerate(column.checks):
            yield from _check_findings(check, columns[name], columns, declared, (*path, "checks", i))
    for i, mapping in enumerate(source.events):
        yield from _mapping_findings(mapping, source, columns, declared, ("events", i))


def _check_findings(
    check: Check, type_: str, columns: Mapping[str, str], declared: Declared, path: DataPath
) -> Findings:
    for i, value in enumerate(check.accepted or []):
        yield from value_fits(value, type_, (*path, "accepted", i))
    if check.range is not None and type_ not in NUMERIC:
        yield (*path, "range"), f"only numbers have a range, this is {WORDS[type_]}"
    if check.pattern is not None and type_ != STRING:
        yield (*path, "pattern"), f"only strings have a pattern, this is {WORDS[type_]}"
    if check.expression is not None:
        yield from fragment_fits(check.expression, columns, (*path, "expression"), {BOOLEAN})
    if check.references is not None:
        name, dot, column = check.references.partition(".")
        if not dot:
            yield (*path, "references"), f"should be source.column, got '{check.references}'"
        elif name in declared.of("source"):
            yield from column_fits(column, source_columns(declared.of("source")[name]), (*path, "references"))
        else:
            yield from declared.reference("source", name, (*path, "references"))


def _mapping_findings(
    mapping: EventMapping, source: Source, columns: Mapping[str, str], declared: Declared, path: DataPath
) -> Findings:
    if mapping.column is not None:
        yield from column_fits(mapping.column, columns, (*path, "column"), {STRING})
    for field in ("when", "amount", "currency", "channel", "product_id", "category"):
        types = {"when": {BOOLEAN}, "amount": NUMERIC}.get(field, {STRING})
        yield from fragment_fits(getattr(mapping, field), columns, (*path, field), types)
    for i, name in enumerate(mapping.properties):
        here = (*path, "properties", i)
        yield from column_fits(name, columns, here)
        if name in EVENT_COLUMNS or name == "record_id":
            yield here, f"'{name}' is already a column of every event: give the source's column another name"
        elif name in columns and columns[name] != declared.event_columns[name]:
            other = _source_of_property(name, declared)
            yield here, f"'{name}' is {WORDS[columns[name]]} here and {WORDS[declared.event_columns[name]]} in {other}"


def _source_of_property(name: str, declared: Declared) -> str:
    return next(
        f"source '{source.name}'"
        for source in declared.of("source").values()
        if name in source.columns and any(name in mapping.properties for mapping in source.events)
    )


def attribute_findings(attribute: Attribute, declared: Declared) -> Findings:
    wanted = {
        "sum": NUMERIC, "longest": {STRING}, "any": {BOOLEAN}, "all": {BOOLEAN}, "most_restrictive": {BOOLEAN},
    }.get(attribute.survivorship)  # fmt: skip
    types = []
    for i, one in enumerate(attribute.sources):
        path: DataPath = ("sources", i)
        yield from declared.reference("source", one.source, (*path, "source"))
        if one.source in declared.of("source"):
            columns = source_columns(declared.of("source")[one.source])
            problems = list(fragment_fits(one.column, columns, (*path, "column"), wanted))
            yield from problems
            if not problems:
                types.append(word(expressions.check(one.column, columns)))
    if len(types) == len(attribute.sources) and attribute_type(attribute, declared.of("source")) is None:
        yield ("sources",), f"should all be of one type, got {', '.join(types)}"

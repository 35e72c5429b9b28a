"""Everything people did, on all channels, as one table of events. What the rows say is decided in the sources' YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.identity.rows import person_of_rows
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.types import EVENT_COLUMNS, event_properties

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.source import EventMapping, Source

_COLUMNS = {
    "event_id": Column("string", "The event's stable id: the source row's, and the event's name."),
    "person_id": Column("string", "Who did it; empty where the row names nobody."),
    "occurred_at": Column(EVENT_COLUMNS["occurred_at"], "When it happened (UTC)."),
    "source": Column(EVENT_COLUMNS["source"], "The source it comes from."),
    "event": Column(EVENT_COLUMNS["event"], "What happened."),
    "channel": Column(EVENT_COLUMNS["channel"], "Where it happened, such as web or store."),
    "amount": Column(EVENT_COLUMNS["amount"], "Money involved."),
    "currency": Column(EVENT_COLUMNS["currency"], "Currency of the amount."),
    "product_id": Column(EVENT_COLUMNS["product_id"], "The article it is about."),
    "category": Column(EVENT_COLUMNS["category"], "Category of that article."),
}
_LAST_COLUMNS = {
    "_day": Column("date", "The day it happened, in the project's time zone."),
    "_loaded_at": Column("timestamp(6)", "When its source row was loaded (UTC)."),
}


def timeline_table(project: Project) -> Table:
    """`profile.timeline`; `properties` has a typed field for every column some event keeps beside it."""
    fields = ", ".join(f"{name}: {type_}" for name, type_ in event_properties(project.sources.values()).items())
    properties = {"properties": Column(f"struct<{fields}>", "What else is known of the event.", pii=True)}
    return Table(
        name="profile.timeline",
        description="Everything people did, on all channels, one row per event; events of nobody known are kept.",
        columns=_COLUMNS | properties | _LAST_COLUMNS,
        key=("event_id",),
        month_of="_day",
        derived=True,
    )


def timeline(sources: Mapping[str, ibis.Table], identifiers: ibis.Table, project: Project) -> ibis.Table:
    """All events of all sources, one pass over a source per mapping. Of a snapshot source, the current rows count."""
    table = timeline_table(project)
    events = [
        _events(rows, source, mapping, project, table)
        for source, rows in _rows_with_people(sources, identifiers, project)
        for mapping in source.events
    ]
    return ibis.union(*events) if events else ibis.memtable([], schema=table.schema)


def event_scope(timeline: ibis.Table) -> dict[str, ibis.Value]:
    """What an expression about an event may name (spec.types.event_columns), resolved on a timeline."""
    properties = timeline["properties"]
    return {name: properties[name] for name in properties.type().names} | {
        name: timeline[name] for name in EVENT_COLUMNS
    }


def _rows_with_people(
    sources: Mapping[str, ibis.Table], identifiers: ibis.Table, project: Project
) -> list[tuple[Source, ibis.Table]]:
    found = []
    for name, rows in sources.items():
        source = project.sources[name]
        if source.events:
            current = rows.filter(rows["_valid_to"].isnull()) if source.mode == "snapshot" else rows
            found.append((source, person_of_rows(current, source, identifiers, project)))
    return found


def _events(rows: ibis.Table, source: Source, mapping: EventMapping, project: Project, table: Table) -> ibis.Table:
    declared = {name: rows[name] for name in source.columns}
    conditions = []
    if mapping.column is not None:
        conditions.append(rows[mapping.column].isin(mapping.event_names))
    if mapping.when is not None:
        conditions.append(expressions.compile(mapping.when, declared))
    event = ibis.literal(mapping.event) if mapping.column is None else rows[mapping.column]

    def said(fragment: str | None) -> ibis.Value:
        return ibis.null() if fragment is None else expressions.compile(fragment, declared)

    amount = said(mapping.amount).cast("decimal(18, 4)")
    channel = ibis.literal(source.channel, type="string") if mapping.channel is None else said(mapping.channel)
    kept = {name: declared[name] for name in mapping.properties} | {"record_id": rows["_record_id"]}
    values = {
        "event_id": rows["_record_id"] + ":" + event,
        "person_id": rows["person_id"],
        "occurred_at": rows["_occurred_at"],
        "source": ibis.literal(source.name),
        "event": event,
        "channel": channel,
        "amount": amount,
        "currency": amount.notnull().ifelse(_currency(source, mapping, declared, project), ibis.null("string")),
        "product_id": said(mapping.product_id),
        "category": said(mapping.category),
        "properties": ibis.struct(
            {
                name: kept[name].cast(type_) if name in kept else ibis.null(type_)
                for name, type_ in event_properties(project.sources.values()).items()
            }
        ),
        "_day": rows["_day"],
        "_loaded_at": rows["_loaded_at"],
    }
    cast = {
        name: values[name] if name == "properties" else values[name].cast(dtype) for name, dtype in table.schema.items()
    }
    return rows.filter(conditions).select(**cast) if conditions else rows.select(**cast)


def _currency(source: Source, mapping: EventMapping, declared: dict[str, ibis.Value], project: Project) -> ibis.Value:
    """What the mapping says, else the currency of the money column the amount reads, else the project's."""
    choices = [ibis.literal(project.settings.currency)]
    for name in sorted(expressions.names(mapping.amount)) if mapping.amount else []:
        code = source.columns[name].currency
        if source.columns[name].type == "money" and code is not None:
            choices.insert(0, declared[code] if code in declared else ibis.literal(code))
            break
    if mapping.currency is not None:
        choices.insert(0, expressions.compile(mapping.currency, declared))
    return ibis.coalesce(*choices)

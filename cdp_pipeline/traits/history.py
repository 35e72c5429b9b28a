"""Definitions of traits over time, and the values that a changed definition replaced: nothing said once is lost.

Where a day is computed again under another definition, traits.daily has the new values; those that differ are first
put into traits.former_values under the version that made them. Rows are people's, keyed by person_id like
traits.daily: whoever is erased there is erased here in the same way. Late rows replace values without a trace, since
they correct what was meant all along.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.publish import Upsert
from cdp_pipeline.lake.schema import emptied
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.traits.daily import daily_table

if TYPE_CHECKING:
    from cdp_pipeline.lake import Lake, LakeView
    from cdp_pipeline.spec.project import Project

VERSION = Column("string", "The definition's version: equal versions make equal values of equal data.")
DEFINITIONS = Table(
    name="traits.definitions",
    description="Every definition an indicator has had, with its version.",
    columns={
        "trait": Column("string", "The indicator."),
        "version": VERSION,
        "since": Column("timestamp(6)", "When it was first computed like this (UTC)."),
        "definition": Column("string", "Its document, as JSON."),
    },
    key=("trait", "version"),
)
RESTATED = Table(
    name="traits.restated",
    description="Which days of an indicator were computed again under another definition, and of how many people that "
    "changed the value.",
    columns={
        "trait": Column("string", "The indicator."),
        "day": Column("date", "The day whose values were replaced."),
        "version": Column("string", "The version that had made them."),
        "replaced_by": Column("string", "The version that made the values after it; empty where the indicator went."),
        "at": Column("timestamp(6)", "When (UTC)."),
        "people": Column("int64", "How many people's value was another one."),
    },
    key=("trait", "day", "version"),
    month_of="day",
)
FORMER = Table(
    name="traits.former_values",
    description="Values that a changed definition replaced, under the version that had made them.",
    columns={
        "person_id": Column("string", "The person."),
        "trait": Column("string", "The indicator."),
        "day": Column("date", "As of the end of this day."),
        "version": VERSION,
        "value": Column("string", "The value as text; of a list its values by commas; empty where there was none."),
    },
    key=("person_id", "trait", "day", "version"),
    month_of="day",
)


def kept(
    lake: Lake,
    project: Project,
    recorded: Mapping[date, Mapping[str, str]],
    days: Sequence[date],
    rows: ibis.Table,
    versions: Mapping[str, str],
    now: datetime,
) -> list[Upsert]:
    """What must be published together with the `rows` that are to replace these days of traits.daily.

    `recorded` says under which versions each day there is was computed, `versions` under which it is now.
    """
    at = now.astimezone(UTC).replace(tzinfo=None)
    here = lake.local
    found = [Upsert(DEFINITIONS, new)] if len(new := _new_definitions(here, project, versions, at)) else []
    if not here.exists("traits.daily"):
        return found
    stored = here.table("traits.daily")
    lost = set(emptied(daily_table(project), stored.schema()))
    replaced: dict[tuple[str, str], list[date]] = defaultdict(list)
    for day, made in recorded.items():
        for name, version in made.items():
            if name in stored.columns and (day in days or name in lost) and versions.get(name) != version:
                replaced[name, version].append(day)
    if not replaced:
        return found
    alike: dict[tuple[date, ...], list[tuple[str, str]]] = defaultdict(list)
    for one, those in replaced.items():
        alike[tuple(those)].append(one)
    parts = [_unlike(stored, rows if set(those) <= set(days) else None, those, made) for those, made in alike.items()]
    former = lake.held((ibis.union(*parts) if len(parts) > 1 else parts[0]).cast(FORMER.schema))
    return [*found, Upsert(FORMER, former), Upsert(RESTATED, _told(former, replaced, versions, at))]


def _new_definitions(lake: LakeView, project: Project, versions: Mapping[str, str], at: datetime) -> Any:
    import pyarrow as pa

    known = lake.read(DEFINITIONS).select("trait", "version").to_pyarrow().to_pylist()
    there = {(row["trait"], row["version"]) for row in known}
    new = [
        {"trait": name, "version": version, "since": at, "definition": _document(project, name)}
        for name, version in versions.items()
        if (name, version) not in there
    ]
    return pa.Table.from_pylist(new, schema=DEFINITIONS.schema.to_pyarrow())


def _document(project: Project, name: str) -> str:
    return json.dumps(
        project.traits[name].model_dump(mode="json", exclude_defaults=True, by_alias=True), sort_keys=True
    )


def _unlike(
    stored: ibis.Table, rows: ibis.Table | None, days: Sequence[date], made: Sequence[tuple[str, str]]
) -> ibis.Table:
    """The stored values of some traits (name, version) on some days, where the rows to come, if any, say otherwise."""
    stored = stored.filter(stored.day.isin(days))
    both = stored.select("person_id", "day", **{f"was_{i}": _text(stored[name]) for i, (name, _) in enumerate(made)})
    if rows is not None:
        there = {f"is_{i}": _text(rows[name]) for i, (name, _) in enumerate(made) if name in rows.columns}
        both = both.left_join(rows.select("person_id", "day", **there), ["person_id", "day"])
    found = []
    for i, (name, version) in enumerate(made):
        was = both[f"was_{i}"]
        value = ibis.struct({"trait": ibis.literal(name), "version": ibis.literal(version), "value": was})
        same = was.identical_to(both[f"is_{i}"]) if f"is_{i}" in both.columns else ibis.literal(False)
        found.append(ibis.ifelse(same, ibis.null(value.type()), value))
    told = both.select("person_id", "day", one=ibis.array(found).unnest())
    told = told.filter(told.one.notnull())
    return told.select("person_id", "day", **{name: told.one[name] for name in ("trait", "version", "value")}).select(
        *FORMER.columns
    )


def _text(value: Any) -> Any:
    return value.join(",") if value.type().is_array() else value.cast("string")


def _told(
    former: ibis.Table, replaced: Mapping[tuple[str, str], list[date]], versions: Mapping[str, str], at: datetime
) -> Any:
    import pyarrow as pa

    counted = former.group_by("trait", "day", "version").agg(people=former.count()).to_pyarrow().to_pylist()
    people = {(row["trait"], row["day"], row["version"]): row["people"] for row in counted}
    told = [
        {
            "trait": name, "day": day, "version": version, "replaced_by": versions.get(name), "at": at,
            "people": people.get((name, day, version), 0),
        }
        for (name, version), days in replaced.items()
        for day in days
    ]  # fmt: skip
    return pa.Table.from_pylist(told, schema=RESTATED.schema.to_pyarrow())


def values_under(lake: LakeView, recorded: Mapping[date, Mapping[str, str]], trait: str, version: str) -> ibis.Table:
    """A trait's values as a version of its definition has them: person_id, day, value as text.

    For every day that was ever computed under it, of everybody there is in traits.daily on that day. `recorded` says
    under which versions each day was computed last.
    """
    restated, former, stored = lake.read(RESTATED), lake.read(FORMER), lake.table("traits.daily")
    rows = restated.filter(restated.trait == trait).to_pyarrow().to_pylist()
    following = {(row["day"], row["version"]): row["replaced_by"] for row in rows}
    days_by_chain: dict[tuple[str, ...], list[date]] = defaultdict(list)
    for day in sorted({*recorded, *(day for day, _ in following)}):
        chain = tuple(_chain(following, day, version, recorded.get(day, {}).get(trait)))
        if chain:
            days_by_chain[chain].append(day)
    parts = []
    for chain, days in days_by_chain.items():
        there = stored.filter(stored.day.isin(days))
        values = there.select("person_id", "day", value=_text(there[trait]) if trait in there.columns else None)
        for then in reversed(chain[:-1]):
            were = former.filter((former.trait == trait) & (former.version == then))
            were = were.select("person_id", "day", was="value", known=True)
            both = values.left_join(were, ["person_id", "day"])
            values = both.select("person_id", "day", value=ibis.ifelse(both.known.notnull(), both.was, both.value))
        parts.append(values.cast({"value": "string"}))
    if not parts:
        return ibis.memtable([], schema={"person_id": "string", "day": "date", "value": "string"})
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def _chain(
    following: Mapping[tuple[date, str], str | None], day: date, version: str, newest: str | None
) -> Iterator[str]:
    """The versions from the one asked for to the newest, each replaced by the one after it; none if it never was."""
    if version == newest:
        yield version
    elif (day, version) in following:
        seen, at = {version}, following[day, version]
        yield version
        while at is not None and at != newest and at not in seen and (day, at) in following:
            seen.add(at)
            yield at
            at = following[day, at]
        yield at or ""

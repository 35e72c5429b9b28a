"""A small declared shop for tests of identity and profile: its rows in plain Python, and what they say, by hand.

The functions that work something out are oracles: loops over rows, sharing no code with the package.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
from hypothesis import strategies as st

from cdp_pipeline.identity.blocked import blocked_why
from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.evidence import Evidence
from cdp_pipeline.identity.people import IDENTIFIERS as IDENTIFIERS_TABLE
from cdp_pipeline.identity.people import Decided, decide
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.spec.identifier import Identifier
from cdp_pipeline.spec.project import Project, ProjectSettings
from cdp_pipeline.spec.source import Source

START = datetime(2026, 1, 1)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TYPES = {"customer": "customer_id", "mail": "email", "cookie": "anonymous_id"}


def identifier(name: str, **settings: Any) -> Identifier:
    return Identifier.model_validate({"kind": "identifier", "name": name, "description": name, **settings})


def source(name: str, **settings: Any) -> Source:
    base = {"kind": "source", "name": name, "description": name, "files": "a.csv", "grain": ["id"]}
    return Source.model_validate({**base, **settings})


def attribute(name: str, **settings: Any) -> Attribute:
    return Attribute.model_validate({"kind": "attribute", "name": name, "description": name, **settings})


_COLUMNS = {
    "id": {"type": "string"},
    "at": {"type": "timestamp"},
    "event": {"type": "string"},
    "customer": {"type": "integer", "identifier": "customer_id"},
    "mail": {"type": "string", "identifier": "email", "normalise": "email"},
    "cookie": {"type": "string", "identifier": "anonymous_id"},
    "name": {"type": "string"},
    "paid": {"type": "money", "currency": "GBP"},
    "points": {"type": "integer"},
    "agrees": {"type": "boolean"},
}
WEB = source("web", columns=_COLUMNS, occurred_at="at", channel="web")
TILL = source("till", columns=_COLUMNS, occurred_at="at", channel="store")
CRM = source("crm", columns=_COLUMNS, occurred_at="at", mode="snapshot")


def project(identifiers: dict[str, Identifier] | None = None, **parts: Any) -> Project:
    settings = {"kind": "project", "name": "shop", "description": "shop", "first_day": date(2026, 1, 1)}
    whole = Project(
        folder=Path(),
        settings=ProjectSettings.model_validate({**settings, "lake": {"path": "lake"}}),
        sources={one.name: one for one in (WEB, TILL, CRM)},
        identifiers=identifiers or IDENTIFIERS,
        matches={}, attributes={}, traits={}, predictions={}, audiences={}, triggers={}, destinations={}, syncs={},
    )  # fmt: skip
    return dataclasses.replace(whole, **parts)


IDENTIFIERS = {
    "customer_id": identifier("customer_id", priority=900, unique=True),
    "email": identifier("email", priority=500, limit=2, shared_above=2),
    "anonymous_id": identifier("anonymous_id", priority=100, limit=3, known=False, shared_above=2),
}
UNPROTECTED = {
    name: identifier(name, priority=spec.priority, blocked={"shipped": False}) for name, spec in IDENTIFIERS.items()
}


@dataclass(frozen=True)
class Row:
    """One source row: who is on it, and a few values."""

    source: str
    record: int
    day: int
    customer: int | None = None
    mail: str | None = None
    cookie: str | None = None
    event: str | None = None
    name: str | None = None
    paid: Decimal | None = None
    points: int | None = None
    agrees: bool | None = None
    until: int | None = None  # of a snapshot: the day the version ended

    @property
    def at(self) -> datetime:
        return START + timedelta(days=self.day)

    @property
    def record_id(self) -> str:
        return f"{self.source}{self.record:04d}"

    @property
    def identifiers(self) -> list[tuple[str, str]]:
        values = ((TYPES[name], getattr(self, name)) for name in TYPES)
        return sorted((type_, str(value)) for type_, value in values if value is not None)


def tables(rows: Iterable[Row]) -> dict[str, pa.Table]:
    """The rows as accepted source tables, one per source."""
    found = {}
    for spec in (WEB, TILL, CRM):
        schema = source_table(spec).schema.to_pyarrow()
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        for row in (row for row in rows if row.source == spec.name):
            added = {
                "id": str(row.record), "at": row.at, "_record_id": row.record_id, "_occurred_at": row.at,
                "_utc_offset": 0, "_loaded_at": START + timedelta(days=40), "_day": row.at.date(),
                "_valid_from": row.at, "_valid_to": None if row.until is None else START + timedelta(days=row.until),
            }  # fmt: skip
            for name, values in columns.items():
                values.append(added[name] if name in added else getattr(row, name))
        found[spec.name] = pa.table(columns, schema=schema)
    return found


def ibis_tables(rows: Iterable[Row]) -> dict[str, ibis.Table]:
    return {name: ibis.memtable(table) for name, table in tables(rows).items()}


def pairs(rows: Iterable[Row]) -> dict[tuple[str, str, str, str, str], tuple[str, datetime, datetime]]:
    """Oracle of edges(): (type_a, value_a, type_b, value_b, source) → (earliest record, first seen, last seen)."""
    found: dict[tuple[str, str, str, str, str], list[tuple[datetime, str]]] = {}
    for row in rows:
        for a, b in combinations(row.identifiers, 2):
            found.setdefault((*a, *b, row.source), []).append((row.at, row.record_id))
    return {pair: (min(seen)[1], min(seen)[0], max(seen)[0]) for pair, seen in found.items()}


def moments(rows: Iterable[Row]) -> dict[tuple[str, str], tuple[datetime, datetime]]:
    """Oracle of identifiers_seen(): (type, value) → (first seen, last seen)."""
    found: dict[tuple[str, str], list[datetime]] = {}
    for row in rows:
        for one in row.identifiers:
            found.setdefault(one, []).append(row.at)
    return {one: (min(seen), max(seen)) for one, seen in found.items()}


def edges_table(rows: Iterable[Row]) -> pa.Table:
    """The pairs as edges() gives them, without an engine: hypothesis asks for thousands."""
    lines = [(*pair, *evidence, "same_row", 1.0) for pair, evidence in pairs(rows).items()]
    time = pa.timestamp("us")
    types = [*[pa.string()] * 6, time, time, pa.string(), pa.float64()]
    names = [
        "type_a",
        "value_a",
        "type_b",
        "value_b",
        "source",
        "record_id",
        "first_seen",
        "last_seen",
        "rule",
        "score",
    ]
    columns = list(zip(*lines, strict=True)) or [()] * len(names)
    return pa.table([pa.array(column, type_) for column, type_ in zip(columns, types, strict=True)], names=names)


def seen_table(rows: Iterable[Row]) -> pa.Table:
    lines = [(*one, *seen) for one, seen in moments(rows).items()]
    columns = list(zip(*lines, strict=True)) or [()] * 4
    types = [pa.string(), pa.string(), pa.timestamp("us"), pa.timestamp("us")]
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, types, strict=True)]
    return pa.table(arrays, names=["type", "value", "first_seen", "last_seen"])


def number(type_: str, value: str) -> int:
    """Oracle of identifier_id()."""
    return int(hashlib.md5(f"{type_}:{value}".encode()).hexdigest()[:16], 16) >> 1


def evidence_of(edges: pa.Table, seen: pa.Table, of: Project) -> Evidence:
    """What read_evidence() reads, made without an engine: hypothesis asks for thousands."""
    types, sources = sorted(of.identifiers), [*sorted(of.sources), "verdict"]
    ends = {
        end: [
            number(*one)
            for one in zip(edges[f"type_{end}"].to_pylist(), edges[f"value_{end}"].to_pylist(), strict=True)
        ]
        for end in ("a", "b")
    }
    nodes = seen.to_pylist()
    why = [
        blocked_why(node["type"], pa.array([node["value"]]), of.identifiers[node["type"]].blocked)[0].as_py()
        for node in nodes
    ]
    return Evidence(
        identifiers=pa.table(
            {
                "id": pa.array([number(node["type"], node["value"]) for node in nodes], pa.int64()),
                "type": pa.array([types.index(node["type"]) for node in nodes], pa.int8()),
                "first_seen": seen["first_seen"],
                "blocked": pa.array(why, pa.string()),
            }
        ),
        edges=pa.table(
            {
                "id_a": pa.array(ends["a"], pa.int64()),
                "id_b": pa.array(ends["b"], pa.int64()),
                "source": pa.array([sources.index(name) for name in edges["source"].to_pylist()], pa.int16()),
                "last_seen": edges["last_seen"],
                "rule": pa.array([int(rule == "verdict") for rule in edges["rule"].to_pylist()], pa.int8()),
                "score": edges["score"],
            }
        ),
    )


@dataclass(frozen=True)
class Resolved:
    """A Resolution in Arrow, so that two can be compared; rows in the order of their ids."""

    edges: pa.Table
    identifiers: pa.Table
    people: pa.Table
    changes: pa.Table


def resolved(
    rows: Iterable[Row],
    before: Resolved | None = None,
    of: Project | None = None,
    now: datetime = NOW,
    declared: Iterable[tuple[tuple[str, str], tuple[str, str]]] = (),
    vetoed: Iterable[tuple[tuple[str, str], tuple[str, str], str]] = (),
) -> Resolved:
    """decide() on these rows, and links and vetoes between identifiers, with the texts put back in plain Python."""
    rows, of = list(rows), of or project()
    seen = seen_table(rows)
    shown = set(zip(seen["type"].to_pylist(), seen["value"].to_pylist(), strict=True))
    links = [sorted(pair) for pair in declared if shown.issuperset(pair)]
    edges = pa.concat_tables([edges_table(rows), links_table(links)])
    last = None
    if before is not None:
        votes = before.identifiers.select(["id", "person_id", "first_person_id"])
        last = votes, before.people
    keep_apart = [(number(*one), number(*other), name) for one, other, name in vetoed]
    decided = decide(evidence_of(edges, seen, of), last, of, now, keep_apart)
    return with_texts(decided, edges, seen, of)


def with_texts(decided: Decided, edges: pa.Table, seen: pa.Table, of: Project) -> Resolved:
    sources = [*sorted(of.sources), "verdict"]
    evidence = {
        (number(row["type_a"], row["value_a"]), number(row["type_b"], row["value_b"]), row["source"]): row
        for row in edges.to_pylist()
    }
    nodes = {number(row["type"], row["value"]): row for row in seen.to_pylist()}
    others = {(row["id_a"], row["id_b"], sources[row["source"]]): row for row in decided.edges.to_pylist()}
    links = [
        {**row, "id_a": key[0], "id_b": key[1], "status": found["status"], "why": found["why"]}
        for key, row in sorted(evidence.items())
        for found in [others.get(key, {"status": "accepted", "why": None})]
    ]
    ours = [{**nodes[row["id"]], **row} for row in sorted(decided.identifiers.to_pylist(), key=lambda row: row["id"])]
    return Resolved(
        pa.Table.from_pylist(links, schema=EDGES.schema.to_pyarrow()),
        pa.Table.from_pylist(ours, schema=IDENTIFIERS_TABLE.schema.to_pyarrow()),
        decided.people,
        decided.changes,
    )


def links_table(links: Iterable[Iterable[tuple[str, str]]]) -> pa.Table:
    """Links people declared, as verdict_edges() gives them."""
    shape = edges_table([])
    lines = [
        {
            "type_a": a[0], "value_a": a[1], "type_b": b[0], "value_b": b[1], "source": "verdict", "record_id": "v",
            "first_seen": START, "last_seen": START, "rule": "verdict", "score": 1.0,
        }
        for a, b in links
    ]  # fmt: skip
    return pa.Table.from_pylist(lines, schema=shape.schema)


def persons(resolution: Resolved) -> dict[tuple[str, str], str | None]:
    """(type, value) → person id."""
    rows = resolution.identifiers.to_pylist()
    return {(row["type"], row["value"]): row["person_id"] for row in rows}


def partition(resolution: Resolved) -> set[frozenset[tuple[str, str]]]:
    groups: dict[str, set[tuple[str, str]]] = {}
    for one, person in persons(resolution).items():
        if person is not None:
            groups.setdefault(person, set()).add(one)
    return {frozenset(group) for group in groups.values()}


# Few values and few days, so that identifiers meet, tie and contradict each other all the time.
_CUSTOMERS = st.none() | st.integers(1, 4)
_MAILS = st.none() | st.sampled_from(["ann@example.com", "bob@example.com", "cy@example.com", "test@example.com"])
_COOKIES = st.none() | st.sampled_from(["k1", "k2", "k3", "k4", "anonymous"])


@st.composite
def rows(draw: st.DrawFn, most: int = 14) -> list[Row]:
    found = draw(
        st.lists(
            st.builds(
                Row, source=st.sampled_from(["web", "till"]), record=st.just(0), day=st.integers(0, 3),
                customer=_CUSTOMERS, mail=_MAILS, cookie=_COOKIES,
            ),
            max_size=most,
        )
    )  # fmt: skip
    return [dataclasses.replace(row, record=place) for place, row in enumerate(found)]

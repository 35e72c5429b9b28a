"""A declared town for tests of what puts people into groups: its tables in plain rows, and what they say, by hand."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from cdp_pipeline.identity.belonging import claims, listed
from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.people import IDENTIFIERS
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.spec.group import Group
from cdp_pipeline.spec.identifier import Identifier
from cdp_pipeline.spec.project import LakeLocation, Project, ProjectSettings
from cdp_pipeline.spec.source import Source

Rows = list[dict[str, Any]]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
START = datetime(2026, 1, 1)
EXPIRES = timedelta(days=30)
_CRM = {
    "contact": {"type": "string", "identifier": "contact"},
    "email": {"type": "string", "identifier": "email"},
    "phone": {"type": "string", "identifier": "phone"},
    "number": {"type": "string"},
    "parent": {"type": "string"},
    "firm": {"type": "string"},
    "family": {"type": "string"},
}


def source(name: str, **settings: Any) -> Source:
    base = {"kind": "source", "name": name, "description": name, "files": "a.csv", "grain": ["contact"]}
    return Source.model_validate({**base, "columns": _CRM, **settings})


def identifier(name: str, **settings: Any) -> Identifier:
    return Identifier.model_validate({"kind": "identifier", "name": name, "description": name, **settings})


def attribute(name: str, column: str) -> Attribute:
    told = {"sources": [{"source": "crm", "column": column}]}
    return Attribute.model_validate({"kind": "attribute", "name": name, "description": name, **told})


SOURCES = [
    source("crm", mode="snapshot"),
    source("calls", columns={"at": {"type": "timestamp"}, **_CRM}, occurred_at="at"),
]
TOWN = Project(
    folder=Path(),
    settings=ProjectSettings(
        kind="project", name="town", description="town", first_day=date(2026, 1, 1), lake=LakeLocation(path="lake")
    ),
    sources={one.name: one for one in SOURCES},
    identifiers={
        "contact": identifier("contact", priority=900, unique=True),
        "email": identifier("email", priority=500),
        "phone": identifier("phone", priority=300, expires="30 days"),
    },
    attributes={name: attribute(name, name) for name in ("family", "phone", "email")}
    | {"town": attribute("town", "lower(firm)")},
    matches={}, traits={}, predictions={}, audiences={}, triggers={}, destinations={}, syncs={},
)  # fmt: skip
GROUP = Group.model_validate(
    {
        "kind": "group", "name": "account", "description": "Firms.", "type": "account",
        "by": [
            {"source": "crm", "column": "number",
             "directory": {"source": "crm", "key": "number", "name": "firm", "parent": "parent"}},
            {"source": "calls", "column": "number"},
            {"same": ["family", "town"]},
            {"same": ["phone"]},
            {"identifier": "phone"},
            {"email_domain": "email"},
        ],
    }
)  # fmt: skip
CRM_NUMBER, CALLS_NUMBER, FAMILY, SAME_PHONE, PHONE, DOMAIN = (way.rule for way in GROUP.by)
MAILS = ["Ann@Firm.example", "bob@firm.example", "none@none.com", "info@firm.example", "x@post.other.example", "odd"]
FAMILIES = ["O'Neill", "o neill", "Müller-Lüdenscheidt", "  ", "", "Nguyễn  Văn", "हिन्दी", None]
BLOCKED = {("email", "none@none.com"): "means no value", ("email", "info@firm.example"): "mailbox of a role"}
BLOCKED |= {("phone", "+0"): "all zeros"}


def town(seed: int = 0, people: int = 12) -> dict[str, Rows]:
    """customers, identifiers, edges and the two sources, drawn from few values so that they meet."""
    chance = random.Random(seed)
    ids = [f"p{number:02d}" for number in range(people)]
    phones = [f"+{number}" for number in range(6)]
    identifiers: Rows = [
        {"type": "contact", "value": f"c{number:02d}", "person_id": person, "status": "ok", "last_seen": START}
        for number, person in enumerate(ids)
    ]
    for type_, values in (("phone", phones), ("email", [mail.lower() for mail in MAILS])):
        for value in values:
            why = BLOCKED.get((type_, value))
            status = "blocked" if why else chance.choice(["ok", "shared"])
            whose = None if why else f"tablet{value}" if status == "shared" else chance.choice(ids)
            seen = START + timedelta(days=chance.randrange(60))
            identifiers.append(
                {"type": type_, "value": value, "person_id": whose, "status": status, "why": why, "last_seen": seen}
            )
    edges: Rows = [
        {
            "type_a": "contact", "value_a": f"c{chance.randrange(people):02d}", "type_b": type_,
            "value_b": chance.choice(values), "source": chance.choice(["crm", "calls"]),
            "status": chance.choice(["accepted", "refused_unique", "inactive", "refused_verdict"]),
            "last_seen": START + timedelta(days=chance.randrange(60)),
        }
        for _ in range(40)
        for type_, values in [chance.choice([("phone", phones), ("email", MAILS)])]
    ]  # fmt: skip
    edges += [
        {
            "type_a": "email", "value_a": chance.choice(MAILS).lower(), "type_b": "phone",
            "value_b": chance.choice(phones), "source": "calls", "status": "accepted", "last_seen": START,
        }
        for _ in range(8)
    ]  # fmt: skip
    customers: Rows = [
        {
            "person_id": person, "family": chance.choice(FAMILIES), "phone": chance.choice([*phones, None]),
            "email": chance.choice([*MAILS, None]), "town": chance.choice(["Ely", "ely.", "York", None]),
        }
        for person in ids
    ]  # fmt: skip
    rows = {
        name: [
            {
                "contact": chance.choice([f"c{chance.randrange(people):02d}", None]), "email": None, "phone": None,
                "number": chance.choice([" A1", "A1", "B2", "C3", "", None]), "family": None,
                "parent": chance.choice(["A1", "B2", "", None]), "firm": chance.choice(["Firm", "Other", None]),
                "_record_id": f"{name}{place:02d}", "_occurred_at": START + timedelta(days=chance.randrange(9)),
                "_loaded_at": START, "_day": START.date(), "_valid_from": START,
                "_valid_to": chance.choice([None, None, START]) if name == "crm" else None,
            }
            for place in range(25)
        ]
        for name in ("crm", "calls")
    }  # fmt: skip
    return {"customers": customers, "identifiers": identifiers, "edges": edges, **rows}


def tables(rows: dict[str, Rows], make: Callable[[pa.Table], ibis.Table]) -> dict[str, ibis.Table]:
    schemas = {"identifiers": IDENTIFIERS.schema, "edges": EDGES.schema}
    schemas |= {name: source_table(TOWN.sources[name]).schema for name in TOWN.sources}
    schemas["customers"] = ibis.schema(dict.fromkeys(("person_id", "family", "phone", "email", "town"), "string"))
    return {name: make(_table(rows[name], schema.to_pyarrow())) for name, schema in schemas.items()}


def _table(rows: Rows, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def evidence(rows: dict[str, Rows], make: Callable[[pa.Table], ibis.Table]) -> tuple[ibis.Table, ibis.Table]:
    """claims() and listed() of a town."""
    at = tables(rows, make)
    sources = {name: at[name] for name in TOWN.sources}
    return claims(GROUP, at["customers"], at["identifiers"], at["edges"], sources, TOWN, NOW), listed(GROUP, sources)


Said = dict[tuple[str, str, str], datetime | None]


def claims_by_hand(rows: dict[str, Rows]) -> Said:
    """Oracle of claims(): (rule, person, key) → when it was last said."""
    found: dict[tuple[str, str, str], list[datetime]] = {}
    whose = {(row["type"], row["value"]): row for row in rows["identifiers"]}

    def plain(text: str | None) -> str:
        # Marks belong to letters: \w leaves some out, so ask for what is neither space nor ASCII punctuation.
        return " ".join(re.sub(r"[\s!-/:-@\[-`{-~]+", " ", text or "").lower().split())

    def blocked(type_: str, text: str | None, but: str = "") -> bool:
        return whose.get((type_, str(text)), {}).get("why") not in (None, but)

    for row in rows["customers"]:
        family, town_ = plain(row["family"]), plain(row["town"])
        if family and town_:
            found[FAMILY, row["person_id"], f"{family}|{town_}"] = []
        if plain(row["phone"]) and not blocked("phone", row["phone"]):
            found[SAME_PHONE, row["person_id"], plain(row["phone"])] = []
        mail = (row["email"] or "").lower()
        if "@" in mail and not blocked("email", row["email"], "mailbox of a role"):
            found[DOMAIN, row["person_id"], mail.partition("@")[2]] = []
    for name, rule in (("crm", CRM_NUMBER), ("calls", CALLS_NUMBER)):
        for row in rows[name]:
            key = (row["number"] or "").strip()
            if row["contact"] and key and row["_valid_to"] is None:
                person = whose["contact", row["contact"]]["person_id"]
                found.setdefault((rule, person, key), []).append(row["_occurred_at"])
    for (type_, value), row in whose.items():
        if type_ == "phone" and row["status"] == "ok":
            found.setdefault((PHONE, row["person_id"], value), []).append(row["last_seen"])
    since = NOW.replace(tzinfo=None) - EXPIRES
    for edge in rows["edges"]:
        other = whose.get((edge["type_a"], edge["value_a"]))
        fresh = edge["source"] == "crm" or edge["last_seen"] > since
        if edge["type_b"] != "phone" or edge["status"] == "refused_verdict" or not fresh:
            continue
        if other and other["status"] == "ok" and whose["phone", edge["value_b"]]["status"] != "blocked":
            found.setdefault((PHONE, other["person_id"], edge["value_b"]), []).append(edge["last_seen"])
    return {what: max(times, default=None) for what, times in found.items()}


def listed_by_hand(rows: Rows) -> dict[str, tuple[str | None, str | None, datetime]]:
    """Oracle of listed(): key → name, parent, when first heard of."""
    named: dict[str, Rows] = {}
    for row in rows:
        named.setdefault((row["number"] or "").strip(), []).append(row)
    found = {}
    for key, every in named.items():
        current = [row for row in every if row["_valid_to"] is None]
        if key and current:
            latest = max(current, key=lambda row: (row["_occurred_at"], row["_record_id"]))
            first = min(row["_occurred_at"] for row in every)
            found[key] = (latest["firm"], (latest["parent"] or "").strip() or None, first)
    return found

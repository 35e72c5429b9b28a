"""A small company whose audiences are asked for in the tests: its declarations, its tables, and answers to rules."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import ibis
import pyarrow as pa
from hypothesis import strategies as st

from cdp_pipeline.audiences.rules import Scope, gathered, holds
from cdp_pipeline.spec.audience import Audience, Rule
from cdp_pipeline.spec.group import Group
from cdp_pipeline.spec.identifier import Identifier
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source
from cdp_pipeline.traits.bands import BANDS
from cdp_pipeline_tests.traits.shop import DAYS, PEOPLE, project, timeline_rows, trait

Row = dict[str, Any]
ASKED = [DAYS[4], DAYS[6]]
EARLIER = DAYS[2]
"""Two days before the first day that is asked about, four before the second."""
LONG_AGO = DAYS[0] - timedelta(days=5)
"""Nine days before the first day that is asked about: whoever asks for eight days before is told of it."""
TRAITS = [
    trait("spent", "sum", value="amount"),
    trait("orders", "count"),
    trait("refunded", "sum", value="amount"),
    trait("favourite", "last", value="category"),
    trait("recency", "days_since", bands=[{"name": "ok"}, {"name": "alarm", "above": 3}]),
]
ARTICLES = Source.model_validate({
    "kind": "source", "name": "articles", "description": "What is sold.", "files": "a.csv", "grain": ["sku"],
    "mode": "snapshot", "columns": {
        "sku": {"type": "string"}, "brand": {"type": "string"}, "maker": {"type": "integer"},
    },
})  # fmt: skip
MAKERS = Source.model_validate({
    "kind": "source", "name": "makers", "description": "Who makes it.", "files": "m.csv", "grain": ["id"],
    "mode": "snapshot", "columns": {"id": {"type": "integer"}, "country": {"type": "string"}},
})  # fmt: skip
CLAIMS = Source.model_validate({
    "kind": "source", "name": "claims", "description": "Complaints.", "files": "c.csv", "grain": ["id"],
    "occurred_at": "at", "columns": {
        "id": {"type": "string"}, "at": {"type": "timestamp"}, "sku": {"type": "string"},
        "email": {"type": "string", "identifier": "email"},
    },
})  # fmt: skip
EMAIL = Identifier.model_validate(
    {"kind": "identifier", "name": "email", "description": "E-mail.", "priority": 50, "unique": True}
)
SCHEMAS = {
    "traits": {
        "person_id": "string", "day": "date", "spent": "decimal(18, 4)", "refunded": "decimal(18, 4)",
        "orders": "int64", "favourite": "string",
    },
    "customers": {
        "person_id": "string", "town": "string", "age": "int64", "vip": "boolean", "born": "date",
        "seen": "timestamp(6)", "tags": "array<string>", "lat": "float64", "lon": "float64", "sku": "string",
    },
    "churn": {"person_id": "string", "day": "date", "score": "float64", "rank": "int64", "band": "string"},
    "identifiers": {"type": "string", "value": "string", "person_id": "string", "status": "string"},
    "groups": {"kind": "string", "group_id": "string", "person_id": "string"},
    "articles": {"sku": "string", "brand": "string", "maker": "int64", "_valid_to": "timestamp(6)"},
    "makers": {"id": "int64", "country": "string", "_valid_to": "timestamp(6)"},
    "claims": {"id": "string", "email": "string", "sku": "string", "at": "timestamp(6)", "_day": "date"},
}  # fmt: skip


def rule(**fields: Any) -> Rule:
    return Rule.model_validate(fields)


def audience(name: str, *rules: Rule, **fields: Any) -> Audience:
    return Audience(kind="audience", name=name, description="An audience.", rules=list(rules), **fields)


def company_project(*documents: Any) -> Project:
    """The shop with its traits, its other sources, and these documents."""
    whole = project(*TRAITS, *documents)
    firms = Group.model_validate(
        {"kind": "group", "name": "firm", "type": "account", "description": "Firms.", "by": [{"identifier": "email"}]}
    )
    return replace(
        whole,
        sources={**whole.sources, "articles": ARTICLES, "makers": MAKERS, "claims": CLAIMS},
        identifiers={"email": EMAIL},
        groups={"firm": firms, "home": firms.model_copy(update={"name": "home"})},
    )


def arrow(company: Row, name: str) -> pa.Table:
    """One of a company's tables."""
    if name == "bands":
        moves = [{"trait": "recency", **row} for row in company.get("bands", [])]
        return pa.Table.from_pylist(moves, schema=BANDS.schema.to_pyarrow())
    if name == "timeline":
        return timeline_rows(company.get("timeline", []))
    return pa.Table.from_pylist(company.get(name, []), schema=ibis.schema(SCHEMAS[name]).to_pyarrow())


def scope_with(table: Any, company: Row) -> Scope:
    """The company's tables where `table` puts them."""
    return Scope(
        **{
            name: table(name, arrow(company, name))
            for name in ("traits", "customers", "bands", "timeline", "identifiers", "groups")
        },
        predictions={"churn": table("churn", arrow(company, "churn"))},
        sources={name: table(name, arrow(company, name)) for name in ("articles", "makers", "claims")},
    )


def scope(company: Row) -> Scope:
    connection = ibis.duckdb.connect()
    return scope_with(lambda name, rows: connection.create_table(name, rows), company)


def answers(rules: Sequence[Rule], asked: Scope, whole: Project, days: Sequence[date] = ASKED) -> ibis.Table:
    """One row per person and day with a column for each rule: `r0`, `r1`, …"""
    table = gathered(whole, rules, asked, days)
    return table.select("person_id", "day", **{f"r{number}": holds(one, table) for number, one in enumerate(rules)})


TEXTS = st.sampled_from(["tea", "Tea", "cake", "a", ""])


def companies(events: int = 40) -> st.SearchStrategy[Row]:
    """Companies in which much happens. Left to itself, hypothesis would have next to nothing happen."""
    return st.integers(0, 10**9).map(lambda seed: some_company(seed, events))


def told(row: Row, event_id: str) -> Row:
    at = datetime.combine(row["_day"], time(row.pop("hour")))
    return {
        "source": "shop", "currency": "GBP", "points": None, "gift": None, "due": None, "seen_at": None, **row,
        "event_id": event_id, "occurred_at": at, "_loaded_at": datetime.combine(row["_day"], time(23)),
    }  # fmt: skip


def some_company(seed: int = 7, events: int = 70) -> Row:
    """What the tables say of a few people, always the same for a seed: with ties, gaps, nulls and close calls."""
    chance = random.Random(seed)
    one = chance.choice

    def some(people: Sequence[str] = PEOPLE, most: float = 0.9) -> list[str]:
        return [person for person in people if chance.random() < most]

    return {
        "traits": [
            {"person_id": person, "day": day, "spent": one([None, *map(Decimal, ("0", "2.5", "19.99", "-1"))]),
             "refunded": one([None, *map(Decimal, ("0", "2.5", "20"))]),
             "orders": one([None, 0, 1, 2, 5]), "favourite": one([None, "tea", "Tea cake", "cake"])}
            for day in [LONG_AGO, EARLIER, DAYS[3], *ASKED, DAYS[5]] for person in some()
        ],
        "customers": [
            {"person_id": person, "town": one([None, "Ely", "tea", "cake", "", "a"]), "age": one([None, -1, 0, 1, 2]),
             "vip": one([True, None, False]), "sku": one(["s1", "s2", None]),
             "born": one([date(2000, 2, 29), date(1999, 12, 31), date(2001, 1, 1), None])}
            for person in some()
        ],
        "churn": [
            {"person_id": person, "day": day, "score": one([0.0, 0.5, 0.9]), "rank": one([1, 2, 3]),
             "band": one(["high", "low", None])}
            for day in [*ASKED, DAYS[5]] for person in some()
        ],
        "bands": [{"person_id": person, "day": day, "to_band": one(["alarm", "ok"])}
                  for day in (DAYS[0], DAYS[4], DAYS[5]) for person in some(most=0.5)],
        "identifiers": [
            {"type": one(["email", "phone", "cookie"]), "value": f"{person}@example.com", "person_id": person,
             "status": "ok"}
            for person in some()
        ],
        "groups": [{"kind": kind, "group_id": one(["g1", "g2", "g3"]), "person_id": person}
                   for kind in ("firm", "home") for person in some(most=0.8)],
        "articles": [{"sku": sku, "brand": one(["x", "y", None]), "maker": one([1, 2, None]),
                      "_valid_to": one([None, None, datetime(2024, 1, 1)])} for sku in ("s1", "s2", "s9", None)],
        "makers": [{"id": number, "country": one(["de", "at"]), "_valid_to": None} for number in (1, 2)],
        "claims": [
            {"id": f"c{number}", "sku": one(["s1", "s2", "s4", None]), "_day": day,
             "at": datetime.combine(day, time(9)),
             "email": one([None, *(f"{person}@example.com" for person in PEOPLE)])}
            for number, day in enumerate(DAYS)
        ],
        "timeline": [
            told(
                {"person_id": one([*PEOPLE[:4], None]), "event": one(["order", "order", "visit"]),
                 "_day": one([*DAYS[1:8], DAYS[0] - timedelta(days=365), DAYS[0] - timedelta(days=400)]),
                 "hour": one([0, 11, 12, 23]), "amount": one([None, *map(Decimal, ("-7.25", "0", "10", "10.5"))]),
                 "quantity": one([None, 1, 2]), "channel": one(["web", "store", None]),
                 "category": one(["tea", "cake", None]), "product_id": one(["s1", "s2", "s9", None])},
                f"e{number:03}",
            )
            for number in chance.sample(range(events), events)
        ],
    }  # fmt: skip

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
TRAITS = [
    trait("spent", "sum", value="amount"),
    trait("orders", "count"),
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
        "person_id": "string", "day": "date", "spent": "decimal(18, 4)", "orders": "int64", "favourite": "string",
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


@st.composite
def companies(draw: st.DrawFn, most: int = 40) -> Row:
    """What the tables say: of some people, some things."""

    def some(rows: st.SearchStrategy[Row], days: list[date] | None = None) -> list[Row]:
        return [
            {"person_id": person, **({"day": day} if day else {}), **draw(rows)}
            for person in PEOPLE
            for day in days or [None]
            if draw(st.integers(0, 3))
        ]

    return {
        "traits": some(
            st.fixed_dictionaries({
                "spent": st.none() | st.sampled_from([Decimal("0"), Decimal("2.5"), Decimal("19.99"), Decimal("-1")]),
                "orders": st.none() | st.integers(0, 2),
                "favourite": st.none() | st.sampled_from(["tea", "cake", "Tea cake"]),
            }), [EARLIER, *ASKED, DAYS[5]],
        ),
        "customers": some(
            st.fixed_dictionaries({
                "town": st.none() | TEXTS,
                "age": st.none() | st.integers(-1, 2),
                "vip": st.none() | st.booleans(),
                "born": st.none() | st.sampled_from([date(2000, 2, 29), date(1999, 12, 31), date(2001, 1, 1)]),
                "sku": st.none() | st.sampled_from(["s1", "s2"]),
            }),
        ),
        "churn": some(
            st.fixed_dictionaries({
                "score": st.sampled_from([0.0, 0.5, 0.9]), "rank": st.integers(1, 3),
                "band": st.sampled_from(["high", "low", None]),
            }), [*ASKED, DAYS[5]],
        ),
        "bands": some(
            st.fixed_dictionaries({"to_band": st.sampled_from(["ok", "alarm"])}), [DAYS[0], DAYS[4], DAYS[5]],
        ),
        "identifiers": [
            {**row, "value": f"{row['person_id']}@example.com", "status": "ok"}
            for row in some(st.fixed_dictionaries({"type": st.sampled_from(["email", "phone", "cookie"])}))
        ],
        "groups": [
            {"kind": kind, "group_id": draw(st.sampled_from(["g1", "g2", "g3"])), "person_id": person}
            for kind in ("firm", "home") for person in PEOPLE if draw(st.integers(0, 4))
        ],
        "articles": [
            {"sku": sku, "brand": draw(st.sampled_from(["x", "y", None])), "maker": draw(st.sampled_from([1, 2, None])),
             "_valid_to": draw(st.sampled_from([None, None, datetime(2024, 1, 1)]))}
            for sku in ("s1", "s2", "s3", None)
        ],
        "makers": [{"id": number, "country": draw(st.sampled_from(["de", "at"])), "_valid_to": None}
                   for number in (1, 2) if draw(st.booleans())],
        "claims": [
            {"id": f"c{number}", "sku": draw(st.sampled_from(["s1", "s2", "s4", None])), "_day": day,
             "at": datetime.combine(day, time(9)),
             "email": draw(st.sampled_from([f"{person}@example.com" for person in PEOPLE[:4]] + [None]))}
            for number, day in enumerate(draw(st.lists(st.sampled_from(DAYS), max_size=6)))
        ],
        "timeline": draw(happened(most)),
    }  # fmt: skip


@st.composite
def happened(draw: st.DrawFn, most: int) -> list[Row]:
    """Histories of few people with many ties, so that what comes after what is often a close call."""
    rows = draw(
        st.lists(
            st.fixed_dictionaries({
                "person_id": st.sampled_from([*PEOPLE[:3], None]),
                "event": st.sampled_from(["order", "order", "visit"]),
                "_day": st.sampled_from([*DAYS[1:8], DAYS[0] - timedelta(days=365), DAYS[0] - timedelta(days=400)]),
                "hour": st.sampled_from([0, 11, 12, 23]),
                "amount": st.sampled_from([None, Decimal("-7.25"), Decimal(0), Decimal("10.5"), Decimal(10)]),
                "channel": st.sampled_from(["web", "store", None]),
                "category": st.sampled_from(["tea", "cake", None]),
                "product_id": st.sampled_from(["s1", "s2", "s9", None]),
                "quantity": st.sampled_from([1, 2, None]),
            }),
            max_size=most,
        )
    )  # fmt: skip
    ids = draw(st.permutations(range(len(rows))))
    return [told(row, f"e{number:02}") for row, number in zip(rows, ids, strict=True)]


def told(row: Row, event_id: str) -> Row:
    at = datetime.combine(row["_day"], time(row.pop("hour")))
    return {
        "source": "shop", "currency": "GBP", "points": None, "gift": None, "due": None, "seen_at": None, **row,
        "event_id": event_id, "occurred_at": at, "_loaded_at": datetime.combine(row["_day"], time(23)),
    }  # fmt: skip


def some_company(seed: int = 7) -> Row:
    """A company of every sort of thing, always the same for a seed: for tests that cannot afford many."""
    chance = random.Random(seed)
    days = [EARLIER, DAYS[3], *ASKED]
    return {
        "traits": [
            {"person_id": person, "day": day, "spent": chance.choice([None, Decimal("2.5"), Decimal("19.99")]),
             "orders": chance.choice([0, 2, None, 5]), "favourite": chance.choice([None, "tea", "Black Tea", "cake"])}
            for person in PEOPLE for day in days if chance.random() < 0.9
        ],
        "customers": [
            {"person_id": person, "town": chance.choice([None, "Ely", "Bath", "York"]),
             "age": chance.choice([None, 3, 4]), "vip": chance.choice([True, None, False]),
             "born": chance.choice([date(2000, 2, 29), date(2001, 1, 1), None]),
             "sku": chance.choice(["s1", "s2", None])}
            for person in PEOPLE
        ],
        "churn": [
            {"person_id": person, "day": day, "score": chance.random(), "rank": number,
             "band": chance.choice(["high", None])}
            for number, person in enumerate(PEOPLE) for day in ASKED
        ],
        "bands": [
            {"person_id": person, "day": chance.choice(DAYS[:6]), "to_band": chance.choice(["alarm", "ok"])}
            for person in PEOPLE
        ],
        "identifiers": [
            {"type": ["email", "phone", "cookie"][number % 3], "value": f"{person}@example.com", "person_id": person,
             "status": "ok"}
            for number, person in enumerate(PEOPLE)
        ],
        "groups": [
            {"kind": kind, "group_id": chance.choice(["g1", "g2"]), "person_id": person}
            for kind in ("firm", "home") for person in PEOPLE if chance.random() < 0.8
        ],
        "articles": [{"sku": sku, "brand": brand, "maker": maker, "_valid_to": None}
                     for sku, brand, maker in (("s1", "x", 1), ("s2", "y", 2), ("s9", "x", None))],
        "makers": [{"id": 1, "country": "de", "_valid_to": None}, {"id": 2, "country": "at", "_valid_to": None}],
        "claims": [
            {"id": f"c{number}", "sku": chance.choice(["s1", "s2", None]), "_day": day,
             "at": datetime.combine(day, time(9)), "email": f"{chance.choice(PEOPLE)}@example.com"}
            for number, day in enumerate(DAYS)
        ],
        "timeline": [
            told(
                {"person_id": chance.choice([*PEOPLE[:5], None]), "event": chance.choice(["order", "order", "visit"]),
                 "_day": chance.choice([*DAYS, DAYS[0] - timedelta(days=365)]), "hour": chance.choice([0, 11, 12, 23]),
                 "amount": chance.choice([None, Decimal("10.01"), Decimal("-3.5"), Decimal("0.3333")]),
                 "quantity": chance.choice([None, 1, 2]), "channel": chance.choice(["web", "store", None]),
                 "category": chance.choice(["tea", "cake", None]),
                 "product_id": chance.choice(["s1", "s2", "s9", None])},
                f"e{number:03}",
            )
            for number in range(70)
        ],
    }  # fmt: skip

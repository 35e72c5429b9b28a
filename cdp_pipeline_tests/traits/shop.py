"""A small declared shop for the tests of traits and audiences: its project, its events, and where they are computed."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
from hypothesis import strategies as st

from cdp_pipeline.lake.table import Table
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.project import LakeLocation, Project, ProjectSettings
from cdp_pipeline.spec.source import Source
from cdp_pipeline.spec.trait import Trait

PEOPLE = tuple(f"p_{number:02}" for number in range(8))
DAYS = [date(2024, 2, 25) + timedelta(days=number) for number in range(10)]  # a leap day among them
SHOP = Source.model_validate(
    {
        "kind": "source",
        "name": "shop",
        "description": "The shop.",
        "files": "shop.csv",
        "grain": ["id"],
        "occurred_at": "at",
        "columns": {
            "id": {"type": "string"},
            "at": {"type": "timestamp"},
            "price": {"type": "money"},
            "quantity": {"type": "integer"},
            "points": {"type": "number"},
            "gift": {"type": "boolean"},
            "due": {"type": "date"},
            "seen_at": {"type": "timestamp"},
        },
        "events": [
            {"event": event, "amount": "price", "properties": ["quantity", "points", "gift", "due", "seen_at"]}
            for event in ("order", "visit")
        ],
    }
)


def project(*documents: Any, timezone: str = "Europe/London") -> Project:
    """A project with the shop as its source and these documents."""
    kinds: dict[str, dict[str, Any]] = {kind: {} for kind in ("trait", "audience", "prediction", "attribute")}
    for document in documents:
        kinds[document.kind][document.name] = document
    settings = ProjectSettings(
        kind="project",
        name="tests",
        description="For tests.",
        timezone=timezone,
        first_day=date(2024, 1, 1),
        lake=LakeLocation(path="lake"),
    )
    return Project(
        folder=Path(), settings=settings, sources={"shop": SHOP}, identifiers={}, matches={},
        attributes=kinds["attribute"], traits=kinds["trait"], predictions=kinds["prediction"],
        audiences=kinds["audience"], triggers={}, destinations={}, syncs={},
    )  # fmt: skip


def trait(name: str, evaluation: str, **fields: Any) -> Trait:
    given = {} if evaluation in ("ratio", "expression", "state") else {"event": "order"}
    document = {"kind": "trait", "name": name, "description": "A trait.", "evaluation": evaluation, **given, **fields}
    return Trait.model_validate(document)


def event(**fields: Any) -> dict[str, Any]:
    """One row of the timeline, as a dictionary; properties beside the rest."""
    day = fields.get("_day", DAYS[5])
    row = {
        "event_id": "e", "person_id": PEOPLE[0], "occurred_at": datetime.combine(day, time(12)), "source": "shop",
        "event": "order", "channel": "web", "amount": Decimal(10), "currency": "GBP", "product_id": None,
        "category": "tea", "quantity": 1, "points": 0.5, "gift": False, "due": None, "seen_at": None, "_day": day,
        "_loaded_at": datetime.combine(day, time(23)),
    }  # fmt: skip
    return row | fields


def rows_table(table: Table, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a declared table; what the declaration keeps in `properties` is gathered there."""
    arrow = table.schema.to_pyarrow()
    inner = [field.name for field in arrow.field("properties").type] if "properties" in arrow.names else []
    full = [row | {"properties": {name: row.get(name) for name in inner}} if inner else row for row in rows]
    return pa.Table.from_pylist([{name: row.get(name) for name in arrow.names} for row in full], schema=arrow)


def timeline_rows(rows: list[dict[str, Any]]) -> pa.Table:
    return rows_table(timeline_table(project()), rows)


def stored(connection: ibis.BaseBackend, name: str, rows: pa.Table) -> ibis.Table:
    return connection.create_table(name, rows, overwrite=True)


MONEY = st.sampled_from([Decimal(text) for text in ("-7.25", "0", "0.01", "10", "10.5", "49.99")])  # they repeat


@st.composite
def events(draw: st.DrawFn, days: list[date] = DAYS, least: int = 0, most: int = 100) -> list[dict[str, Any]]:
    """Event histories with ties, nulls, negative amounts, unknown people and days on both edges of every window."""
    found = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "person_id": st.sampled_from([*PEOPLE, None]),
                    "event": st.sampled_from(["order", "order", "visit"]),
                    "_day": st.sampled_from([*days, days[0] - timedelta(days=365), days[0] - timedelta(days=366)]),
                    "hour": st.sampled_from([0, 12, 23]),
                    "amount": st.none() | MONEY,
                    "quantity": st.none() | st.integers(-3, 3),
                    "points": st.none() | st.sampled_from([0.1, 0.25, -1.5, 1e6]),
                    "channel": st.sampled_from(["web", "store", None]),
                    "category": st.sampled_from(["tea", "cake", "cup", None]),
                    "gift": st.sampled_from([True, False, None]),
                }
            ),
            min_size=least,
            max_size=most,
        )
    )
    ids = draw(st.permutations(range(len(found))))
    return [
        event(
            **{name: value for name, value in row.items() if name != "hour"},
            event_id=f"e{number:02}",
            occurred_at=datetime.combine(row["_day"], time(row["hour"])),
            due=row["_day"],
            seen_at=datetime.combine(row["_day"], time(row["hour"])),
        )
        for row, number in zip(found, ids, strict=True)
    ]

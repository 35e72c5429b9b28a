"""The starter project with a small shop's orders, made the way the README's ten minutes make it."""

from __future__ import annotations

import csv
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cdp_pipeline.identity.history import QUALITY
from cdp_pipeline.lake import open_lake
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.orchestration.commands import Cdp

NEWEST = datetime.now(UTC).date() - timedelta(days=2)
"""The newest day with orders: over in every time zone."""

# email, phone, name, days before the newest order and totals. Ann and Bob share a phone; Fay spends most.
ORDERS = (
    ("Ann@Example.com", "020 7946 0018", "Ann Lee", ((40, "80.00"), (12, "45.50"), (3, "7.25"))),
    ("bob@example.com", "+44 20 7946 0018", "Bob Ray", ((9, "19.99"),)),
    ("cat@example.com", "", "Cat Orr", ((100, "150.00"),)),
    ("dan@example.com", "020 7946 0099", "Dan Fox", ((59, "30.00"), (58, "31.00"), (57, "32.00"), (1, "33.00"))),
    ("eve@example.com", "", "Eve Day", ((200, "500.00"),)),
    ("fay@example.com", "020 7946 0123", "Fay Kim", tuple((day, f"{day + 20}.10") for day in range(0, 30, 2))),
    ("", "020 7946 0555", "Guy Poe", ((5, "64.00"), (4, "66.00"))),
    ("hal@example.com", "", "Hal Sun", tuple((day, "9.99") for day in (70, 60, 50, 40, 30, 20))),
)
BAD = "B1"
"""The order whose total is no number."""

TRAITS = """
kind: trait
name: orders
description: Orders ever.
evaluation: count
event: order_completed
---
kind: trait
name: revenue_365d
description: Revenue of the last year.
evaluation: sum
event: order_completed
value: amount
window: last 365 days
unit: GBP
"""
VOLATILE = {
    "_loaded_at",
    "_computed_at",
    "loaded_at",
    "loaded",
    "since",
    "modified_ns",
    "place",
    "run_id",
    "quarantine_id",
    "next_at",
    "snapshot",
    "created_at",
    "updated_at",
    "at",
}
"""When and where a row was made, which says nothing about what it says."""


def rows() -> list[list[str]]:
    placed = [
        (NEWEST - timedelta(days=days), email, phone, name, total)
        for email, phone, name, orders in ORDERS
        for days, total in orders
    ]
    placed.sort()
    lines = [
        [str(number), f"{day} 12:{number % 60:02}:00", email, phone, name, total]
        for number, (day, email, phone, name, total) in enumerate(placed, 1)
    ]
    return [*lines, [BAD, f"{NEWEST} 13:00:00", "ivy@example.com", "", "Ivy Low", "free"]]


def write_orders(data: Path, lines: list[list[str]] | None = None) -> None:
    data.mkdir(parents=True, exist_ok=True)
    with (data / "orders.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["order_id", "ordered_at", "email", "phone", "name", "total"])
        writer.writerows(lines or rows())


def installed(folder: Path) -> Cdp:
    """A starter project with orders beside it; nothing has run yet."""
    cdp = Cdp(folder / "shop", folder / "data", folder / "lake")
    cdp.run("init", str(cdp.project))
    few_traits(cdp.project)
    write_orders(cdp.data)
    return cdp


def few_traits(project: Path) -> None:
    """Only the traits the tests speak of: what comes with the house has tests of its own, and costs seconds a run."""
    settings = project / "project.yaml"
    settings.write_text(settings.read_text() + "shipped: {traits: false, audiences: false}\n")
    (project / "traits.yaml").write_text(TRAITS)


def state(cdp: Cdp, without: Collection[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """Every table with its rows in order, without when and where they were made, and without some columns."""
    with open_lake(LakeLocation(path=str(cdp.lake)), read_only=True) as lake:
        names = lake.connection.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_catalog = 'lake'"
        ).fetchall()
        found = {}
        for (name,) in sorted(names):
            rows = lake.table(name)
            if name == QUALITY.name:
                # Measured on each day that somebody runs it: what was said last, whenever that was.
                rows = rows.filter(rows.day == rows.day.max()).drop("day")
            kept = [column for column in rows.columns if column not in {*VOLATILE, *without}]
            found[name] = sorted(rows.select(*kept).to_pyarrow().to_pylist(), key=repr)
        return found

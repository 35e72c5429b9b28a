"""Small projects around one or two sources, as their YAML would say them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from cdp_pipeline.lake import Lake
from cdp_pipeline.sources.load import LoadReport, load
from cdp_pipeline.sources.tables import LOADS, QUARANTINE, source_table
from cdp_pipeline.spec.project import Project, ProjectSettings
from cdp_pipeline.spec.source import Source

NOW = datetime(2024, 6, 1, 12, 0, tzinfo=UTC)

ORDERS: dict[str, Any] = {
    "order_id": {"type": "string", "required": True},
    "ordered_at": {"type": "timestamp"},
    "email": {"type": "string", "normalise": "email", "invalid": "omit"},
    "amount": {"type": "money"},
}


def source(name: str = "orders", **words: Any) -> Source:
    """A source of orders, or of whatever `words` says instead."""
    said: dict[str, Any] = {
        "kind": "source",
        "name": name,
        "description": "Orders.",
        "grain": ["order_id"],
        "occurred_at": "ordered_at",
        "columns": ORDERS,
    }
    return Source.model_validate(said | words)


def project(*sources: Source, timezone: str = "UTC") -> Project:
    settings = ProjectSettings.model_validate(
        {
            "kind": "project",
            "name": "shop",
            "description": "A shop.",
            "timezone": timezone,
            "first_day": date(2020, 1, 1),
            "lake": {"path": "lake"},
        }
    )
    nothing: dict[str, Any] = {}
    return Project(Path(), settings, {one.name: one for one in sources}, *[nothing] * 9)


def loaded(
    lake: Lake,
    one: Source,
    *others: Source,
    days: list[date] | None = None,
    now: datetime = NOW,
    run_id: str = "run",
    timezone: str = "UTC",
) -> LoadReport:
    return load(lake, one, project(one, *others, timezone=timezone), days, now, run_id)


def rows(lake: Lake, one: Source, *columns: str) -> list[tuple[Any, ...]]:
    """The source's rows as tuples of these columns, sorted."""
    table = lake.read(source_table(one)).select(*columns).to_pyarrow()
    return sorted(zip(*(column.to_pylist() for column in table.columns), strict=True), key=repr)


def quarantine(lake: Lake) -> list[dict[str, Any]]:
    return lake.read(QUARANTINE).order_by("place", "raw").to_pyarrow().to_pylist()


def ledger(lake: Lake) -> list[dict[str, Any]]:
    return lake.read(LOADS).order_by("loaded_at", "place").to_pyarrow().to_pylist()

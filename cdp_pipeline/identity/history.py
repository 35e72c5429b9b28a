"""measurement.identity_quality: how good identity was, day after day, so that a drop is seen. Figures, no persons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.table import Column, Table

if TYPE_CHECKING:
    import pyarrow as pa

    from cdp_pipeline.spec.project import Project

QUALITY = Table(
    name="measurement.identity_quality",
    description="How well people were put together: sizes, shared and blocked values, accuracy where truth is known.",
    columns={
        "day": Column("date", "The day it was measured."),
        "figure": Column("string", "What was measured."),
        "value": Column("float64", "The figure; shares lie between 0 and 1."),
    },
    key=("day", "figure"),
)


def figures_of_day(figures: Mapping[str, Any], now: datetime, project: Project) -> pa.Table:
    """The rows of QUALITY for today. A mapping is a figure per key, `alone.email`; lists are left to the metadata."""
    import pyarrow as pa

    day = now.astimezone(project.zone).date()
    rows = [
        {"day": day, "figure": name, "value": float(value)}
        for name, value in _flat(figures)
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return pa.Table.from_pylist(rows, schema=QUALITY.schema.to_pyarrow())


def _flat(figures: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", one) for key, one in value.items())
        else:
            yield name, value


def figures_before(history: ibis.Table, now: datetime, project: Project) -> dict[str, float]:
    """The figures of the last day before today on which there are any, named as in QUALITY."""
    earlier = history.filter(history["day"] < ibis.date(now.astimezone(project.zone).date()))
    rows = earlier.filter(earlier["day"] == earlier["day"].max()).to_pyarrow().to_pylist()
    return {row["figure"]: row["value"] for row in rows}


def read_truth(project: Project, connection: Any) -> ibis.Table | None:
    """Who is who in generated data (type, value, person, maybe shared, reachable); None where no truth is known."""
    if project.settings.truth is None:
        return None
    path = Path.cwd() / project.settings.truth / "identifiers.csv"
    if not path.exists():
        return None
    truth = connection.read_csv(str(path), all_varchar=True)
    return truth.select(*(name for name in ("type", "value", "person", "shared", "reachable") if name in truth.columns))

"""Watermarks: how far each source has told what happened, so that what it does not show before then did not happen.

Published together with the timeline it is true of. What follows from an absence is activation's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import ibis
import pyarrow as pa

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.window import midnight

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.source import Source

WATERMARKS = Table(
    "profile.watermarks",
    "How far each source has told what happened: what it does not show before then did not happen.",
    {
        "source": Column("string", "The source."),
        "until": Column("timestamp(6)", "The moment up to which everything it has to tell was loaded (UTC)."),
    },
    key=("source",),
)
GAPS_COUNT = timedelta(days=2)
"""For how long a day whose file could not be loaded leaves it open what happened since."""


def watermarks(loads: ibis.Table, project: Project) -> pa.Table:
    """The rows of WATERMARKS for the sources of events that were ever loaded, from `sources.loads`.

    A file tells of everything up to when it was written, but not beyond the day in its path; a database up to when it
    was read, a full copy up to the moment it stands for. Where the newest file of a recent day could not be loaded,
    its source has told no more than what came before that day.
    """
    of_events = loads.filter(loads.source.isin([name for name, source in project.sources.items() if source.events]))
    at = of_events.loaded_at
    last = of_events.group_by("source", "place", "day").aggregate(status=of_events.status.argmax(at))
    loaded = of_events.filter(of_events.status == "loaded")
    whole = loaded.group_by("source", "day").aggregate(
        modified_ns=loaded.modified_ns.max(), copied_at=loaded.copied_at.max(), loaded_at=loaded.loaded_at.max()
    )
    until: dict[str, datetime] = {}
    for row in whole.to_pyarrow().to_pylist():
        name = row["source"]
        until[name] = max(_reach(project.sources[name], row, project), until.get(name, datetime.min))
    open_days = last.filter(last.status.isin(["failed", "rejected"]), last.day.notnull()).select("source", "day")
    reached = dict(until)
    for row in open_days.to_pyarrow().to_pylist():
        name, start = row["source"], midnight(row["day"], project.zone)
        if name in until and start > reached[name] - GAPS_COUNT:
            until[name] = min(until[name], start)
    rows = [{"source": name, "until": moment} for name, moment in sorted(until.items())]
    return pa.Table.from_pylist(rows, schema=WATERMARKS.schema.to_pyarrow())


def _reach(source: Source, row: dict[str, Any], project: Project) -> datetime:
    """How far what was loaded of a day (None: of files without one) tells."""
    said: datetime | None = row["loaded_at"] if source.files is None else row["copied_at"]
    if said is not None:
        return said
    written = datetime.fromtimestamp(row["modified_ns"] / 1e9, UTC).replace(tzinfo=None)
    over = datetime.max if row["day"] is None else midnight(row["day"] + timedelta(days=1), project.zone)
    return min(written, over)

"""Who is somebody still: people that were not merged into others, and the first day they may be spoken of."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import ibis

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project


def living(people: ibis.Table, project: Project) -> ibis.Table:
    """person_id and first_day (never later than the local day they were first seen on) of everybody there is still."""
    # The smaller of winter's and summer's offset: the day may come out one too early in one hour a day, never late.
    year = datetime(2026, 1, 1), datetime(2026, 7, 1)
    seconds = min(int(project.zone.utcoffset(day).total_seconds()) for day in year)  # type: ignore[union-attr]
    # An id that lost its last identifier (blocked, erased) is kept so that it is never reused, but is nobody.
    alive = people.filter(people.merged_into.isnull() & (people.identifiers > 0))
    local = alive.created_at + ibis.interval(seconds=seconds)
    return alive.select("person_id", first_day=local.date())

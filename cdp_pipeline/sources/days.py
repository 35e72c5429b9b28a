"""How far the data reaches: the newest day that is over and has rows. Which files exist is files.py's matter."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import ibis

from cdp_pipeline.spec.project import Project


def newest_complete_day(loads: ibis.Table, project: Project, now: datetime) -> date:
    """The newest day that is over in the project's zone and has events; yesterday where nothing was loaded yet."""
    events = [name for name, source in project.sources.items() if source.mode == "events"]
    newest = loads.filter(loads.source.isin(events)).last_day.max().to_pyarrow().as_py()
    yesterday = now.astimezone(project.zone).date() - timedelta(days=1)
    return yesterday if newest is None else min(newest, yesterday)

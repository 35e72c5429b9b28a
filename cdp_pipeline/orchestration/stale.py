"""How old each audience is, and which are older than they may be: `cdp status` shows it, the sensor tells people.

Dagster paints an asset that has missed its freshness policy and tells nobody.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import dagster as dg

from cdp_pipeline.orchestration.audiences import freshness_of
from cdp_pipeline.spec.base import counted, duration_text
from cdp_pipeline.spec.project import Project

NAMED = 20
"""Audiences an alert names one by one."""


class Made(NamedTuple):
    """Which run computed an audience last, and when."""

    run_id: str
    at: datetime


def last_made(project: Project, instance: dg.DagsterInstance) -> dict[str, Made]:
    """When each audience that was ever computed was computed last."""
    records = instance.get_asset_records([dg.AssetKey(["audiences", name]) for name in project.audiences])
    newest = {
        record.asset_entry.asset_key.path[-1]: record.asset_entry.last_materialization_record for record in records
    }
    return {
        name: Made(record.run_id, datetime.fromtimestamp(record.timestamp, UTC))
        for name, record in newest.items()
        if record is not None
    }


@dataclass(frozen=True)
class Stale:
    """Audiences that one run made and that may all be equally old, the newest of them too old by now."""

    names: tuple[str, ...]
    made: Made
    limit: timedelta

    @property
    def occasion(self) -> str:
        """The same for as long as they are not computed again, so that people are told once."""
        return f"stale:{self.made.run_id}:{self.made.at.isoformat()}:{self.limit}"

    @property
    def title(self) -> str:
        some = (
            f"audience '{self.names[0]}' is" if len(self.names) == 1 else f"{counted(len(self.names), 'audience')} are"
        )
        return f"{some} older than {duration_text(self.limit)}"

    @property
    def text(self) -> str:
        more = len(self.names) - NAMED
        named = ", ".join(self.names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
        return (
            f"Last computed at {self.made.at:%Y-%m-%d %H:%M} UTC: {named}. What they send is no newer. See: cdp status"
        )


def stale_audiences(project: Project, instance: dg.DagsterInstance, now: datetime) -> Iterator[Stale]:
    """Those computed once and not again in time. What was never computed is `cdp status`' to say."""
    together: dict[tuple[str, timedelta], dict[str, Made]] = defaultdict(dict)
    for name, made in last_made(project, instance).items():
        together[made.run_id, freshness_of(project, project.audiences[name])][name] = made
    for (_, limit), audiences in together.items():
        newest = max(audiences.values(), key=lambda made: made.at)
        if now - newest.at > limit:
            yield Stale(tuple(sorted(audiences)), newest, limit)

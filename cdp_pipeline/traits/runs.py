"""traits.runs, and from it how each day of traits is computed: from everything, or from what is new or was disturbed.

What a day is computed from is decided here, how is as_of.py's and increment.py's. A run reads what was written to the
timeline since the day it starts from was computed, so that late, corrected and withdrawn events, merges and splits
cost only the people they are about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.identity.living import living
from cdp_pipeline.identity.people import PEOPLE
from cdp_pipeline.lake.engines import DuckDBEngine
from cdp_pipeline.lake.errors import LakeVersionError
from cdp_pipeline.lake.publish import Mirror, Upsert
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.versions import trait_versions
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.daily import NOTHING_LOADED, daily, daily_table, stale_days
from cdp_pipeline.traits.history import kept
from cdp_pipeline.traits.increment import KnownDay, one_more_day

if TYPE_CHECKING:
    import pyarrow as pa

    from cdp_pipeline.lake import Lake, LakeView
    from cdp_pipeline.spec.project import Project

# Below so many events, looking at all of them is quicker than finding out which need not be looked at.
FEW_EVENTS = 1_000_000
# So many people, and this share of all, are looked at one by one; of more, everything is looked at.
FEW_PEOPLE, FEW_OF_ALL = 10_000, 0.2

RUNS = Table(
    name="traits.runs",
    description="How each day of the indicators was last computed: from all events, or only from what was new.",
    columns={
        "day": Column("date", "The day of traits.daily."),
        "at": Column("timestamp(6)", "When it was computed (UTC)."),
        "mode": Column("string", "everything, one more day, or the people of whom something changed."),
        "why": Column("string", "Why everything had to be looked at."),
        "snapshot": Column("int64", "The state of the timeline that was read."),
        "loaded": Column("timestamp(6)", "Rows loaded up to this moment (UTC) have been counted."),
        "definitions": Column("string", "The version of each indicator's definition: see traits.definitions."),
    },
    key=("day",),
    derived=True,
)


@dataclass(frozen=True)
class Step:
    """Days that are computed and published together, and how."""

    days: list[date]
    mode: str
    why: str | None
    writes: tuple[Mirror | Upsert, ...]


def steps(
    lake: Lake, project: Project, asked: Sequence[date], now: datetime, few_events: int = FEW_EVENTS
) -> Iterator[Step]:
    """What makes traits.daily right for the days asked for and the stale ones. Each step wants to be published first.

    All days are one step where there are few events; else those nothing is known of are one, and each other day or set
    of days starts from what is known.
    """
    run = _Run(lake, project, now)
    days = sorted({*asked, *run.stale()})
    why = run.unfit(few_events)
    if why is not None:
        yield from run.everything(days, why) if days else ()
        return
    recorded = recorded_versions(lake)
    known = [day for day in days if recorded.get(day) == run.definitions]
    yield from run.disturbed_people(known)
    for day in days:
        if day not in known:
            yield from run.one_more(day)


class _Run:
    """One run: the lake as it is now, and what its steps have in common."""

    def __init__(self, lake: Lake, project: Project, now: datetime) -> None:
        self.lake, self.project, self.now = lake, project, now
        self.events, self.table = timeline_table(project), daily_table(project)
        self.timeline = lake.read(self.events)
        self.people = living(lake.read(PEOPLE), project)
        self.definitions = trait_versions(project)

    def stale(self) -> list[date]:
        rows = stale_days(self.timeline, self.lake.read(self.table), self.lake.read(RUNS))
        return rows.day.to_pyarrow().to_pylist()

    def unfit(self, few_events: int) -> str | None:
        """Why this lake gains nothing from what is known already."""
        if not isinstance(self.lake.engine, DuckDBEngine):
            return "another engine computes"
        if self.timeline.count().to_pyarrow().as_py() < few_events:
            return "there are few events"
        return None

    def everything(self, days: list[date], why: str) -> Iterator[Step]:
        rows = daily(self.timeline, self.people, days, self.project)
        yield self._step(days, "everything", why, rows, self._loaded(days))

    def disturbed_people(self, days: list[date]) -> Iterator[Step]:
        """Days that were computed as they would be now, but for some people."""
        if not days:
            return
        theirs = []
        for day in days:
            known = self._known(day)
            if isinstance(known, str):
                yield from self.everything(days, known)
                return
            theirs.append(self._unlike(known, day))
        people = self.lake.held(ibis.union(*theirs, distinct=True))
        count = people.count().to_pyarrow().as_py()
        if count > min(FEW_PEOPLE, self._limit()):
            for day in days:
                yield from self.one_more(day)
            return
        loaded = self._loaded(days)
        rows = as_of(
            self.timeline.semi_join(people, "person_id"), self.people.semi_join(people, "person_id"), days, self.project
        ).mutate(_computed_at=ibis.literal(loaded, "timestamp(6)"))
        ids = people.person_id.to_pyarrow().to_pylist()
        yield self._step(days, "people of whom something changed", None, rows, loaded, person_id=ids)

    def one_more(self, day: date) -> Iterator[Step]:
        known = self._known(day)
        if not isinstance(known, str):
            known = self._not_too_many(known)
        if isinstance(known, str):
            yield from self.everything([day], known)
            return
        loaded = self._loaded([day])
        rows = one_more_day(self.timeline, self.people, day, self.project, known, self.lake.held)
        rows = rows.mutate(_computed_at=ibis.literal(loaded, "timestamp(6)"))
        yield self._step([day], "one more day", None, rows, loaded, cheap=True)

    def _known(self, day: date) -> KnownDay | str:
        """The newest day computed up to this one, with whoever was disturbed since; or why there is none."""
        run = self._last(day)
        if run is None:
            return "no earlier day is known"
        definitions = json.loads(run["definitions"])
        same = {name for name, fingerprint in self.definitions.items() if definitions.get(name) == fingerprint}
        rows = self.lake.read(self.table)
        try:
            written, removed = self.lake.feed(self.events.name, run["snapshot"])
        except LakeVersionError:
            return "the lake no longer remembers the last run"
        moved = ibis.union(*(rows.select("person_id", "_day") for rows in (written, removed)))
        moved = moved.filter(moved.person_id.notnull() & (moved._day <= ibis.date(run["day"])))
        disturbed = self.lake.held(moved.select("person_id").distinct())
        return KnownDay(run["day"], rows.filter(rows.day == ibis.date(run["day"])), same, disturbed)

    def _not_too_many(self, known: KnownDay) -> KnownDay | str:
        if not known.same:
            return "every definition changed"
        if known.disturbed.count().to_pyarrow().as_py() > self._limit():
            return "something changed of too many people"
        return known

    def _limit(self) -> int:
        return int(self.people.count().to_pyarrow().as_py() * FEW_OF_ALL)

    def _unlike(self, known: KnownDay, day: date) -> ibis.Table:
        """Who was disturbed, and who has a row and should not, or should and has none."""
        present = self.people.filter(self.people.first_day <= day)
        gone = known.rows.select("person_id").anti_join(present, "person_id")
        come = present.select("person_id").anti_join(known.rows, "person_id")
        return ibis.union(known.disturbed, gone, come)

    def _last(self, day: date) -> dict[str, Any] | None:
        runs = self.lake.read(RUNS)
        found = runs.filter(runs.day <= day).order_by(ibis.desc("day")).limit(1).to_pyarrow().to_pylist()
        return found[0] if found else None

    def _loaded(self, days: list[date]) -> datetime:
        seen = self.timeline.filter(self.timeline._day <= ibis.date(max(days)))
        return seen._loaded_at.max().to_pyarrow().as_py() or NOTHING_LOADED

    def _step(
        self,
        days: list[date],
        mode: str,
        why: str | None,
        rows: ibis.Table,
        loaded: datetime,
        cheap: bool = False,
        **only: list[str],
    ) -> Step:
        """Publishes the rows as all there is of these days (`only`: of these people)."""
        recorded = recorded_versions(self.lake)
        if any(recorded.get(day, self.definitions) != self.definitions for day in days):
            rows = self.lake.held(rows)  # it is published and compared
        former = kept(self.lake, self.project, recorded, days, rows, self.definitions, self.now)
        made = Mirror(self.table, rows, within={"day": days, **only}, cheap=cheap)
        return Step(days, mode, why, (made, *former, Upsert(RUNS, self._rows(days, mode, why, loaded))))

    def _rows(self, days: list[date], mode: str, why: str | None, loaded: datetime) -> pa.Table:
        import pyarrow as pa

        row = {
            "at": self.now.astimezone(UTC).replace(tzinfo=None),
            "mode": mode,
            "why": why,
            "snapshot": self.lake.version(self.events.name),
            "loaded": loaded,
            "definitions": json.dumps(self.definitions, sort_keys=True),
        }
        return pa.Table.from_pylist([{"day": day, **row} for day in days], schema=RUNS.schema.to_pyarrow())


def recorded_versions(lake: LakeView) -> dict[date, dict[str, str]]:
    """Under which versions of the definitions each day of traits.daily was computed."""
    rows = lake.read(RUNS).select("day", "definitions").to_pyarrow().to_pylist()
    return {row["day"]: json.loads(row["definitions"]) for row in rows}

"""Acts on events as their rows come to a source, before any load: by the contract and the triggers of the YAML.

An event has the same id and the same occasion here as in the timeline, so whatever is told apart here or there, the
ledger acts on it once. What is not sure yet (whose a row is) is left to the load. Nothing is sent here.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from cdp_pipeline.activation.fire import (
    Evaluated,
    computed_day,
    known_people,
    merged_people,
    not_waiting,
    record,
)
from cdp_pipeline.activation.guards import guarded, heeded
from cdp_pipeline.activation.happenings import occasions_of, seen, since
from cdp_pipeline.activation.ledger import Ledger, utc
from cdp_pipeline.activation.positions import keep, positions
from cdp_pipeline.activation.told import note
from cdp_pipeline.activation.triggers import Occasion
from cdp_pipeline.identity.people import IDENTIFIERS
from cdp_pipeline.identity.rows import of_the_known
from cdp_pipeline.lake import Lake
from cdp_pipeline.lake.columns import stored_type
from cdp_pipeline.lake.questions import Asked, Questions
from cdp_pipeline.profile.timeline import timeline, timeline_table
from cdp_pipeline.sources.errors import SourceError
from cdp_pipeline.sources.reading import Scratch
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.sources.tail import tail, why_not
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source
from cdp_pipeline.spec.trigger import Trigger

log = logging.getLogger(__name__)
LOOK_EVERY = 0.1
REST, SPARE = 4, 50
"""A source in which nothing was found rests so many times as long as the look took, and as the processor was at it."""
LONGEST_REST = 5.0
REST_AFTER_FAILURE = 10.0
AHEAD = timedelta(minutes=1)
"""So far the clock of a device may be ahead of ours; besides, events happen while a look is under way."""


def awaited(project: Project) -> set[str]:
    """The events that triggers act on as soon as they are seen, and those that keep them from it."""
    seen = [trigger.on.seen for trigger in project.triggers.values() if trigger.on.seen is not None]
    return {name for what in seen for name in what.event}.union(*heeds(project).values())


def heeds(project: Project) -> dict[str, set[str]]:
    """By trigger the events that its guards ask about."""
    return {name: heeded(project, trigger) for name, trigger in project.triggers.items()}


def telling(project: Project) -> dict[str, Source]:
    """The sources whose rows tell of awaited events."""
    names = awaited(project)
    return {
        name: source
        for name, source in project.sources.items()
        if any(names.intersection(mapping.event_names) for mapping in source.events)
    }


def followed(project: Project) -> dict[str, Source]:
    """Those of them that can be read before they are loaded."""
    return {name: source for name, source in telling(project).items() if why_not(source) is None}


_KNOWN = "_live_known"


@dataclass(frozen=True)
class _Published:
    """What a snapshot of the lake says: who was merged into whom, which triggers may act, and whose events are."""

    lake: Lake
    snapshot: int
    asked: Asked
    aliases: dict[str, str]
    triggers: list[Trigger]
    heeds: Mapping[str, set[str]]

    def events(self, project: Project, source: Source, rows: str) -> pa.Table:
        """The awaited events that a table of rows tells of and that are somebody's for sure, shaped as the timeline."""
        asked = self.asked
        if not asked.exists(IDENTIFIERS.name):
            return timeline_table(project).schema.to_pyarrow().empty_table()  # Nobody is known yet.
        # Only what the rows name: each join would else read all there is.
        names = " UNION ALL ".join(f"SELECT {name}::VARCHAR FROM {rows}" for name in source.identifier_columns)
        identifiers = asked.at(IDENTIFIERS.name, asked.version(IDENTIFIERS.name))
        asked.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {_KNOWN} AS SELECT type, value, person_id, status FROM {identifiers} "
            f"WHERE value IN ({names or 'SELECT NULL'})"
        )

        def question(told: ibis.Table) -> ibis.Table:
            known = ibis.table(IDENTIFIERS.schema, name=_KNOWN).select("type", "value", "person_id", "status")
            found = timeline({source.name: of_the_known(told, source, known, project)}, known, project)
            return found.filter(found.event.isin(sorted(awaited(project))))

        return asked.answer(("events", source.name), question, asked.connection.table(rows).to_arrow_table())

    def occasions(self, trigger: Trigger, events: pa.Table, after: datetime, until: datetime) -> list[Occasion]:
        """Those of the events that the trigger waits for and that happened after `after` and not after `until`."""
        what = trigger.on.seen
        assert what is not None
        rows = self.asked.answer(("seen", trigger.name), lambda told: seen(what, told), events)
        at = rows["occurred_at"]
        return occasions_of("seen", rows.filter(pc.and_(pc.greater(at, after), pc.less_equal(at, until))))


@dataclass
class Follower:
    """Looks at the followed sources again and again; one that takes long to look at in vain, less often.

    `questions` may be handed from one to the next.
    """

    ledger: Ledger
    project: Project
    questions: Questions = field(default_factory=Questions)
    _marks: dict[str, dict[str, str]] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _published: _Published | None = None

    def forget(self) -> None:
        """Somebody else reads on: the positions are to be asked of the ledger again."""
        self._marks.clear()

    def prepare(self, lake: Lake, now: datetime) -> None:
        """Do beforehand what the first event after a change of the lake would else have to wait for."""
        published = self._state_of(lake)
        with Scratch(lake.connection).until_done() as scratch:
            for source in followed(self.project).values():
                nothing = scratch.name("nothing")
                columns = ", ".join(
                    f"CAST(NULL AS {stored_type(type)}) AS {name}" for name, type in source_table(source).schema.items()
                )
                lake.connection.execute(f"CREATE TEMP TABLE {nothing} AS SELECT {columns} LIMIT 0")
                published.events(self.project, source, nothing)
        today = now.astimezone(self.project.zone).date()
        day = computed_day(published.asked, today) or today
        schema = timeline_table(self.project).schema.to_pyarrow()
        nobody = pa.Table.from_pylist([{"person_id": ""}], schema=schema)
        for trigger in published.triggers:
            if trigger.on.seen is not None:
                published.occasions(trigger, schema.empty_table(), utc(now), utc(now))
            for told in (None, nobody) if published.heeds[trigger.name] else (None,):
                guarded(published.asked, self.project, trigger, [""], day, today, told)
        known_people(published.asked, self.project, [""], day)

    def look(self, lake: Lake, now: datetime) -> Counter[str]:
        """Act on what has come to any source that is due; the operations recorded, by '<trigger> <state>'."""
        recorded: Counter[str] = Counter()
        for name, source in followed(self.project).items():
            began, worked = time.monotonic(), time.thread_time()
            if self._due.get(name, 0) > began:
                continue
            try:
                found = self._look_at(lake, source, now)
            except SourceError as problem:
                log.warning("%s", problem)
                self._due[name] = began + REST_AFTER_FAILURE
                continue
            ended, worked = time.monotonic(), time.thread_time() - worked
            rest = 0 if found is not None else max(REST * (ended - began), SPARE * worked)
            self._due[name] = ended + min(rest, LONGEST_REST)
            recorded += found or Counter()
        return recorded

    def _look_at(self, lake: Lake, source: Source, now: datetime) -> Counter[str] | None:
        """The operations recorded; None where nothing came."""
        if source.name not in self._marks:
            self._marks[source.name] = positions(self.ledger, source.name)
        marks = self._marks[source.name]
        with Scratch(lake.connection).until_done() as scratch:
            news = tail(lake, scratch, source, self.project, marks, now)
            recorded = None if news.rows is None else self._act(lake, source, news.rows, now)
        # Only now: whoever is killed before reads the rows again, and the ledger knows what they called for.
        keep(self.ledger, source.name, news.marks, news.gone, now)
        marks.update(news.marks)
        for place in news.gone:
            del marks[place]
        return recorded

    def _act(self, lake: Lake, source: Source, rows: str, now: datetime) -> Counter[str]:
        """Record what triggers call for on the events that rows tell of, and whom guards spare because of them."""
        published = self._state_of(lake)
        events = published.events(self.project, source, rows)
        recorded: Counter[str] = Counter()
        names = set(events["event"].to_pylist())
        for_guards = names.intersection(set().union(*published.heeds.values()))
        if for_guards:
            note(self.ledger, events.filter(pc.is_in(events["event"], pa.array(sorted(for_guards)))), now)
        for trigger in published.triggers:
            happened = []
            if trigger.on.seen is not None and not names.isdisjoint(trigger.on.seen.event):
                after = since(utc(now), self.ledger.begun(trigger.name))
                happened = published.occasions(trigger, events, after, utc(now) + AHEAD)
            if happened or not names.isdisjoint(published.heeds[trigger.name]):
                found = Evaluated(happened, now.astimezone(self.project.zone).date(), early=True)
                aliases = published.aliases
                states = record(self.ledger, published.asked, self.project, trigger, found, now=now, aliases=aliases)
                recorded.update({f"{trigger.name} {state}": n for state, n in states.items() if state != "known"})
        return recorded

    def _state_of(self, lake: Lake) -> _Published:
        known = self._published
        if known is None or known.lake is not lake or known.snapshot != lake.snapshot:
            asked = self.questions.of(lake)
            triggers, aliases = not_waiting(lake, self.project), merged_people(lake)
            known = self._published = _Published(lake, lake.snapshot, asked, aliases, triggers, heeds(self.project))
        return known

"""Acts on events as their rows come to a source, before any load: by the contract and the triggers of the YAML.

An event has the same id and the same occasion here as in the timeline, so whatever is told apart here or there, the
ledger acts on it once. What is not sure yet (whose a row is) is left to the load. Nothing is sent here.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import ibis

from cdp_pipeline.activation.fire import Evaluated, merged_people, not_waiting, record
from cdp_pipeline.activation.happenings import occasions_of_events, since
from cdp_pipeline.activation.ledger import Ledger, utc
from cdp_pipeline.activation.positions import keep, positions, prepare
from cdp_pipeline.identity.people import IDENTIFIERS
from cdp_pipeline.identity.rows import of_the_known
from cdp_pipeline.lake import Lake
from cdp_pipeline.profile.timeline import timeline
from cdp_pipeline.sources.errors import SourceError
from cdp_pipeline.sources.reading import Scratch
from cdp_pipeline.sources.tail import tail, why_not
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source
from cdp_pipeline.spec.trigger import Trigger

log = logging.getLogger(__name__)
REST = 4
"""A source rests so many times as long as it took to look at it, so that reading takes a fifth of a core at most."""
REST_AFTER_FAILURE = 10.0


def awaited(project: Project) -> set[str]:
    """The events that triggers act on as soon as they are seen."""
    seen = [trigger.on.seen for trigger in project.triggers.values() if trigger.on.seen is not None]
    return {name for what in seen for name in what.event}


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


@dataclass(frozen=True)
class _Published:
    """What a snapshot of the lake says of everybody: who was merged into whom, and which triggers may act."""

    snapshot: int
    aliases: dict[str, str]
    triggers: list[Trigger]


@dataclass
class Follower:
    """Looks at the followed sources again and again, each as often as it is quick to look at."""

    ledger: Ledger
    project: Project
    _marks: dict[str, dict[str, str]] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _published: _Published | None = None

    def __post_init__(self) -> None:
        prepare(self.ledger)

    def look(self, lake: Lake, now: datetime) -> Counter[str]:
        """Act on what has come to any source that is due; the operations recorded, by '<trigger> <state>'."""
        recorded: Counter[str] = Counter()
        for name, source in followed(self.project).items():
            began = time.monotonic()
            if self._due.get(name, 0) > began:
                continue
            rest, more = 0.0, False
            try:
                found, more = self._look_at(lake, source, now)
                recorded += found
            except SourceError as problem:
                log.warning("%s", problem)
                rest = REST_AFTER_FAILURE
            took = time.monotonic() - began
            self._due[name] = began if more else began + took + max(rest, REST * took)
        return recorded

    def _look_at(self, lake: Lake, source: Source, now: datetime) -> tuple[Counter[str], bool]:
        if source.name not in self._marks:
            self._marks[source.name] = positions(self.ledger, source.name)
        marks = self._marks[source.name]
        with Scratch(lake.connection).until_done() as scratch:
            news = tail(lake, scratch, source, self.project, marks, now)
            recorded: Counter[str] = Counter()
            if news.rows is not None:
                rows = lake.ibis.table(news.rows, database=("temp", "main"))
                recorded = self._act(lake, source, rows, now)
        # Only now: whoever is killed before reads the rows again, and the ledger knows what they called for.
        keep(self.ledger, source.name, news.marks, news.gone, now)
        marks.update(news.marks)
        for place in news.gone:
            del marks[place]
        return recorded, news.more

    def _act(self, lake: Lake, source: Source, rows: ibis.Table, now: datetime) -> Counter[str]:
        """Record what triggers call for on the events that rows tell of."""
        identifiers = lake.read(IDENTIFIERS)
        known = of_the_known(rows, source, identifiers, self.project)
        told = timeline({source.name: known}, identifiers, self.project)
        events = told.filter(told.event.isin(sorted(awaited(self.project)))).to_pyarrow()
        recorded: Counter[str] = Counter()
        if not events.num_rows:
            return recorded
        if self._published is None or self._published.snapshot != lake.snapshot:
            seeing = [trigger for trigger in not_waiting(lake, self.project) if trigger.on.seen is not None]
            self._published = _Published(lake.snapshot, merged_people(lake), seeing)
        for trigger in self._published.triggers:
            after = since(now, self.ledger.evaluated_until(trigger.name) is not None)
            happened = occasions_of_events(trigger.on, ibis.memtable(events), after=utc(after), until=utc(now))
            if happened:
                found = Evaluated(happened, now.astimezone(self.project.zone).date(), early=True)
                states = record(
                    self.ledger, lake, self.project, trigger, found, now=now, aliases=self._published.aliases
                )
                recorded.update({f"{trigger.name} {state}": n for state, n in states.items() if state != "known"})
        return recorded

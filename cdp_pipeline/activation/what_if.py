"""What would become of people if the project said something else: nothing is published, nothing is sent.

Reads the lake and asks the functions that run the pipeline; figures and people are identity/consequences.py's and
effects.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.activation.effects import Effects, derived, effects, sent_by
from cdp_pipeline.activation.fire import known_people
from cdp_pipeline.activation.refresh import members_now
from cdp_pipeline.audiences.look import NothingComputedError, scope_of
from cdp_pipeline.identity.consequences import Consequences, consequences
from cdp_pipeline.identity.edges import EDGES, edges
from cdp_pipeline.identity.history import read_truth
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE, resolve
from cdp_pipeline.identity.quality import accuracy
from cdp_pipeline.identity.seen import identifiers_seen, seen
from cdp_pipeline.identity.verdicts import with_verdicts
from cdp_pipeline.lake.questions import Questions
from cdp_pipeline.sources.tables import source_table

if TYPE_CHECKING:
    import pyarrow as pa

    from cdp_pipeline.activation.plan import Held
    from cdp_pipeline.lake import Lake, LakeView
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.sync import Sync

DOWNSTREAM = ("attributes", "traits", "predictions", "audiences")
"""What projects declare that identity does not read."""


@dataclass(frozen=True)
class WhatIf:
    """`effects` is None where no traits were computed yet. Accuracy (before, after) is known where truth is."""

    consequences: Consequences
    effects: Effects | None
    edges: ibis.Table
    identifiers: ibis.Table
    accuracy: tuple[dict[str, Any], dict[str, Any]] | None

    def lines(self) -> list[str]:
        said = self.consequences.lines()
        if self.accuracy is not None:
            before, after = self.accuracy
            rates = [name for name in before if isinstance(before[name], float) and name in after]
            said += [f"{name} against the truth: {before[name]:.4f} before, {after[name]:.4f} after" for name in rates]
        return [*said, *(self.effects.lines() if self.effects is not None else ["no traits were computed yet"])]

    def as_json(self) -> dict[str, Any]:
        return {
            "people": self.consequences.as_json(),
            "effects": None if self.effects is None else self.effects.as_json(),
            "accuracy": None if self.accuracy is None else dict(zip(("before", "after"), self.accuracy, strict=True)),
        }


def what_if(
    lake: Lake,
    project: Project,
    other: Project,
    now: datetime,
    holds: Callable[[Sync], Mapping[str, Held]] | None = None,
) -> WhatIf:
    """Compare the people of the last run with those that `other` would make of the same rows.

    `holds` says what the destination of a sync is known to hold; without it syncs are left
    out. Where the projects differ in more than identity, audiences are worked out for everybody.
    """
    identifiers = lake.read(IDENTIFIERS)
    found, then = people_under(lake, project, other, now)
    truth = read_truth(project, lake.ibis)
    judged = None if truth is None else (accuracy(identifiers, truth), accuracy(then["identifiers"], truth))
    return WhatIf(
        found, _effects(lake, project, other, found, then, holds, now), then["edges"], then["identifiers"], judged
    )


def people_under(
    lake: Lake, project: Project, other: Project, now: datetime
) -> tuple[Consequences, dict[str, ibis.Table]]:
    """Who `other` would take for whom: what that does to people, and the tables identifiers, people and edges."""
    identifiers, people, stored = lake.read(IDENTIFIERS), lake.read(PEOPLE), lake.read(EDGES)
    if not lake.exists(PEOPLE.name):
        raise NothingComputedError("nobody was identified yet: cdp run")
    evidence, known = _evidence(lake, project, other, stored, identifiers)
    resolution = resolve(with_verdicts(evidence, known, other), known, identifiers, people, other, now)
    then = {name: lake.held(_table(getattr(resolution, name))) for name in ("identifiers", "people", "edges")}
    return consequences(identifiers, then["identifiers"], stored, then["edges"]), then


def _evidence(
    lake: LakeView, project: Project, other: Project, stored: ibis.Table, identifiers: ibis.Table
) -> tuple[ibis.Table, ibis.Table]:
    """The links and identifiers as stored, or read from the sources again where other columns identify people."""
    columns = [
        {name: source.identifier_columns for name, source in one.sources.items() if source.identifier_columns}
        for one in (project, other)
    ]
    if columns[0] == columns[1]:
        return stored, identifiers.select("type", "value", "first_seen", "last_seen")
    sources = _sources(lake, other)
    return edges(sources, other), identifiers_seen(seen(sources, other))


def _effects(
    lake: LakeView,
    project: Project,
    other: Project,
    found: Consequences,
    then: Mapping[str, ibis.Table],
    holds: Callable[[Sync], Mapping[str, Held]] | None,
    now: datetime,
) -> Effects | None:
    try:
        published = scope_of(lake, project)
    except NothingComputedError:
        return None
    day: date | None = published.traits.day.max().to_pyarrow().as_py()
    if day is None:
        return None
    identifiers, people = lake.read(IDENTIFIERS), lake.read(PEOPLE)
    concerned, after = found.before, found.after
    if any(getattr(project, name) != getattr(other, name) for name in DOWNSTREAM):
        concerned, after = _everybody(identifiers), _everybody(then["identifiers"])
    if not concerned and not after:
        return Effects(day, {}, {}, {})
    was = derived(project, _sources(lake, project), identifiers, people, concerned, published, day, now)
    becomes = derived(
        other, _sources(lake, other), then["identifiers"], then["people"], after, scope_of(lake, other), day, now
    )
    result = effects(was, becomes, day)
    if holds is not None:
        for sync in project.syncs.values():
            current = members_now(lake, sync.audience)
            known = known_people(Questions().of(lake), project, current, day)
            if kinds := sent_by(sync, current, known, was, becomes, concerned, holds(sync)):
                result.sends[sync.name] = kinds
    return result


def _everybody(identifiers: ibis.Table) -> frozenset[str]:
    people = identifiers.filter(identifiers.person_id.notnull()).select("person_id").distinct()
    return frozenset(people.to_pyarrow()["person_id"].to_pylist())


def _sources(lake: LakeView, project: Project) -> dict[str, ibis.Table]:
    return {name: lake.read(source_table(source)) for name, source in project.sources.items()}


def _table(rows: ibis.Table | pa.Table) -> ibis.Table:
    return rows if isinstance(rows, ibis.Table) else ibis.memtable(rows)

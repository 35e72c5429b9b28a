"""One run of identity from the lake to what is to be written, judged before it is: nothing here publishes.

The rules are those of people.py, increment.py and guard.py; what has to be looked at is runs.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.guard import Verdict, guard
from cdp_pipeline.identity.history import read_truth
from cdp_pipeline.identity.increment import resolve_new
from cdp_pipeline.identity.people import CHANGES, IDENTIFIERS, PEOPLE, resolve
from cdp_pipeline.identity.runs import RUNS, run_row, task
from cdp_pipeline.lake.publish import Mirror, Upsert

if TYPE_CHECKING:
    from cdp_pipeline.lake.lake import Lake
    from cdp_pipeline.spec.project import Project


@dataclass(frozen=True)
class Decided:
    """What to publish, in one go, and what the guard says of it."""

    writes: list[Mirror | Upsert]
    verdict: Verdict


def decide_who_is_who(lake: Lake, project: Project, now: datetime) -> Decided:
    """Decide on what is new since the last run, or on everything where that would not give the same."""
    here = lake.local
    before = here.read(IDENTIFIERS), here.read(PEOPLE)
    todo = task(lake, project, now)
    if todo.last is None:
        found = resolve(todo.edges, todo.seen, *before, project, now)
        write: type[Mirror] | type[Upsert] = Mirror
    else:
        found = resolve_new(todo.edges, todo.seen, todo.last, project, now, lake.held)
        write = Upsert
    edges, identifiers = lake.held(found.edges), lake.held(found.identifiers)
    people = ibis.memtable(found.people)
    everybody = people if todo.last is None else ibis.union(before[1].anti_join(people, "person_id"), people)
    truth = read_truth(project, lake.ibis) if todo.last is None else None  # it is judged on all identifiers
    verdict = guard(*before, identifiers, everybody, project.settings.identity.churn_budget, truth)
    looked_at = identifiers.count().to_pyarrow().as_py()
    row = run_row(todo, looked_at, found.changes, now)
    # A run that looked at nothing new leaves no trace: the next one reads on from where the last one stopped.
    runs = row if todo.last is None or looked_at else row.slice(0, 0)
    writes = [write(EDGES, edges), write(IDENTIFIERS, identifiers), write(PEOPLE, found.people)]
    return Decided([*writes, Upsert(CHANGES, found.changes), Upsert(RUNS, runs)], verdict)

"""One run of identity from the lake to what is to be written, judged before it is: nothing here publishes.

The rules are those of people.py, increment.py, matching/ and guard.py; what has to be looked at is runs.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import ibis

from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.evidence import identified_edges
from cdp_pipeline.identity.guard import Verdict, guard
from cdp_pipeline.identity.history import read_truth
from cdp_pipeline.identity.increment import resolve_new
from cdp_pipeline.identity.matching.matches import COMPARED, MATCHES, Matched, fuzzy
from cdp_pipeline.identity.matching.units import reads_only, units
from cdp_pipeline.identity.people import CHANGES, IDENTIFIERS, PEOPLE, Resolution, resolve
from cdp_pipeline.identity.runs import COMPARES, RUNS, Task, run_row, task
from cdp_pipeline.lake.publish import Mirror, Upsert

if TYPE_CHECKING:
    from cdp_pipeline.lake.lake import Lake
    from cdp_pipeline.spec.project import Project

# identifiers, people, a project with only some attributes → person_id and these attributes; survivorship is profile/'s.
Profiles: TypeAlias = Callable[[ibis.Table, ibis.Table, "Project"], ibis.Table]


@dataclass(frozen=True)
class Decided:
    """What to publish, in one go, and what the guard says of it."""

    writes: list[Mirror | Upsert]
    verdict: Verdict
    cards: dict[str, Mapping[str, Any]]  # by match: what is to be known of its model; empty where nothing was learned


def decide_who_is_who(lake: Lake, project: Project, now: datetime, profiles: Profiles, models: Path) -> Decided:
    """Decide on what is new since the last run, or on everything where that would not give the same.

    `models`: the folder of learned models, for projects that compare people (`kind: match`).
    """
    import pyarrow as pa

    here = lake.local
    before = here.read(IDENTIFIERS), here.read(PEOPLE)
    todo = task(lake, project, now)
    writes: list[Mirror | Upsert] = []
    cards: dict[str, Mapping[str, Any]] = {}
    if todo.last is None:
        edges, matched = _with_matches(lake, project, todo, now, profiles, models)
        if matched:
            writes.append(Mirror(MATCHES, pa.concat_tables([one.matches for one in matched.values()])))
            writes.append(Mirror(COMPARED, pa.concat_tables([one.compared for one in matched.values()])))
        cards = {name: {} if one.model is None else one.model.card for name, one in matched.items()}
        found = resolve(edges, todo.seen, *before, project, now)
    else:
        found = resolve_new(todo.edges, todo.seen, todo.last, project, now, lake.held)
    write: type[Mirror] | type[Upsert] = Mirror if todo.last is None else Upsert
    edges, identifiers = lake.held(found.edges), lake.held(found.identifiers)
    writes += [write(EDGES, edges), write(IDENTIFIERS, identifiers), write(PEOPLE, found.people)]
    people = ibis.memtable(found.people)
    everybody = people if todo.last is None else ibis.union(before[1].anti_join(people, "person_id"), people)
    truth = read_truth(project, lake.ibis) if todo.last is None else None  # it is judged on all identifiers
    verdict = guard(*before, identifiers, everybody, project.settings.identity.churn_budget, truth)
    written = identifiers.count().to_pyarrow().as_py()
    runs = run_row(todo, written, found.changes, now)
    if not _is_news(todo, written, found):
        runs = runs.slice(0, 0)
    return Decided([*writes, Upsert(CHANGES, found.changes), Upsert(RUNS, runs)], verdict, cards)


def _is_news(todo: Task, written: int, found: Resolution) -> bool:
    """Whether a run leaves a trace. Where nothing was new, the next one reads on from where the last one stopped."""
    return written > 0 and (todo.why != COMPARES or found.changes.num_rows > 0)


def _with_matches(
    lake: Lake, project: Project, todo: Task, now: datetime, profiles: Profiles, models: Path
) -> tuple[ibis.Table, dict[str, Matched]]:
    """The edges, with those of fuzzy matches between the people that the other edges make; and these matches."""
    if not project.matches:
        return todo.edges, {}
    import pyarrow as pa

    apart = resolve(todo.edges, todo.seen, None, None, project, now)
    identifiers, people = lake.held(apart.identifiers), ibis.memtable(apart.people)
    last = lake.local.read(MATCHES).to_pyarrow(), lake.local.read(COMPARED).to_pyarrow()
    found = {}
    for name, match in project.matches.items():
        known = profiles(identifiers, people, reads_only(match, project))
        found[name] = fuzzy(match, units(identifiers, known, match, project), *last, models, now)
    links = identified_edges(ibis.memtable(pa.concat_tables([one.edges for one in found.values()])))
    return lake.held(ibis.union(todo.edges, links.select(todo.edges.columns))), found

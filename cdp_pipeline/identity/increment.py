"""Only what new rows touch is decided again; the rest stays as it was published. Equal to deciding everything.

A decision never reaches beyond a component (see Clusters), so touched are the components of what was newly seen, of
links that expired since, and of the neighbours of values that became or ceased to be shared. What counts as new, and
when everything must be decided again, is runs.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.identity.clusters import IDENTIFIER_STATUS, SHARED, read_graph
from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.evidence import place, read_evidence
from cdp_pipeline.identity.people import (
    Decided,
    Resolution,
    before_of,
    decide,
    vetoed_ids,
    with_outcome,
    with_people,
    with_status,
)

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project

_PAIR = ["id_a", "id_b", "source"]
_EVIDENCE = [
    "type_a", "value_a", "type_b", "value_b", "source", "record_id", "first_seen", "last_seen", "rule", "score",
    "id_a", "id_b",
]  # fmt: skip
_DECIDED_ON = [*_PAIR, "last_seen", "rule", "score"]


@dataclass(frozen=True)
class State:
    """What is published: EDGES, IDENTIFIERS and PEOPLE, read by DuckDB, and when it was decided."""

    edges: ibis.Table
    identifiers: ibis.Table
    people: ibis.Table
    at: datetime


def resolve_new(
    edges: ibis.Table,
    seen: ibis.Table,
    last: State,
    project: Project,
    now: datetime,
    held: Callable[[ibis.Table], ibis.Table],
) -> Resolution:
    """The rows of EDGES, IDENTIFIERS and PEOPLE to be put in place, and what changed.

    `edges` and `seen` are identified evidence of new rows only (see people.resolve); `held` computes a table once.
    """
    fresh = held(_merged_edges(edges, last.edges))
    new_ids = held(_merged_identifiers(seen, last.identifiers))
    ends = [fresh.select(id=fresh[end]) for end in ("id_a", "id_b")]
    lapsed = _lapsed(last, project, now)
    if lapsed is not None:
        ends += [lapsed.select(id=lapsed[end]) for end in ("id_a", "id_b")]
    seeds = held(ibis.union(*ends, new_ids.select("id"), distinct=True))
    if any(spec.shared_above is not None for spec in project.identifiers.values()):
        beside = _near_the_shared(fresh, new_ids, seeds, last, project, now, held)
        seeds = held(ibis.union(seeds, beside, distinct=True))

    old = last.identifiers
    touched = old.semi_join(seeds, "id").select("component").distinct()
    ours = held(_with_new(old.semi_join(touched, "component"), new_ids))
    links = held(_links_of(ours, fresh, last.edges))
    nodes = held(ibis.union(ours.mutate(known_status=ibis.null("int8")), _elsewhere(links, ours, old)))
    evidence = read_evidence(links, nodes, project)
    before = before_of(old.semi_join(ours, "id"), _people_in_play(old.semi_join(ours, "id"), last.people))

    def taken(ids: list[str]) -> Collection[str]:
        asked = ibis.memtable({"person_id": ids}, schema={"person_id": "string"})
        return set(last.people.semi_join(asked, "person_id").person_id.to_pyarrow().to_pylist())

    decided = decide(evidence, before, project, now, vetoed_ids(project), taken)
    return Resolution(
        edges=ibis.union(
            with_status(fresh, decided, project), _moved_edges(links, last.edges, fresh, decided, project)
        ),
        identifiers=with_people(ours, decided).anti_join(_as_before(decided, old, new_ids), "id"),
        people=decided.people,
        changes=decided.changes,
    )


def _moved_edges(
    links: ibis.Table, old: ibis.Table, fresh: ibis.Table, decided: Decided, project: Project
) -> ibis.Table:
    """The old edges whose status is another now."""
    outcome = with_outcome(links.anti_join(fresh, _PAIR), decided, project)
    moved = outcome.filter(
        ~(outcome["status"].identical_to(outcome["was"]) & outcome["why"].identical_to(outcome["was_why"]))
    )
    now = moved.select(*_PAIR, now_status="status", now_why="why")
    rows = old.drop("status", "why").inner_join(now, _PAIR)
    return rows.rename(status="now_status", why="now_why").select(list(EDGES.columns))


def _as_before(decided: Decided, old: ibis.Table, new: ibis.Table) -> ibis.Table:
    """The ids of identifiers of which nothing is new."""
    here = ibis.memtable(decided.identifiers)
    there = old.select("id", **{f"was_{name}": name for name in here.columns if name != "id"})
    both = here.inner_join(there, "id")
    same = [both[name].identical_to(both[f"was_{name}"]) for name in here.columns if name != "id"]
    return both.filter(same).anti_join(new, "id").select("id")


def _merged_edges(fresh: ibis.Table, old: ibis.Table) -> ibis.Table:
    """New evidence of pairs, together with what was known of the same pairs from the same source."""
    kept = old.select(*_PAIR, old_first="first_seen", old_last="last_seen", old_record="record_id")
    both = fresh.left_join(kept, _PAIR, rname="{name}_old")
    earlier = (both["old_first"] < both["first_seen"]) | (
        (both["old_first"] == both["first_seen"]) & (both["old_record"] < both["record_id"])
    )
    return both.mutate(
        record_id=ibis.ifelse(earlier, both["old_record"], both["record_id"]),
        first_seen=ibis.ifelse(earlier, both["old_first"], both["first_seen"]),
        last_seen=ibis.greatest(both["last_seen"], ibis.coalesce(both["old_last"], both["last_seen"])),
    ).select(_EVIDENCE)


def _merged_identifiers(fresh: ibis.Table, old: ibis.Table) -> ibis.Table:
    kept = old.select("id", old_first="first_seen", old_last="last_seen")
    both = fresh.left_join(kept, "id", rname="{name}_old")
    return both.select(
        "id", "type", "value",
        first_seen=ibis.least(both["first_seen"], ibis.coalesce(both["old_first"], both["first_seen"])),
        last_seen=ibis.greatest(both["last_seen"], ibis.coalesce(both["old_last"], both["last_seen"])),
    )  # fmt: skip


def _with_new(old: ibis.Table, new: ibis.Table) -> ibis.Table:
    columns = ["id", "type", "value", "first_seen", "last_seen"]
    return ibis.union(old.anti_join(new, "id").select(columns), new.select(columns))


def _lapsed(last: State, project: Project, now: datetime) -> ibis.Table | None:
    """The links of events that expired between the last run and this one; none where nothing expires."""
    edges, found = last.edges, []
    events = [name for name, source in project.sources.items() if source.mode == "events"]
    before, after = (moment.astimezone(UTC).replace(tzinfo=None) for moment in (last.at, now))
    for name, spec in project.identifiers.items():
        if spec.expires is not None:
            of_type = (edges["type_a"] == name) | (edges["type_b"] == name)
            # Of two types the shorter counts, so this may name a link that expired before: it is only looked at again.
            aged = (edges["last_seen"] > before - spec.expires) & (edges["last_seen"] <= after - spec.expires)
            found.append(edges.filter(of_type & aged & edges["source"].isin(events)).select("id_a", "id_b"))
    return ibis.union(*found) if found else None


def _near_the_shared(
    fresh: ibis.Table,
    new: ibis.Table,
    seeds: ibis.Table,
    last: State,
    project: Project,
    now: datetime,
    held: Callable[[ibis.Table], ibis.Table],
) -> ibis.Table:
    """The neighbours of values whose standing as shared changed: all edges of the seeds say whether it did."""
    import numpy as np
    import pyarrow as pa

    old = last.identifiers
    ours = held(_with_new(old.semi_join(seeds, "id"), new))
    links = held(_links_of(ours, fresh, last.edges))
    nodes = held(ibis.union(ours.mutate(known_status=ibis.null("int8")), _elsewhere(links, ours, old)))
    graph = read_graph(read_evidence(links, nodes, project), project, now)
    was = (
        old.semi_join(seeds, "id")
        .select("id", was=place(old["status"], list(IDENTIFIER_STATUS), "int8"), alone=old["component"] == old["id"])
        .to_pyarrow()
    )
    code = np.searchsorted(graph.ids, was["id"].to_numpy())
    shared = graph.contested if graph.strategy == "best_match" else graph.status == SHARED
    was_shared = was["was"].to_numpy() == SHARED
    moved = np.zeros(len(graph.ids), bool)
    moved[code] = shared[code] != was_shared
    # Who was kept out of every component and meets others again may be shared still: their ties will tell (people_by).
    meets = np.zeros(len(graph.ids), bool)
    meets[graph.a[graph.near]] = meets[graph.b[graph.near]] = True
    moved[code] |= was_shared & was["alone"].to_numpy(zero_copy_only=False) & meets[code]
    beside = np.concatenate([graph.b[moved[graph.a]], graph.a[moved[graph.b]]])
    return ibis.memtable(pa.table({"id": graph.ids[np.unique(beside)]}))


def _links_of(ours: ibis.Table, fresh: ibis.Table, old: ibis.Table) -> ibis.Table:
    """Every edge with an end among ours, as far as it is decided on, and what it was: fresh ones, and the other old."""
    rest = old.select(*_DECIDED_ON, was="status", was_why="why").anti_join(fresh, _PAIR)
    at_a, at_b = ours.select(id_a="id"), ours.select(id_b="id")
    nothing = ibis.null("string")
    return ibis.union(
        rest.semi_join(at_a, "id_a"),
        rest.semi_join(at_b, "id_b").anti_join(at_a, "id_a"),
        fresh.select(*_DECIDED_ON, was=nothing, was_why=nothing),
    )


def _elsewhere(links: ibis.Table, ours: ibis.Table, old: ibis.Table) -> ibis.Table:
    """The other ends of links that are not ours, with the status they have."""
    ends = ibis.union(*(links.select(id=links[end]) for end in ("id_a", "id_b")), distinct=True)
    others = old.semi_join(ends.anti_join(ours, "id"), "id")
    return others.select(
        "id", "type", "value", "first_seen", "last_seen",
        known_status=place(others["status"], list(IDENTIFIER_STATUS), "int8"),
    )  # fmt: skip


def _people_in_play(identifiers: ibis.Table, people: ibis.Table) -> ibis.Table:
    """Whose identifiers these are or once were, whoever they resolve to, and all that resolve to the same."""
    held = ibis.union(
        *(identifiers.select(person_id=identifiers[name]) for name in ("person_id", "first_person_id")), distinct=True
    )
    end = ibis.coalesce(people["merged_into"], people["person_id"])
    ends = people.semi_join(held, "person_id").select(end=end).distinct()
    return people.mutate(end=end).semi_join(ends, "end").drop("end")

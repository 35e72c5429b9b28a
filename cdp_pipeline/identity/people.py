"""Which identifiers are one person: the strongest links first, within limits, under ids that stay.

Pure and in memory on integer codes: (edges, identifiers, the last state, now) → the next state and what changed.
Where edges come from is edges.py; this module never reads a source.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.identity.clusters import (
    ACCEPTED,
    BLOCKED,
    EDGE_STATUS,
    IDENTIFIER_STATUS,
    OK,
    Clusters,
    Graph,
    codes,
    content_hash,
    identifier_keys,
    join,
    limits,
    microseconds,
    read_graph,
)
from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.ids import claim, heaviest, mint
from cdp_pipeline.lake.table import Column, Table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.spec.project import Project

IDENTIFIERS = Table(
    name="identity.identifiers",
    description="Every identifier ever seen and the person it belongs to.",
    columns={
        "type": Column("string", "Type of the identifier."),
        "value": Column("string", "The identifier, normalised.", pii=True),
        "person_id": Column("string", "Whose it is; empty for a blocked value."),
        "first_seen": Column("timestamp(6)", "When it was first seen (UTC)."),
        "last_seen": Column("timestamp(6)", "When it was last seen (UTC)."),
        "status": Column("string", "ok, blocked (names nobody) or shared (serves several people): only ok ones link."),
        "why": Column("string", "Why it is blocked or shared."),
        "first_person_id": Column("string", "The person it belonged to at first, who revives when people split."),
    },
    key=("type", "value"),
)

PEOPLE = Table(
    name="identity.people",
    description="Every person there is or was. An id is never reused; one that was merged leads to its survivor.",
    columns={
        "person_id": Column("string", "The person's stable id."),
        "kind": Column("string", "known, or anonymous: only cookies, devices or shared values."),
        "identifiers": Column("int64", "How many identifiers the person has; 0 for one who is no more."),
        "created_at": Column("timestamp(6)", "When the person was first seen (UTC)."),
        "merged_into": Column("string", "The living person this id resolves to, when it was merged."),
        "absorbed_by": Column("string", "The person it was merged into at the time, who may have been merged since."),
    },
    key=("person_id",),
)

CHANGES = Table(
    name="identity.changes",
    description="Every person created, merged into another or split from another, and why.",
    columns={
        "at": Column("timestamp(6)", "When the change was found (UTC)."),
        "change": Column("string", "created, merged or split."),
        "person_id": Column("string", "Who was created, was merged away, or was split off."),
        "other_person_id": Column("string", "Into whom they were merged, or from whom they were split."),
        "cause": Column("string", "The link that joined them, or the reason that parted them."),
    },
    key=("at", "change", "person_id"),
)


@dataclass(frozen=True)
class Resolution:
    """The next state of identity, each table as its declaration says; `changes` holds this run's changes only."""

    edges: pa.Table
    identifiers: pa.Table
    people: pa.Table
    changes: pa.Table


def resolve(
    edges: pa.Table | ibis.Table,
    seen: pa.Table | ibis.Table,
    previous_identifiers: pa.Table | ibis.Table | None,
    previous_people: pa.Table | ibis.Table | None,
    project: Project,
    now: datetime,
) -> Resolution:
    """Decide who is who. `edges` is edges.edges(), `seen` seen.identifiers_seen(), the previous tables the last state.

    An identifier that is blocked or shared links nothing; a link that expired is inactive. The rest is joined strongest
    first (the weaker identifier's priority, then the stronger's, then the latest seen, then content), and a join that
    would give a person more identifiers of a type than its `limit` (1 where a type is `unique` and sets none) is
    refused. The result depends on content only, never on the order of rows.
    """
    bounds = limits(project.identifiers)
    graph = read_graph(_arrow(edges), _arrow(seen), project, now)
    clusters = join(graph, bounds)
    why = _why(graph, clusters, bounds)
    before = _read_before(_arrow(previous_identifiers), _arrow(previous_people), graph)
    persons = _persons(graph, clusters, before)
    return Resolution(
        edges=_edges(graph, clusters, why),
        identifiers=_identifiers(graph, before, persons),
        people=_people(graph, persons),
        changes=_changes(graph, clusters, before, persons, why, now),
    )


def _arrow(table: pa.Table | ibis.Table | None) -> Any:
    return table.to_pyarrow() if isinstance(table, ibis.Table) else table


@dataclass(frozen=True)
class _Before:
    """The last state on this run's codes. An id's code is its place in `ids`, which is sorted; -1 is none."""

    ids: list[str]
    created_at: np.ndarray  # microseconds, by id code
    absorbed_by: np.ndarray  # id code
    elder: np.ndarray  # rank by age, the eldest 0
    person: np.ndarray  # the id code each identifier had
    first_person: np.ndarray  # the id code each identifier had first


@dataclass(frozen=True)
class _Persons:
    """This run's people: ids (the old ones, then the minted), and the id code of every identifier."""

    ids: list[str]
    created_at: np.ndarray
    absorbed_by: np.ndarray
    of: np.ndarray  # id code of each identifier, -1 for a blocked one
    appeared: np.ndarray  # id codes that live now and did not before
    retired: np.ndarray  # id codes that lived before and do not now


def _read_before(identifiers: pa.Table | None, people: pa.Table | None, graph: Graph) -> _Before:
    import numpy as np

    none = np.full(len(graph.type), -1, np.int64)
    if people is None or identifiers is None or not people.num_rows:
        empty = np.zeros(0, np.int64)
        return _Before([], empty, empty, empty, none, none)
    people = people.sort_by("person_id")
    ids = people["person_id"].combine_chunks()
    created_at = microseconds(people["created_at"])
    elder = np.empty(len(ids), np.int64)
    elder[np.lexsort((np.arange(len(ids)), created_at))] = np.arange(len(ids))
    code = codes(identifier_keys(identifiers["type"], identifiers["value"]), graph.keys)
    still = code >= 0
    person, first_person = none.copy(), none.copy()
    person[code[still]] = codes(identifiers["person_id"], ids)[still]
    first_person[code[still]] = codes(identifiers["first_person_id"], ids)[still]
    return _Before(ids.to_pylist(), created_at, codes(people["absorbed_by"], ids), elder, person, first_person)


def _persons(graph: Graph, clusters: Clusters, before: _Before) -> _Persons:
    """Give every cluster its id: an old one it overlaps most, else a retired one its members began with, else new."""
    import numpy as np

    linking = graph.status != BLOCKED
    weight = np.maximum(graph.priority, 1)
    id_of = np.full(len(graph.type), -1, np.int64)  # by cluster
    for votes in (before.person, before.first_person):
        free = np.ones(len(before.ids) + 1, bool)
        free[id_of[id_of >= 0]] = False
        voters = np.flatnonzero(linking & (votes >= 0) & (id_of[clusters.of] < 0) & free[votes])
        winners, won = claim(clusters.of[voters], votes[voters], weight[voters], before.elder)
        id_of[winners] = won

    new = np.unique(clusters.of[linking & (id_of[clusters.of] < 0)])
    first_seen = microseconds(graph.identifiers["first_seen"])
    members = np.flatnonzero(linking & (id_of[clusters.of] < 0))
    earliest_first = members[np.lexsort((members, first_seen[members], clusters.of[members]))]
    _, anchors = np.unique(clusters.of[earliest_first], return_index=True)
    anchors = earliest_first[anchors]
    hashes = content_hash(graph.keys.take(anchors))
    minted = mint(first_seen[anchors], hashes, set(before.ids))
    id_of[new] = len(before.ids) + np.arange(len(new))

    of = np.where(linking, id_of[clusters.of], -1)
    count = len(before.ids) + len(minted)
    alive, lived = np.zeros(count + 1, bool), np.zeros(count + 1, bool)  # the last place is for -1, nobody
    alive[of[of >= 0]] = True
    lived[before.person[before.person >= 0]] = True
    appeared, retired = np.flatnonzero(alive & ~lived), np.flatnonzero(lived & ~alive)
    absorbed_by = np.concatenate([before.absorbed_by, np.full(len(minted), -1, np.int64)])
    absorbed_by[alive[:count]] = -1
    # Who is no more was absorbed by whoever has most of what was theirs.
    theirs = np.flatnonzero((before.person >= 0) & (of >= 0) & ~alive[before.person])
    absorbed, by = heaviest(before.person[theirs], of[theirs], weight[theirs])
    absorbed_by[absorbed] = by
    created_at = np.concatenate([before.created_at, first_seen[anchors]])
    return _Persons([*before.ids, *minted], created_at, absorbed_by, of, appeared, retired)


def _edges(graph: Graph, clusters: Clusters, why: pa.Array) -> pa.Table:
    status = _words(EDGE_STATUS, clusters.edge_status)
    return graph.edges.append_column("status", status).append_column("why", why).select(list(EDGES.columns))


def _why(graph: Graph, clusters: Clusters, bounds: dict[str, int]) -> pa.Array:
    """Why each edge does not link. There are only as many reasons as pairs of types, so each is worded once."""
    import numpy as np

    end = np.where(graph.status[graph.a] != OK, graph.a, graph.b)
    shunned, expired = graph.status[end] != OK, graph.expired
    refused = clusters.refused_by >= 0
    kind = np.select([refused, shunned, expired], [1, 1 + graph.status[end], 4], 0)
    first = np.select([refused, shunned, expired], [clusters.refused_by, graph.type[end], graph.type[graph.a]], 0)
    second = np.where(kind == 4, graph.type[graph.b], 0)
    types = len(graph.specs)
    reasons, reason = np.unique((kind * types + first) * types + second, return_inverse=True)
    words: list[str | None] = []
    for code in reasons.tolist():
        what, one, other = code // types**2, graph.specs[code // types % types], graph.specs[code % types]
        lasting = [spec for spec in (one, other) if spec.expires is not None]
        words.append(
            None if what == 0
            else f"a person has at most {bounds[one.name]} {one.name}" if what == 1
            else f"the {one.name} is {IDENTIFIER_STATUS[what - 1]}" if what in (2, 3)
            else f"not seen for longer than {min(spec.expires for spec in lasting if spec.expires).days} days"
        )  # fmt: skip
    return _words(words, reason)


def _identifiers(graph: Graph, before: _Before, persons: _Persons) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    first_person = np.where(before.first_person >= 0, before.first_person, persons.of)
    columns = {name: graph.identifiers[name] for name in ("type", "value", "first_seen", "last_seen")} | {
        "person_id": _words(persons.ids, persons.of),
        "status": _words(IDENTIFIER_STATUS, graph.status),
        "why": graph.why,
        "first_person_id": _words(persons.ids, first_person),
    }
    return pa.table({name: columns[name] for name in IDENTIFIERS.columns})


def _people(graph: Graph, persons: _Persons) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    count = len(persons.ids)
    known_types = np.array([spec.known for spec in graph.specs], bool)
    # A shared value names nobody in particular, so alone it makes an anonymous person.
    known = np.zeros(count + 1, bool)
    known[persons.of[(graph.status == OK) & known_types[graph.type]]] = True
    living = np.bincount(persons.of[persons.of >= 0], minlength=count)
    return pa.table(
        {
            "person_id": pa.array(persons.ids, pa.string()),
            "kind": _words(("anonymous", "known"), known[:count].astype(np.int64)),
            "identifiers": pa.array(living, pa.int64()),
            "created_at": pa.array(persons.created_at, pa.timestamp("us")),
            "merged_into": _words(persons.ids, _resolved(persons.absorbed_by)),
            "absorbed_by": _words(persons.ids, persons.absorbed_by),
        }
    ).sort_by("person_id")


def _resolved(absorbed_by: np.ndarray) -> np.ndarray:
    """Follow every alias to its end, doubling the steps; a person absorbed later passes all theirs on."""
    import numpy as np

    end = np.where(absorbed_by >= 0, absorbed_by, np.arange(len(absorbed_by)))
    while (end[end] != end).any():
        end = end[end]
    return np.where(absorbed_by >= 0, end, -1)


def _changes(
    graph: Graph, clusters: Clusters, before: _Before, persons: _Persons, why: pa.Array, now: datetime
) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    weight = np.maximum(graph.priority, 1)
    appeared = np.zeros(len(persons.ids) + 1, bool)
    appeared[persons.appeared] = True
    moved = np.flatnonzero(appeared[persons.of] & (before.person >= 0) & (persons.of >= 0))
    split, split_from = heaviest(persons.of[moved], before.person[moved], weight[moved])
    created = np.setdiff1d(persons.appeared, split)
    merged = persons.retired[persons.absorbed_by[persons.retired] >= 0]

    join_cause = _join_causes(graph, clusters, before, merged)
    split_cause = _split_causes(graph, before, persons, why)
    again = [id_ < len(before.ids) for id_ in created.tolist()]
    causes = ["seen again" if back else "first seen" for back in again]
    causes += [join_cause.get(id_, "their identifiers belong to others now") for id_ in merged.tolist()]
    causes += [split_cause.get(id_, "the link is no longer in the data") for id_ in split.tolist()]
    kinds = np.repeat([0, 1, 2], [len(created), len(merged), len(split)])
    other = np.concatenate([np.full(len(created), -1, np.int64), persons.absorbed_by[merged], split_from])
    at = pa.scalar(now.astimezone(UTC).replace(tzinfo=None), pa.timestamp("us"))
    return pa.table(
        {
            "at": pa.repeat(at, len(kinds)),
            "change": _words(("created", "merged", "split"), kinds),
            "person_id": _words(persons.ids, np.concatenate([created, merged, split])),
            "other_person_id": _words(persons.ids, other),
            "cause": pa.array(causes, pa.string()),
        }
    )


def _join_causes(graph: Graph, clusters: Clusters, before: _Before, merged: np.ndarray) -> dict[int, str]:
    """For each id merged away: the strongest link that ties what was theirs to what was not. Types only, no values."""
    import numpy as np

    ours = before.person[graph.a], before.person[graph.b]
    linked = (clusters.edge_status == ACCEPTED) & (ours[0] != ours[1])
    types, sources = (graph.edges["type_a"], graph.edges["type_b"]), graph.edges["source"]
    causes: dict[int, str] = {}
    for edge in np.flatnonzero(linked & (np.isin(ours[0], merged) | np.isin(ours[1], merged))).tolist():
        words = f"{types[0][edge].as_py()} and {types[1][edge].as_py()} on one row of {sources[edge].as_py()}"
        for id_ in (int(ours[0][edge]), int(ours[1][edge])):
            causes.setdefault(id_, words)
    return causes


def _split_causes(graph: Graph, before: _Before, persons: _Persons, why: pa.Array) -> dict[int, str]:
    """For each id of now: why the strongest link to what was the same person does not hold."""
    import numpy as np

    ours = before.person[graph.a], persons.of[graph.a], persons.of[graph.b]
    parted = np.flatnonzero((ours[0] >= 0) & (ours[0] == before.person[graph.b]) & (ours[1] != ours[2]))
    causes: dict[int, str] = {}
    for edge in parted.tolist():
        for id_ in (int(ours[1][edge]), int(ours[2][edge])):
            causes.setdefault(id_, why[edge].as_py())
    return causes


def _words(words: Any, at: np.ndarray) -> pa.Array:
    """The word at each position, null for -1."""
    import pyarrow as pa

    return pa.array(words, pa.string()).take(pa.array(at, mask=at < 0))

"""Which identifiers are one person: the strongest links first, within limits, under ids that stay.

Pure and on numbers: (evidence, the last state, now) → the next state and what changed. Where edges come from is
edges.py, how they become numbers evidence.py; only what is touched is decided again in increment.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
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
    REFUSED_VERDICT,
    Clusters,
    Graph,
    Veto,
    codes_of,
    join,
    microseconds,
    read_graph,
)
from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.evidence import (
    DECLARED,
    SAME_ROW,
    Evidence,
    identified,
    identified_edges,
    identifier_id,
    place,
    read_evidence,
    source_names,
)
from cdp_pipeline.identity.ids import claim, heaviest, mint
from cdp_pipeline.identity.verdicts import vetoes
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
        "first_person_id": Column(
            "string", "The person it began as, where it is another's now: who revives when people split."
        ),
        "id": Column("int64", "A number made of type and value, the same for ever."),
        "component": Column("int64", "The id of the first of all identifiers that links tie to it, taken or refused."),
    },
    key=("id",),
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

    edges: ibis.Table
    identifiers: ibis.Table
    people: pa.Table
    changes: pa.Table


@dataclass(frozen=True)
class Decided:
    """What became of edges and identifiers, in numbers, and of people, in full.

    `edges`: id_a, id_b, source (place in `source_names`), status, why of all that are not accepted; a status of null
    is that of an edge to an identifier that no row shows. `identifiers`: id, person_id, status, why, first_person_id,
    component. `people` and `changes` as PEOPLE and CHANGES say.
    """

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
    """Decide who is who. `edges` is edges.edges(), maybe with the edges of verdicts and matches, `seen`
    seen.identifiers_seen(), the previous tables the last state. Tables in ibis are read by DuckDB.

    An identifier that is blocked or shared links nothing; a link that expired is inactive. The rest is joined strongest
    first (see Graph.strongest_first), and a join that would give a person more identifiers of a type than its `limit`
    (1 where a type is `unique` and sets none), or bring together what a verdict keeps apart, is refused. The result
    depends on content only, never on the order of rows.
    """
    links, nodes = _table(edges), _table(seen)
    if "id_a" not in links.columns:
        links = identified_edges(links)
    if "id" not in nodes.columns:
        nodes = identified(nodes)
    before = None
    if previous_identifiers is not None and previous_people is not None:
        before = before_of(_table(previous_identifiers), _table(previous_people))
    decided = decide(read_evidence(links, nodes, project), before, project, now, vetoed_ids(project))
    return Resolution(
        edges=with_status(links, decided, project),
        identifiers=with_people(nodes, decided),
        people=decided.people,
        changes=decided.changes,
    )


def _table(rows: pa.Table | ibis.Table) -> ibis.Table:
    return rows if isinstance(rows, ibis.Table) else ibis.memtable(rows)


def before_of(identifiers: ibis.Table, people: ibis.Table) -> tuple[pa.Table, pa.Table]:
    """What `decide` needs of the last state: id, person_id, first_person_id of identifiers; people."""
    ids = ibis.coalesce(identifiers["id"], identifier_id(identifiers["type"], identifiers["value"]))
    votes = identifiers.select("person_id", "first_person_id", id=ids)
    return votes.to_pyarrow(), people.select(list(PEOPLE.columns)).to_pyarrow()


def vetoed_ids(project: Project) -> list[Veto]:
    """The pairs of identifiers that verdicts keep apart, by id."""
    found = vetoes(project)
    if not found:
        return []
    import pyarrow as pa

    ends = pa.table({"type": [end[0] for pair in found for end in pair[:2]],
                     "value": [end[1] for pair in found for end in pair[:2]],
                     "order": list(range(2 * len(found)))})  # fmt: skip
    ids = identified(ibis.memtable(ends)).order_by("order").to_pyarrow()["id"].to_pylist()
    return [(ids[2 * n], ids[2 * n + 1], name) for n, (_, _, name) in enumerate(found)]


def with_status(edges: ibis.Table, decided: Decided, project: Project) -> ibis.Table:
    """The rows of EDGES: identified edges with what became of them."""
    return with_outcome(edges, decided, project).select(list(EDGES.columns))


def with_outcome(edges: ibis.Table, decided: Decided, project: Project) -> ibis.Table:
    """Edges by id with status and why. Most are accepted, so only the others are looked up."""
    others = ibis.memtable(decided.edges)
    rows = edges.mutate(_source=place(edges["source"], source_names(project), "int16"))
    keys = [rows["id_a"] == others["id_a"], rows["id_b"] == others["id_b"], rows["_source"] == others["source"]]
    joined = rows.left_join(others, keys, rname="{name}_decided")
    status = ibis.ifelse(joined["id_a_decided"].isnull(), "accepted", joined["status"])
    return joined.mutate(status=status).filter(ibis._["status"].notnull())


def with_people(seen: ibis.Table, decided: Decided) -> ibis.Table:
    """The rows of IDENTIFIERS: identified identifiers with whose they are."""
    return seen.inner_join(ibis.memtable(decided.identifiers), "id").select(list(IDENTIFIERS.columns))


def decide(
    evidence: Evidence,
    before: tuple[pa.Table, pa.Table] | None,
    project: Project,
    now: datetime,
    vetoed: Iterable[Veto] = (),
    taken: Callable[[list[str]], Collection[str]] | None = None,
) -> Decided:
    """Decide on numbers, as `resolve` says. `before`: the last state as `before_of` reads it.

    Where only a part of all people is here, `taken` tells which of some new ids another person has already.
    """
    graph = read_graph(evidence, project, now, vetoed)
    del evidence  # gigabytes, where there are many
    clusters = join(graph)
    why = _why(graph, clusters)
    last = _read_before(before, graph)
    persons = _persons(graph, clusters, last, taken)
    return Decided(
        edges=_edges(graph, clusters, why),
        identifiers=_identifiers(graph, clusters, last, persons),
        people=_people(graph, persons, last, whole=taken is None),
        changes=_changes(graph, clusters, last, persons, why, now),
    )


@dataclass(frozen=True)
class _Before:
    """The last state on this run's codes. An id's code is its place in `ids`, which is sorted; -1 is none."""

    ids: pa.Array
    created_at: np.ndarray  # microseconds, by id code
    absorbed_by: np.ndarray  # id code
    elder: np.ndarray  # rank by age, the eldest 0
    had: np.ndarray  # how many identifiers
    kind: pa.Array
    person: np.ndarray  # the id code each identifier had
    first_person: np.ndarray  # the id code each identifier had first


@dataclass(frozen=True)
class _Persons:
    """This run's people: ids (the old ones, then the minted), and the id code of every identifier."""

    ids: pa.Array
    old: int  # how many of the ids are old
    created_at: np.ndarray
    absorbed_by: np.ndarray
    of: np.ndarray  # id code of each identifier, -1 for a blocked one
    appeared: np.ndarray  # id codes that live now and did not before
    retired: np.ndarray  # id codes that lived before and do not now


@dataclass(frozen=True)
class _Why:
    """Why the edges that are not accepted (`edges`, ascending) are not: few words, and which of them for each."""

    edges: np.ndarray
    words: list[str]
    reason: np.ndarray

    def of(self, edge: int) -> str | None:
        import numpy as np

        at = int(np.searchsorted(self.edges, edge))
        return self.words[self.reason[at]] if at < len(self.edges) and self.edges[at] == edge else None


def _read_before(before: tuple[pa.Table, pa.Table] | None, graph: Graph) -> _Before:
    import numpy as np
    import pyarrow as pa

    none = np.full(len(graph.ids), -1, np.int64)
    if before is None or not before[1].num_rows:
        empty = np.zeros(0, np.int64)
        return _Before(pa.array([], pa.string()), empty, empty, empty, empty, pa.array([], pa.string()), none, none)
    identifiers, people = before
    people = people.sort_by("person_id")
    ids = people["person_id"].combine_chunks()
    created_at = microseconds(people["created_at"])
    elder = np.empty(len(ids), np.int64)
    elder[np.lexsort((np.arange(len(ids)), created_at))] = np.arange(len(ids))
    code = codes_of(graph.ids)(identifiers["id"].to_numpy())
    still = code >= 0
    person, first_person = none.copy(), none.copy()
    had = _id_codes(identifiers["person_id"], ids)
    first = _id_codes(identifiers["first_person_id"], ids)
    person[code[still]] = had[still]
    first_person[code[still]] = np.where(first < 0, had, first)[still]
    person[graph.elsewhere] = first_person[graph.elsewhere] = -1
    return _Before(
        ids, created_at, _id_codes(people["absorbed_by"], ids), elder, people["identifiers"].to_numpy(),
        people["kind"].combine_chunks(), person, first_person,
    )  # fmt: skip


def _id_codes(values: Any, ids: pa.Array) -> np.ndarray:
    """The place of each person id among the ids, -1 where there is none."""
    import numpy as np
    import pyarrow.compute as pc

    words = values.combine_chunks().dictionary_encode()
    at = pc.fill_null(pc.index_in(words.dictionary, value_set=ids), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    word = words.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.append(at, -1)[word]


def _persons(
    graph: Graph, clusters: Clusters, before: _Before, taken: Callable[[list[str]], Collection[str]] | None
) -> _Persons:
    """Give every cluster its id: an old one it overlaps most, else a retired one its members began with, else new."""
    import numpy as np
    import pyarrow as pa

    linking = (graph.status != BLOCKED) & ~graph.elsewhere
    weight = np.maximum(graph.priority, 1)
    id_of = np.full(len(graph.ids), -1, np.int64)  # by cluster
    for votes in (before.person, before.first_person):
        free = np.ones(len(before.ids) + 1, bool)
        free[id_of[id_of >= 0]] = False
        voters = np.flatnonzero(linking & (votes >= 0) & (id_of[clusters.of] < 0) & free[votes])
        began = votes[voters] == before.first_person[voters]
        winners, won = claim(clusters.of[voters], votes[voters], weight[voters], before.elder, began)
        id_of[winners] = won

    members = np.flatnonzero(linking & (id_of[clusters.of] < 0))
    anchors = _earliest(clusters.of[members], graph.first_seen[members], members, len(graph.ids))
    minted = mint(graph.first_seen[anchors], graph.ids[anchors], taken or _among(before.ids))
    id_of[clusters.of[anchors]] = len(before.ids) + np.arange(len(anchors))

    of = np.where(linking, id_of[clusters.of], -1)
    count = len(before.ids) + len(minted)
    alive, lived = np.zeros(count + 1, bool), np.zeros(count + 1, bool)  # the last place is for -1, nobody
    alive[of[of >= 0]] = True
    if taken is None:
        lived[: len(before.ids)] = before.had > 0  # also who had nothing but identifiers that are gone now
    else:
        lived[before.person[before.person >= 0]] = True
    appeared, retired = np.flatnonzero(alive & ~lived), np.flatnonzero(lived & ~alive)
    absorbed_by = np.concatenate([before.absorbed_by, np.full(len(minted), -1, np.int64)])
    absorbed_by[alive[:count]] = -1
    # Who is no more was absorbed by whoever has most of what was theirs: just now, or else in the beginning.
    for votes in (before.person, before.first_person):
        orphan = ~alive
        orphan[:count] &= absorbed_by < 0
        theirs = np.flatnonzero((votes >= 0) & (of >= 0) & orphan[votes])
        absorbed, by = heaviest(votes[theirs], of[theirs], weight[theirs])
        absorbed_by[absorbed] = by
    created_at = np.concatenate([before.created_at, graph.first_seen[anchors]])
    ids = pa.concat_arrays([before.ids, pa.array(minted, pa.string())])
    return _Persons(ids, len(before.ids), created_at, absorbed_by, of, appeared, retired)


def _earliest(cluster: np.ndarray, first_seen: np.ndarray, members: np.ndarray, count: int) -> np.ndarray:
    """The member of each cluster that was seen first, the smaller code on a tie; members ascend."""
    import numpy as np

    earliest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(earliest, cluster, first_seen)
    at_first = first_seen == earliest[cluster]
    _, place = np.unique(cluster[at_first], return_index=True)
    return members[at_first][place]


def _among(ids: pa.Array) -> Callable[[list[str]], Collection[str]]:
    def taken(some: list[str]) -> set[str]:
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pa.array(some, pa.string())
        return set(found.filter(pc.is_in(found, value_set=ids)).to_pylist())

    return taken


def _edges(graph: Graph, clusters: Clusters, why: _Why) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    some = why.edges
    found = pa.table(
        {
            "id_a": graph.ids[graph.a[some]],
            "id_b": graph.ids[graph.b[some]],
            "source": graph.source[some].astype(np.int16),
            "status": _words(EDGE_STATUS, clusters.edge_status[some]),
            "why": _words(why.words, why.reason),
        }
    )
    return pa.concat_tables([found, graph.lost], promote_options="default")


def _why(graph: Graph, clusters: Clusters) -> _Why:
    """Why each edge does not link. There are only as many reasons as pairs of types, so each is worded once."""
    import numpy as np

    some = np.flatnonzero(clusters.edge_status != ACCEPTED)
    a, b, refuser = graph.a[some], graph.b[some], clusters.refused_by[some]
    end = np.where(graph.status[a] != OK, a, b)
    shunned = graph.status[end] != OK
    vetoed, refused = clusters.edge_status[some] == REFUSED_VERDICT, refuser >= 0
    types = graph.type.astype(np.int64)
    kind = np.select([vetoed, refused, shunned, graph.expired[some]], [1, 2, 2 + graph.status[end], 5], 6)
    first = np.select([refused, shunned], [refuser, types[end]], types[a])
    second = np.where(kind >= 5, types[b], 0)
    span = max(len(graph.specs), len(graph.vetoes), 1)
    reasons, reason = np.unique((kind * span + first) * span + second, return_inverse=True)
    words = [_reason(graph, code // span**2, code // span % span, code % span) for code in reasons.tolist()]
    return _Why(some, words, reason)


def _reason(graph: Graph, what: int, first: int, second: int) -> str:
    if what == 1:
        return f"verdict {graph.vetoes[first][2]} keeps them apart"
    one, other = graph.specs[first], graph.specs[second]
    if what == 2:
        within = one.limit.within if one.limit is not None else None
        spell = "" if within is None else f" new within {within.days} days" if within.days else f" new within {within}"
        return f"a person has at most {graph.bounds[one.name].count} {one.name}{spell}"
    if what in (3, 4):
        return f"the {one.name} is {IDENTIFIER_STATUS[what - 2]}"
    if what == 5:
        lasting = [spec.expires for spec in (one, other) if spec.expires is not None]
        return f"not seen for longer than {min(lasting).days} days"
    return {
        "isolation": "strategy isolation: anonymous and known are kept apart",
        "best_match": "strategy best_match: the value went to the person with the strongest evidence",
        "strict": "strategy strict: only unique identifiers join, others hang on the strongest of them",
    }[graph.strategy]


def _identifiers(graph: Graph, clusters: Clusters, before: _Before, persons: _Persons) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    here = np.flatnonzero(~graph.elsewhere)
    # Whoever is new began as the person made of them; whoever belongs to nobody now remembers whom nobody succeeds.
    heirless = np.zeros(len(persons.ids) + 1, bool)
    heirless[persons.retired] = persons.absorbed_by[persons.retired] < 0
    began = np.where(persons.of >= persons.old, persons.of, before.first_person)
    began = np.where(heirless[before.person], before.person, began)
    first_person = np.where(began != persons.of, began, -1)
    return pa.table(
        {
            "id": graph.ids[here],
            "person_id": _places(persons.ids, persons.of[here]),
            "status": _places(IDENTIFIER_STATUS, graph.status[here]),
            "why": _places(graph.reasons, graph.reason[here]),
            "first_person_id": _places(persons.ids, first_person[here]),
            "component": graph.ids[clusters.component[here]],
        }
    )


def _people(graph: Graph, persons: _Persons, before: _Before, whole: bool) -> pa.Table:
    """All people; where only a part is here (not `whole`), without those living elsewhere."""
    import numpy as np
    import pyarrow as pa

    count = len(persons.ids)
    known_types = np.array([spec.known for spec in graph.specs], bool)
    # A shared value names nobody in particular, so alone it makes an anonymous person.
    known = np.zeros(count + 1, bool)
    known[persons.of[(graph.status == OK) & known_types[graph.type]]] = True
    living = np.bincount(persons.of[persons.of >= 0], minlength=count)
    people = pa.table(
        {
            "person_id": persons.ids,
            "kind": _words(("anonymous", "known"), known[:count].astype(np.int64)),
            "identifiers": pa.array(living, pa.int64()),
            "created_at": pa.array(persons.created_at, pa.timestamp("us")),
            "merged_into": _words(persons.ids, _resolved(persons.absorbed_by)),
            "absorbed_by": _words(persons.ids, persons.absorbed_by),
        }
    )
    if not whole:
        gone_from_here = np.zeros(count, bool)
        gone_from_here[persons.retired] = True
        had = np.append(before.had, np.zeros(count - len(before.had), np.int64))
        people = people.filter(pa.array((had == 0) | (living > 0) | gone_from_here))
    return people.sort_by("person_id")


def _resolved(absorbed_by: np.ndarray) -> np.ndarray:
    """Follow every alias to its end, doubling the steps; a person absorbed later passes all theirs on."""
    import numpy as np

    end = np.where(absorbed_by >= 0, absorbed_by, np.arange(len(absorbed_by)))
    while (end[end] != end).any():
        end = end[end]
    return np.where(absorbed_by >= 0, end, -1)


def _changes(
    graph: Graph, clusters: Clusters, before: _Before, persons: _Persons, why: _Why, now: datetime
) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    weight = np.maximum(graph.priority, 1)
    appeared = np.zeros(len(persons.ids) + 1, bool)
    appeared[persons.appeared] = True
    moved = np.flatnonzero(appeared[persons.of] & (before.person >= 0) & (persons.of >= 0))
    split, split_from = heaviest(persons.of[moved], before.person[moved], weight[moved])
    created = np.setdiff1d(persons.appeared, split)
    merged = np.flatnonzero((before.absorbed_by < 0) & (persons.absorbed_by[: persons.old] >= 0))

    join_cause = _join_causes(graph, clusters, before, merged)
    split_cause = _split_causes(graph, before, persons, split, why)
    causes = _words(("first seen", "seen again"), (created < persons.old).astype(np.int64))
    moves: list[str | None] = [join_cause.get(id_, "their identifiers belong to others now") for id_ in merged.tolist()]
    moves += [split_cause.get(id_, "the link is no longer in the data") for id_ in split.tolist()]
    kinds = np.repeat([0, 1, 2], [len(created), len(merged), len(split)])
    other = np.concatenate([np.full(len(created), -1, np.int64), persons.absorbed_by[merged], split_from])
    at = pa.scalar(now.astimezone(UTC).replace(tzinfo=None), pa.timestamp("us"))
    return pa.table(
        {
            "at": pa.repeat(at, len(kinds)),
            "change": _words(("created", "merged", "split"), kinds),
            "person_id": _words(persons.ids, np.concatenate([created, merged, split])),
            "other_person_id": _words(persons.ids, other),
            "cause": pa.concat_arrays([causes, pa.array(moves, pa.string())]),
        }
    )


def _join_causes(graph: Graph, clusters: Clusters, before: _Before, merged: np.ndarray) -> dict[int, str]:
    """For each id merged away: the strongest link that ties what was theirs to what was not. Types only, no values."""
    import numpy as np

    if not len(merged):
        return {}
    ours = before.person[graph.a], before.person[graph.b]
    linked = (clusters.edge_status == ACCEPTED) & (ours[0] != ours[1])
    gone = np.zeros(len(before.ids) + 1, bool)
    gone[merged] = True
    causes: dict[int, str] = {}
    for edge in graph.strongest_first(np.flatnonzero(linked & (gone[ours[0]] | gone[ours[1]]))).tolist():
        types = sorted(graph.specs[graph.type[end]].name for end in (graph.a[edge], graph.b[edge]))
        source, rule = graph.sources[graph.source[edge]], graph.rule[edge]
        words = f"{types[0]} and {types[1]} " + (
            f"on one row of {source}" if rule == SAME_ROW
            else "by a verdict" if rule == DECLARED
            else f"by {source.replace(':', ' ')}"
        )  # fmt: skip
        for id_ in (int(ours[0][edge]), int(ours[1][edge])):
            causes.setdefault(id_, words)
    return causes


def _split_causes(
    graph: Graph, before: _Before, persons: _Persons, split: np.ndarray, why: _Why
) -> dict[int, str | None]:
    """For each id that split off: why the strongest link to what was the same person does not hold."""
    import numpy as np

    if not len(split):
        return {}
    was, here, there = before.person[graph.a], persons.of[graph.a], persons.of[graph.b]
    parted = np.flatnonzero((was >= 0) & (was == before.person[graph.b]) & (here != there))
    causes: dict[int, str | None] = {}
    for edge in graph.strongest_first(parted).tolist():
        for id_ in (int(here[edge]), int(there[edge])):
            causes.setdefault(id_, why.of(edge))
    return causes


def _places(words: Any, at: np.ndarray) -> pa.Array:
    """The same without writing a word out: few words for very many positions."""
    import pyarrow as pa

    known = words if isinstance(words, pa.Array) else pa.array(words, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(at.astype("int32"), mask=at < 0), known)


def _words(words: Any, at: np.ndarray) -> pa.Array:
    """The word at each position, null for -1."""
    import pyarrow as pa

    known = words if isinstance(words, pa.Array) else pa.array(words, pa.string())
    return known.take(pa.array(at, mask=at < 0))

"""People and what they claim as integer codes, and who holds together: the most trusted ways first, within limits.

Codes and the order of joins follow from content alone, never from the order of rows. Ids of groups belong to groups.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdp_pipeline.identity.domains import is_nobodys

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.spec.group import Group, Way

ACCEPTED, LIMIT, NUMBER, LARGE = range(4)
STATUS = ("accepted", "refused_limit", "refused_number", "too_large")
NEVER = -(2**62)  # microseconds: no time is known


@dataclass(frozen=True)
class Living:
    """Everybody there is, by code: sorted ids and when they were first seen, in microseconds."""

    ids: pa.Array
    created_at: np.ndarray


@dataclass(frozen=True)
class Graph:
    """People by code and values ('keys') by code, and who claims which."""

    living: Living
    ways: list[Way]
    way: np.ndarray  # of each key
    keys: pa.Array  # text of each key
    size: np.ndarray  # how many people claim it
    large: np.ndarray
    listed: np.ndarray  # whether a directory lists it
    heard: np.ndarray  # when the directory first did, in microseconds
    names: list[str | None]
    parent: np.ndarray  # key code of the parent the directory names, -1 none, -2 one that is not known
    person: np.ndarray  # per claim: who, what, when
    key: np.ndarray
    at: np.ndarray


@dataclass(frozen=True)
class Clusters:
    """The cluster of each person and key (people first), and what became of each claim."""

    of: np.ndarray
    status: np.ndarray


def read_people(people: pa.Table) -> tuple[Living, pa.Table]:
    """The living, and for everybody who ever was the id they resolve to."""
    import pyarrow as pa
    import pyarrow.compute as pc

    alive = pc.and_(pc.is_null(people["merged_into"]), pc.greater(people["identifiers"], 0))
    some = people.filter(alive).sort_by("person_id")
    now = pc.coalesce(people["merged_into"], people["person_id"])
    alias = pa.table({"person_id": people["person_id"], "now": now})
    return Living(whole(some["person_id"]), microseconds(some["created_at"])), alias


def read_graph(group: Group, claims: pa.Table, listed: pa.Table, living: Living) -> Graph:
    """Code keys by content, claims by their codes, and leave out who is no more and domains of no company."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rules = pa.array([way.rule for way in group.by], pa.string())
    person, way = codes(claims["person_id"], living.ids), codes(claims["rule"], rules)
    known = pa.array((person >= 0) & (way >= 0))
    claims, person, way = claims.filter(known), person[known.to_numpy(False)], way[known.to_numpy(False)]

    both = [keyed(table["rule"], table["key"]) for table in (claims, listed)]
    keys = pc.unique(pa.chunked_array(both, pa.string()))
    keys = keys.take(pc.array_sort_indices(keys))
    parts = [text.split("\x1f", 1) for text in keys.to_pylist()]
    way_of = codes(pa.array([rule for rule, _ in parts], pa.string()), rules)
    domains = {place: way for place, way in enumerate(group.by) if way.email_domain is not None}
    keep = np.array([
        way not in domains or not is_nobodys(text, domains[way].exclude, domains[way].shipped)
        for way, (_, text) in zip(way_of.tolist(), parts, strict=True)
    ], bool)  # fmt: skip
    keys = keys.filter(pa.array(keep))
    texts = pa.array([text for text, kept in zip((text for _, text in parts), keep, strict=True) if kept], pa.string())
    way_of = way_of[keep]

    key = codes(both[0], keys)
    at = microseconds(claims["at"])
    kept = key >= 0
    person, key, at = person[kept], key[kept], at[kept]
    size = np.bincount(key, minlength=len(keys))
    large = size > group.most if group.most is not None else np.zeros(len(keys), bool)

    place = codes(both[1], keys)
    is_listed = np.zeros(len(keys), bool)
    is_listed[place] = True
    heard, parent = np.zeros(len(keys), np.int64), np.full(len(keys), -1, np.int64)
    heard[place] = microseconds(listed["at"])
    above_it = codes(keyed(listed["rule"], listed["parent"]), keys)
    named = listed["parent"].is_valid().to_numpy()
    parent[place] = np.where(named, np.where(above_it < 0, -2, above_it), -1)
    names: list[str | None] = [None] * len(keys)
    for code, name in zip(place.tolist(), listed["name"].to_pylist(), strict=True):
        names[code] = name
    return Graph(
        living, group.by, way_of, texts, size, large, is_listed, heard, names, parent, person, key, at
    )  # fmt: skip


def join(graph: Graph, group: Group) -> Clusters:
    """Join people through what they claim. Only where plain components break a limit, it is done one by one."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    people, count = len(graph.living.ids), len(graph.living.ids) + len(graph.way)
    status = np.where(graph.large[graph.key], LARGE, ACCEPTED).astype(np.int8)
    live = np.flatnonzero(status == ACCEPTED)
    ends = graph.person[live], graph.key[live] + people
    components, of = connected_components(
        coo_array((np.ones(len(live), np.int8), ends), shape=(count, count)), directed=False
    )
    over = np.zeros(components, bool)
    if group.most is not None:
        over |= np.bincount(of[:people], minlength=components) > group.most
    numbers = [place for place, way in enumerate(group.by) if group.names_it(way)]
    for place in numbers:
        over |= np.bincount(of[people:][graph.way == place], minlength=components) > 1
    _, first, inverse = np.unique(of, return_index=True, return_inverse=True)
    smallest = first[inverse]
    some = live[over[of[ends[0]]]]
    if len(some):
        smallest, status[some] = _one_by_one(graph, group, numbers, smallest, np.flatnonzero(over[of]), some)
    return Clusters(smallest, status)


def _one_by_one(
    graph: Graph, group: Group, numbers: list[int], of: np.ndarray, nodes: np.ndarray, claims: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kruskal's way over these nodes and claims: the cluster of every node, and what became of each claim."""
    import numpy as np

    people = len(graph.living.ids)
    parent = {node: node for node in nodes.tolist()}
    heads = {node: int(node < people) for node in parent}  # people per root
    held = {node: _held(graph, numbers, node - people) for node in parent}  # numbers of each way per root
    status = np.full(len(claims), ACCEPTED, np.int8)
    most = group.most or len(parent)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for place in range(len(group.by)):
        these = np.flatnonzero(graph.way[graph.key[claims]] == place)
        person, key = graph.person[claims[these]], graph.key[claims[these]]
        # What more people of one group say comes first, so that a few strays do not carry a domain away.
        group_now = np.array([root(one) for one in person.tolist()], np.int64)
        _, inverse, voices = np.unique(group_now * len(graph.way) + key, return_inverse=True, return_counts=True)
        strongest_first = np.lexsort((person, key, -graph.at[claims[these]], -voices[inverse]))
        for position in strongest_first.tolist():
            one, other = root(int(person[position])), root(int(key[position]) + people)
            if one == other:
                continue
            together = [a + b for a, b in zip(held[one], held[other], strict=True)]
            if any(held_now > 1 for held_now in together):
                status[these[position]] = NUMBER
            elif heads[one] + heads[other] > most:
                status[these[position]] = LIMIT
            else:
                keep, give = min(one, other), max(one, other)
                parent[give] = keep
                heads[keep], held[keep] = heads[one] + heads[other], together
    of = of.copy()
    of[nodes] = [root(node) for node in nodes.tolist()]
    return of, status


def _held(graph: Graph, numbers: list[int], key: int) -> list[int]:
    return [int(key >= 0 and graph.way[key] == place) for place in numbers]


def whole(column: Any) -> pa.Array:
    import pyarrow as pa

    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def keyed(rules: Any, keys: Any) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return whole(pc.binary_join_element_wise(rules.cast(pa.string()), keys.cast(pa.string()), "\x1f"))


def codes(values: Any, known: pa.Array) -> np.ndarray:
    """The position of each value among the known ones, -1 where it is none of them."""
    import numpy as np
    import pyarrow.compute as pc

    return pc.fill_null(pc.index_in(values, value_set=known), -1).to_numpy().astype(np.int64)


def microseconds(times: Any) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.fill_null(times.cast(pa.timestamp("us")).cast(pa.int64()), NEVER).to_numpy()

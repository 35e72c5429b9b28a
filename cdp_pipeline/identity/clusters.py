"""The graph of identifiers as integer codes, and which of them hold together: strongest links first, within limits.

Codes and the order of edges follow from content alone, never from the order of rows. Person ids belong to ids.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_pipeline.identity.blocked import blocked_why

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.spec.identifier import Identifier
    from cdp_pipeline.spec.project import Project

OK, BLOCKED, SHARED = 0, 1, 2
IDENTIFIER_STATUS = ("ok", "blocked", "shared")
ACCEPTED, REDUNDANT, REFUSED_LIMIT, REFUSED_UNIQUE, INACTIVE = 0, 1, 2, 3, 4
EDGE_STATUS = ("accepted", "redundant", "refused_limit", "refused_unique", "inactive")
_NO_END = 2**62  # microseconds: a link that never expires


def limits(identifiers: dict[str, Identifier]) -> dict[str, int]:
    """How many values of a type one person may have, strongest type first; types without a limit are left out.

    A `unique` type without a limit has one: two customer numbers are two people unless the project says otherwise.
    """
    strongest_first = sorted(identifiers.values(), key=lambda spec: (-spec.priority, spec.name))
    bounds = {spec.name: spec.limit or (1 if spec.unique else None) for spec in strongest_first}
    return {name: bound for name, bound in bounds.items() if bound is not None}


@dataclass(frozen=True)
class Graph:
    """Identifiers by code (ordered by content) and edges between codes (strongest first), with what may link."""

    specs: list[Identifier]  # by type code
    identifiers: pa.Table
    keys: pa.Array  # type and value as one text, by code
    type: np.ndarray  # type code, by code
    priority: np.ndarray
    status: np.ndarray  # OK, BLOCKED or SHARED, by code
    why: pa.Array
    edges: pa.Table
    a: np.ndarray
    b: np.ndarray
    expired: np.ndarray
    active: np.ndarray


@dataclass(frozen=True)
class Clusters:
    """`of`: the cluster of each identifier, named by its smallest code; what became of each edge, and by which type."""

    of: np.ndarray
    edge_status: np.ndarray
    refused_by: np.ndarray  # type code whose limit refused the edge, -1 elsewhere


def read_graph(edges: pa.Table, seen: pa.Table, project: Project, now: datetime) -> Graph:
    """Code identifiers and edges, and find what is blocked, shared or expired."""
    import numpy as np
    import pyarrow as pa

    specs = [project.identifiers[name] for name in sorted(project.identifiers)]
    types = pa.array([spec.name for spec in specs], pa.string())
    keys = identifier_keys(seen["type"], seen["value"])
    order = _content_order(keys)
    identifiers, keys = seen.select(["type", "value", "first_seen", "last_seen"]).take(order), keys.take(order)
    type_of = codes(identifiers["type"], types)
    priority = np.array([spec.priority for spec in specs], np.int64)[type_of]

    # Looking texts up is the dearest step: one look-up for both ends builds one hash table.
    ends = [identifier_keys(edges[f"type_{end}"], edges[f"value_{end}"]) for end in ("a", "b")]
    a, b = np.split(codes(pa.chunked_array(ends), keys), 2)
    source_names = sorted(project.sources)
    source = codes(edges["source"], pa.array(source_names, pa.string()))
    last_seen = microseconds(edges["last_seen"])
    strength = np.minimum(priority[a], priority[b]) * 1001 + np.maximum(priority[a], priority[b])
    strongest_first = np.lexsort((source, np.maximum(a, b), np.minimum(a, b), -last_seen, -strength))
    edges = edges.take(strongest_first)
    a, b, source, last_seen = (
        a[strongest_first],
        b[strongest_first],
        source[strongest_first],
        last_seen[strongest_first],
    )

    # A snapshot source says what holds today, so its links do not age; those of events do.
    ages = np.array([project.sources[name].mode == "events" for name in source_names], bool)[source]
    spans = [_NO_END if spec.expires is None else spec.expires // timedelta(microseconds=1) for spec in specs]
    lasts = np.array(spans, np.int64)
    expired = ages & (last_seen <= _microsecond(now) - np.minimum(lasts[type_of[a]], lasts[type_of[b]]))

    status, why = _blocked(identifiers, type_of, specs)
    status, why = _shared(status, why, type_of, specs, a[~expired], b[~expired])
    active = ~expired & (status[a] == OK) & (status[b] == OK)
    return Graph(specs, identifiers, keys, type_of, priority, status, why, edges, a, b, expired, active)


def join(graph: Graph, bounds: dict[str, int]) -> Clusters:
    """Join the strongest active edges first, refusing every join that would break a limit.

    Plain components do almost all the work: only those that break a limit are joined edge by edge.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(graph.type)
    a, b = graph.a[graph.active], graph.b[graph.active]
    adjacency = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    components, component = connected_components(adjacency, directed=False)
    over = np.zeros(components, bool)
    for type_code, spec in enumerate(graph.specs):
        if spec.name in bounds:
            over |= np.bincount(component[graph.type == type_code], minlength=components) > bounds[spec.name]

    of = _smallest_member(component)
    edge_status = np.full(len(graph.a), INACTIVE, np.int8)
    refused_by = np.full(len(graph.a), -1, np.int64)
    active = np.flatnonzero(graph.active)
    constrained = over[component[a]]
    edge_status[active[~constrained]] = _tree(a[~constrained], b[~constrained], count)
    if constrained.any():
        some = active[constrained]
        within = np.flatnonzero(over[component])
        of[within], edge_status[some], refused_by[some] = _join_within_limits(graph, bounds, within, some)
    return Clusters(of, edge_status, refused_by)


def _tree(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """ACCEPTED for the edges of the strongest spanning tree, REDUNDANT for the others; edges come strongest first."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    # Several sources may show one pair: the strongest edge stands for it (SciPy would add their weights up).
    _, first = np.unique(np.minimum(a, b) * count + np.maximum(a, b), return_index=True)
    weight = first.astype(np.float64) + 1  # a weight of 0 would be no edge
    tree = minimum_spanning_tree(coo_array((weight, (a[first], b[first])), shape=(count, count)).tocsr())
    status = np.full(len(a), REDUNDANT, np.int8)
    status[tree.data.astype(np.int64) - 1] = ACCEPTED
    return status


def _join_within_limits(
    graph: Graph, bounds: dict[str, int], nodes: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kruskal's way, edge by edge: the cluster of each node, and the status and refusing type of each edge."""
    import numpy as np

    limited = [(code, bounds[spec.name]) for code, spec in enumerate(graph.specs) if spec.name in bounds]
    limited.sort(key=lambda bound: (-graph.specs[bound[0]].priority, graph.specs[bound[0]].name))
    parent = list(range(len(nodes)))
    held = [[int(code == own) for code, _ in limited] for own in graph.type[nodes].tolist()]
    ends_a = np.searchsorted(nodes, graph.a[edges]).tolist()
    ends_b = np.searchsorted(nodes, graph.b[edges]).tolist()
    status = np.full(len(edges), ACCEPTED, np.int8)
    refused_by = np.full(len(edges), -1, np.int64)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for position, (end_a, end_b) in enumerate(zip(ends_a, ends_b, strict=True)):
        keep, give = root(end_a), root(end_b)
        if keep == give:
            status[position] = REDUNDANT
            continue
        together = [x + y for x, y in zip(held[keep], held[give], strict=True)]
        broken = next((code for (code, bound), n in zip(limited, together, strict=True) if n > bound), None)
        if broken is None:
            keep, give = min(keep, give), max(keep, give)
            parent[give], held[keep] = keep, together
        else:
            status[position] = REFUSED_UNIQUE if graph.specs[broken].limit is None else REFUSED_LIMIT
            refused_by[position] = broken
    return nodes[[root(node) for node in range(len(nodes))]], status, refused_by


def _smallest_member(component: np.ndarray) -> np.ndarray:
    import numpy as np

    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return first[inverse]


def _blocked(identifiers: pa.Table, type_of: np.ndarray, specs: list[Identifier]) -> tuple[np.ndarray, pa.Array]:
    import numpy as np
    import pyarrow as pa

    status, why = np.full(len(type_of), OK, np.int8), np.full(len(type_of), None, object)
    values = identifiers["value"].combine_chunks()
    for code, spec in enumerate(specs):
        members = np.flatnonzero(type_of == code)
        reasons = blocked_why(spec.name, values.take(pa.array(members)), spec.blocked)
        hit = members[reasons.is_valid().to_numpy(zero_copy_only=False)]
        status[hit], why[hit] = BLOCKED, reasons.drop_null().to_pylist()
    return status, pa.array(why, pa.string())


def _shared(
    status: np.ndarray, why: pa.Array, type_of: np.ndarray, specs: list[Identifier], a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, pa.Array]:
    """Mark the values seen with too many values of unique types: a tablet in a shop, the phone of an office."""
    import numpy as np
    import pyarrow as pa

    bounds = np.array([_NO_END if spec.shared_above is None else spec.shared_above for spec in specs])[type_of]
    unique = np.array([spec.unique for spec in specs], bool)[type_of] & (status == OK)
    ends, others = np.concatenate([a, b]), np.concatenate([b, a])
    counts = unique[others] & (bounds[ends] < _NO_END) & (status[ends] == OK)
    pairs = np.unique(ends[counts] * len(type_of) + others[counts])
    met = np.bincount(pairs // max(len(type_of), 1), minlength=len(type_of))
    hit = np.flatnonzero(met > bounds)
    status = status.copy()
    status[hit] = SHARED
    reasons = np.full(len(type_of), None, object)
    names = " or ".join(spec.name for spec in specs if spec.unique)
    reasons[hit] = [f"seen with {met[code]} values of {names}, more than {bounds[code]}" for code in hit.tolist()]
    return status, pa.array(np.where(reasons == None, why.to_numpy(zero_copy_only=False), reasons), pa.string())  # noqa: E711


def identifier_keys(types: Any, values: Any) -> pa.Array:
    """Type and value as one text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = pc.binary_join_element_wise(types.cast(pa.string()), values.cast(pa.string()), "\x1f")
    return keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys


def codes(values: Any, known: pa.Array) -> np.ndarray:
    """The position of each value among the known ones, -1 where it is none of them."""
    import numpy as np
    import pyarrow.compute as pc

    return pc.fill_null(pc.index_in(values, value_set=known), -1).to_numpy().astype(np.int64)


def microseconds(times: Any) -> np.ndarray:
    """Naive UTC timestamps as microseconds since 1970."""
    import pyarrow as pa

    return times.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()


def _microsecond(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def content_hash(keys: pa.Array) -> np.ndarray:
    """A 64-bit hash of each text that is the same in every process and release."""
    from pandas.util import hash_array

    return hash_array(keys.to_numpy(zero_copy_only=False).astype(object), categorize=False)


def _content_order(keys: pa.Array) -> np.ndarray:
    """The order of the texts by hash: as good as any, faster than the alphabet, and fair to every value."""
    import numpy as np

    hashes = content_hash(keys)
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    if (ranked[1:] == ranked[:-1]).any():  # once in some billions of identifiers: the alphabet decides
        return np.lexsort((keys.to_numpy(zero_copy_only=False).astype(str), hashes))
    return order

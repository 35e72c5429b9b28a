"""The graph of identifiers as integer codes, and which of them hold together: strongest links first, within limits.

Codes and the order of edges follow from content alone, never from the order of rows. Person ids belong to ids.py.
"""

from __future__ import annotations

from bisect import insort
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_pipeline.identity.evidence import DECLARED, MATCHED, SAME_ROW, Evidence, source_names, type_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.spec.identifier import Identifier, Limit
    from cdp_pipeline.spec.project import Project

OK, BLOCKED, SHARED = 0, 1, 2
IDENTIFIER_STATUS = ("ok", "blocked", "shared")
ACCEPTED, REFUSED_LIMIT, REFUSED_UNIQUE, REFUSED_VERDICT, INACTIVE = 0, 1, 2, 3, 4
EDGE_STATUS = ("accepted", "refused_limit", "refused_unique", "refused_verdict", "inactive")
_NO_END = 2**62  # microseconds: a link that never expires

Veto = tuple[int, int, str]  # two identifier ids, and the verdict that keeps them apart


@dataclass(frozen=True)
class Bound:
    """At most `count` identifiers of a type a person, or as many first seen within `within` microseconds."""

    count: int
    within: int | None


def bounds(specs: Iterable[Identifier]) -> dict[str, Bound]:
    """The limit of each type that has one, strongest type first.

    A `unique` type without a limit has one: two customer numbers are two people unless the project says otherwise.
    """
    strongest_first = sorted(specs, key=lambda spec: (-spec.priority, spec.name))
    return {
        spec.name: Bound(spec.limit.count, _span(spec.limit)) if spec.limit is not None else Bound(1, None)
        for spec in strongest_first
        if spec.limit is not None or spec.unique
    }


def _span(limit: Limit) -> int | None:
    return None if limit.within is None else limit.within // timedelta(microseconds=1)


@dataclass(frozen=True)
class Graph:
    """Identifiers by code (ordered by id, so by content) and edges between codes, with what may link."""

    specs: list[Identifier]  # by type code
    sources: list[str]  # by source code
    bounds: dict[str, Bound]
    strategy: str
    ids: np.ndarray  # by code, ascending
    type: np.ndarray  # type code, by code
    priority: np.ndarray
    first_seen: np.ndarray  # microseconds
    status: np.ndarray  # OK, BLOCKED or SHARED, by code
    reason: np.ndarray  # place in `reasons`, by code
    reasons: list[str | None]
    contested: np.ndarray  # of several people, though its status may be ok, by code
    elsewhere: np.ndarray  # known from before and not decided here, by code
    a: np.ndarray
    b: np.ndarray
    source: np.ndarray
    rule: np.ndarray
    last_seen: np.ndarray  # microseconds
    score: np.ndarray
    expired: np.ndarray
    active: np.ndarray
    near: np.ndarray  # edges over which a decision about one end may touch the other
    vetoes: list[tuple[int, int, str]]  # codes
    lost: pa.Table  # id_a, id_b, source of edges to identifiers that are not here

    def strongest_first(self, edges: np.ndarray) -> np.ndarray:
        """These edges in the one order in which they are taken; it follows from content alone.

        What people declared, then rows, then fuzzy matches by score; then the weaker end's priority, the stronger
        end's, the latest seen, and at last the ids, which are as good as drawn by lot.
        """
        import numpy as np

        a, b, rule = self.a[edges], self.b[edges], self.rule[edges]
        one, other = self.priority[a], self.priority[b]
        strength = np.minimum(one, other) * 1001 + np.maximum(one, other)
        standing = np.array([1, 0, 2])[rule] * 1001 * 1001 - strength
        pair = np.minimum(a, b).astype(np.int64) * len(self.ids) + np.maximum(a, b)
        keys = [pair * len(self.sources) + self.source[edges], -self.last_seen[edges], standing]
        if (rule == MATCHED).any():
            keys += [np.where(rule == MATCHED, -self.score[edges], 0), rule == MATCHED]
        return edges[np.lexsort(keys)]


@dataclass(frozen=True)
class Clusters:
    """`of`: the cluster of each identifier, named by its smallest code; what became of each edge, and by what.

    `component`: the identifiers among which a cluster was sought, named alike; no decision reaches beyond it.
    """

    of: np.ndarray
    component: np.ndarray
    edge_status: np.ndarray
    refused_by: np.ndarray  # type code whose limit refused the edge, or the place of the verdict; -1 elsewhere


def read_graph(evidence: Evidence, project: Project, now: datetime, vetoed: Iterable[Veto] = ()) -> Graph:
    """Code identifiers and edges, and find what is blocked, shared or expired."""
    import numpy as np
    import pyarrow as pa

    specs = [project.identifiers[name] for name in type_names(project)]
    sources = source_names(project)
    nodes = evidence.identifiers
    ids = nodes["id"].to_numpy()
    order = np.argsort(ids)
    ids = ids[order]
    type_of = nodes["type"].to_numpy()[order]
    priorities = np.array([spec.priority for spec in specs], np.int32)
    priority = priorities[type_of] if len(specs) else np.zeros(0, np.int64)

    edges = evidence.edges
    known = codes_of(ids)
    with ThreadPoolExecutor(2) as both:  # the dearest step, and pandas does it without the interpreter's lock
        a, b = both.map(known, [edges["id_a"].to_numpy(), edges["id_b"].to_numpy()])
    lost = (a < 0) | (b < 0)
    nowhere = edges.select(["id_a", "id_b", "source"]).filter(pa.array(lost))
    if lost.any():  # a verdict or a match may speak of an identifier that no row shows any more
        edges, a, b = edges.filter(pa.array(~lost)), a[~lost], b[~lost]
    source, rule = edges["source"].to_numpy(), edges["rule"].to_numpy()
    last_seen = microseconds(edges["last_seen"])

    # A snapshot source says what holds today, and a verdict until it is withdrawn: only links of events age.
    events = [name in project.sources and project.sources[name].mode == "events" for name in sources]
    ages = np.array(events, bool)[source] & (rule == SAME_ROW)
    spans = [_NO_END if spec.expires is None else spec.expires // timedelta(microseconds=1) for spec in specs]
    lasts = np.array(spans, np.int64)
    expired = np.zeros(len(a), bool)
    if any(spec.expires is not None for spec in specs):
        expired = ages & (last_seen <= _microsecond(now) - np.minimum(lasts[type_of[a]], lasts[type_of[b]]))

    why = nodes["blocked"].combine_chunks().dictionary_encode()
    reasons: list[str | None] = [None, *why.dictionary.to_pylist()]
    reason = (why.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32) + 1)[order]
    status = np.where(reason > 0, BLOCKED, OK).astype(np.int8)
    elsewhere = np.zeros(len(ids), bool)
    if "known_status" in nodes.column_names:
        given = nodes["known_status"].combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False)[order]
        elsewhere = given >= 0
        status = np.where(elsewhere, given, status).astype(np.int8)
    graph = Graph(
        specs=specs, sources=sources, bounds=bounds(specs), strategy=project.settings.identity.strategy, ids=ids,
        type=type_of, priority=priority, first_seen=microseconds(nodes["first_seen"])[order], status=status,
        reason=reason, reasons=reasons, contested=np.zeros(len(ids), bool), elsewhere=elsewhere, a=a, b=b,
        source=source, rule=rule, last_seen=last_seen, score=edges["score"].to_numpy(), expired=expired,
        active=np.zeros(len(a), bool), near=np.zeros(len(a), bool), vetoes=[], lost=nowhere,
    )  # fmt: skip
    graph = _find_shared(graph)
    meets = graph.status == OK
    graph = _find_shared_by_people(graph)
    active, near = _active(graph, meets)
    return replace(graph, active=active, near=near, vetoes=_coded(vetoed, ids))


class SharedIdError(ValueError):
    """Two identifiers have one id: the same one is listed twice, or the first 63 bits of their md5 are equal."""

    def __init__(self) -> None:
        super().__init__("identity: two identifiers share an id; each identifier must be listed once")


def codes_of(ids: np.ndarray) -> Any:
    """A function from ids to their positions among these, -1 for any other."""
    import pandas as pd

    index = pd.Index(ids)
    if not index.is_unique:  # asked here, so that threads find the index built
        raise SharedIdError
    return index.get_indexer


def _coded(vetoed: Iterable[Veto], ids: np.ndarray) -> list[tuple[int, int, str]]:
    import numpy as np

    known = codes_of(ids)
    found = [(*known(np.array([one, other], np.int64)).tolist(), name) for one, other, name in vetoed]
    return [(one, other, name) for one, other, name in found if one >= 0 and other >= 0]


def _find_shared(graph: Graph) -> Graph:
    """Mark the values seen with too many values of unique types: a tablet in a shop, the phone of an office."""
    import numpy as np

    specs, count = graph.specs, len(graph.ids)
    above = np.array([_NO_END if spec.shared_above is None else spec.shared_above for spec in specs], np.int64)
    if not any(spec.shared_above is not None for spec in specs) or not count:
        return graph
    telling = np.array([spec.unique for spec in specs], bool)[graph.type] & (graph.status == OK)
    counted = (above < _NO_END)[graph.type] & (graph.status != BLOCKED) & ~graph.elsewhere
    fresh = ~graph.expired & (graph.rule == SAME_ROW)
    ends, others = [], []
    for end, other in ((graph.a, graph.b), (graph.b, graph.a)):
        some = fresh & counted[end] & telling[other]
        ends.append(end[some])
        others.append(other[some])
    end, other = np.concatenate(ends), np.concatenate(others)
    # Few come near their limit: only those are worth counting exactly.
    near = np.bincount(end, minlength=count)[end] > above[graph.type[end]]
    pairs = np.unique(end[near].astype(np.int64) * count + other[near])
    met = np.bincount(pairs // count, minlength=count)
    hit = np.flatnonzero(met > above[graph.type])
    contested = np.zeros(count, bool)
    contested[hit] = True
    contested |= graph.elsewhere & (graph.status == SHARED)
    if graph.strategy == "best_match":
        return replace(graph, contested=contested)
    status, reason = graph.status.copy(), graph.reason.copy()
    status[hit] = SHARED
    names = " or ".join(spec.name for spec in specs if spec.unique)
    figures, figure = np.unique(np.stack([met[hit], above[graph.type[hit]]]), axis=1, return_inverse=True)
    reason[hit] = len(graph.reasons) + figure.ravel()
    words = [f"seen with {n} values of {names}, more than {bound}" for n, bound in figures.T.tolist()]
    return replace(graph, status=status, reason=reason, reasons=[*graph.reasons, *words], contested=contested)


def _find_shared_by_people(graph: Graph) -> Graph:
    """Mark the values of types with `people_by` that were seen with too many people: the phone of a family.

    Two people are two values of one of those types that nothing stronger than the value ties together, fuzzy matches
    and limits aside. Strongest type first, so that no value counts as a tie that is itself shared.
    """
    counting = [code for code, spec in enumerate(graph.specs) if spec.people_by and spec.shared_above is not None]
    for code in sorted(counting, key=lambda code: (-graph.specs[code].priority, graph.specs[code].name)):
        graph = _share_by_people(graph, code)
    return graph


def _share_by_people(graph: Graph, own: int) -> Graph:
    import numpy as np

    spec, count = graph.specs[own], len(graph.ids)
    telling = [code for code, other in enumerate(graph.specs) if other.name in (spec.people_by or ())]
    plain = (graph.status == OK) & ~graph.contested
    stronger = plain & (graph.priority > spec.priority)
    counted = plain & (graph.type == own) & ~graph.elsewhere
    fresh = ~graph.expired & (graph.rule != MATCHED)
    ends, others = [], []
    for end, other in ((graph.a, graph.b), (graph.b, graph.a)):
        some = fresh & counted[end] & stronger[other]
        ends.append(end[some])
        others.append(other[some])
    end, other = np.concatenate(ends), np.concatenate(others)
    # Who was seen with one stronger identifier was seen with one person: most need no look at what ties these.
    several = np.bincount(end, minlength=count)[end] > (spec.shared_above or 0)
    if not several.any():
        return graph
    tied = _components(graph, fresh & stronger[graph.a] & stronger[graph.b])
    pairs = np.unique(end[several].astype(np.int64) * count + tied[other[several]])
    value, people = pairs // count, pairs % count
    met, by = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for code in telling:
        named = np.zeros(count, bool)
        named[tied[plain & (graph.type == code)]] = True
        found = np.bincount(value[named[people]], minlength=count)
        met, by = np.maximum(met, found), np.where(found > met, code, by)
    hit = np.flatnonzero(met > (spec.shared_above or 0))
    contested = graph.contested.copy()
    contested[hit] = True
    if graph.strategy == "best_match":
        return replace(graph, contested=contested)
    status, reason = graph.status.copy(), graph.reason.copy()
    status[hit] = SHARED
    figures, figure = np.unique(np.stack([met[hit], by[hit]]), axis=1, return_inverse=True)
    reason[hit] = len(graph.reasons) + figure.ravel()
    words = [
        f"seen with {n} people told apart by {graph.specs[code].name}, more than {spec.shared_above}"
        for n, code in figures.T.tolist()
    ]
    return replace(graph, status=status, reason=reason, reasons=[*graph.reasons, *words], contested=contested)


def _active(graph: Graph, meets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which edges may link under the project's strategy, and over which a decision may reach further.

    `meets`: the identifiers over which people may meet. It holds those that are shared by people told apart, which
    link nothing: whether they are shared hangs on all who met there.
    """
    import numpy as np

    ok = graph.status == OK
    active = ~graph.expired & ok[graph.a] & ok[graph.b]
    near = active if (ok == meets).all() else ~graph.expired & meets[graph.a] & meets[graph.b]
    free = graph.rule != DECLARED  # what people decided holds under every strategy
    if graph.strategy == "isolation":
        known = np.array([spec.known for spec in graph.specs], bool)[graph.type]
        active = active & ~(free & (known[graph.a] != known[graph.b]))
    elif graph.strategy == "best_match":
        leaf = graph.contested
        rest = active & ~(free & (leaf[graph.a] | leaf[graph.b]))
        active = rest | _first_of_leaves(graph, leaf, np.flatnonzero(active & free & (leaf[graph.a] != leaf[graph.b])))
    elif graph.strategy == "strict":
        unique = np.array([spec.unique for spec in graph.specs], bool)[graph.type]
        rest = active & (~free | (unique[graph.a] & unique[graph.b]))
        some = np.flatnonzero(active & free & (unique[graph.a] != unique[graph.b]))
        active = rest | _first_of_leaves(graph, ~unique, some)
    return active, near


def _first_of_leaves(graph: Graph, leaf: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Of these edges, each from a leaf to another node: the strongest of every leaf, as a mask over all edges."""
    import numpy as np

    ordered = graph.strongest_first(edges)
    hangs = np.where(leaf[graph.a[ordered]], graph.a[ordered], graph.b[ordered])
    _, first = np.unique(hangs, return_index=True)
    chosen = np.zeros(len(graph.a), bool)
    chosen[ordered[first]] = True
    return chosen


def join(graph: Graph) -> Clusters:
    """Join the strongest active edges first, refusing every join that would break a limit or a verdict.

    Plain components do almost all the work: only those that break one are joined edge by edge.
    """
    import numpy as np

    component = _components(graph, graph.active)
    over = np.zeros(len(graph.ids), bool)  # by component, which its smallest code names
    for type_code, spec in enumerate(graph.specs):
        if spec.name in graph.bounds:
            held = np.bincount(component[graph.type == type_code], minlength=len(over))
            over |= held > graph.bounds[spec.name].count
    for one, other, _ in graph.vetoes:
        over[component[one]] |= component[one] == component[other]

    of = component.copy()
    edge_status = np.where(graph.active, ACCEPTED, INACTIVE).astype(np.int8)
    refused_by = np.full(len(graph.a), -1, np.int32)
    if over.any():
        some = np.flatnonzero(graph.active & over[component[graph.a]])
        within = np.flatnonzero(over[component])
        some = graph.strongest_first(some)
        of[within], edge_status[some], refused_by[some] = _join_within_limits(graph, within, some)
    reach = component if graph.near is graph.active else _components(graph, graph.near)
    return Clusters(of, reach, edge_status, refused_by)


def _components(graph: Graph, edges: np.ndarray) -> np.ndarray:
    """The connected component of each identifier, named by its smallest code."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b, count = graph.a[edges], graph.b[edges], len(graph.ids)
    adjacency = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    found, label = connected_components(adjacency, directed=False)
    smallest = np.empty(found, np.int64)
    smallest[label[::-1]] = np.arange(count)[::-1]
    return smallest[label]


def _join_within_limits(
    graph: Graph, nodes: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kruskal's way, edge by edge: the cluster of each node, and the status and refuser of each edge."""
    import numpy as np

    code_of = {spec.name: code for code, spec in enumerate(graph.specs)}
    limited = [(code_of[name], bound.count) for name, bound in graph.bounds.items() if bound.within is None]
    timed = {code_of[name]: bound for name, bound in graph.bounds.items() if bound.within is not None}
    # How many of each limited type a cluster holds are the digits of one number, so that one addition counts all of
    # them; the slack carries a digit that is over its bound into its top bit.
    digit = (2 * max((count for _, count in limited), default=0)).bit_length() + 1
    top = sum(1 << (digit * (place + 1) - 1) for place in range(len(limited)))
    slack = sum(((1 << (digit - 1)) - 1 - count) << (digit * place) for place, (_, count) in enumerate(limited))
    one_of = {code: 1 << (digit * place) for place, (code, _) in enumerate(limited)}

    types = graph.type[nodes]
    held = np.array([one_of.get(code, 0) for code in range(len(graph.specs))], object)[types].tolist()
    parent = list(range(len(nodes)))
    times = {
        node: {int(types[node]): [int(graph.first_seen[nodes[node]])]}
        for node in np.flatnonzero(np.isin(types, list(timed))).tolist()
    }
    foes = _foes(graph, nodes)
    here = np.empty(len(graph.ids), np.int64)
    here[nodes] = np.arange(len(nodes))
    ends_a, ends_b = here[graph.a[edges]].tolist(), here[graph.b[edges]].tolist()
    refused: list[tuple[int, int, int]] = []  # position, status, refuser

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for position, (keep, give) in enumerate(zip(ends_a, ends_b, strict=True)):
        while parent[keep] != keep:
            parent[keep] = keep = parent[parent[keep]]
        while parent[give] != give:
            parent[give] = give = parent[parent[give]]
        if keep == give:
            continue
        if foes:
            veto = next((number for foe, number in foes.get(keep, ()) if root(foe) == give), None)
            if veto is not None:
                refused.append((position, REFUSED_VERDICT, veto))
                continue
        together = held[keep] + held[give]
        over = (together + slack) & top
        broken = None
        if over:
            broken = next(
                code for place, (code, _) in enumerate(limited) if over >> (digit * place) & ((1 << digit) - 1)
            )
        moments = _merged(times.get(keep, {}), times.get(give, {})) if timed else {}
        if broken is None and timed:
            broken = next((code for code, found in moments.items() if _too_many(found, timed[code])), None)
        if broken is not None:
            refused.append((position, REFUSED_UNIQUE if graph.specs[broken].limit is None else REFUSED_LIMIT, broken))
            continue
        if give < keep:
            keep, give = give, keep
        parent[give], held[keep] = keep, together
        if moments:
            times[keep] = moments
        if give in foes:
            foes[keep] = foes.get(keep, []) + foes.pop(give)
    status = np.full(len(edges), ACCEPTED, np.int8)
    refused_by = np.full(len(edges), -1, np.int64)
    if refused:
        where, what, whom = np.array(refused, np.int64).T
        status[where], refused_by[where] = what, whom
    of = np.array(parent)
    while (of[of] != of).any():
        of = of[of]
    return nodes[of], status, refused_by


def _foes(graph: Graph, nodes: np.ndarray) -> dict[int, list[tuple[int, int]]]:
    """For each of the nodes: those that a verdict keeps apart from it, with the place of the verdict."""
    import numpy as np

    found: dict[int, list[tuple[int, int]]] = {}
    for number, (one, other, _) in enumerate(graph.vetoes):
        here, there = np.searchsorted(nodes, [one, other]).tolist()
        if max(here, there) < len(nodes) and (nodes[here], nodes[there]) == (one, other):
            found.setdefault(here, []).append((there, number))
            found.setdefault(there, []).append((here, number))
    return found


def _merged(ours: dict[int, list[int]], theirs: dict[int, list[int]]) -> dict[int, list[int]]:
    found = {code: moments.copy() for code, moments in ours.items()}
    for code, moments in theirs.items():
        for moment in moments:
            insort(found.setdefault(code, []), moment)
    return found


def _too_many(moments: list[int], bound: Bound) -> bool:
    """Whether more than `count` of the moments (ascending) lie within one span [t, t + within)."""
    within = bound.within or 0
    return any(last - first < within for first, last in zip(moments, moments[bound.count :], strict=False))


def microseconds(times: Any) -> np.ndarray:
    """Naive UTC timestamps as microseconds since 1970."""
    import pyarrow as pa

    return times.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()


def _microsecond(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

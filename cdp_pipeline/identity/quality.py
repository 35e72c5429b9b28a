"""How good the people are: sizes, what was blocked or refused, and, where truth is known, precision and recall.

Figures of one moment: history.py files them by day, the checks in orchestration/ say which of them fails a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ibis

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def quality(
    identifiers: ibis.Table | pa.Table,
    people: ibis.Table | pa.Table,
    edges: ibis.Table | pa.Table,
    truth: ibis.Table | pa.Table | None = None,
) -> dict[str, Any]:
    """Counts of people, identifiers and links, what was blocked or refused, and accuracy where truth is known.

    They hold no identifier and no person, so they may be shown anywhere. Figures by type are mappings.
    """
    identifiers, people, edges = as_table(identifiers), as_table(people), as_table(edges)
    return (
        sizes(people)
        | _identifier_figures(identifiers)
        | _link_figures(edges)
        | {"hang_by_one_link": hang_by_one_link(edges)}
        | ({} if truth is None else accuracy(identifiers, truth))
    )


def sizes(people: ibis.Table | pa.Table) -> dict[str, Any]:
    """How many people there are, and how many identifiers they have: the mean, the tail, the ten largest."""
    people = as_table(people)
    living = people.filter(people["merged_into"].isnull() & (people["identifiers"] > 0))
    # There are few sizes, however many people: all figures follow from how often each occurs.
    histogram = living.group_by("kind", "identifiers").agg(people=living.count())
    rows = sorted(histogram.to_pyarrow().to_pylist(), key=lambda row: -row["identifiers"])
    count = sum(row["people"] for row in rows)
    known = sum(row["people"] for row in rows if row["kind"] == "known")
    owned = sum(row["people"] * row["identifiers"] for row in rows)
    largest = [row["identifiers"] for row in rows for _ in range(min(row["people"], 10))][:10]
    return {
        "people": count,
        "people_known": known,
        "people_anonymous": count - known,
        "singletons": sum(row["people"] for row in rows if row["identifiers"] == 1),
        "identifiers_owned": owned,
        "identifiers_per_person": owned / count if count else 0.0,
        "largest_person": max(largest, default=0),
        "largest_people": largest,
        "ten_largest_share": sum(largest) / max(owned, 1),
        "one_in_thousand_has": _tail(rows, count // 1000),
    }


def _tail(rows: list[dict[str, Any]], most: int) -> int:
    """The size that at most so many people exceed; rows are sizes and how many people have them, largest first."""
    for row in rows:
        most -= row["people"]
        if most < 0:
            return row["identifiers"]
    return 0


def _identifier_figures(identifiers: ibis.Table) -> dict[str, Any]:
    """How many identifiers there are, link nothing, or are all that is known of somebody; by type where it tells."""
    counts = identifiers.group_by("type", "status").agg(n=identifiers.count())
    by = {(row["type"], row["status"]): row["n"] for row in counts.to_pyarrow().to_pylist()}
    owned = identifiers.filter(identifiers["person_id"].notnull())
    people = owned.group_by("person_id").agg(n=owned.count(), type=owned["type"].min())
    lone = people.filter(people["n"] == 1)
    alone = dict(_items(lone.group_by("type").agg(n=lone.count())))
    of_type = dict(_items(owned.group_by("type").agg(n=owned.count())))
    figures: dict[str, Any] = {"identifiers": sum(by.values())}
    for status in ("blocked", "shared"):
        found = {type_: n for (type_, is_), n in sorted(by.items()) if is_ == status}
        figures |= {f"identifiers_{status}": sum(found.values()), status: found}
    figures["owned"] = dict(sorted(of_type.items()))
    figures["alone"] = {type_: alone.get(type_, 0) / n for type_, n in sorted(of_type.items())}
    if "component" in identifiers.columns:
        linked = identifiers.filter(identifiers["component"].notnull())
        components = linked.group_by("component").agg(n=linked.count())
        figures["largest_component"] = _row(components.agg(n=components["n"].max().coalesce(0)))["n"]
    return figures


def _link_figures(edges: ibis.Table) -> dict[str, Any]:
    counts = dict(_items(edges.group_by(type=edges["status"]).agg(n=edges.count())))
    limits = edges.filter(edges["status"].isin(["refused_limit", "refused_unique"]))
    return {
        "links": sum(counts.values()),
        "links_refused": counts.get("refused_limit", 0) + counts.get("refused_unique", 0),
        "links_vetoed": counts.get("refused_verdict", 0),
        "links_inactive": counts.get("inactive", 0),
        "limits": dict(sorted(_items(limits.group_by(type=limits["why"]).agg(n=limits.count())))),
    }


def _items(counted: ibis.Table) -> list[tuple[str, int]]:
    return [(str(row["type"]), row["n"]) for row in counted.to_pyarrow().to_pylist()]


def hang_by_one_link(edges: ibis.Table | pa.Table) -> int:
    """People who would fall into two parts, each of two or more identifiers, without one link that was seen once.

    Every link gets a random number if it closes a circle; a link of the spanning forest is a bridge when the numbers
    at the ends below it cancel out (Pritchard and Thurimella, "Fast computation of small cuts via cycle space
    sampling", 2011): one pass, level by level, with a chance of error of 2**-64 per link.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    a, b, once = _links(as_table(edges))
    if not once.any():
        return 0
    count = int(max(a.max(), b.max())) + 1
    _, part = connected_components(coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count)), directed=False)
    _, first = np.unique(part, return_index=True)
    # One root above all parts makes one tree of the forest.
    ends = np.concatenate([a, np.full(len(first), count)]), np.concatenate([b, first])
    whole = coo_array((np.ones(len(ends[0]), np.int8), ends), shape=(count + 1, count + 1)).tocsr()
    order, above = breadth_first_order(whole, count, directed=False)

    in_tree = (above[a] == b) | (above[b] == a)
    circle = np.flatnonzero(~in_tree)
    marks = np.random.default_rng(0).integers(1, 2**63, len(circle), dtype=np.int64)
    mark, below = np.zeros(count + 1, np.int64), np.ones(count + 1, np.int64)
    for end in (a[circle], b[circle]):
        np.bitwise_xor.at(mark, end, marks)
    place = np.empty(count + 1, np.int64)
    place[order] = np.arange(count + 1)
    parents = place[above[order[1:]]]  # never falls, so a level ends where its parents' level does
    levels = [1]
    while levels[-1] <= count:
        levels.append(1 + int(np.searchsorted(parents, levels[-1])))
    for start, stop in zip(levels[-2::-1], levels[:0:-1], strict=True):
        nodes = order[start:stop]
        np.bitwise_xor.at(mark, above[nodes], mark[nodes])
        np.add.at(below, above[nodes], below[nodes])
    threads = np.flatnonzero(in_tree & once)
    child = np.where(above[a[threads]] == b[threads], a[threads], b[threads])
    size = np.bincount(part)[part[child]]
    halves = (mark[child] == 0) & (below[child] >= 2) & (size - below[child] >= 2)
    return len(np.unique(part[child[halves]]))


def _links(edges: ibis.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each linked pair: the codes of its ends, and whether it was seen in one row only; a match is not seen in rows."""
    import numpy as np

    linking = edges.filter(edges["status"].isin(["accepted", "redundant"]))
    once = (linking["rule"] == "same_row") & (linking["first_seen"] == linking["last_seen"])
    pairs = linking.group_by("id_a", "id_b").agg(rows=linking.count(), once=once.cast("int64").min())
    found = pairs.select("id_a", "id_b", once=(pairs["rows"] == 1) & (pairs["once"] == 1)).to_pyarrow()
    _, code = np.unique(np.concatenate([found["id_a"].to_numpy(), found["id_b"].to_numpy()]), return_inverse=True)
    a, b = np.split(code, 2)
    return a, b, found["once"].to_numpy().astype(bool)


def churn(
    previous_identifiers: ibis.Table | pa.Table,
    identifiers: ibis.Table | pa.Table,
    previous_people: ibis.Table | pa.Table,
    people: ibis.Table | pa.Table,
) -> dict[str, Any]:
    """Of the identifiers that were somebody's: how many are somebody else's now, or nobody's (blocked).

    That an anonymous visitor turns out to be a known person is what identity is for: it is counted apart, as
    `identifiers_recognised`. New and erased identifiers have not moved. Of `identifiers` and `people`, those that
    changed are enough.
    """
    before, after = as_table(previous_identifiers), as_table(identifiers)
    before = before.filter(before["person_id"].notnull())
    keys = ["id"] if "id" in before.columns and "id" in after.columns else ["type", "value"]
    both = before.select(*keys, was="person_id").join(after.select(*keys, now="person_id"), keys)
    moved = (
        both.filter(both["now"].isnull() | (both["now"] != both["was"])).group_by("was", "now").agg(n=ibis._.count())
    )
    kinds = [as_table(each).select("person_id", "kind") for each in (previous_people, people)]
    moved = moved.left_join(kinds[0].rename(was_id="person_id", was_kind="kind"), [("was", "was_id")])
    moved = moved.left_join(kinds[1].rename(now_id="person_id", now_kind="kind"), [("now", "now_id")])
    recognised = ((moved["was_kind"] == "anonymous") & (moved["now_kind"] == "known")).fill_null(False)
    counts = _row(
        moved.agg(
            moved=moved["n"].sum(where=~recognised).coalesce(0), recognised=moved["n"].sum(where=recognised).coalesce(0)
        )
    )
    known = _row(before.agg(n=before.count()))["n"]
    return {
        "identifiers_known": known,
        "identifiers_moved": int(counts["moved"]),
        "identifiers_recognised": int(counts["recognised"]),
        "churn": int(counts["moved"]) / max(known, 1),
    }


def accuracy(identifiers: ibis.Table | pa.Table, truth: ibis.Table | pa.Table) -> dict[str, Any]:
    """Of all pairs of identifiers: how many found together belong together (precision), and the reverse (recall).

    From the sizes of groups and of their overlaps, so no pair is ever listed. Judged is what was seen and has one true
    person, not what truth marks `shared` (used by several); an identifier without a person (blocked) is found alone.
    Where truth says which are `reachable` (some row ties them to their person), recall among those is given too.
    """
    identifiers, truth = as_table(identifiers), as_table(truth)
    marks = {"reachable": truth["reachable"].cast("boolean").max()} if "reachable" in truth.columns else {}
    owned = truth.filter(truth["person"].notnull())
    if "shared" in truth.columns:
        owned = owned.filter(~owned["shared"].cast("boolean"))
    single = owned.group_by("type", "value").agg(
        owners=owned["person"].nunique(), person=owned["person"].min(), **marks
    )
    judged = single.filter(single["owners"] == 1).join(
        identifiers.select("type", "value", "person_id"), ["type", "value"]
    )
    judged = judged.mutate(found=ibis.coalesce(judged["person_id"], judged["type"] + ":" + judged["value"]))
    precision, recall = _precision_and_recall(judged)
    figures = {"judged_identifiers": int(judged.count().to_pyarrow().as_py()), "precision": precision, "recall": recall}
    if marks:
        figures["recall_reachable"] = _precision_and_recall(judged.filter(judged["reachable"]))[1]
    return figures


def _precision_and_recall(judged: ibis.Table) -> tuple[float, float]:
    right, found, true = (_pairs(judged, *by) for by in (("found", "person"), ("found",), ("person",)))
    return right / found if found else 1.0, right / true if true else 1.0


def _pairs(table: ibis.Table, *keys: str) -> float:
    sizes = table.group_by(*keys).agg(size=table.count().cast("float64"))
    return _row(sizes.agg(pairs=(sizes["size"] * (sizes["size"] - 1) / 2).sum().coalesce(0.0)))["pairs"]


def _row(one: ibis.Table) -> dict[str, Any]:
    return one.to_pyarrow().to_pylist()[0]


def as_table(rows: ibis.Table | pa.Table) -> ibis.Table:
    """Rows of this process as a table expression; an expression as it is."""
    return rows if isinstance(rows, ibis.Table) else ibis.memtable(rows)

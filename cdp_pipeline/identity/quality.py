"""How good the people are: sizes, what was blocked or refused, and, where truth is known, precision and recall.

Figures of one moment: history.py files them by day, the checks in orchestration/ say which of them fails a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ibis

if TYPE_CHECKING:
    import pyarrow as pa


def quality(
    identifiers: ibis.Table | pa.Table,
    people: ibis.Table | pa.Table,
    edges: ibis.Table | pa.Table,
    truth: ibis.Table | pa.Table | None = None,
) -> dict[str, Any]:
    """Counts of people, identifiers and links, the ten largest people, and accuracy where truth is known.

    They hold no identifier and no person, so they may be shown anywhere.
    """
    identifiers, people, edges = _table(identifiers), _table(people), _table(edges)
    living = people.filter(people["merged_into"].isnull() & (people["identifiers"] > 0))
    size, known = living["identifiers"], living["kind"] == "known"
    largest = living.order_by(ibis.desc("identifiers")).limit(10).select("identifiers")
    figures = (
        _row(
            living.agg(
                people=living.count(),
                people_known=known.sum().coalesce(0),
                people_anonymous=(~known).sum().coalesce(0),
                singletons=(size == 1).sum().coalesce(0),
                identifiers_per_person=size.mean().coalesce(0.0),
                largest_person=size.max().coalesce(0),
            )
        )
        | {"largest_people": largest.to_pyarrow()["identifiers"].to_pylist()}
        | _row(
            identifiers.agg(
                identifiers=identifiers.count(),
                identifiers_blocked=(identifiers["status"] == "blocked").sum().coalesce(0),
                identifiers_shared=(identifiers["status"] == "shared").sum().coalesce(0),
            )
        )
        | _row(
            edges.agg(
                links=edges.count(),
                links_refused=edges["status"].isin(["refused_limit", "refused_unique"]).sum().coalesce(0),
                links_inactive=(edges["status"] == "inactive").sum().coalesce(0),
            )
        )
    )
    figures["ten_largest_share"] = sum(figures["largest_people"]) / max(figures["identifiers"], 1)
    return figures | ({} if truth is None else accuracy(identifiers, _table(truth)))


def accuracy(identifiers: ibis.Table, truth: ibis.Table) -> dict[str, Any]:
    """Of all pairs of identifiers: how many found together belong together (precision), and the reverse (recall).

    From the sizes of groups and of their overlaps, so no pair is ever listed. Judged is what was seen and has one true
    person, not what truth marks `shared` (used by several); an identifier without a person (blocked) is found alone.
    Where truth says which are `reachable` (some row ties them to their person), recall among those is given too.
    """
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


def _table(rows: ibis.Table | pa.Table) -> ibis.Table:
    return rows if isinstance(rows, ibis.Table) else ibis.memtable(rows)

"""How good the people are: sizes, what was blocked or refused, and, where truth is known, precision and recall.

Figures only; which of them fails a run is said by the checks in orchestration/.
"""

from __future__ import annotations

from typing import Any

import ibis


def quality(
    identifiers: ibis.Table, people: ibis.Table, edges: ibis.Table, truth: ibis.Table | None = None
) -> dict[str, Any]:
    """Counts of people, identifiers and links, the ten largest people; accuracy against truth (type, value, person).

    Holds no identifier and no person: it is safe to show anywhere.
    """
    living = people.filter(people["merged_into"].isnull() & (people["identifiers"] > 0))
    size = living["identifiers"]
    known = living["kind"] == "known"
    counts = living.agg(
        people=living.count(),
        people_known=known.sum(),
        people_anonymous=(~known).sum(),
        singletons=(size == 1).sum(),
        identifiers_per_person=size.mean(),
        largest_person=size.max(),
    )
    figures: dict[str, Any] = counts.to_pyarrow().to_pylist()[0]
    largest = living.order_by(ibis.desc("identifiers")).limit(10).select("identifiers")
    figures["largest_people"] = largest.to_pyarrow()["identifiers"].to_pylist()
    figures["identifiers"] = _by(identifiers, "status")
    figures["links"] = _by(edges, "status")
    total = sum(figures["identifiers"].values())
    figures["share_of_ten_largest"] = sum(figures["largest_people"]) / total if total else 0.0
    for name in ("people_known", "people_anonymous", "singletons", "largest_person"):
        figures[name] = figures[name] or 0
    return figures | ({} if truth is None else accuracy(identifiers, truth))


def accuracy(identifiers: ibis.Table, truth: ibis.Table) -> dict[str, float | int]:
    """Of all pairs of identifiers: how many found together belong together (precision), and the reverse (recall).

    From the sizes of the groups and of their overlaps, so no pair is ever listed. Truth speaks of identifiers that were
    seen and that are one person's only; one without a person (blocked) counts as found alone.
    """
    truth = truth.select("type", "value", "person").mutate(value=truth["value"].cast("string")).distinct()
    single = truth.group_by("type", "value").agg(owners=truth["person"].nunique(), person=truth["person"].min())
    single = single.filter(single["owners"] == 1).drop("owners")
    both = single.join(identifiers.select("type", "value", "person_id"), ["type", "value"])
    both = both.mutate(
        found=ibis.coalesce(both["person_id"], ibis.literal("nobody ") + both["type"] + ":" + both["value"])
    )
    together = _pairs(both, "found", "person")
    found, true = _pairs(both, "found"), _pairs(both, "person")
    return {
        "judged_identifiers": int(both.count().execute()),
        "precision": together / found if found else 1.0,
        "recall": together / true if true else 1.0,
    }


def _pairs(table: ibis.Table, *keys: str) -> float:
    sizes = table.group_by(*keys).agg(size=table.count().cast("float64"))
    total = (sizes["size"] * (sizes["size"] - 1) / 2).sum()
    return float(total.execute() or 0.0)


def _by(table: ibis.Table, column: str) -> dict[str, int]:
    rows = table.group_by(column).agg(rows=table.count()).order_by(column).to_pyarrow().to_pylist()
    return {row[column]: row["rows"] for row in rows}

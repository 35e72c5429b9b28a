"""What identity decides on, as numbers: identifiers and edges under a 63-bit id each, strings left with the engine.

Reads only; what is believed is decided in clusters.py, who is who in people.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.identity.blocked import blocked_why, pattern_of
from cdp_pipeline.identity.verdicts import VERDICT

if TYPE_CHECKING:
    import pyarrow as pa

    from cdp_pipeline.spec.project import Project

SAME_ROW, DECLARED, MATCHED = 0, 1, 2


@dataclass(frozen=True)
class Evidence:
    """Identifiers and the edges between them, in any order.

    `identifiers`: id int64, type int8 (place among the project's types, sorted), first_seen timestamp, blocked string
    (why, or null), and maybe status int8: known from before, where not all edges of an identifier are here.
    `edges`: id_a, id_b int64, source int16 (place in `source_names`), last_seen timestamp, rule int8 (SAME_ROW,
    DECLARED, MATCHED), score float64.
    """

    identifiers: pa.Table
    edges: pa.Table


@ibis.udf.scalar.builtin
def md5(text: str) -> str:  # type: ignore[empty-body]
    """DuckDB's."""


def identifier_id(type_: ibis.Value | str, value: ibis.Value) -> ibis.Value:
    """The first 63 bits of the md5 of `type:value`: equal in every process and release, and in no order anybody chose.

    Two of 50 million identifiers share an id with a probability of 1 in 7,000; publishing them fails on their key.
    Only for tables that DuckDB reads.
    """
    text = (ibis.literal(type_) if isinstance(type_, str) else type_) + ":" + value
    return ((ibis.literal("0x") + md5(text)[:16]).cast("uint64") >> 1).cast("int64")


def identified_edges(edges: ibis.Table) -> ibis.Table:
    """Edges with `id_a` and `id_b`."""
    return edges.mutate(
        id_a=identifier_id(edges["type_a"], edges["value_a"]), id_b=identifier_id(edges["type_b"], edges["value_b"])
    )


def identified(identifiers: ibis.Table) -> ibis.Table:
    """Identifiers (type, value, …) with `id`."""
    return identifiers.mutate(id=identifier_id(identifiers["type"], identifiers["value"]))


def type_names(project: Project) -> list[str]:
    return sorted(project.identifiers)


def source_names(project: Project) -> list[str]:
    """Everything an edge may come from: sources, verdicts, and the fuzzy rules."""
    return [*sorted(project.sources), VERDICT, *(f"match:{name}" for name in sorted(project.matches))]


def place(value: ibis.Value, words: list[str], type_: str) -> ibis.Value:
    """The position of a word in a list, -1 for any other."""
    branches = [(word, ibis.literal(number, type_)) for number, word in enumerate(words)]
    return value.cases(*branches, else_=ibis.literal(-1, type_)) if branches else ibis.literal(-1, type_)


def read_evidence(edges: ibis.Table, identifiers: ibis.Table, project: Project) -> Evidence:
    """Fetch what is needed of `identified_edges()` and `identified()`; of texts only those that are blocked."""
    import pyarrow as pa

    nodes = identifiers.select(
        "id",
        "first_seen",
        *(["known_status"] if "known_status" in identifiers.columns else []),
        type=place(identifiers["type"], type_names(project), "int8"),
    ).to_pyarrow()
    found = blocked(identifiers, project)
    why = (
        found["why"].take(positions(nodes["id"], found["id"])) if found.num_rows else pa.nulls(len(nodes), pa.string())
    )
    links = edges.select(
        "id_a",
        "id_b",
        "last_seen",
        "score",
        source=place(edges["source"], source_names(project), "int16"),
        rule=ibis.cases(
            (edges["rule"] == "same_row", ibis.literal(SAME_ROW, "int8")),
            (edges["rule"] == VERDICT, ibis.literal(DECLARED, "int8")),
            else_=ibis.literal(MATCHED, "int8"),
        ),
    )
    return Evidence(nodes.append_column("blocked", why), links.to_pyarrow())


def blocked(identifiers: ibis.Table, project: Project) -> pa.Table:
    """id and why of the blocked among identifiers (id, type, value)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    value, branches = identifiers["value"], [(identifiers["type"].isnull(), ibis.literal(False))]
    for name, spec in project.identifiers.items():
        hit, pattern = ibis.literal(False), pattern_of(spec.blocked)
        if pattern:
            hit = value.re_search(f"(?i){pattern}")
        if spec.blocked.values:
            hit = hit | value.lower().isin([word.lower() for word in spec.blocked.values])
        branches.append((identifiers["type"] == name, hit))
    # The engine finds the few that match at all; which rule it was is told of those only.
    hits = identifiers.filter(ibis.cases(*branches, else_=False)).select("id", "type", "value").to_pyarrow()
    found = [pa.table({"id": pa.array([], pa.int64()), "why": pa.array([], pa.string())})]
    for name, spec in project.identifiers.items():
        rows = hits.filter(pc.equal(hits["type"], name))
        why = blocked_why(name, rows["value"].combine_chunks(), spec.blocked)
        found.append(pa.table({"id": rows["id"], "why": why}).drop_null())
    return pa.concat_tables(found)


def positions(values: Any, known: Any) -> pa.Array:
    """Where each value is among the known ones, null where it is none of them."""
    import pyarrow.compute as pc

    return pc.index_in(values, value_set=known)

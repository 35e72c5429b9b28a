"""Runs that look at new rows only, one after the other: never apart from runs that look at everything."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import ibis
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.identity.evidence import identified, identified_edges
from cdp_pipeline.identity.increment import State, resolve_new
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.verdict import Verdict
from cdp_pipeline_tests.identity.shop import IDENTIFIERS, NOW, Row, edges_table, identifier, project, rows, seen_table
from cdp_pipeline_tests.identity.test_increment import held, in_arrow, put, whole

APART = Verdict.model_validate(
    {"kind": "verdict", "name": "apart", "description": "x", "by": "ann", "on": "2026-01-01", "why": "x",
     "unlink": ["email:ann@example.com", "email:bob@example.com"]}
)  # fmt: skip
LASTING = {**IDENTIFIERS, "anonymous_id": identifier("anonymous_id", known=False, shared_above=1, expires="58 days")}


@settings(max_examples=8)
@given(
    st.lists(rows(most=5), min_size=2, max_size=4),
    st.sampled_from([project(), project(LASTING), project(verdicts={"apart": APART})]),
)
def test_runs_that_look_at_what_is_new_end_where_runs_that_look_at_everything_do(
    batches: list[list[Row]], of: Project
) -> None:
    known: list[Row] = []
    state: dict[str, pa.Table] | None = None
    for number, batch in enumerate(batches):
        now = NOW + timedelta(days=number)
        new = [dataclasses.replace(row, record=100 * number + row.record) for row in batch]
        known += new
        full = whole(known, state, of, now)
        if state is not None:
            edges, identifiers, people = (ibis.memtable(state[name]) for name in ("edges", "identifiers", "people"))
            last = State(edges, identifiers, people, now - timedelta(days=1))
            links, seen = identified_edges(ibis.memtable(edges_table(new))), identified(ibis.memtable(seen_table(new)))
            left = put(state, in_arrow(resolve_new(links, seen, last, of, now, held)))
            state = {name: pa.Table.from_pylist(left[name], schema=state[name].schema) for name in left}
        else:
            state = {name: table for name, table in full.items() if name != "changes"}
        for name, table in state.items():
            assert sorted(table.to_pylist(), key=repr) == sorted(full[name].to_pylist(), key=repr)
        assert groups(state) == groups(whole(known, None, of, now))


def groups(state: dict[str, pa.Table]) -> set[frozenset[int]]:
    found: dict[str, set[int]] = {}
    for row in state["identifiers"].to_pylist():
        if row["person_id"] is not None:
            found.setdefault(row["person_id"], set()).add(row["id"])
    return {frozenset(group) for group in found.values()}

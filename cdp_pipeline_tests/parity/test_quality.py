"""The figures of identity and of contradictions are the same on every engine."""

from __future__ import annotations

import ibis

from cdp_pipeline.identity.guard import guard
from cdp_pipeline.identity.quality import quality
from cdp_pipeline.profile.customers import PROVENANCE, disagreements, over_bounds
from cdp_pipeline_tests.identity.shop import Row, attribute, project, resolved
from cdp_pipeline_tests.parity.conftest import EngineUnderTest, normalised

BEFORE = resolved([Row("web", place, place % 3, customer=place % 5, cookie=f"k{place % 4}") for place in range(12)])
AFTER = resolved(
    [Row("web", place, place % 4, customer=place % 6, mail=f"m{place % 3}@example.com") for place in range(15)], BEFORE
)


def test_quality_and_the_guards_figures_are_equal_on_every_engine(engine: EngineUnderTest) -> None:
    def figures(table: object) -> tuple[object, object]:
        before, after = (
            [table(rows) for rows in (one.identifiers, one.people, one.edges)]  # type: ignore[operator]
            for one in (BEFORE, AFTER)
        )
        return quality(*after), guard(*before[:2], *after[:2], 0.02)

    assert figures(engine.table) == figures(ibis.memtable)


def test_contradictions_are_counted_alike_on_every_engine(engine: EngineUnderTest) -> None:
    shop = project(attributes={"name": attribute("name", sources=[{"source": "web", "column": "name"}], at_most=2)})
    rows = [
        {"person_id": f"p{place}", "attribute": "name", "values_seen": seen} for place, seen in enumerate([1, 3, 2])
    ]
    rows.append({"person_id": "p1", "attribute": "points", "values_seen": None})
    proofs = ibis.memtable(rows, schema={"person_id": "string", "attribute": "string", "values_seen": "int64"})
    there = engine.table(proofs.to_pyarrow())
    assert set(proofs.columns) <= set(PROVENANCE.columns)
    assert engine.rows(disagreements(there)) == normalised(disagreements(proofs).to_pyarrow().to_pylist())
    assert over_bounds(there, shop) == over_bounds(proofs, shop) == {"name": (3, 1)}

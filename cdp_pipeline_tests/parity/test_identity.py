"""Identity's expressions give the same rows on every engine as the plain Python of the identity tests."""

from __future__ import annotations

import random

from cdp_pipeline.identity.edges import edges
from cdp_pipeline.identity.explain import explain_link
from cdp_pipeline.identity.quality import quality
from cdp_pipeline.identity.rows import person_of_rows
from cdp_pipeline.identity.seen import identifiers_seen, seen
from cdp_pipeline_tests.identity.shop import TILL, WEB, Row, moments, pairs, persons, project, resolved, tables
from cdp_pipeline_tests.identity.test_anonymous import known_next, shop
from cdp_pipeline_tests.parity.conftest import EngineUnderTest, normalised

_CHANCE = random.Random(1)
ROWS = [
    Row(
        _CHANCE.choice(["web", "till", "crm"]), place, _CHANCE.randrange(4),
        customer=_CHANCE.choice([None, 1, 2, 3, 4]),
        mail=_CHANCE.choice([None, "ann@example.com", "bob@example.com", "test@example.com", "ünï@example.com"]),
        cookie=_CHANCE.choice([None, "k1", "k2", "k3", "k4", "anonymous"]),
    )
    for place in range(60)
]  # fmt: skip


def test_evidence_is_equal_on_every_engine(engine: EngineUnderTest) -> None:
    sources = {name: engine.table(table) for name, table in tables(ROWS).items()}
    found = engine.rows(edges(sources, project()))
    assert {tuple(row.values())[:5]: tuple(row.values())[5:8] for row in found} == pairs(ROWS)
    assert len(found) == len(pairs(ROWS))
    summary = engine.rows(identifiers_seen(seen(sources, project())))
    assert {tuple(row.values())[:2]: tuple(row.values())[2:] for row in summary} == moments(ROWS)


def test_whose_rows_are_is_equal_on_every_engine(engine: EngineUnderTest) -> None:
    result = resolved(ROWS)
    identifiers = engine.table(result.identifiers)
    whose = persons(result)
    for spec in (WEB, TILL):
        rows = person_of_rows(engine.table(tables(ROWS)[spec.name]), spec, identifiers, project())
        found = {row["_record_id"]: row["person_id"] for row in engine.rows(rows)}
        assert len(found) == sum(row.source == spec.name for row in ROWS)
        for row in ROWS:
            if row.source == spec.name and row.customer is not None:
                assert found[row.record_id] == whose["customer_id", str(row.customer)]


def test_whose_rows_on_shared_devices_are_is_equal_on_every_engine(engine: EngineUnderTest) -> None:
    of = shop("link")
    result = resolved(ROWS, of=of)
    assert "shared" in result.identifiers["status"].to_pylist()
    found = {
        row["_record_id"]: row["person_id"]
        for name, spec in of.sources.items()
        for row in engine.rows(
            person_of_rows(engine.table(tables(ROWS)[name]), spec, engine.table(result.identifiers), of)
        )
    }
    expected = {row.record_id: known_next(ROWS, result, place) for place, row in enumerate(ROWS)}
    assert found == {record: person for record, person in expected.items() if record in found}
    assert len(found) == sum(row.source in of.sources for row in ROWS)


def test_explanations_and_figures_are_equal_on_every_engine(engine: EngineUnderTest) -> None:
    result = resolved(ROWS)
    there = [engine.table(table) for table in (result.edges, result.identifiers, result.people)]
    import ibis

    here = [ibis.memtable(table) for table in (result.edges, result.identifiers, result.people)]
    for a, b in (("customer_id:1", "email:ann@example.com"), ("customer_id:1", "customer_id:2")):
        answers = [str(explain_link(links, identifiers, a, b, project())) for links, identifiers, _ in (there, here)]
        assert answers[0] == answers[1]
    figures = [quality(identifiers, people, links) for links, identifiers, people in (there, here)]
    assert normalised([figures[0]]) == normalised([figures[1]])

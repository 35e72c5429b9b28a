"""Profiles and the timeline are the same on every engine as on DuckDB, which the profile tests hold to plain Python."""

from __future__ import annotations

import random
from decimal import Decimal

import ibis

from cdp_pipeline.profile.customers import customers, provenance
from cdp_pipeline.profile.timeline import event_scope, timeline
from cdp_pipeline.spec import expressions
from cdp_pipeline_tests.identity.shop import NOW, Row, project, resolved, tables
from cdp_pipeline_tests.parity.conftest import EngineUnderTest, normalised
from cdp_pipeline_tests.profile.test_customers import ATTRIBUTES
from cdp_pipeline_tests.profile.test_timeline import of as with_events

_CHANCE = random.Random(2)
ROWS = [
    Row(
        source, place, _CHANCE.randrange(4), customer=_CHANCE.choice([None, 1, 2, 3]),
        cookie=_CHANCE.choice([None, "k1", "anonymous"]), event=_CHANCE.choice(["viewed", "bought", "other"]),
        name=_CHANCE.choice([None, "Ann", "Anne", "Bo", "Žofie"]), points=_CHANCE.choice([None, 3, 20]),
        paid=_CHANCE.choice([None, Decimal("0.1000"), Decimal("-2.5000")]), agrees=_CHANCE.choice([None, True, False]),
        until=_CHANCE.choice([None, 5]) if source == "crm" else None,
    )
    for place, source in enumerate(["web", "till", "crm"] * 20)
]  # fmt: skip


# Every rule once, on every type of key. Spark takes seconds to plan each attribute of each source: there, one per way.
SOME = ["name_most_recent", "name_first", "name_source_priority", "name_most_frequent", "name_longest", "name_min"]
SOME += ["points_max", "agrees_any", "agrees_most_restrictive", "paid_sum", "names", "last_seen", "name_fresh"]
ONE_PER_WAY = ["name_most_recent", "name_most_frequent", "agrees_most_restrictive", "paid_sum", "names"]


def test_profiles_and_their_provenance_are_equal_on_every_engine(engine: EngineUnderTest) -> None:
    names = ONE_PER_WAY if engine.name == "spark" else SOME
    of = project(attributes={name: ATTRIBUTES[name] for name in names})
    result = resolved(ROWS, of=of)
    here, there = (
        provenance({name: table(rows) for name, rows in tables(ROWS).items()}, table(result.identifiers), of, NOW)
        for table in (ibis.memtable, engine.table)
    )
    proofs = here.to_pyarrow()
    assert engine.rows(there) == normalised(proofs.to_pylist())
    # From the rows and not from the expression, which Spark would take another minute to compute again.
    profiles = [customers(table(proofs), table(result.people), of) for table in (ibis.memtable, engine.table)]
    assert engine.rows(profiles[1]) == normalised(profiles[0].to_pyarrow().to_pylist())


def test_the_timeline_is_equal_on_every_engine(engine: EngineUnderTest) -> None:
    of = with_events()
    result = resolved(ROWS, of=of)
    found = []
    for table in (engine.table, ibis.memtable):
        sources = {name: table(rows) for name, rows in tables(ROWS).items()}
        told = timeline(sources, table(result.identifiers), of)
        found.append((told, told.filter(expressions.compile("points > 3 or amount < 1", event_scope(told)))))
    for there, here in zip(*found, strict=True):
        assert engine.rows(there) == normalised(here.to_pyarrow().to_pylist())

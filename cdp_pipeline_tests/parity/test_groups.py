"""What puts people into groups, and what groups come to, is equal on every engine, and what plain Python says."""

from __future__ import annotations

from cdp_pipeline_tests.identity.town import claims_by_hand, evidence, listed_by_hand, town
from cdp_pipeline_tests.parity.conftest import EngineUnderTest, normalised
from cdp_pipeline_tests.traits.firms import by_hand, company, found_by


def test_signs_of_belonging_together_are_equal_on_every_engine(engine: EngineUnderTest) -> None:
    rows = town(7)
    said, directory = evidence(rows, engine.table)
    found = engine.rows(said)
    assert {(row["rule"], row["person_id"], row["key"]): row["at"] for row in found} == claims_by_hand(rows)
    assert len(found) == len(claims_by_hand(rows))
    listed = {row["key"]: (row["name"], row["parent"], row["at"]) for row in engine.rows(directory)}
    assert listed == listed_by_hand(rows["crm"])


def test_what_groups_come_to_is_equal_on_every_engine(engine: EngineUnderTest) -> None:
    rows = company(5)
    assert engine.rows(found_by(rows, engine.table)) == normalised(by_hand(rows))

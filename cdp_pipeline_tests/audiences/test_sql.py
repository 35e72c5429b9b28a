"""The SQL shown of an audience finds exactly its members, and can be read."""

from __future__ import annotations

from dataclasses import fields

import duckdb
import pytest

from cdp_pipeline.audiences.rules import Scope
from cdp_pipeline.audiences.sql import sql_of
from cdp_pipeline_tests.audiences.company import ASKED, audience, company_project, rule, scope
from cdp_pipeline_tests.audiences.oracle import holds
from cdp_pipeline_tests.parity.test_audiences import COMPANY, DECLARED, QUESTIONS

SHOP = company_project(*DECLARED, *(audience(f"asks_{n}", one) for n, one in enumerate(QUESTIONS)))
PLACES = {
    "traits": "traits.daily", "customers": "profile.customers", "bands": "traits.bands",
    "timeline": "profile.timeline", "identifiers": "identity.identifiers", "groups": "identity.group_members",
}  # fmt: skip


@pytest.fixture(scope="module")
def asked() -> Scope:
    return scope(COMPANY)


@pytest.fixture(scope="module")
def lake(asked: Scope) -> duckdb.DuckDBPyConnection:
    """The same tables under the names they have in a lake."""
    connection = duckdb.connect()
    tables = {PLACES[one.name]: getattr(asked, one.name) for one in fields(asked) if one.name in PLACES}
    tables |= {f"predictions.{name}": table for name, table in asked.predictions.items()}
    tables |= {f"sources.{name}": table for name, table in asked.sources.items()}
    for name, table in tables.items():
        if table is not None:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name.split('.')[0]}")
            rows = table.to_pyarrow()  # noqa: F841
            connection.execute(f"CREATE TABLE {name} AS FROM rows")
    return connection


@pytest.mark.parametrize("name", list(SHOP.audiences))
def test_the_sql_finds_the_members(asked: Scope, lake: duckdb.DuckDBPyConnection, name: str) -> None:
    text = sql_of(SHOP, name, asked, ASKED[0])
    found = {row[0] for row in lake.execute(text).fetchall()}
    people = {row["person_id"] for row in COMPANY["traits"] if row["day"] == ASKED[0]}
    rules = SHOP.audiences[name].rules
    assert found == {p for p in people if all(holds(one, p, ASKED[0], COMPANY, SHOP) for one in rules)}


def test_the_sql_says_what_is_asked_and_has_no_names_that_only_machines_read(asked: Scope) -> None:
    whole = company_project(audience("some", rule(trait="orders", op=">=", value=1), rule(event="visit", did=False)))
    text = sql_of(whole, "some", asked, ASKED[0])
    assert text.splitlines()[:3] == [
        f"/* some, at the end of {ASKED[0]}: people of whom all of these hold",
        "     orders >= 1",
        "     did not do visit, lifetime */",
    ]
    assert "FROM traits.daily" in text and len(text.splitlines()) < 40
    assert '"' not in text and "TRUE" not in text and "event_" not in text

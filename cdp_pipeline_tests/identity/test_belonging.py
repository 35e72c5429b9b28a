"""What is taken for a sign that people belong together, and what is not: against plain Python."""

from __future__ import annotations

from typing import Any

import ibis
import pytest

from cdp_pipeline_tests.identity.town import (
    DOMAIN,
    FAMILY,
    PHONE,
    Rows,
    claims_by_hand,
    evidence,
    listed_by_hand,
    town,
)


def said(rows: dict[str, Rows]) -> dict[tuple[str, str, str], Any]:
    found = evidence(rows, ibis.memtable)[0].to_pyarrow().to_pylist()
    assert len({(row["rule"], row["person_id"], row["key"]) for row in found}) == len(found)
    return {(row["rule"], row["person_id"], row["key"]): row["at"] for row in found}


def with_customer(**facts: str) -> dict[tuple[str, str, str], Any]:
    rows = town()
    rows["customers"] = [{"person_id": "p00", "family": None, "phone": None, "email": None, "town": None} | facts]
    return said(rows)


@pytest.mark.parametrize("seed", range(6))
def test_what_people_and_sources_say_is_what_one_finds_by_hand(seed: int) -> None:
    rows = town(seed)
    assert said(rows) == claims_by_hand(rows)
    directory = evidence(rows, ibis.memtable)[1].to_pyarrow().to_pylist()
    assert {row["key"]: (row["name"], row["parent"], row["at"]) for row in directory} == listed_by_hand(rows["crm"])
    assert len(directory) == len(listed_by_hand(rows["crm"]))


def test_an_address_is_the_same_however_it_is_typed_and_nothing_when_a_part_is_missing() -> None:
    assert (FAMILY, "p00", "o neill|ely") in with_customer(family=" O'NEILL", town="Ely.")
    assert (FAMILY, "p00", "müller lüdenscheidt|ely") in with_customer(family="Müller--Lüdenscheidt", town="ELY")
    for family, town_ in (("O'Neill", "-"), ("", "Ely"), (" . ", "Ely")):
        assert not [what for what in with_customer(family=family, town=town_) if what[0] == FAMILY]


def test_a_placeholder_address_is_at_no_company_but_the_mailbox_of_a_role_is() -> None:
    assert not [what for what in with_customer(email="none@none.com") if what[0] == DOMAIN]
    assert (DOMAIN, "p00", "firm.example") in with_customer(email="info@firm.example")
    assert (DOMAIN, "p00", "firm.example") in with_customer(email="Ann@Firm.Example")


def test_a_family_phone_that_joins_nobody_still_says_who_lives_together() -> None:
    rows = town()
    rows["identifiers"] = [
        {"type": "contact", "value": "c1", "person_id": "ann", "status": "ok"},
        {"type": "contact", "value": "c2", "person_id": "bob", "status": "ok"},
        {"type": "contact", "value": "c3", "person_id": "cy", "status": "ok"},
        {"type": "phone", "value": "+1", "person_id": "the phone", "status": "shared"},
    ]
    rows["edges"] = [
        {
            "type_a": "contact", "value_a": contact, "type_b": "phone", "value_b": "+1", "source": "crm",
            "status": status, "last_seen": rows["edges"][0]["last_seen"],
        }
        for contact, status in (("c1", "inactive"), ("c2", "inactive"), ("c3", "refused_verdict"))
    ]  # fmt: skip
    rows["crm"] = rows["calls"] = []
    assert {what for what in said(rows) if what[0] == PHONE} == {(PHONE, "ann", "+1"), (PHONE, "bob", "+1")}

"""Whom a channel reaches: the same by the rule and by the table, with and without consent."""

from __future__ import annotations

import ibis
import pyarrow as pa
import pytest

from cdp_pipeline.audiences.reach import reach, reach_rule
from cdp_pipeline.audiences.rules import Scope, matching
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline_tests.traits.shop import DAYS, project, trait

PEOPLE = [f"p{n}" for n in range(8)]
IDENTIFIERS = [("p0", "email"), ("p1", "email"), ("p2", "email"), ("p2", "phone"), ("p3", "phone"), (None, "email")]
CONSENTS = {  # email, phone, sms
    "p0": (True, None, None), "p1": (False, None, True), "p2": (None, None, True), "p3": (True, True, False),
    "p4": (True, True, True),
}  # fmt: skip


def attribute(name: str, column: str = "gift") -> Attribute:
    sources = [{"source": "shop", "column": column}]
    return Attribute.model_validate(
        {
            "kind": "attribute",
            "name": name,
            "description": "Consent.",
            "survivorship": "most_recent",
            "sources": sources,
        }
    )


@pytest.mark.parametrize(
    ("attributes", "email", "phone"),
    [
        ([], {"p0", "p1", "p2"}, {"p2", "p3"}),
        (["email_consent"], {"p0"}, {"p2", "p3"}),
        (["email_consent", "sms_consent"], {"p0"}, {"p2"}),
        (["phone_consent", "sms_consent"], {"p0", "p1", "p2"}, {"p2", "p3"}),
    ],
)
def test_who_has_an_address_is_reached_unless_consent_is_known_and_missing(
    attributes: list[str], email: set[str], phone: set[str]
) -> None:
    whole = project(trait("orders", "count"), *map(attribute, attributes))
    connection = ibis.duckdb.connect()
    rows = [{"person_id": person, "type": type_} for person, type_ in IDENTIFIERS]
    identifiers = connection.create_table("identifiers", pa.Table.from_pylist(rows))
    known = [
        {"person_id": person, "email_consent": e, "phone_consent": p, "sms_consent": s}
        for person, (e, p, s) in CONSENTS.items()
    ]
    customers = connection.create_table("customers", pa.Table.from_pylist(known))
    traits = connection.create_table("traits", {"person_id": PEOPLE, "day": [DAYS[0]] * 8, "orders": [0] * 8})
    found = reach(whole, traits, identifiers, customers).to_pyarrow().to_pylist()
    assert sorted(row["person_id"] for row in found) == PEOPLE
    for channel, expected in (("email", email), ("phone", phone)):
        assert {row["person_id"] for row in found if row[channel]} == expected
        asked = Scope(traits, customers, identifiers=identifiers)
        by_rule = matching(whole, [reach_rule(whole, channel)], asked, [DAYS[0]])
        assert set(by_rule.person_id.to_pyarrow().to_pylist()) == expected


def test_a_consent_that_is_not_yes_or_no_is_not_asked() -> None:
    whole = project(trait("orders", "count"), attribute("email_consent", "id"))
    identifiers = ibis.memtable({"person_id": ["p0"], "type": ["email"]})
    assert reach(whole, identifiers, identifiers, None).to_pyarrow().to_pylist()[0]["email"]

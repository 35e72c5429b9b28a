"""Whom consent is about, read from a real lake: the living person, every id and identifier, and where they live."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cdp_pipeline.consent.subjects import Subject, everybody, subjects
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake import Lake, Mirror, Note
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.activation.test_fire import rows
from cdp_pipeline_tests.consent.people import consent, policy, shop

TEXT, AT = Column("string"), datetime(2026, 1, 2)
CUSTOMERS = Table("profile.customers", "People.", {"person_id": TEXT, "country": TEXT}, key=("person_id",))
NOTE = Note(run_id="test", asset="test", partition=None)


def test_a_merged_id_leads_to_the_living_person_with_everything_they_are_known_by(lake: Lake) -> None:
    whole = shop(
        consent(jurisdiction="country"), policy(quiet_hours=[{"from": "21:00", "to": "08:00", "zone": "zone"}])
    )
    assert everybody(lake, whole) is None
    assert subjects(None, ["p1"]) == {}
    people = [("p1", None), ("p2", "p1"), ("p3", None), ("gone", None)]
    owned = [("p1", "email", "ann"), ("p1", "phone", "+441"), ("p3", "email", "carl"), (None, "email", "blocked")]
    known = {"status": "ok", "first_seen": AT, "last_seen": AT}
    lake.publish(
        Mirror(PEOPLE, rows(PEOPLE, *({"person_id": one, "kind": "known", "identifiers": 1, "created_at": AT,
                                       "merged_into": elder} for one, elder in people))),
        Mirror(IDENTIFIERS, rows(IDENTIFIERS, *(known | {"person_id": one, "type": type_, "value": value, "id": n}
                                                for n, (one, type_, value) in enumerate(owned)))),
        Mirror(CUSTOMERS, rows(CUSTOMERS, {"person_id": "p1", "country": "GB"})),
        note=NOTE,
    )  # fmt: skip
    ann = Subject("p1", ("p1", "p2"), (("email", "ann"), ("phone", "+441")), {"country": "GB"})
    carl = Subject("p3", ("p3",), (("email", "carl"),), {})

    def found(asked: Project, *ids: str) -> dict[str, Subject]:
        return {
            one: him._replace(identifiers=tuple(sorted(him.identifiers)))
            for one, him in subjects(everybody(lake, asked), ids).items()
        }

    assert found(whole, "p2", "p3", "gone", "stranger") == {"p2": ann, "p3": carl}
    assert found(whole, "p1") == {"p1": ann}
    assert found(replace(whole, consents={}, contact_policies={}), "p1") == {"p1": ann._replace(attributes={})}

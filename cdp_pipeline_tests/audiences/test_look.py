"""Looking at audiences in a lake: sizes, samples and explanations of the newest day, or of one that is asked for."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cdp_pipeline.audiences.look import NothingComputedError, explain_now, listed, preview, size_now
from cdp_pipeline.audiences.members import SIZES
from cdp_pipeline.lake import Column, Lake, Mirror, Table
from cdp_pipeline.traits.daily import daily_table
from cdp_pipeline_tests.audiences.company import audience, rule
from cdp_pipeline_tests.traits.shop import DAYS, project, rows_table, trait

SHOP = project(trait("orders", "count"), audience("buyers", rule(trait="orders", op=">", value=0)))
DAILY = daily_table(SHOP)
IDENTIFIERS = Table(
    "identity.identifiers",
    "Identifiers.",
    {"type": Column("string"), "value": Column("string"), "person_id": Column("string")},
    key=("type", "value"),
)
CUSTOMERS = Table(
    "profile.customers", "Customers.", {"person_id": Column("string"), "town": Column("string")}, key=("person_id",)
)


@pytest.fixture
def told(lake: Lake) -> Lake:
    """Two buyers on the first day, one of them reachable; one on the second."""
    orders = {("p1", DAYS[0]): 1, ("p2", DAYS[0]): 2, ("p1", DAYS[1]): 0, ("p2", DAYS[1]): 1}
    rows = [{"person_id": person, "day": day, "orders": count} for (person, day), count in orders.items()]
    lake.publish(
        Mirror(DAILY, rows_table(DAILY, rows)),
        Mirror(IDENTIFIERS, pa.table({"type": ["email"], "value": ["x"], "person_id": ["p1"]})),
        Mirror(CUSTOMERS, pa.table({"person_id": ["p1", "p2"], "town": ["Ely", "Bath"]})),
    )
    return lake


def test_a_size_is_of_the_newest_day_unless_one_is_asked_for(told: Lake) -> None:
    assert size_now(told, SHOP, "buyers", None) == {
        "audience": "buyers", "day": DAYS[1], "people": 1, "reachable_email": 0, "reachable_phone": 0, "everybody": 2,
        "share": 0.5,
    }  # fmt: skip
    assert size_now(told, SHOP, "buyers", DAYS[0])["people"] == 2


def test_a_sample_shows_profiles_and_no_more_than_asked_for(told: Lake) -> None:
    assert preview(told, SHOP, "buyers", DAYS[0], 1) == [{"person_id": "p1", "orders": 1, "town": "Ely"}]
    assert preview(told, SHOP, "buyers", None, 10) == [{"person_id": "p2", "orders": 1, "town": "Bath"}]


def test_the_list_names_every_audience_even_before_it_was_computed(told: Lake) -> None:
    assert [(row["audience"], row["people"]) for row in listed(told, SHOP)] == [("buyers", None)]
    counted = [{"audience": "buyers", "day": day, "people": size} for day, size in zip(DAYS[:2], (2, 1), strict=True)]
    told.publish(Mirror(SIZES, rows_table(SIZES, counted)))
    assert [(row["day"], row["people"]) for row in listed(told, SHOP)] == [(DAYS[1], 1)]


def test_an_explanation_is_of_the_newest_day_unless_one_is_asked_for(told: Lake) -> None:
    assert not explain_now(told, SHOP, "buyers", "p1", None).holds
    assert explain_now(told, SHOP, "buyers", "p1", DAYS[0]).inner[0].found == 1


def test_nothing_computed_is_said_plainly(lake: Lake, told: Lake) -> None:
    with pytest.raises(NothingComputedError, match="nothing is known of 2024-03-05 or before"):
        size_now(told, SHOP, "buyers", DAYS[9])
    with pytest.raises(NothingComputedError, match="p9 has no traits"):
        explain_now(told, SHOP, "buyers", "p9", None)


def test_before_the_first_run_one_is_told_to_run(lake: Lake) -> None:
    with pytest.raises(NothingComputedError, match="cdp run"):
        preview(lake, SHOP, "buyers", None, 3)

"""What a step publishes of audiences in a lake: good days, held days, and audiences that nobody can answer yet."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pytest

from cdp_pipeline.audiences.breakdown import breakdowns, people_of
from cdp_pipeline.audiences.cards import card
from cdp_pipeline.audiences.decide import Decided, decide
from cdp_pipeline.audiences.look import scope_of
from cdp_pipeline.audiences.members import HELD, MEMBERS, SIZES, picked
from cdp_pipeline.audiences.overlap import overlaps
from cdp_pipeline.audiences.waterfall import waterfalls
from cdp_pipeline.identity.people import PEOPLE
from cdp_pipeline.lake import Column, Lake, Mirror, Table
from cdp_pipeline.spec.audience import AudienceTests
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.daily import daily_table
from cdp_pipeline_tests.audiences.company import EMAIL, audience, rule
from cdp_pipeline_tests.traits.shop import DAYS, project, rows_table, trait

BUYERS = rule(trait="orders", op=">", value=0)
IDENTIFIERS = Table(
    "identity.identifiers", "Identifiers.",
    {name: Column("string") for name in ("type", "value", "person_id", "status", "why")}, key=("type", "value"),
)  # fmt: skip
ORDERS = {("p1", 0): 1, ("p2", 0): 2, ("p3", 0): 0, ("p1", 1): 0, ("p2", 1): 1, ("p3", 1): 0}


def shop(**tests: Any) -> Project:
    whole = project(
        trait("orders", "count"),
        audience("buyers", BUYERS, tests=AudienceTests(**tests)),
        audience("others", rule(none=[{"audience": "buyers"}])),
        audience("many", rule(trait="orders", op=">=", value=2)),
    )
    whole.identifiers["email"] = EMAIL
    return whole


@pytest.fixture
def told(lake: Lake) -> Lake:
    daily = daily_table(shop())
    rows = [{"person_id": person, "day": DAYS[n], "orders": count} for (person, n), count in ORDERS.items()]
    known = [{"type": "email", "value": f"{p}@example.com", "person_id": p, "status": "ok"} for p in ("p1", "p2")]
    lake.publish(
        Mirror(daily, rows_table(daily, rows)),
        Mirror(IDENTIFIERS, pa.Table.from_pylist(known, schema=IDENTIFIERS.schema.to_pyarrow())),
        Mirror(PEOPLE, PEOPLE.schema.to_pyarrow().empty_table()),
    )
    return lake


def published(lake: Lake, whole: Project, days: list[date], names: list[str] | None = None) -> Decided:
    names = sorted(whole.audiences) if names is None else names
    found = decide(lake, whole, names, days)
    within = {"audience": names, "day": days}
    tables = ((MEMBERS, found.members), (SIZES, found.sizes), (HELD, found.held))
    lake.publish(*(Mirror(table, rows, within=within) for table, rows in tables))
    return found


def sizes(lake: Lake) -> dict[tuple[str, date], int]:
    return {(row["audience"], row["day"]): row["people"] for row in lake.read(SIZES).to_pyarrow().to_pylist()}


def members(lake: Lake) -> set[tuple[str, str, date]]:
    return {(row["audience"], row["person_id"], row["day"]) for row in lake.read(MEMBERS).to_pyarrow().to_pylist()}


def test_several_days_are_found_and_tested_together_and_each_is_held_on_its_own(told: Lake) -> None:
    found = published(told, shop(min_size=2), DAYS[:2])
    assert found.verdicts.held == {
        ("buyers", DAYS[1]): "1 people, fewer than 2", ("others", DAYS[1]): "it builds on 'buyers', which is held",
    }  # fmt: skip
    assert sizes(told) == {
        ("buyers", DAYS[0]): 2, ("others", DAYS[0]): 1, ("many", DAYS[0]): 1, ("many", DAYS[1]): 0,
    }  # fmt: skip
    assert members(told) == {
        ("buyers", "p1", DAYS[0]), ("buyers", "p2", DAYS[0]), ("others", "p3", DAYS[0]), ("many", "p2", DAYS[0]),
    }  # fmt: skip
    held = told.read(HELD).to_pyarrow().to_pylist()
    assert {(row["audience"], row["people"]) for row in held} == {("buyers", 1), ("others", 2)}


def test_what_was_good_stays_when_the_same_day_is_computed_again_and_held(told: Lake) -> None:
    published(told, shop(), DAYS[:1])
    before = members(told), sizes(told)
    published(told, shop(max_size=1), DAYS[:1])
    assert (members(told), sizes(told)) == before
    published(told, shop(), DAYS[:1])
    assert told.read(HELD).to_pyarrow().num_rows == 0


def test_an_audience_of_another_cadence_that_is_held_holds_what_builds_on_it(told: Lake) -> None:
    published(told, shop(min_size=9), DAYS[:1], ["buyers"])
    assert published(told, shop(min_size=9), DAYS[:2], ["others", "many"]).verdicts.held == {
        ("others", day): "it builds on 'buyers', which is held" for day in DAYS[:2]
    }
    published(told, shop(), DAYS[:1], ["buyers"])
    published(told, shop(min_size=9), DAYS[1:2], ["buyers"])
    assert list(published(told, shop(), DAYS[:2], ["others"]).verdicts.held) == [("others", DAYS[1])]


def test_people_one_knows_are_looked_for_by_their_identifiers(told: Lake) -> None:
    good = shop(must_include=["email:p1@example.com"], must_exclude=["email:nobody@example.com"])
    assert published(told, good, DAYS[:1]).verdicts.held == {}
    wrong = shop(must_include=["email:nobody@example.com"], must_exclude=["email:p2@example.com"])
    held = published(told, wrong, DAYS[:1], ["buyers"]).verdicts.held["buyers", DAYS[0]]
    assert held == "1 of 1 people who must be in it are not and 1 of 1 people who must not be in it are"


def test_an_audience_that_asks_for_what_is_not_there_yet_is_held_and_stops_no_other(told: Lake) -> None:
    whole = shop()
    for one in (audience("scored", rule(prediction="churn", op=">", value=0.5)),
                audience("likely", rule(audience="scored")), audience("events", rule(event="visit"))):  # fmt: skip
        whole.audiences[one.name] = one
    found = published(told, whole, DAYS[:1])
    assert found.verdicts.held == {
        ("scored", DAYS[0]): "it asks predictions.churn, which was not computed yet",
        (
            "likely",
            DAYS[0],
        ): "it asks predictions.churn, which was not computed yet; it builds on 'scored', which is held",
        ("events", DAYS[0]): "it asks timeline, which was not computed yet",
    } or found.verdicts.held["likely", DAYS[0]].startswith("it asks predictions.churn")
    assert found.asked == ["buyers", "many", "others"] and set(sizes(told)) == {(n, DAYS[0]) for n in found.asked}


def test_a_card_shows_tables_and_never_a_person(told: Lake) -> None:
    whole = shop()
    found = published(told, whole, DAYS[:1])
    [fall] = waterfalls(whole, ["buyers"], found.gathered, DAYS[0])
    people = people_of(whole, scope_of(told, whole), DAYS[0])
    rows = picked(found.gathered, found.asked)
    history = [{"day": day, "people": 2, "reachable_email": 2, "reachable_phone": 0} for day in DAYS[:3]]
    apart = breakdowns(whole, ["others"], people, rows)["others"]
    shown = card(fall, overlaps(rows).rows("buyers", list(whole.audiences)), apart, history)
    assert list(shown) == ["waterfall", "overlap", "size by day"]
    assert shown["waterfall"].splitlines() == [
        "| condition | people left |  | removed | fail only this |",
        "| --- | --: | --- | --: | --: |",
        "| **everybody** | 3 | ████████████ | 0 | 0 |",
        "| orders > 0 | 2 | ████████ | 1 | 1 |",
    ]
    assert shown["overlap"].splitlines()[2:] == ["| many | 1 | 50% | 100% | 0.500 |"]
    assert shown["size by day"].startswith("![People by day](data:image/png;base64,")
    assert "example.com" not in str(shown) and "p1" not in shown["waterfall"] + shown["overlap"]
    assert "size by day" not in card(fall, [], [], history, drawn=False)

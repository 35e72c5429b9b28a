"""Guards: said once for every trigger of a purpose, dropped or waited for, and told whom they spared."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.fire import fire
from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.tables import outbox_rows, prevented_rows
from cdp_pipeline.activation.told import note
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.lake import Lake, Mirror, Upsert
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.guard import Guard
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trait import Trait
from cdp_pipeline_tests.activation.projects import DAY, NOW, mail, project, trigger, webhook
from cdp_pipeline_tests.activation.test_event_triggers import AT, REVIEWED, TIMELINE, shop, tell
from cdp_pipeline_tests.activation.test_fire import DAILY, NOTE, ONE, PERSONS, people, publish, rows
from cdp_pipeline_tests.activation.test_happenings import SCHEMA, event
from cdp_pipeline_tests.destinations.servers import Receiver
from cdp_pipeline_tests.predictions.people import prediction as churn_prediction

RECENCY = Trait(kind="trait", name="recency", description="Days.", evaluation="days_since", event=["order"])


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with open_ledger("sqlite://") as opened:
        yield opened


def guard(name: str, above: int, *purposes: str) -> Guard:
    rule = {"trait": "recency", "op": ">", "value": above}
    return Guard.model_validate(
        {"kind": "guard", "name": name, "description": "x", "when": [rule], "purposes": purposes}
    )


def guarded(*documents: Any, guards: tuple[Guard, ...]) -> Project:
    whole = replace(project(webhook("http://127.0.0.1:9/"), *documents), traits={"recency": RECENCY})
    return replace(whole, guards={one.name: one for one in guards})


def told(ledger: Ledger) -> list[tuple[object, ...]]:
    return sorted(tuple(row.values()) for row in prevented_rows(ledger).to_pylist())


def test_a_guard_keeps_every_trigger_of_its_purpose_and_no_other(lake: Lake, ledger: Ledger) -> None:
    acts = [{"destination": "hook"}, {"destination": "hook", "mapping": {"days": "recency"}}]
    whole = guarded(
        trigger(name="offer", purpose="marketing", do=acts),
        trigger(name="task", purpose="service"),
        trigger(name="plain", unless=[{"trait": "recency", "op": ">", "value": 360}]),
        guards=(guard("cross", 300, "marketing", "sales"), guard("gone", 350, "marketing")),
    )
    publish(lake, DAY, {"p1": 130, "p2": 310, "p3": 365})
    assert fire(ledger, lake, whole, now=NOW) == {
        "offer": {"pending": 2, "suppressed": 4}, "task": {"pending": 3}, "plain": {"pending": 2, "suppressed": 1}
    }  # fmt: skip
    assert {op["reason"] for op in ledger.about(["p3"])} == {"guard: cross, gone", "guard: unless", ""}
    assert told(ledger) == [
        ("cross", "offer", DAY, 2, 0), ("gone", "offer", DAY, 1, 0), ("unless", "plain", DAY, 1, 0)
    ]  # fmt: skip
    assert fire(ledger, lake, whole, now=NOW)["offer"] == {"known": 6}
    assert len(told(ledger)) == 3


def test_what_waits_for_a_guard_is_sent_once_it_holds_no_more(lake: Lake, ledger: Ledger) -> None:
    news = trigger(name="news", purpose="contract", if_guarded="wait", cool_down="9 days")
    whole = guarded(news, guards=(guard("cross", 300, "contract"),))
    publish(lake, DAY, {"p1": 310, "p2": 320})
    assert fire(ledger, lake, whole, now=NOW) == {"news": {"held": 2}}
    with Receiver() as receiver:
        whole = replace(whole, destinations={"hook": webhook(receiver.url)})
        assert not deliver(ledger, whole, now=NOW, connect=destination_for).totals
        assert told(ledger) == [("cross", "news", DAY, 2, 2)]
        publish(lake, DAY + ONE, {"p1": 1, "p2": 321})
        assert fire(ledger, lake, whole, now=NOW + ONE)["news"]["released"] == 1
        deliver(ledger, whole, now=NOW + ONE, connect=destination_for)
        assert [request.json["data"] for request in receiver.requests] == [{"person_id": "p1"}]
    assert told(ledger)[0] == ("cross", "news", DAY, 2, 1)


def test_a_guard_that_comes_to_hold_overnight_stops_what_waits_for_the_morning(lake: Lake, ledger_address: str) -> None:
    morning = {"from": "09:30", "to": "17:00"}
    offer = trigger(name="offer", purpose="marketing", valid_hours=morning, cool_down="9 days")
    news = trigger(name="news", purpose="contract", valid_hours=morning, cool_down="9 days", if_guarded="wait")
    whole = guarded(offer, news, guards=(guard("cross", 300, "marketing", "contract"),))
    with Receiver() as receiver, open_ledger(ledger_address) as ledger:
        whole = replace(whole, destinations={"hook": webhook(receiver.url)})
        publish(lake, DAY, {"p1": 130, "p2": 130})
        fire(ledger, lake, whole, now=NOW)
        assert deliver(ledger, whole, now=NOW, connect=destination_for).totals == {"pending": 4}
        publish(lake, DAY, {"p1": 130, "p2": 310})
        assert fire(ledger, lake, whole, now=NOW) == {
            "offer": {"known": 2, "kept by a guard": 1}, "news": {"known": 2, "kept by a guard": 1}
        }  # fmt: skip
        assert told(ledger) == [("cross", "news", DAY, 1, 1), ("cross", "offer", DAY, 1, 0)]
        later = NOW + timedelta(hours=1)
        deliver(ledger, whole, now=later, connect=destination_for)
        assert [request.json["data"]["person_id"] for request in receiver.requests] == ["p1", "p1"]
        publish(lake, DAY, {"p1": 130, "p2": 130})
        assert fire(ledger, lake, whole, now=later)["news"]["released"] == 1
        deliver(ledger, whole, now=later, connect=destination_for)
        assert receiver.requests[2].json["type"] == "trigger.news" and len(receiver.requests) == 3


def test_who_waited_and_was_merged_still_waits_for_the_one_they_are(lake: Lake, ledger: Ledger) -> None:
    whole = guarded(
        trigger(name="news", purpose="contract", if_guarded="wait"), guards=(guard("cross", 300, "contract"),)
    )
    publish(lake, DAY, {"p1": 310})
    fire(ledger, lake, whole, now=NOW)
    merged = ({"person_id": "p0"}, {"person_id": "p1", "merged_into": "p0"})
    lake.publish(Mirror(PERSONS, rows(PERSONS, *merged)), note=NOTE)
    publish(lake, DAY + ONE, {"p0": 311})
    fire(ledger, lake, whole, now=NOW + ONE)
    assert ("p1", "held") in people(ledger)
    publish(lake, DAY + 2 * ONE, {"p0": 1})
    fire(ledger, lake, whole, now=NOW + 2 * ONE)
    assert ("p1", "pending") in people(ledger)


def test_a_guard_before_somebody_who_could_not_be_written_to_anyway_is_not_said_to_have_prevented_one(
    lake: Lake, ledger: Ledger
) -> None:
    letter = {"destination": "mail", "to": "phone", "subject": "x", "body": "y"}
    whole = guarded(
        mail(9), trigger(name="offer", purpose="marketing", do=[letter]), guards=(guard("cross", 300, "marketing"),)
    )
    publish(lake, DAY, {"p1": 310})
    assert fire(ledger, lake, whole, now=NOW) == {"offer": {"suppressed": 1}}
    assert told(ledger) == []


def test_what_a_cool_down_keeps_back_anyway_no_guard_is_said_to_have_prevented(lake: Lake, ledger: Ledger) -> None:
    offer = trigger(name="offer", purpose="marketing", cool_down="9 days")
    whole = guarded(offer, guards=(guard("cross", 300, "marketing"),))
    publish(lake, DAY, {"p1": 130})
    fire(ledger, lake, whole, now=NOW)
    publish(lake, DAY + ONE, {"p1": 310})
    assert fire(ledger, lake, whole, now=NOW + ONE) == {"offer": {"known": 1, "suppressed": 1}}
    assert told(ledger) == []


def test_a_guard_is_asked_of_those_too_of_whom_nothing_was_computed_yet(lake: Lake, ledger: Ledger) -> None:
    calm = [{"none": [{"trait": "recency", "op": "<", "value": 100}]}]
    whole = guarded(trigger(name="welcome", on={"entered": "vip"}, unless=calm), guards=())
    publish(lake, DAY, {}, ("old", "new"))
    known = rows(DAILY, {"person_id": "old", "day": DAY, "recency": 1})
    lake.publish(Mirror(DAILY, known, within={"day": [DAY]}), note=NOTE)
    assert fire(ledger, lake, whole, now=NOW) == {"welcome": {"pending": 1, "suppressed": 1}}
    assert sorted(people(ledger)) == [("new", "suppressed"), ("old", "pending")]


def test_a_guard_that_a_score_makes_holds_until_there_is_a_newer_one(lake: Lake, ledger: Ledger) -> None:
    columns = {"person_id": Column("string"), "day": Column("date"), "score": Column("float64")}
    churn = Table("predictions.churn", "Scores.", columns, key=("person_id", "day"))
    scores = [{"person_id": "p1", "day": DAY - ONE, "score": score} for score in (0.9,)]
    risky = [{"prediction": "churn", "op": ">", "value": 0.5}]
    whole = guarded(trigger(name="offer", unless=risky), guards=())
    whole = replace(whole, predictions={"churn": churn_prediction()})
    lake.publish(Upsert(churn, rows(churn, *scores)), note=NOTE)
    publish(lake, DAY, {"p1": 130, "p2": 130})
    assert fire(ledger, lake, whole, now=NOW) == {"offer": {"pending": 1, "suppressed": 1}}
    assert sorted(people(ledger)) == [("p1", "suppressed"), ("p2", "pending")]


OPEN = "opened - closed"
TICKETS = {
    name: Trait.model_validate({"kind": "trait", "name": name, "description": "Tickets.", **fields})
    for name, fields in {
        "opened": {"evaluation": "count", "event": ["ticket_opened"]},
        "closed": {"evaluation": "count", "event": ["ticket_closed"]},
        "open_now": {"evaluation": "expression", "expression": OPEN},
    }.items()
}
BY_TRAIT, BY_EVENT = (
    [{"trait": "open_now", "op": ">", "value": 0}],
    [{"event": "ticket_opened", "window": "last 2 days"}],
)
OF_DAY = Table("traits.daily", "Traits.", {"person_id": Column("string"), "day": Column("date"),
               **{name: Column("int64") for name in TICKETS}}, key=("person_id", "day"))  # fmt: skip


def test_what_happened_since_the_traits_were_computed_counts_for_guards_loaded_or_told(
    lake: Lake, ledger: Ledger
) -> None:
    """Each second person was somebody else once; DAY ended nine hours before NOW."""
    dice, everybody = random.Random(5), [f"p{number}" for number in range(60)]
    aliases = {f"once_{person}": person for person in everybody[::2]}
    events: list[tuple[dict[str, Any], str, str]] = []
    for person in everybody:
        for number in range(dice.randint(0, 4)):
            at, name = AT - timedelta(hours=dice.randint(1, 60)), dice.choice(["ticket_opened", "ticket_closed"])
            whose = dice.choice([person, *(one for one, survivor in aliases.items() if survivor == person)])
            row = event(f"t{person}:{number}", name, at, whose)
            events.append((row, person, dice.choice(["told", "loaded", "loaded", "both"])))
    names = {"by_trait": BY_TRAIT, "by_event": BY_EVENT}
    whole = shop(*(trigger(name=name, on=REVIEWED, unless=unless) for name, unless in names.items()))
    whole = replace(whole, traits=TICKETS)
    loaded = [row | {"person_id": person} for row, person, where in events if where != "told"]
    tell(lake, *loaded, *(event(f"r{person}", "review", AT, person, stars=1) for person in everybody))
    until_day = Counter((row["person_id"], row["event"]) for row in loaded if row["_day"] <= DAY)
    computed = [
        {"person_id": person, "day": DAY, "opened": opened, "closed": closed, "open_now": opened - closed}
        for person in everybody
        for opened, closed in [(until_day[person, "ticket_opened"], until_day[person, "ticket_closed"])]
    ]
    merged = [{"person_id": one, "merged_into": survivor} for one, survivor in aliases.items()]
    lake.publish(Mirror(PERSONS, rows(PERSONS, *merged)), Mirror(OF_DAY, rows(OF_DAY, *computed)), note=NOTE)
    note(ledger, pa.Table.from_pylist([row for row, _, where in events if where != "loaded"], schema=SCHEMA), NOW)
    with patch("cdp_pipeline.activation.fire.timeline_table", lambda _: TIMELINE):
        fire(ledger, lake, whole, now=NOW)
    state = {(row["origin"], row["person_id"]): row["state"] for row in outbox_rows(ledger).to_pylist()}
    assert len(state) == 2 * len(everybody)
    for each in everybody:
        theirs = [(row, where) for row, person, where in events if person == each]
        # Traits are found anew of those of whom something was told; of others they are those of the day.
        anew = any(where != "loaded" for _, where in theirs)
        counted = Counter(row["event"] for row, _ in theirs if anew or row["_day"] <= DAY)
        lately = any(row["event"] == "ticket_opened" and row["_day"] >= DAY for row, _ in theirs)
        is_open = counted["ticket_opened"] > counted["ticket_closed"]
        assert state["trigger:by_trait", each] == ("suppressed" if is_open else "pending"), theirs
        assert state["trigger:by_event", each] == ("suppressed" if lately else "pending"), theirs

"""Braze: attributes may be set twice, events may not; who is refused is named by place."""

from __future__ import annotations

from datetime import timedelta

from cdp_pipeline.activation import claims
from cdp_pipeline.activation.ledger import Op, open_ledger
from cdp_pipeline.destinations import destination_for
from cdp_pipeline_tests.activation.projects import NOW
from cdp_pipeline_tests.destinations.fakes.braze import FakeBraze, braze
from cdp_pipeline_tests.destinations.fakes.people import act, member, sent, states


def test_an_event_whose_answer_is_lost_is_held_and_an_attribute_is_set_again() -> None:
    fake = FakeBraze()
    with sent(fake, braze) as send:
        assert states(send(act("silent-1"))) == ["unknown"]
        assert states(send(member("silent-2"))) == ["retry"]
        assert states(send(member("silent-2"))) == ["delivered"]
    assert len(fake.events) == 1 and fake.held() == {"silent-2"}


def test_what_a_lost_worker_held_is_repeated_only_where_that_is_safe() -> None:
    there = braze("http://127.0.0.1:1")
    ops = [
        Op(each.op_id, "alert:t", there.name, each.op_id, each.kind, each.payload) for each in (member("a"), act("b"))
    ]
    with open_ledger("sqlite://") as ledger, destination_for(there) as connection:
        ledger.send_once(ops, NOW)
        for now in (NOW, NOW + timedelta(hours=1)):
            claim = claims.claim(
                ledger, there.name, limit=10, now=now, lease=timedelta(minutes=1), worker="lost",
                repeatable=connection.repeatable, max_attempts=5, rate=100,
            )  # fmt: skip
        [held] = ledger.about(["low_nps-b"])
    assert [each.delivery.op_id for each in claim.ops] == ["vips-add-a"]
    assert held["state"] == "unknown"


def test_refused_ones_are_named_by_their_place_in_either_array() -> None:
    fake = FakeBraze()
    with sent(fake, braze) as send:
        outcomes = send(member("ann"), act("refuse-1"), act("bea"), member("refuse-2"))
    assert states(outcomes) == ["delivered", "failed", "delivered", "failed"]
    assert {each.reason for each in outcomes.values()} == {"HTTP 201", "HTTP 201: refused by Braze"}


def test_an_audience_is_one_name_in_an_array_and_leaving_makes_nobody_a_user() -> None:
    fake = FakeBraze()
    with sent(fake, braze) as send:
        send(member("ann", email="ann@example.com", tier="gold"), member("ann", sync="sale"))
        send(member("ann", "remove"), member("ghost", "remove"))
    assert set(fake.users) == {"ann@example.com"}
    assert fake.users["ann@example.com"] == {"email": "ann@example.com", "tier": "gold", "cdp_audiences": {"sale"}}


def test_an_event_carries_who_what_and_when() -> None:
    fake = FakeBraze()
    with sent(fake, braze) as send:
        send(act("ann", email="ann@example.com", cart_value="12.50"))
    assert fake.events == [
        {"email": "ann@example.com", "name": "low_nps", "time": "2026-03-10T09:00:00Z",
         "properties": {"cart_value": "12.50"}}
    ]  # fmt: skip


def test_an_own_id_goes_before_an_address() -> None:
    fake = FakeBraze()
    with sent(fake, braze) as send:
        send(member("ann", email="ann@example.com", external_id="C-17"))
    [sent_object] = fake.requests[0].json["attributes"]
    assert (sent_object["external_id"], sent_object["email"]) == ("C-17", "ann@example.com")

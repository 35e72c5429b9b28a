"""Segment and RudderStack: members by identify, moments by track, and nothing that is dropped without a word."""

from __future__ import annotations

from cdp_pipeline.activation.protocol import Delivery
from cdp_pipeline_tests.destinations.fakes.people import act, member, sent, states
from cdp_pipeline_tests.destinations.fakes.segment import FakeSegment, segment


def test_members_are_traits_and_moments_are_events() -> None:
    fake = FakeSegment()
    with sent(fake, segment) as send:
        send(
            member("ann", user_id="u1", tier="gold"), member("ann", "remove", user_id="u2"),
            member("ann", "entered", user_id="u3"), member("ann", "left", user_id="u4"),
            act("ann", user_id="u5", score=3), act("bea", anonymous_id="a6"), act("cem", person_id="p7"),
        )  # fmt: skip
    assert [(each["type"], each.get("event"), each.get("userId") or each["anonymousId"]) for each in fake.messages] == [
        ("identify", None, "u1"), ("identify", None, "u2"), ("track", "Audience Entered", "u3"),
        ("track", "Audience Exited", "u4"), ("track", "low_nps", "u5"), ("track", "low_nps", "a6"),
        ("track", "low_nps", "p7"),
    ]  # fmt: skip
    assert [each.get("traits") for each in fake.messages[:2]] == [{"tier": "gold", "vips": True}, {"vips": False}]
    assert fake.messages[2]["properties"] == {"audience_key": "vips"}
    assert fake.messages[4]["properties"] == {"score": 3} and fake.messages[4]["timestamp"] == "2026-03-09T00:00:00Z"


def test_the_same_operation_is_known_by_its_message_id() -> None:
    fake = FakeSegment()
    with sent(fake, segment) as send:
        for _ in range(2):
            assert states(send(act("ann", user_id="u1"))) == ["delivered"]
    assert [each["messageId"] for each in fake.messages] == ["low_nps-ann"]


def test_a_message_that_would_cost_its_whole_call_is_refused_here() -> None:
    fake = FakeSegment()
    with sent(fake, segment) as send:
        outcomes = send(act("ann", user_id="u1", essay="x" * 40_000), act("bea", user_id="u2"))
    assert states(outcomes) == ["failed", "delivered"]
    assert [each["userId"] for each in fake.messages] == ["u2"]


def test_calls_stay_below_half_a_megabyte() -> None:
    fake = FakeSegment()
    with sent(fake, segment) as send:
        outcomes = send(*(act(f"ann-{i}", user_id=f"u{i}", essay="x" * 20_000) for i in range(60)))
    assert states(outcomes) == ["delivered"] * 60 and len(fake.messages) == 60
    assert len(fake.requests) == 3


def test_who_cannot_be_named_is_refused_here() -> None:
    fake = FakeSegment()
    with sent(fake, segment) as send:
        [outcome] = send(Delivery("op", "act", {"type": "trigger.t", "data": {"score": 3}})).values()
    assert outcome.state == "failed" and fake.requests == []

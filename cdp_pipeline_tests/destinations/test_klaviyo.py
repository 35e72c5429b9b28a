"""Klaviyo: an import says later who was refused, by place; events are the same event however often they come."""

from __future__ import annotations

from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline_tests.destinations.fakes.klaviyo import FakeKlaviyo, klaviyo
from cdp_pipeline_tests.destinations.fakes.people import act, member, sent, states


def again(deliveries: list[Delivery], outcomes: dict[str, Outcome]) -> list[Delivery]:
    """The same deliveries as the ledger gives them when they were accepted."""
    return [Delivery(each.op_id, each.kind, each.payload, outcomes[each.op_id].reference) for each in deliveries]


def test_an_import_that_takes_its_time_says_later_who_was_refused() -> None:
    fake = FakeKlaviyo(takes_until=1)
    people = [member(f"{'refuse' if i % 4 == 1 else 'ann'}-{i}") for i in range(20)]
    with sent(fake, klaviyo) as send:
        first = send(*people)
        assert states(first) == ["accepted"] * 20
        # Some of them, in another order: each is found by its own place.
        later = send(*again(people[::-1][:12], first))
    assert {op_id for op_id, outcome in later.items() if outcome.state == "failed"} == {
        "vips-add-refuse-9", "vips-add-refuse-13", "vips-add-refuse-17",
    }  # fmt: skip
    assert {outcome.reason for outcome in later.values()} == {"imported", "import error: refused"}
    assert fake.jobs == 1


def test_who_was_refused_is_known_by_their_profile_where_an_error_points_nowhere() -> None:
    people = [member("ann-1"), member("refuse-2"), member("ann-3")]
    with sent(FakeKlaviyo(points="profile"), klaviyo) as send:
        assert states(send(*people)) == ["delivered", "failed", "delivered"]
    with sent(FakeKlaviyo(points="nobody"), klaviyo) as send:
        outcomes = send(*people)
    # Somebody was refused and nobody says who: that is said of all, and nothing is claimed of one.
    assert {(each.state, each.reason) for each in outcomes.values()} == {
        ("delivered", "imported, but some in this import were refused: refused")
    }


def test_an_import_that_was_cancelled_or_forgotten_is_made_again() -> None:
    fake = FakeKlaviyo(ends="cancelled")
    person = member("ann-1")
    with sent(fake, klaviyo) as send:
        [outcome] = send(person).values()
        assert (outcome.state, outcome.reference) == ("retry", "")
        [outcome] = send(Delivery(person.op_id, "add", person.payload, "job-999:0")).values()
        assert (outcome.state, outcome.reference, outcome.code) == ("retry", "", 404)


def test_klaviyos_own_fields_an_address_and_all_else_go_where_they_belong() -> None:
    fake = FakeKlaviyo()
    with sent(fake, klaviyo) as send:
        send(member("ann", email="ann@example.com", first_name="Ann", city="Bern", tier="gold", phone_number=None))
    assert fake.profiles["ann@example.com"]["attributes"] == {
        "email": "ann@example.com", "first_name": "Ann", "location": {"city": "Bern"}, "properties": {"tier": "gold"},
    }  # fmt: skip


def test_an_event_sent_twice_is_one_event() -> None:
    fake = FakeKlaviyo()
    with sent(fake, klaviyo) as send:
        for _ in range(2):
            assert states(send(act("ann", email="ann@example.com", cart_value="12.50"))) == ["delivered"]
    [event] = fake.events.values()
    assert event["metric"]["data"]["attributes"] == {"name": "low_nps"}
    assert event["properties"] == {"cart_value": "12.50"}
    assert event["profile"]["data"]["attributes"] == {"email": "ann@example.com"}


def test_many_leave_the_list_in_portions_and_who_was_never_on_it_does_no_harm() -> None:
    fake = FakeKlaviyo()
    with sent(fake, klaviyo) as send:
        send(*(member(f"ann-{i}") for i in range(150)))
        assert len(fake.members) == 150
        outcomes = send(*(member(f"ann-{i}", "remove") for i in range(140)), member("ghost", "remove"))
    assert states(outcomes) == ["delivered"] * 141
    assert fake.held() == {f"ann-{i}" for i in range(140, 150)}
    assert fake.asked("DELETE", "/relationships/profiles") == 2


def test_profiles_without_a_list_are_kept_up_and_nobody_can_leave() -> None:
    fake = FakeKlaviyo()
    with sent(fake, klaviyo, list_id=None) as send:
        assert states(send(member("ann"))) == ["delivered"]
        [outcome] = send(member("ann", "remove")).values()
    assert outcome.state == "failed" and "list_id" in outcome.reason
    assert "ann@example.com" in fake.profiles and fake.held() == set()


def test_who_has_no_identifier_is_refused_here() -> None:
    fake = FakeKlaviyo()
    with sent(fake, klaviyo) as send:
        assert states(send(member("x", tier="gold"), act("x", tier="gold"))) == ["failed", "failed"]
    assert fake.requests == []

"""HubSpot: who is refused is found in a refused batch, nobody is made a contact by leaving, no task is made twice."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cdp_pipeline.activation.messages import message
from cdp_pipeline.activation.protocol import Delivery
from cdp_pipeline.spec.trigger import Act
from cdp_pipeline_tests.activation.projects import DAY
from cdp_pipeline_tests.destinations.fakes.hubspot import FakeHubspot, hubspot
from cdp_pipeline_tests.destinations.fakes.people import act, member, sent, states
from cdp_pipeline_tests.destinations.servers import Answer

TASK = {"subject": "Call Zoë", "body": "She gave us a 3."}


def known(fake: FakeHubspot, *labels: str) -> None:
    for i, label in enumerate(labels):
        email = f"{label}@example.com"
        fake.contacts[email] = {"id": str(i + 1), "properties": {"email": email}}


def test_one_invalid_contact_in_a_hundred_is_found_in_few_calls_and_the_others_arrive() -> None:
    fake = FakeHubspot()
    people = [member(f"{'refuse' if i == 61 else 'ann'}-{i}") for i in range(100)]
    with sent(fake, hubspot) as send:
        outcomes = send(*people)
    assert [op_id for op_id, outcome in outcomes.items() if outcome.state == "failed"] == ["vips-add-refuse-61"]
    assert len(fake.members) == 99 and len(fake.requests) <= 15


def test_who_is_named_in_an_answer_of_many_fails_and_the_others_do_not_go_again() -> None:
    fake = FakeHubspot(multi_status=True)
    with sent(fake, hubspot) as send:
        outcomes = send(member("ann-1"), member("refuse-2"), member("ann-3"))
    assert [(each.state, each.reason) for each in outcomes.values()] == [
        ("delivered", "HTTP 207"), ("failed", "HTTP 207, VALIDATION_ERROR"), ("delivered", "HTTP 207"),
    ]  # fmt: skip
    assert len(fake.requests) == 1


def test_a_property_that_does_not_exist_fails_all_in_one_call() -> None:
    fake = FakeHubspot()
    with sent(fake, hubspot) as send:
        people = [member(f"ann-{i}", email=f"ann-{i}@example.com", unknown_property="x") for i in range(8)]
        outcomes = send(*people)
    assert states(outcomes) == ["failed"] * 8 and len(fake.requests) == 1
    assert {outcome.reason for outcome in outcomes.values()} == {"HTTP 400, VALIDATION_ERROR"}


def test_values_are_said_as_properties_take_them() -> None:
    fake = FakeHubspot()
    with sent(fake, hubspot) as send:
        send(
            member("ann", email="Ann@Example.com", colours=["red", "blue"], newsletter=False, city=None, spent="12.50")
        )
    assert fake.contacts["ann@example.com"]["properties"] == {
        "email": "ann@example.com", "colours": "red;blue", "newsletter": "false", "city": "", "spent": "12.50",
        "cdp_vip": "true",
    } | {"email": "Ann@Example.com"}  # fmt: skip


def test_who_leaves_stays_a_contact_and_who_never_was_one_becomes_none() -> None:
    fake = FakeHubspot()
    with sent(fake, hubspot) as send:
        send(member("ann"))
        outcomes = send(member("ann", "remove"), member("ghost", "remove"))
    assert states(outcomes) == ["delivered", "delivered"]
    assert fake.contacts["ann@example.com"]["properties"]["cdp_vip"] == "false"
    assert set(fake.contacts) == {"ann@example.com"}


def test_nobody_can_be_taken_out_where_nothing_says_who_is_in() -> None:
    fake = FakeHubspot()
    with sent(fake, hubspot, member_property=None) as send:
        [outcome] = send(member("ann", "remove")).values()
    assert outcome.state == "failed" and "member_property" in outcome.reason and fake.requests == []


def test_the_same_person_in_two_syncs_goes_in_two_calls_of_which_the_later_counts() -> None:
    fake = FakeHubspot()
    with sent(fake, hubspot) as send:
        outcomes = send(
            member("ann", sync="vips", email="ann@example.com", tier="gold"),
            member("ann", sync="sale", email="ANN@example.com", tier="silver"),
        )
    assert states(outcomes) == ["delivered", "delivered"]
    assert fake.contacts["ann@example.com"]["properties"]["tier"] == "silver"


def test_the_responsible_person_gets_a_task_on_the_customers_contact_once() -> None:
    fake = FakeHubspot()
    known(fake, "ann")
    task = act("ann", words=TASK, email="Ann@example.com", hubspot_owner_id="Sam@shop.example", hs_task_priority="HIGH")
    with sent(fake, hubspot) as send:
        assert states(send(task)) == ["delivered"]
        assert states(send(task)) == ["delivered"]
    [made] = fake.tasks
    assert fake.links == {(made["id"], "1")}
    assert made["properties"] == {
        "cdp_operation": "low_nps-ann", "hs_task_subject": "Call Zoë", "hs_task_body": "She gave us a 3.",
        "hubspot_owner_id": "77", "hs_task_priority": "HIGH", "hs_task_status": "NOT_STARTED", "hs_task_type": "TODO",
        "hs_timestamp": "2026-03-10T09:00:00Z",
    }  # fmt: skip
    assert fake.asked("GET", "/crm/v3/owners") == 1


def test_a_task_that_could_not_be_put_on_its_contact_is_completed_and_not_made_again() -> None:
    fake = FakeHubspot()
    known(fake, "ann")
    fake.link_fails = True
    with sent(fake, hubspot) as send:
        [outcome] = send(act("ann", words=TASK)).values()
        assert outcome.state == "retry"
        fake.link_fails = False
        assert states(send(act("ann", words=TASK))) == ["delivered"]
    assert len(fake.tasks) == 1 and len(fake.links) == 1


def test_a_task_about_nobody_or_for_nobody_is_refused_and_the_others_are_made() -> None:
    fake = FakeHubspot()
    known(fake, "ann", "bea")
    with sent(fake, hubspot) as send:
        outcomes = send(
            act("ann", words=TASK),
            act("ghost", words=TASK),
            act("bea", words=TASK, email="bea@example.com", hubspot_owner_id="nobody@shop.example"),
        )
    assert states(outcomes) == ["delivered", "failed", "failed"]
    assert [outcome.reason for outcome in outcomes.values()][1:] == [
        "nobody there has this email", "the owner is no user of HubSpot",
    ]  # fmt: skip
    assert len(fake.tasks) == 1


def test_a_task_nobody_could_tell_apart_is_not_sent_again_after_silence() -> None:
    fake = FakeHubspot()
    known(fake, "ann")
    with sent(fake, hubspot, operation_property=None) as send:
        [outcome] = send(act("ann", words={**TASK, "subject": "silent"})).values()
        assert outcome.state == "unknown"
        [made] = send(act("ann", trigger="other", words=TASK)).values()
    assert made.state == "delivered" and fake.links == {("5000", "1"), ("5001", "1")}


def test_a_daily_limit_rests_longer_than_one_of_ten_seconds() -> None:
    fake = FakeHubspot()
    with sent(fake, hubspot) as send:
        outcomes = send(member("wait-1"), member("ann"))
    assert [(outcome.state, outcome.after) for outcome in outcomes.values()] == [
        ("retry", timedelta(seconds=10)), ("untried", timedelta(seconds=10)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "headers", "after"),
    [
        (423, {}, timedelta(seconds=2)),
        (477, {"Retry-After": "86400"}, timedelta(days=1)),
        (477, {}, timedelta(hours=1)),
    ],
)
def test_a_locked_or_a_moving_account_rests_and_nobody_is_refused_for_it(
    code: int, headers: dict[str, str], after: timedelta
) -> None:
    """HubSpot's page on errors: a lock lasts two seconds, a migration says in Retry-After how long (up to a day)."""
    with sent(lambda _: Answer(code, headers), hubspot) as send:
        outcomes = send(member("ann"), member("bea"))
    assert [(each.state, each.after) for each in outcomes.values()] == [("retry", after), ("untried", after)]
    assert f"HTTP {code}" in next(iter(outcomes.values())).reason


def test_who_enters_and_leaves_by_event_is_marked_alike() -> None:
    fake = FakeHubspot()
    with sent(fake, hubspot) as send:
        entered, left = member("ann", "entered"), member("ann", "left")
        assert states(send(entered)) == ["delivered"]
        assert fake.held() == {"ann"}
        assert states(send(Delivery("left", "left", left.payload))) == ["delivered"]
    assert fake.held() == set()


def test_what_a_trigger_says_becomes_the_task_it_means() -> None:
    """From the act as it is declared to the task in the CRM, through the words activation makes of it."""
    fake = FakeHubspot()
    known(fake, "ann")
    declared = Act.model_validate({
        "destination": "there", "mapping": {"email": "email", "hubspot_owner_id": "owner"},
        "subject": "Call {{ person.given_name }}", "body": "Rated us {{ person.nps }}",
    })  # fmt: skip
    person = {"person_id": "p1", "email": "ann@example.com", "owner": "sam@shop.example", "given_name": "Ann", "nps": 3}
    said = message("low_nps", declared, hubspot("http://127.0.0.1"), person, "crossed:nps:2026-03-09", DAY)
    with sent(fake, hubspot) as send:
        assert states(send(Delivery("op-1", "act", said.payload))) == ["delivered"]
    [task] = fake.tasks
    made = {name: task["properties"][name] for name in ("hs_task_subject", "hs_task_body", "hubspot_owner_id")}
    assert made == {"hs_task_subject": "Call Ann", "hs_task_body": "Rated us 3", "hubspot_owner_id": "77"}

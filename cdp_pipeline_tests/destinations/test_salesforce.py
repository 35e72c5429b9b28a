"""Salesforce: each record for itself, sessions that end, limits that rest, and tasks for active users only."""

from __future__ import annotations

from datetime import timedelta

from cdp_pipeline.activation.protocol import Delivery
from cdp_pipeline_tests.destinations.fakes.people import act, sent, states
from cdp_pipeline_tests.destinations.fakes.people import member as by_email
from cdp_pipeline_tests.destinations.fakes.salesforce import FakeSalesforce, salesforce

TASK = {"subject": "Call Zoë", "body": "The machine reports a leak."}


def member(label: str, kind: str = "add", **data: object) -> Delivery:
    return by_email(label, kind, Cdp_Email__c=f"{label}@example.com", **({"LastName": "Zoë"} | data))


def leaver(label: str) -> Delivery:
    return by_email(label, "remove", Cdp_Email__c=f"{label}@example.com")


def test_a_record_that_is_refused_or_locked_does_not_touch_the_others() -> None:
    fake = FakeSalesforce()
    fake.locked = {"bea@example.com"}
    with sent(fake, salesforce) as send:
        outcomes = send(member("ann"), member("bea"), member("cem", LastName=None), member("dan"))
    assert [(outcome.state, outcome.reason) for outcome in outcomes.values()] == [
        ("delivered", "HTTP 200"), ("retry", "HTTP 200, UNABLE_TO_LOCK_ROW"),
        ("failed", "HTTP 200, REQUIRED_FIELD_MISSING"), ("delivered", "HTTP 200"),
    ]  # fmt: skip
    assert fake.held() == {"ann", "dan"}


def test_a_session_that_ends_early_is_opened_again_within_the_call() -> None:
    fake = FakeSalesforce()
    with sent(fake, salesforce) as send:
        assert states(send(member("ann"))) == ["delivered"]
        assert states(send(member("bea"))) == ["delivered"]
        assert fake.sessions == 1
        fake.end_sessions()
        assert states(send(member("cem"))) == ["delivered"]
    assert fake.sessions == 2 and fake.held() == {"ann", "bea", "cem"}


def test_a_limit_that_is_used_up_rests_the_destination_and_blames_nobody() -> None:
    fake = FakeSalesforce()
    fake.limit_reached = True
    with sent(fake, salesforce) as send:
        outcomes = send(member("ann"), member("bea"))
    assert [(each.state, each.after) for each in outcomes.values()] == [
        ("retry", timedelta(minutes=15)), ("untried", timedelta(minutes=15)),
    ]  # fmt: skip
    assert next(iter(outcomes.values())).code == 429


def test_a_field_that_does_not_exist_fails_all_in_one_call() -> None:
    fake = FakeSalesforce()
    with sent(fake, salesforce) as send:
        outcomes = send(*(member(f"ann-{i}", No_Such__c=1) for i in range(8)))
    assert {(each.state, each.reason) for each in outcomes.values()} == {("failed", "HTTP 400, INVALID_FIELD")}
    assert fake.asked("PATCH", "/composite/sobjects") == 1


def test_who_leaves_is_unmarked_and_who_never_was_there_is_not_made() -> None:
    fake = FakeSalesforce()
    with sent(fake, salesforce) as send:
        send(member("ann"))
        outcomes = send(leaver("ann"), leaver("ghost"))
    assert states(outcomes) == ["delivered", "delivered"]
    assert fake.records["Contact"]["ann@example.com"]["Cdp_Vip__c"] is False
    assert set(fake.records["Contact"]) == {"ann@example.com"}


def test_a_look_up_that_is_too_long_for_an_address_is_made_in_parts() -> None:
    fake = FakeSalesforce()
    people = [f"{'x' * 300}-{i}" for i in range(100)]
    with sent(fake, salesforce) as send:
        send(*map(member, people))
        assert states(send(*map(leaver, people))) == ["delivered"] * 100
    assert not any(each["Cdp_Vip__c"] for each in fake.records["Contact"].values())


def test_no_key_ends_a_query_early() -> None:
    fake = FakeSalesforce()
    odd = r"o'neil\') OR Id != null OR Email IN ('@example.com"
    with sent(fake, salesforce) as send:
        send(by_email("odd", Cdp_Email__c=odd, LastName="O'Neil"))
        assert states(send(by_email("odd", "remove", Cdp_Email__c=odd))) == ["delivered"]
    assert fake.records["Contact"][odd.lower()]["Cdp_Vip__c"] is False


def test_the_responsible_person_gets_a_task_about_the_contact_once() -> None:
    fake = FakeSalesforce()
    task = act("ann", words=TASK, Cdp_Email__c="Ann@example.com", OwnerId="sam@shop.example", Priority="High")
    with sent(fake, salesforce) as send:
        send(member("ann"))
        for _ in range(2):
            assert states(send(task)) == ["delivered"]
    [made] = fake.records["Task"].values()
    assert made == {
        "Id": "00T000000000000000", "Subject": "Call Zoë", "Description": "The machine reports a leak.",
        "WhoId": fake.records["Contact"]["ann@example.com"]["Id"], "OwnerId": "005000000000SAM", "Priority": "High",
        "ActivityDate": "2026-03-10", "Cdp_Operation__c": "low_nps-ann",
    }  # fmt: skip


def test_a_task_for_somebody_who_left_the_company_or_about_nobody_is_refused() -> None:
    fake = FakeSalesforce()
    with sent(fake, salesforce) as send:
        send(member("ann"))
        outcomes = send(
            act("ann", words=TASK, Cdp_Email__c="ann@example.com", OwnerId="old@shop.example"),
            act("ghost", words=TASK, Cdp_Email__c="ghost@example.com"),
            act("nobody", words=TASK, person_id="p1"),
        )
    assert [outcome.reason for outcome in outcomes.values()] == [
        "the owner is no active user of Salesforce", "nobody there has this Cdp_Email__c",
        "no 'Cdp_Email__c' in its mapping",
    ]  # fmt: skip


def test_a_task_nobody_could_tell_apart_is_not_sent_again_after_silence() -> None:
    """Without an operation field there is nothing to find the first one by."""
    fake = FakeSalesforce()

    def hangs_up(request):  # type: ignore[no-untyped-def]
        answer = fake(request)
        answer.hang_up = request.method == "POST" and request.path.endswith("/composite/sobjects")
        return answer

    with sent(hangs_up, salesforce, operation_field=None) as send:
        send(member("ann"))
        [outcome] = send(act("ann", words=TASK, Cdp_Email__c="ann@example.com")).values()
    assert outcome.state == "unknown" and len(fake.records["Task"]) == 1

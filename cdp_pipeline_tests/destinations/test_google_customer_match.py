"""Google: what it takes it processes for hours; operations wait for its word, and are not sent again meanwhile."""

from __future__ import annotations

from datetime import timedelta

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import Op, open_ledger
from cdp_pipeline.activation.protocol import Delivery
from cdp_pipeline.destinations import destination_for
from cdp_pipeline_tests.activation.projects import NOW, project
from cdp_pipeline_tests.destinations.fakes.google_customer_match import FakeGoogle, google
from cdp_pipeline_tests.destinations.fakes.people import member, sent, states
from cdp_pipeline_tests.destinations.servers import Receiver


def test_members_wait_in_the_ledger_until_google_has_processed_them() -> None:
    fake = FakeGoogle(takes_until=2)
    people = [member(f"ann-{i}") for i in range(40)]
    with Receiver(fake) as receiver, open_ledger("sqlite://") as ledger:
        there = google(f"http://127.0.0.1:{receiver.port}")
        ledger.send_once([Op(p.op_id, "alert:t", there.name, p.op_id, p.kind, p.payload) for p in people], NOW)
        states_after = []
        for minutes in (0, 10, 31, 62, 93):
            deliver(ledger, project(there), now=NOW + timedelta(minutes=minutes), connect=destination_for)
            states_after.append({row["state"] for row in ledger.about([p.op_id for p in people])})
    assert states_after == [{"retry"}, {"retry"}, {"retry"}, {"delivered"}, {"delivered"}]
    assert fake.asked("POST", ":ingest") == 1 and len(fake.asked_for[0]["audienceMembers"]) == 40
    # One question for a request, not one for each member; none before its time.
    assert fake.asked("GET", "requestStatus") == 3


def test_a_refused_member_is_named_and_the_others_go_again_without_them() -> None:
    fake = FakeGoogle()
    with sent(fake, google) as send:
        outcomes = send(member("ann-1"), member("refuse-2"), member("ann-3"))
    assert [(outcome.state, outcome.reason) for outcome in outcomes.values()] == [
        ("delivered", "SUCCESS"), ("failed", "HTTP 400, INVALID_SHA256_FORMAT"), ("delivered", "SUCCESS"),
    ]  # fmt: skip
    assert fake.asked("POST", ":ingest") == 2


def test_a_list_that_is_not_ours_fails_all_in_one_call_with_googles_own_reason() -> None:
    fake = FakeGoogle()
    with sent(fake, google, list_id="98") as send:
        outcomes = send(*(member(f"ann-{i}") for i in range(500)))
    assert {(each.state, each.reason) for each in outcomes.values()} == {("failed", "HTTP 400, INVALID_USER_LIST_ID")}
    assert fake.asked("POST", ":ingest") == 1


def test_what_google_could_not_use_is_told_by_number_and_reason() -> None:
    fake = FakeGoogle(ends="PARTIAL_SUCCESS")
    with sent(fake, google) as send:
        [outcome] = send(member("ann-1")).values()
    assert outcome.state == "delivered"
    assert outcome.reason == "PARTIAL_SUCCESS: 2 PROCESSING_ERROR_REASON_INVALID_CUSTOM_VARIABLE"


def test_a_request_that_failed_later_is_made_again() -> None:
    fake = FakeGoogle(takes_until=1, ends="FAILED")
    person = member("ann-1")
    with sent(fake, google) as send:
        [outcome] = send(person).values()
        assert outcome.state == "accepted"
        [outcome] = send(Delivery(person.op_id, person.kind, person.payload, outcome.reference)).values()
    assert (outcome.state, outcome.reference) == ("retry", "")


def test_a_request_that_never_ends_is_made_again_after_two_days() -> None:
    fake = FakeGoogle(takes_until=100)
    person = member("ann-1")
    with sent(fake, google) as send:
        [outcome] = send(person).values()
        asked = Delivery(person.op_id, person.kind, person.payload, outcome.reference)
        [outcome] = send(asked, now=NOW + timedelta(days=1)).values()
        assert outcome.state == "accepted"
        [outcome] = send(asked, now=NOW + timedelta(days=3)).values()
    assert outcome.state == "retry"


def test_terms_and_consent_are_said_with_members_and_not_with_those_who_leave() -> None:
    fake = FakeGoogle()
    with sent(fake, google, login_account_id="555", ad_personalization="denied") as send:
        send(member("ann-1"))
        assert states(send(member("ann-1", "remove"))) == ["delivered"]
    ingest, remove = fake.asked_for
    assert ingest["consent"] == {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_DENIED"}
    assert ingest["termsOfService"] == {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
    assert ingest["destinations"] == [{
        "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
        "loginAccount": {"accountType": "GOOGLE_ADS", "accountId": "555"}, "productDestinationId": "99",
    }]  # fmt: skip
    assert "consent" not in remove and "termsOfService" not in remove
    assert fake.held() == set() and fake.tokens == 1


def test_nothing_that_names_a_person_is_in_any_request() -> None:
    fake = FakeGoogle()
    with sent(fake, google) as send:
        address = {"first_name": "Zoë", "last_name": "Frei", "country": "CH", "postal_code": "8004"}
        send(member("ann-1", email="ann-1@example.com", phone="+41446681800", **address))
    said = b" ".join(each.body for each in fake.requests if "Members" in each.path).decode()
    assert said and not any(word in said for word in ("@", "ann-1", "Zo", "Frei", "668"))


def test_a_token_that_ends_before_its_time_is_asked_for_again() -> None:
    fake = FakeGoogle()
    with sent(fake, google) as send:
        send(member("ann-1"))
        fake.valid.clear()
        [outcome] = send(member("ann-2")).values()
        assert outcome.state == "retry"
        assert states(send(member("ann-2"))) == ["delivered"]
    assert fake.tokens == 2

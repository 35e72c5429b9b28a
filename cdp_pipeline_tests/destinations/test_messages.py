"""What is particular to Slack, Twilio's text messages and FCM push: what a message looks like, what an answer means."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import open_ledger
from cdp_pipeline.activation.notices import Notice, notify
from cdp_pipeline.activation.protocol import Delivery, DestinationError, Outcome
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline_tests.activation.projects import NOW, project
from cdp_pipeline_tests.destinations.fakes.fcm import FakeFcm, credentials, error, fcm
from cdp_pipeline_tests.destinations.fakes.slack import FakeSlack, slack
from cdp_pipeline_tests.destinations.fakes.twilio import FakeTwilio, twilio
from cdp_pipeline_tests.destinations.kit import bench_of
from cdp_pipeline_tests.destinations.servers import Answer, Receiver

MINUTE = timedelta(minutes=1)


def note(**payload: object) -> Delivery:
    return Delivery("0f3a", "act", {"title": "Low NPS", "body": "Call them.", **payload})


def send(spec: Destination, *batch: Delivery) -> list[Outcome]:
    with destination_for(spec) as connection:
        return connection.deliver(batch, now=NOW, within=MINUTE)


def answered(answer: Answer, make: Any, **payload: object) -> Outcome:
    """What becomes of a message that is answered so."""
    with Receiver(lambda _: answer) as receiver:
        [outcome] = send(make(f"http://127.0.0.1:{receiver.port}"), note(**payload))
    return outcome


# Slack


def test_nothing_a_customer_wrote_calls_the_whole_channel_or_hides_a_link() -> None:
    fake = FakeSlack()
    with Receiver(fake) as receiver:
        body = "<!channel> from <https://evil.example|our shop> & Söhne"
        [outcome] = send(slack(f"http://127.0.0.1:{receiver.port}/api"), note(title="Low\nNPS", body=body))
    assert outcome.state == "delivered"
    [message] = fake.posted
    assert message["channel"] == "#service"
    assert message["text"] == ("*Low NPS*\n&lt;!channel&gt; from &lt;https://evil.example|our shop&gt; &amp; Söhne")


@pytest.mark.parametrize(
    ("said", "state", "refused_us"),
    [("invalid_auth", "retry", True), ("channel_not_found", "retry", True), ("ratelimited", "retry", False),
     ("service_unavailable", "retry", False), ("fatal_error", "unknown", False), ("msg_too_long", "failed", False),
     ("a word that is new: ann@example.com", "failed", False)],
)  # fmt: skip
def test_slack_says_200_and_means_what_its_word_means(said: str, state: str, refused_us: bool) -> None:
    outcome = answered(Answer(body={"ok": False, "error": said}), slack)
    assert (outcome.state, outcome.refused_us) == (state, refused_us)
    assert outcome.reason == ("Slack: refused" if "@" in said else f"Slack: {said}")


def test_the_project_is_told_of_failures_in_slack() -> None:
    fake = FakeSlack()
    with Receiver(fake) as receiver, open_ledger("sqlite://") as ledger:
        whole = project(slack(f"http://127.0.0.1:{receiver.port}/api"), alerts=["team"])
        told = Notice("run-1", "A run failed", "Step 'x'.", "http://127.0.0.1:3000/runs/1")
        for _ in range(2):
            notify(ledger, whole, told, NOW)
            deliver(ledger, whole, now=NOW, connect=destination_for)
    [message] = fake.posted
    assert message["text"].startswith("*[tests] A run failed*\nStep 'x'.")


# Twilio


def test_a_text_message_goes_out_from_the_number_or_the_messaging_service() -> None:
    fake = FakeTwilio()
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        send(twilio(url), note(to="+49 151 1234-5601"))
        send(twilio(url, sender="MG0123"), note(to="+4915112345601"))
    assert fake.sent == [
        {"To": "+4915112345601", "From": "+4915100000000", "Body": "Call them."},
        {"To": "+4915112345601", "MessagingServiceSid": "MG0123", "Body": "Call them."},
    ]


@pytest.mark.parametrize("number", ["0151 12345601", "ann", "", "+49", "+4915112345601,+4915112345602", "+0151234567"])
def test_a_number_without_its_country_is_not_guessed_at(number: str) -> None:
    fake = FakeTwilio()
    with Receiver(fake) as receiver:
        [outcome] = send(twilio(f"http://127.0.0.1:{receiver.port}"), note(to=number))
    assert outcome.state == "failed" and fake.sent == []


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [(Answer(400, body={"code": 21610, "message": "to +4915112345601"}), "failed",
      "HTTP 400, Twilio 21610: they asked for no more messages"),
     (Answer(400, body={"code": 21999}), "failed", "HTTP 400, Twilio 21999"),
     (Answer(400, body=b"<html>"), "failed", "HTTP 400"),
     (Answer(429, body={"code": 20429}), "retry", "HTTP 429, Twilio 20429"),
     (Answer(503), "retry", "HTTP 503"),
     (Answer(500, body={"code": 20500}), "unknown", "HTTP 500, Twilio 20500"),
     (Answer(504), "unknown", "HTTP 504")],
)  # fmt: skip
def test_what_twilio_answers_is_told_by_its_code_and_a_message_in_doubt_is_not_repeated(
    answer: Answer, state: str, reason: str
) -> None:
    outcome = answered(answer, twilio, to="+4915112345601")
    assert (outcome.state, outcome.reason) == (state, reason)


# FCM


def test_one_token_serves_many_messages_and_is_renewed_before_it_ends() -> None:
    fake = FakeFcm()
    with Receiver(fake) as receiver, destination_for(fcm(f"http://127.0.0.1:{receiver.port}")) as connection:
        for minutes in (0, 10, 56):
            batch = [note(to="ann:device"), note(to="ann:device")]
            outcomes = connection.deliver(batch, now=NOW + timedelta(minutes=minutes), within=MINUTE)
            assert [outcome.state for outcome in outcomes] == ["delivered", "delivered"]
    assert len(fake.tokens) == 2 and len(fake.sent) == 6


def test_a_token_that_was_withdrawn_is_asked_for_anew() -> None:
    fake = FakeFcm()
    with Receiver(fake) as receiver, destination_for(fcm(f"http://127.0.0.1:{receiver.port}")) as connection:
        assert connection.deliver([note(to="ann:device")], now=NOW, within=MINUTE)[0].state == "delivered"
        fake.valid.clear()
        [outcome] = connection.deliver([note(to="ann:device")], now=NOW, within=MINUTE)
        assert outcome.state == "delivered"
    assert len(fake.tokens) == 2


def test_a_notification_says_its_words_and_replaces_itself_on_the_device() -> None:
    fake = FakeFcm()
    with Receiver(fake) as receiver:
        send(fcm(f"http://127.0.0.1:{receiver.port}"), note(to="ann:device"))
    [message] = fake.sent
    assert message["token"] == "ann:device"
    assert message["notification"] == {"title": "Low NPS", "body": "Call them."}
    assert message["android"]["notification"]["tag"] == message["apns"]["headers"]["apns-collapse-id"] == "0f3a"


@pytest.mark.parametrize(
    ("answer", "state", "refused_us"),
    [(error(404, "NOT_FOUND", "UNREGISTERED"), "failed", False),
     (error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), "failed", False),
     (error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), "failed", False),
     (error(404, "NOT_FOUND"), "retry", True),
     (error(403, "PERMISSION_DENIED"), "retry", True),
     (error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), "retry", True),
     (error(503, "UNAVAILABLE", "UNAVAILABLE"), "retry", False),
     (error(500, "INTERNAL", "INTERNAL"), "unknown", False)],
)  # fmt: skip
def test_a_dead_device_fails_alone_and_a_refused_account_rests_all(
    answer: Answer, state: str, refused_us: bool
) -> None:
    fake = FakeFcm()
    with Receiver(lambda request: fake(request) if request.path == "/token" else answer) as receiver:
        [outcome] = send(fcm(f"http://127.0.0.1:{receiver.port}"), note(to="ann:device"))
    assert (outcome.state, outcome.refused_us) == (state, refused_us)
    assert "FCM" in outcome.reason


@pytest.mark.parametrize("given", ["", "nonsense", "{}", "[]", credentials("http://127.0.0.1:9", private_key="x")])
def test_credentials_that_are_none_are_a_mistake_in_the_declaration(given: str) -> None:
    with pytest.raises(DestinationError):
        destination_for(fcm("http://127.0.0.1:9").model_copy(update={"credentials": given}))


@pytest.mark.parametrize(("kind", "package"), [("fcm", "cryptography"), ("s3", "boto3"), ("sftp", "asyncssh")])
def test_a_connector_without_its_package_says_how_to_get_it(
    kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench_of(kind, tmp_path) as bench, monkeypatch.context() as without:
        for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
            without.setitem(sys.modules, name, None)
        with pytest.raises(DestinationError, match=f"needs {package}: pip install 'cdp-pipeline.{kind}.'"):
            bench.connect()

"""An address that is refused at once is as dead as one whose letter came back: real servers, up to the next letter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.gates import ContactGates
from cdp_pipeline.activation.ledger import Ledger, Op, open_ledger
from cdp_pipeline.activation.receipts import of_operations
from cdp_pipeline.consent.ledger import open_consents
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.identifier import Identifier
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.activation.projects import NOW, mail, project, trigger
from cdp_pipeline_tests.consent.people import EMAIL, PHONE, Town, consent
from cdp_pipeline_tests.destinations.fakes.fcm import FakeFcm, error, fcm
from cdp_pipeline_tests.destinations.fakes.twilio import twilio
from cdp_pipeline_tests.destinations.servers import Answer, Mailbox, Receiver

DEVICE = Identifier(kind="identifier", name="push_token", description="A device.", priority=500)
PERMITS = {"purposes": {"marketing": {"default": "yes"}, "service": {"default": "yes"}},
           "channels": {"sms": {"purposes": ["marketing"], "default": "yes"}}}  # fmt: skip
TYPES = {"mail": ("email", "ann@example.com"), "sms": ("phone", "+4915112345601"), "push": ("push_token", "ann:device")}


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with open_ledger("sqlite://") as opened:
        yield opened


def sent_twice(ledger: Ledger, whole: Project) -> list[str]:
    """What becomes of a message, and of another one an hour later, for somebody with one address."""
    [name] = whole.destinations
    identifier = TYPES[name]
    town = Town({"ann": {identifier}})
    for number in range(2):
        now = NOW + number * timedelta(hours=1)
        payload = {"to": identifier[1], "title": "Hello", "subject": "Hello", "body": "Words"}
        ledger.send_once([Op(f"a{number}", "trigger:offer", name, "ann", "act", payload, str(number), "0")], now)
        gates = ContactGates(ledger, whole, open_consents(ledger), town)
        deliver(ledger, whole, now=now, connect=destination_for, gates=gates, consents=partial(open_consents, ledger))
    return [f"{row['state']}: {row['reason']}" for row in ledger.about(["ann"])]


def house(destination: Any, *documents: Any) -> Project:
    offer = trigger(name="offer", purpose="marketing", do=[{"destination": destination.name}])
    return project(destination, offer, EMAIL, PHONE, DEVICE, *documents)


@pytest.mark.parametrize(
    ("step", "words", "becomes"),
    [
        ("RCPT", "550 5.1.1 unknown", ["failed: SMTP 550 5.1.1", "suppressed: gate: suppressed: bounce"]),
        ("DATA", "550 5.2.1 disabled", ["failed: SMTP 550 5.2.1", "suppressed: gate: suppressed: bounce"]),
        # Why is not said, or it is about the letter or about us: another one may well arrive.
        ("RCPT", "550 no", ["failed: SMTP 550"] * 2),
        ("RCPT", "550 5.7.1 policy", ["failed: SMTP 550 5.7.1"] * 2),
        ("DATA", "554 5.7.1 spam", ["failed: SMTP 554 5.7.1"] * 2),
        ("RCPT", "450 4.1.1 later", ["retry: SMTP 450 4.1.1", "pending: "]),
        # A word for good under a number for now: it is tried again, and the next letter comes after it.
        ("RCPT", "451 5.1.1 muddled", ["retry: SMTP 451 5.1.1", "pending: "]),
    ],
)
def test_only_a_final_word_about_the_address_keeps_the_next_letter_from_it(
    ledger: Ledger, step: str, words: str, becomes: list[str]
) -> None:
    with Mailbox(lambda at, _: words if at == step else None) as mailbox:
        found = sent_twice(ledger, house(mail(mailbox.port)))
    assert found == becomes
    told = [event for events in of_operations(ledger, ["a0", "a1"]).values() for event, _ in events]
    assert told == (["message_bounced"] if "bounce" in becomes[1] else [])


@contextmanager
def texts(code: int) -> Iterator[Any]:
    with Receiver(lambda _: Answer(400, body={"code": code, "message": "to +4915112345601"})) as receiver:
        yield twilio(f"http://127.0.0.1:{receiver.port}")


@pytest.mark.parametrize(
    ("code", "reason"),
    [(21211, "suppressed: bounce"), (21614, "suppressed: bounce"), (21610, "permission: sms: denied"), (21617, None)],
)
def test_a_number_that_is_none_and_one_whose_owner_asked_for_no_more_get_no_second_text(
    ledger: Ledger, code: int, reason: str | None
) -> None:
    with texts(code) as destination:
        first, second = sent_twice(ledger, house(destination, consent(**PERMITS)))
    assert first.startswith(f"failed: HTTP 400, Twilio {code}")
    assert second == (first if reason is None else f"suppressed: gate: {reason}")


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([], "suppressed: complaint"),
        ([consent(**PERMITS | {"channels": {}})], "consent: marketing: denied"),
        ([consent(**PERMITS | {"channels": {"sms": {"purposes": ["service"]}}})], "consent: marketing: denied"),
    ],
)
def test_a_no_counts_whatever_the_consent_document_asks_for(ledger: Ledger, documents: list[Any], reason: str) -> None:
    with texts(21610) as destination:
        _, second = sent_twice(ledger, house(destination, *documents))
    assert second == f"suppressed: gate: {reason}"


@pytest.mark.parametrize(("code", "dead"), [("UNREGISTERED", True), ("INVALID_ARGUMENT", False)])
def test_a_device_that_is_not_registered_any_more_gets_no_second_notification(
    ledger: Ledger, code: str, dead: bool
) -> None:
    fake = FakeFcm()
    said = error(404 if dead else 400, "NOT_FOUND", code)
    with Receiver(lambda request: fake(request) if request.path == "/token" else said) as receiver:
        first, second = sent_twice(ledger, house(fcm(f"http://127.0.0.1:{receiver.port}")))
    assert first.endswith(f"FCM {code}")
    assert second == ("suppressed: gate: suppressed: bounce" if dead else first)

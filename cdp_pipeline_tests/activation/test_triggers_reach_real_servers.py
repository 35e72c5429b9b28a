"""A crossing and an entry walk through the outbox to a real webhook receiver and a real mailbox, once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.triggers import fired, occasions
from cdp_pipeline.destinations import destination_for
from cdp_pipeline_tests.activation.projects import DAY, NOW, crossing, mail, move, project, trigger, webhook
from cdp_pipeline_tests.destinations.servers import Mailbox, Receiver


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as opened:
        yield opened


ANN = {"email": "ann@example.com", "given_name": "Ann", "spent": 12}


def test_a_crossing_and_an_entry_arrive_once_however_often_they_are_evaluated(ledger: Ledger) -> None:
    letter = {
        "destination": "mail", "to": "email", "mapping": {"given_name": "given_name"},
        "subject": "Hello {{ given_name }}", "body": "You spent {{ person.spent }}.",
    }  # fmt: skip
    with Receiver() as receiver, Mailbox() as mailbox:
        slipping = trigger()
        welcome = trigger(name="welcome", on={"entered": "vip"}, do=[letter, {"destination": "hook"}])
        whole = project(webhook(receiver.url), mail(mailbox.port), slipping, welcome)
        for evaluation in range(3):
            now = NOW + timedelta(minutes=evaluation)
            for each in (slipping, welcome):
                happened = occasions(each, [move("p1")], [crossing("p2")], not_before=DAY, until=DAY)
                ops = fired(each, happened, people={"p1": ANN}, destinations=whole.destinations)
                ledger.fire(each.name, ops, day=DAY, now=now)
            deliver(ledger, whole, now=now, connect=destination_for)
        assert sorted(request.json["type"] for request in receiver.requests) == ["trigger.slipping", "trigger.welcome"]
        assert [request.json["data"] for request in receiver.requests] == [{"person_id": "p2"}, {"person_id": "p1"}]
        assert all(request.is_signed_with(b"a key that only tests know") for request in receiver.requests)
        [message] = mailbox.messages
        assert (message["To"], message["Subject"]) == ("ann@example.com", "Hello Ann")
        assert message.get_content().strip() == "You spent 12."
    assert set(ledger.counts().values()) == {1} and {state for *_, state in ledger.counts()} == {"delivered"}


def test_a_dry_run_keeps_the_exact_payload_and_is_never_sent_later(ledger: Ledger) -> None:
    slipping = trigger()
    ops = fired(slipping, occasions(slipping, [], [crossing("p1")], not_before=DAY, until=DAY), people={},
                destinations={"hook": webhook("http://127.0.0.1:9/")})  # fmt: skip
    ledger.fire("slipping", ops, day=DAY, now=NOW)
    summary = deliver(ledger, project(webhook("http://127.0.0.1:9/", dry_run=True)), now=NOW, connect=destination_for)
    assert summary.totals == {"dry_run": 1}
    [shown] = ledger.about(["p1"])
    assert shown["state"] == "dry_run" and shown["payload"] == ops[0].payload_text
    with Receiver() as receiver:
        ledger.fire("slipping", ops, day=DAY, now=NOW)
        deliver(ledger, project(webhook(receiver.url)), now=NOW + timedelta(days=1), connect=destination_for)
        assert receiver.requests == []

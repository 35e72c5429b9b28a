"""The conformance kit: what every destination must do, each driven against a real server on loopback.

A new connector joins by adding a Bench: how to make it answer well, refuse for good, ask to wait, and not answer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import Op, open_ledger
from cdp_pipeline.activation.protocol import Delivery, DestinationConnection
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.destination import Smtp, Webhook
from cdp_pipeline_tests.activation.projects import NOW, mail, project, webhook
from cdp_pipeline_tests.destinations.servers import Answer, Mailbox, Received, Receiver, free_port

MINUTE = timedelta(minutes=1)


@dataclass
class Bench:
    """One destination with its server; recipients named refuse@, wait@ or silent@ get that treatment."""

    spec: Webhook | Smtp
    absent: Webhook | Smtp
    arrived: Callable[[], list[str]]
    waits: timedelta | None

    def connect(self) -> DestinationConnection:
        return destination_for(self.spec)


def to(name: str, number: int = 0) -> Delivery:
    letter = {"to": f"{name}@example.com", "subject": "Hello", "body": f"Number {number}"}
    return Delivery(f"{name}-{number}", "act", letter)


def _answer(request: Received) -> Answer:
    match request.json["to"].partition("@")[0]:
        case "refuse":
            return Answer(422, applied=False)
        case "wait":
            return Answer(429, {"Retry-After": "120"}, applied=False)
        case "silent":
            return Answer(hang_up=True)
    return Answer()


def _script(step: str, recipient: str) -> str | None:
    match recipient.partition("@")[0], step:
        case "refuse", "RCPT":
            return f"550 5.1.1 <{recipient}> unknown"
        case "wait", "RCPT":
            return "421 4.3.2 come back later"
        case "silent", "DATA":
            return "HANG UP AFTER TAKING IT"
    return None


@pytest.fixture(params=["webhook", "smtp"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with ExitStack() as stack:
        if request.param == "webhook":
            receiver = stack.enter_context(Receiver(_answer))
            absent = webhook(f"http://127.0.0.1:{free_port()}/")
            yield Bench(webhook(receiver.url), absent, lambda: list(receiver.order), timedelta(seconds=120))
        else:
            mailbox = stack.enter_context(Mailbox(_script))
            yield Bench(
                mail(mailbox.port),
                mail(free_port()),
                lambda: [str(message["Message-ID"]).strip("<>").partition("@")[0] for message in mailbox.messages],
                None,
            )


def test_a_batch_arrives_in_order_with_one_outcome_each(bench: Bench) -> None:
    batch = [to("ann", number) for number in range(5)]
    with bench.connect() as connection:
        outcomes = connection.deliver(batch, now=NOW, within=MINUTE)
    assert [(outcome.op_id, outcome.state) for outcome in outcomes] == [(each.op_id, "delivered") for each in batch]
    assert bench.arrived() == [each.op_id for each in batch]


def test_one_refused_in_a_batch_does_not_touch_the_others(bench: Bench) -> None:
    with bench.connect() as connection:
        outcomes = connection.deliver([to("ann", 1), to("refuse", 2), to("ann", 3)], now=NOW, within=MINUTE)
    assert [outcome.state for outcome in outcomes] == ["delivered", "failed", "delivered"]
    assert bench.arrived() == ["ann-1", "ann-3"]


def test_a_destination_that_asks_to_wait_is_left_alone(bench: Bench) -> None:
    with bench.connect() as connection:
        outcomes = connection.deliver([to("ann", 1), to("wait", 2), to("ann", 3)], now=NOW, within=MINUTE)
    assert [outcome.state for outcome in outcomes] == ["delivered", "retry", "untried"]
    assert [outcome.after for outcome in outcomes[1:]] == [bench.waits, bench.waits]
    assert bench.arrived() == ["ann-1"]


def test_a_destination_that_is_not_there_is_a_retry_and_spares_the_rest(bench: Bench) -> None:
    with destination_for(bench.absent) as connection:
        outcomes = connection.deliver([to("ann", 1), to("ann", 2)], now=NOW, within=MINUTE)
    assert [outcome.state for outcome in outcomes] == ["retry", "untried"]


def test_silence_after_sending_is_repeated_only_where_repeating_is_safe(bench: Bench) -> None:
    with bench.connect() as connection:
        [outcome] = connection.deliver([to("silent", 1)], now=NOW, within=MINUTE)
        assert outcome.state == ("retry" if connection.repeatable else "unknown")
        [again] = connection.deliver([to("ann", 2)], now=NOW, within=MINUTE)
    assert again.state == "delivered"
    assert bench.arrived() == ["silent-1", "ann-2"]


def test_the_same_operation_carries_the_same_key_every_time(bench: Bench) -> None:
    with bench.connect() as connection:
        for minutes in range(2):
            connection.deliver([to("ann", 1)], now=NOW + timedelta(minutes=minutes), within=MINUTE)
    assert set(bench.arrived()) == {"ann-1"}


def test_no_time_left_means_untried(bench: Bench) -> None:
    with bench.connect() as connection:
        outcomes = connection.deliver([to("ann", 1)], now=NOW, within=timedelta(milliseconds=10))
    assert [outcome.state for outcome in outcomes] == ["untried"]
    assert bench.arrived() == []


def test_nobody_is_named_in_logs_or_outcomes(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    names = ["ann", "refuse", "silent", "wait"]
    with bench.connect() as connection:
        said = [connection.deliver([to(name)], now=NOW, within=MINUTE) for name in names]
    with destination_for(bench.absent) as connection:
        said.append(connection.deliver([to("ann")], now=NOW, within=MINUTE))
    ours = [record.getMessage() for record in caplog.records if record.name != "mail.log"]  # The test server's own log.
    words = " ".join(ours) + " ".join(outcome.reason for outcomes in said for outcome in outcomes)
    assert "@example.com" not in words and "Hello" not in words and "Number 0" not in words


def _op(number: int, destination: str) -> Op:
    delivery = to("ann", number)
    return Op(delivery.op_id, "alert:test", destination, f"p{number}", "act", delivery.payload)


def test_a_dry_run_dials_nobody_and_keeps_the_payload(bench: Bench) -> None:
    dry = bench.spec.model_copy(update={"dry_run": True})
    with open_ledger("sqlite://") as ledger:
        ledger.send_once([_op(1, dry.name)], NOW)
        summary = deliver(ledger, project(dry), now=NOW, connect=destination_for)
        [shown] = ledger.about(["p1"])
    assert summary.totals == {"dry_run": 1}
    assert json.loads(str(shown["payload"])) == to("ann", 1).payload
    assert bench.arrived() == []


def test_never_more_than_the_rate_arrives_however_many_workers_ask(bench: Bench) -> None:
    limited = bench.spec.model_copy(update={"rate": 4.0})
    taken: list[float] = []
    with open_ledger("sqlite://") as ledger:
        ledger.send_once([_op(number, limited.name) for number in range(100)], NOW)
        for tenth in range(50):
            for worker in ("one", "two", "three"):
                claim = ledger.claim(
                    limited.name, limit=3, now=NOW + timedelta(seconds=tenth / 10), lease=MINUTE, worker=worker,
                    repeatable=True, max_attempts=5, rate=limited.rate,
                )  # fmt: skip
                taken += [tenth / 10] * len(claim.ops)
    for start in taken:
        assert sum(start <= at < start + 2 for at in taken) <= 4 * 2 + 3
    assert len(taken) >= 4 * 4

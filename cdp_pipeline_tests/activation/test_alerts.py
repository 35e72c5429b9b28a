"""People are told of a failure once, by webhook and by mail, or in a dry run by the log alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.notices import Notice, notify
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.activation.projects import NOW, mail, project, webhook
from cdp_pipeline_tests.destinations.servers import Answer, Mailbox, Receiver


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with open_ledger("sqlite://") as opened:
        yield opened


def tell(ledger: Ledger, whole: Project, key: str = "run-1:freshness") -> dict[str, int]:
    names = notify(ledger, whole, Notice(key, "Freshness failed", "orders: 3 days old", "/runs/1"), NOW)
    return deliver(ledger, whole, now=NOW, connect=destination_for, only=names).totals


def test_each_failure_is_told_once_to_every_alert_destination(ledger: Ledger) -> None:
    with Receiver() as receiver, Mailbox() as mailbox:
        whole = project(webhook(receiver.url), mail(mailbox.port), alerts=["hook", "mail"], owner="ann@example.com")
        assert tell(ledger, whole) == {"delivered": 2}
        assert tell(ledger, whole) == {}
        assert tell(ledger, whole, "run-2:freshness") == {"delivered": 2}
    assert receiver.requests[0].json["data"] == {
        "project": "tests", "title": "Freshness failed", "text": "orders: 3 days old", "link": "/runs/1",
    }  # fmt: skip
    assert (mailbox.messages[0]["To"], mailbox.messages[0]["Subject"]) == (
        "ann@example.com",
        "[tests] Freshness failed",
    )


def test_an_alert_that_does_not_get_through_is_tried_again(ledger: Ledger) -> None:
    codes = iter([503, 200])
    with Receiver(lambda _: Answer(next(codes))) as receiver:
        whole = project(webhook(receiver.url), alerts=["hook"])
        assert tell(ledger, whole) == {"retry": 1}
        later = NOW + timedelta(hours=1)
        assert deliver(ledger, whole, now=later, connect=destination_for).totals == {"delivered": 1}


def test_in_a_dry_run_the_log_says_what_would_be_sent(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    whole = project(webhook("http://127.0.0.1:9/", dry_run=True), alerts=["hook"])
    assert tell(ledger, whole) == {"dry_run": 1}
    assert "would tell 'hook': Freshness failed" in caplog.text

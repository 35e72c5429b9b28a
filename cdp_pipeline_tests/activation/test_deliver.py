"""A round of deliveries keeps to its time, its limit and what destinations ask for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import Ledger, Op, open_ledger
from cdp_pipeline.activation.protocol import canonical_json
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.activation.projects import NOW, project, webhook
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import PATIENCE

MINUTE = timedelta(minutes=1)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with open_ledger("sqlite://") as opened:
        opened.send_once([Op(f"op-{n}", "alert:x", "hook", f"p{n}", "act", {"n": n}) for n in range(5)], NOW)
        yield opened


def round_at(ledger: Ledger, whole: Project, now: datetime, **arguments: object) -> dict[str, int]:
    return deliver(ledger, whole, now=now, connect=destination_for, **arguments).totals  # type: ignore[arg-type]


def test_a_destination_that_hangs_costs_one_attempt_and_no_more_than_the_budget(ledger: Ledger) -> None:
    over = threading.Event()

    def hang(request: Received) -> Answer:
        over.wait(PATIENCE)
        return Answer(hang_up=True, applied=False)

    budget = timedelta(seconds=8)  # Time to begin in, however slow the machine.
    with Receiver(hang) as receiver:
        whole = project(webhook(receiver.url))
        assert round_at(ledger, whole, NOW, budget=budget) == {"retry": 1, "pending": 4}
        assert receiver.lines == 1
        assert round_at(ledger, whole, NOW + budget) == {}
        over.set()


def test_a_destination_that_asks_for_ten_minutes_gets_them(ledger: Ledger) -> None:
    answers = iter([Answer(), Answer(429, {"Retry-After": "600"}, applied=False)])
    with Receiver(lambda _: next(answers, Answer())) as receiver:
        whole = project(webhook(receiver.url))
        assert round_at(ledger, whole, NOW) == {"delivered": 1, "retry": 1, "pending": 3}
        assert round_at(ledger, whole, NOW + 9 * MINUTE) == {}
        assert len(receiver.requests) == 2
        assert round_at(ledger, whole, NOW + 11 * MINUTE) == {"delivered": 4}


def test_a_refused_secret_rests_the_destination_instead_of_failing_everything(ledger: Ledger) -> None:
    with Receiver(lambda _: Answer(401, applied=False)) as receiver:
        assert round_at(ledger, project(webhook(receiver.url)), NOW) == {"retry": 1, "pending": 4}
        assert len(receiver.requests) == 1


def test_a_limit_is_kept_and_the_rest_waits(ledger: Ledger) -> None:
    with Receiver() as receiver:
        whole = project(webhook(receiver.url))
        assert round_at(ledger, whole, NOW, limit=3) == {"delivered": 3}
        assert round_at(ledger, whole, NOW + MINUTE) == {"delivered": 2}


def test_what_goes_to_a_destination_no_longer_declared_waits_for_it(ledger: Ledger) -> None:
    assert round_at(ledger, project(), NOW) == {}
    assert ledger.counts() == {("alert:x", "hook", "pending"): 5}


def test_only_the_named_destinations_are_served(ledger: Ledger) -> None:
    with Receiver() as receiver:
        assert round_at(ledger, project(webhook(receiver.url)), NOW, only=["other"]) == {}


def test_a_destination_declared_wrongly_does_not_keep_the_others_from_being_served(ledger: Ledger) -> None:
    ledger.send_once([Op("z", "alert:x", "other", "p9", "act", {})], NOW)
    with Receiver() as receiver:
        broken = webhook(receiver.url, secret="whsec_not base64")
        counts = round_at(ledger, project(broken, webhook(receiver.url, name="other")), NOW)
    assert counts == {"unusable": 1, "delivered": 1}
    assert ledger.counts()["alert:x", "hook", "pending"] == 5


def test_every_value_of_a_profile_can_be_sent_and_money_stays_exact() -> None:
    payload = {
        "money": Decimal("12.3400"), "day": date(2026, 3, 9), "at": datetime(2026, 3, 9, 1, tzinfo=UTC), "none": None,
        "nan": float("nan"), "inf": [float("inf"), 1.5], "list": [{"a": Decimal("1")}], "yes": True,
    }  # fmt: skip
    assert json.loads(canonical_json(payload)) == {
        "money": "12.3400", "day": "2026-03-09", "at": "2026-03-09T01:00:00+00:00", "none": None,
        "nan": None, "inf": [None, 1.5], "list": [{"a": "1"}], "yes": True,
    }  # fmt: skip

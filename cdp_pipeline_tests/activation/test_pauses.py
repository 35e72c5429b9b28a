"""What refuses us, or is refused too often, stops by itself, is told once, and goes on when somebody has looked."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import Ledger, Op
from cdp_pipeline.activation.pauses import paused, resume
from cdp_pipeline.activation.plan import plan
from cdp_pipeline.activation.sync import approve, holds, submit
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.activation.projects import NOW, project, sync, webhook
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver

DAYS, MINUTE = timedelta(days=1), timedelta(minutes=1)


def acts(number: int, origin: str = "trigger:slipping", first: int = 0) -> list[Op]:
    people = range(first, first + number)
    return [Op(f"{origin}-{n}", origin, "hook", f"p{n}", "act", {"n": n}, str(n), "0") for n in people]


def round_at(ledger: Ledger, whole: Project, days: float = 0, **more: object) -> dict[str, int]:
    now = NOW + days * DAYS
    return deliver(ledger, whole, now=now, connect=destination_for, **more).totals  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [401, 403])
def test_a_destination_that_refuses_our_key_is_asked_once_and_told_about_once(ledger: Ledger, code: int) -> None:
    with Receiver(lambda _: Answer(code, applied=False)) as receiver, Receiver() as ours:
        whole = project(webhook(receiver.url), webhook(ours.url, name="ops"), alerts=["ops"])
        ledger.send_once(acts(20), NOW)
        for days in range(3):
            round_at(ledger, whole, days)
        assert len(receiver.requests) == 1
        [told] = [request.json["data"] for request in ours.requests]
        assert told["title"] == "hook is paused" and f"HTTP {code}" in told["text"]
        assert paused(ledger)["hook"].reason == f"HTTP {code}: the secret is refused"


def test_a_destination_declared_differently_is_served_again_and_so_is_one_that_somebody_resumes(ledger: Ledger) -> None:
    answers = iter([Answer(401, applied=False), Answer(), Answer(401, applied=False)])
    with Receiver(lambda _: next(answers, Answer())) as receiver:
        ledger.send_once(acts(1), NOW)
        whole, mended = project(webhook(receiver.url)), project(webhook(receiver.url, secret="another secret"))
        round_at(ledger, whole)
        assert round_at(ledger, whole, 1) == {"paused": 1}
        assert round_at(ledger, mended, 1) == {"delivered": 1}
        ledger.send_once(acts(1, first=1), NOW)
        round_at(ledger, mended, 2)
        assert not resume(ledger, "mail", NOW) and resume(ledger, "hook", NOW + 2 * DAYS)
        assert round_at(ledger, mended, 2) == {"delivered": 1}
    assert paused(ledger) == {}


def rejecting(share: int) -> Receiver:
    """Refuses one in `share` for good."""
    return Receiver(lambda request: Answer(422, applied=False) if request.json["n"] % share == 0 else Answer())


def test_an_origin_a_tenth_of_which_is_rejected_stops_while_the_others_go_on(ledger: Ledger) -> None:
    with rejecting(5) as receiver:
        whole = project(webhook(receiver.url, rate=50))
        ledger.send_once(acts(400), NOW)
        ledger.send_once(acts(4, "trigger:other", 1001), NOW)
        round_at(ledger, whole, limit=50)
        stopped = paused(ledger)["trigger:slipping"]
        assert stopped.reason == "'hook' rejected 10 of 50"
        states = {state: n for (origin, _, state), n in ledger.counts().items() if origin == "trigger:slipping"}
        assert states == {"delivered": 40, "failed": 10, "pending": 350}
        assert round_at(ledger, whole, 1) == {"delivered": 4}
        assert resume(ledger, "trigger:slipping", NOW + DAYS)
        round_at(ledger, whole, 1, limit=50)
        assert paused(ledger)["trigger:slipping"].reason == "'hook' rejected 10 of 50"


def test_a_tenth_is_not_more_than_a_tenth_and_few_are_no_reason(ledger: Ledger) -> None:
    with rejecting(10) as receiver:
        ledger.send_once(acts(400), NOW)
        assert round_at(ledger, project(webhook(receiver.url))) == {"delivered": 360, "failed": 40}
    with Receiver(lambda _: Answer(422)) as receiver:
        ledger.send_once(acts(9, "trigger:few"), NOW)
        assert round_at(ledger, project(webhook(receiver.url))) == {"failed": 9}
    assert paused(ledger) == {}


def test_a_sync_that_was_rejected_last_time_starts_its_next_plan_afresh(ledger: Ledger) -> None:
    vips, bad = sync(mapping={"id": "person_id", "n": "n"}, key="id"), [True]

    def answer(request: Received) -> Answer:
        return Answer(422, applied=False) if bad[0] else Answer()

    def plan_of(version: int) -> None:
        people = {f"p{n}": {"n": version} for n in range(9)}
        found = plan(vips, people, people, holds(ledger, vips))
        if submit(ledger, found, dry_run=False, now=NOW).state == "held":
            approve(ledger, found.plan_id, by="ann", now=NOW)
            submit(ledger, found, dry_run=False, now=NOW)

    with Receiver(answer) as receiver:
        whole = project(webhook(receiver.url))
        plan_of(1)
        assert round_at(ledger, whole) == {"failed": 9}
        plan_of(2)
        assert round_at(ledger, whole, 1) == {"failed": 9} and paused(ledger) == {}
        bad[0] = False
        plan_of(3)
        assert round_at(ledger, whole, 2) == {"delivered": 9}

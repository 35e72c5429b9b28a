"""The ledger decides once, delivers in order, and loses nothing, on SQLite and on Postgres."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from cdp_pipeline.activation import claims
from cdp_pipeline.activation.claims import Claim, backoff
from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import (
    Ledger,
    LedgerError,
    Op,
    ledger_url,
    open_ledger,
    operation_id,
)
from cdp_pipeline.activation.protocol import Outcome, OutcomeState
from cdp_pipeline.activation.sync import holds
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.activation.projects import DAY, NOW, project, sync, webhook
from cdp_pipeline_tests.activation.taking import take
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver

MINUTE, HOUR, DAYS = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def act(person: str, occasion: str = "crossed:recency:alarm:2026-03-09", destination: str = "hook", act: int = 0) -> Op:
    return Op(
        operation_id("slipping", act, person, occasion), "trigger:slipping", destination, person, "act",
        {"person": person}, occasion=occasion, key=str(act),
    )  # fmt: skip


def fire(ledger: Ledger, ops: Sequence[Op], now: datetime = NOW, day: date = DAY, **rules: object) -> dict[str, int]:
    return ledger.fire("slipping", ops, day=day, now=now, **rules)  # type: ignore[arg-type]


def claim(ledger: Ledger, now: datetime = NOW, worker: str = "one", repeatable: bool = True, limit: int = 10) -> Claim:
    return take(ledger, now, limit=limit, lease=MINUTE, worker=worker, repeatable=repeatable)


def settle(ledger: Ledger, claimed: Claim, state: OutcomeState, now: datetime = NOW) -> dict[str, int]:
    outcomes = [Outcome(each.delivery.op_id, state) for each in claimed.ops]
    return claims.settle(ledger, claimed, outcomes, now=now, max_attempts=3)


def states(ledger: Ledger) -> Counter[str]:
    counted: Counter[str] = Counter()
    for (_, _, state), number in ledger.counts().items():
        counted[state] += number
    return counted


def test_firing_again_changes_nothing(ledger: Ledger) -> None:
    ops = [act("p1"), act("p2"), act("p1", destination="mail", act=1)]
    assert fire(ledger, ops) == {"pending": 3}
    assert fire(ledger, ops, NOW + DAYS) == {"known": 3}
    assert states(ledger) == {"pending": 3}


def test_evaluation_remembers_the_newest_day_and_never_goes_back(ledger: Ledger) -> None:
    assert ledger.evaluated_until("slipping") is None
    for day in (DAY, DAY - DAYS):
        fire(ledger, [], day=day)
        assert ledger.evaluated_until("slipping") == DAY


def test_within_the_cool_down_a_second_occasion_is_suppressed_for_good(ledger: Ledger) -> None:
    later = act("p1", "crossed:recency:alarm:2026-03-12")
    fire(ledger, [act("p1")], cool_down=7 * DAYS)
    assert fire(ledger, [later, act("p2", later.occasion)], NOW + 3 * DAYS, cool_down=7 * DAYS) == {
        "suppressed": 1, "pending": 1,
    }  # fmt: skip
    assert fire(ledger, [later], NOW + 30 * DAYS, cool_down=7 * DAYS) == {"known": 1}
    [just, over] = (replace(act("p1"), op_id=name, occasion=name) for name in ("just", "over"))
    assert fire(ledger, [just], NOW + 7 * DAYS - timedelta(microseconds=1), cool_down=7 * DAYS) == {"suppressed": 1}
    assert fire(ledger, [over], NOW + 7 * DAYS, cool_down=7 * DAYS) == {"pending": 1}
    assert fire(ledger, [act("p1", "crossed:recency:alarm:2026-04-12")], NOW + 30 * DAYS, cool_down=7 * DAYS) == {
        "pending": 1
    }


def test_two_occasions_in_one_evaluation_are_one_within_the_cool_down(ledger: Ledger) -> None:
    ops = [act("p1", "crossed:a"), act("p1", "crossed:a", "mail", 1), act("p1", "crossed:b")]
    assert fire(ledger, ops, cool_down=HOUR) == {"pending": 2, "suppressed": 1}


def test_once_means_once_in_a_life(ledger: Ledger) -> None:
    assert fire(ledger, [act("p1", "a")], once=True) == {"pending": 1}
    assert fire(ledger, [act("p1", "b")], NOW + 900 * DAYS, once=True) == {"suppressed": 1}


def test_a_person_merged_into_another_takes_the_past_along(ledger: Ledger) -> None:
    merged = {"p1": "p0"}
    fire(ledger, [act("p1", "a")], cool_down=HOUR)
    assert fire(ledger, [act("p0", "a")], NOW + 2 * HOUR, cool_down=HOUR, aliases=merged) == {"known": 1}
    assert fire(ledger, [act("p0", "b")], NOW + MINUTE, cool_down=HOUR, aliases=merged) == {"suppressed": 1}
    assert fire(ledger, [act("p1", "c"), act("p0", "c")], NOW + 2 * HOUR, aliases=merged) == {"pending": 1, "known": 1}


def test_what_was_only_shown_in_a_dry_run_does_not_count_once_it_is_for_real(ledger: Ledger) -> None:
    fire(ledger, [act("p1", "a")], once=True)
    claims.show_dry_run(ledger, claims.waiting_for(ledger, "hook", 10), {}, NOW)
    assert fire(ledger, [act("p1", "b")], once=True) == {"suppressed": 1}
    assert fire(ledger, [act("p1", "c")], once=True, counts_dry_run=False) == {"pending": 1}


def test_a_person_gets_one_at_a_time_in_the_order_decided(ledger: Ledger) -> None:
    first, second, other = act("p1", "a"), act("p1", "b"), act("p2", "a")
    fire(ledger, [first, second, other])
    taken = claim(ledger)
    assert [each.delivery.op_id for each in taken.ops] == [first.op_id, other.op_id]
    assert claim(ledger, NOW + MINUTE / 2, "two").ops == []
    settle(ledger, taken, "retry")
    assert claim(ledger, NOW + MINUTE / 60).ops == []
    assert {each.delivery.op_id for each in claim(ledger, NOW + HOUR).ops} == {first.op_id, other.op_id}


def test_what_a_lost_worker_held_is_taken_up_where_that_is_safe_and_else_held_as_unknown(ledger: Ledger) -> None:
    fire(ledger, [act("p1")])
    taken = claim(ledger)
    [held] = taken.ops
    assert claim(ledger, NOW + MINUTE / 2, "two").ops == []
    [again] = claim(ledger, NOW + 2 * MINUTE, "two").ops
    assert (again.delivery, again.attempt) == (held.delivery, held.attempt + 1)
    assert settle(ledger, taken, "delivered", NOW + 2 * MINUTE) == {"late": 1}
    assert claim(ledger, NOW + HOUR, "three", repeatable=False).ops == []
    assert states(ledger) == {"unknown": 1}
    assert ledger.retry(NOW + HOUR, op_ids=[held.delivery.op_id]) == 1
    assert len(claim(ledger, NOW + 2 * HOUR, repeatable=False).ops) == 1


def test_after_the_last_attempt_it_stays_failed_until_somebody_decides(ledger: Ledger) -> None:
    fire(ledger, [act("p1"), act("p2")])
    now = NOW
    for _ in range(3):
        now += DAYS
        settle(ledger, claim(ledger, now), "retry", now)
    assert states(ledger) == {"failed": 2} and claim(ledger, now + 30 * DAYS).ops == []
    assert ledger.dismiss(now, "they moved away", op_ids=[act("p2").op_id]) == 1
    assert ledger.retry(now) == 1
    assert settle(ledger, claim(ledger, now + MINUTE), "retry", now) == {"retry": 1}
    assert [row["reason"] for row in ledger.about(["p2"])] == ["dismissed: they moved away"]


def test_what_was_given_back_untried_is_no_attempt(ledger: Ledger) -> None:
    fire(ledger, [act("p1")])
    for minutes in range(10):
        settle(ledger, claim(ledger, NOW + minutes * MINUTE), "untried", NOW + minutes * MINUTE)
    assert states(ledger) == {"pending": 1}


def test_waiting_grows_and_is_spread() -> None:
    waits = [backoff("op", failures) for failures in range(1, 12)]
    assert timedelta(seconds=22) < waits[0] < timedelta(seconds=38) and waits[-1] <= 7.5 * HOUR
    assert waits == sorted(waits, key=lambda wait: min(wait, 4 * HOUR))
    assert len({backoff(f"op-{number}", 1) for number in range(100)}) == 100


def test_two_workers_at_once_send_everything_once_and_in_order(ledger_address: str) -> None:
    people, occasions = [f"p{number}" for number in range(20)], ["a", "b", "c"]
    failures = iter([True, False, False] * 1000)

    def answer(request: Received) -> Answer:
        return Answer(500, applied=False) if next(failures) else Answer()

    with Receiver(answer) as receiver, open_ledger(ledger_address) as ledger:
        fire(ledger, [act(person, occasion) for occasion in occasions for person in people])
        spec = webhook(receiver.url, max_attempts=20)

        def work(name: str) -> None:
            with open_ledger(ledger_address) as own:
                # Each has its own clock: what one refuses late in its day is due when the other's day is over.
                for hours in range(1000):
                    deliver(own, project(spec), now=NOW + hours * HOUR, connect=destination_for, worker=name)
                    if states(own) == {"delivered": 60}:
                        return

        workers = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert states(ledger) == {"delivered": 60}
        arrived = Counter(receiver.effects[op_id]["person"] for op_id in receiver.order)
    assert arrived == dict.fromkeys(people, 3)
    place = {act(person, occasion).op_id: index for person in people for index, occasion in enumerate(occasions)}
    for person in people:
        mine = [place[op_id] for op_id in receiver.order if receiver.effects[op_id]["person"] == person]
        assert mine == [0, 1, 2]


def test_several_processes_may_create_the_ledger_at_once(ledger_address: str) -> None:
    errors: list[BaseException] = []

    def opened() -> None:
        try:
            open_ledger(ledger_address).close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_an_embedded_lake_keeps_its_ledger_in_its_folder_and_a_catalog_needs_one_declared(tmp_path: Path) -> None:
    assert ledger_url(project(), tmp_path) == f"sqlite:///{tmp_path}/lake/ledger.sqlite"
    shared = LakeLocation(catalog="postgresql://host/catalog", data="s3://bucket")
    with pytest.raises(LedgerError, match="ledger"):
        ledger_url(project(lake=shared), tmp_path)
    assert ledger_url(project(lake=shared, ledger="postgresql://host/x"), tmp_path) == "postgresql://host/x"
    with pytest.raises(LedgerError, match="mysql"):
        open_ledger("mysql+pymysql://host/x")


def test_what_was_accepted_is_asked_for_by_its_reference_until_it_is_done(ledger: Ledger) -> None:
    """Asking what became of it is no failed attempt, however often; a lost worker does not lose the reference."""
    fire(ledger, [act("p1")])
    now = NOW
    for _ in range(6):
        taken = claim(ledger, now)
        [op] = taken.ops
        outcome = Outcome(op.delivery.op_id, "accepted", "job", after=HOUR, reference="job-7")
        assert claims.settle(ledger, taken, [outcome], now=now, max_attempts=3) == {"retry": 1}
        assert claim(ledger, now + MINUTE).ops == []
        now += HOUR
    claim(ledger, now, worker="lost")
    now += HOUR
    taken = claim(ledger, now)
    [op] = taken.ops
    assert op.delivery.reference == "job-7"
    settle(ledger, taken, "failed", now)
    ledger.retry(now)
    [op] = claim(ledger, now + MINUTE).ops
    assert op.delivery.reference == ""


def test_a_claim_is_settled_once_however_late_and_by_whomever(ledger: Ledger) -> None:
    """Also after everything claimed before is forgotten: a later claim is never taken for an earlier one."""
    fire(ledger, [act("p1")])
    lost = claim(ledger)
    again = claim(ledger, NOW + HOUR)
    assert settle(ledger, lost, "failed", NOW + HOUR) == {"late": 1}
    assert settle(ledger, again, "delivered", NOW + HOUR) == {"delivered": 1}
    assert settle(ledger, again, "failed", NOW + HOUR) == {"late": 1}
    assert states(ledger) == {"delivered": 1}


def test_two_operations_for_one_key_in_one_claim_leave_what_the_later_said(ledger: Ledger) -> None:
    ops = [
        Op(operation_id(person), "sync:vips", "hook", person, kind, {"person": person}, key="a@example.com")
        for person, kind in (("p1", "remove"), ("p2", "add"))
    ]
    ledger.send_once(ops, NOW)
    assert settle(ledger, claim(ledger), "delivered") == {"delivered": 2}
    assert {key: held.person_id for key, held in holds(ledger, sync()).items()} == {"a@example.com": "p2"}


def test_what_was_under_way_in_a_ledger_that_knew_no_claims_waits_for_somebody(ledger_address: str) -> None:
    with open_ledger(ledger_address) as ledger:
        fire(ledger, [act("p1"), act("p2")])
        claim(ledger, limit=1)
        with ledger.writing() as connection:
            for statement in ("DROP INDEX outbox_claimed", "ALTER TABLE outbox DROP COLUMN claim", "DROP TABLE claims"):
                connection.exec_driver_sql(statement)
    with open_ledger(ledger_address) as ledger:
        assert states(ledger) == {"unknown": 1, "pending": 1}
        assert ledger.retry(NOW + HOUR) == 1
        assert len(claim(ledger, NOW + HOUR).ops) == 2

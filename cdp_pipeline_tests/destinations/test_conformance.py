"""The conformance kit: what every destination must do, each driven against a real server on loopback (kit.py)."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cdp_pipeline.activation import claims
from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import Ledger, Op, open_ledger
from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline.destinations import destination_for
from cdp_pipeline_tests.activation.projects import NOW, project
from cdp_pipeline_tests.destinations.kit import TYPES, Bench, bench_of

MINUTE = timedelta(minutes=1)
MOST_IN_ONE_TEST = 250


@pytest.fixture(params=TYPES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with bench_of(request.param, tmp_path) as made:
        yield made


def needs(bench: Bench, *abilities: str) -> None:
    for ability in abilities:
        if ability in bench.lacks:
            pytest.skip(f"{bench.spec.type}: {bench.lacks[ability]}")


def send(bench: Bench, *batch: Delivery, within: timedelta = MINUTE) -> list[Outcome]:
    with bench.connect() as connection:
        return connection.deliver(batch, now=NOW, within=within)


def states(outcomes: list[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def enqueue(ledger: Ledger, bench: Bench, *batch: Delivery) -> None:
    ops = [Op(each.op_id, "alert:test", bench.spec.name, each.op_id, each.kind, each.payload) for each in batch]
    ledger.send_once(ops, NOW)


# Batches


def test_a_batch_arrives_in_order_with_one_outcome_each(bench: Bench) -> None:
    batch = [bench.delivery("ann", number) for number in range(5)]
    outcomes = send(bench, *batch)
    assert [(outcome.op_id, outcome.state) for outcome in outcomes] == [(each.op_id, "delivered") for each in batch]
    assert bench.arrived() == [each.op_id for each in batch]


def test_an_empty_batch_is_nothing(bench: Bench) -> None:
    assert send(bench) == []
    assert bench.arrived() == []


def test_more_than_fit_into_one_batch_all_arrive_once(bench: Bench) -> None:
    with bench.connect() as connection:
        size = connection.batch_size
    batch = [bench.delivery("ann", number) for number in range(min(size * 2 + 1, MOST_IN_ONE_TEST))]
    with open_ledger("sqlite://") as ledger:
        enqueue(ledger, bench, *batch)
        summary = deliver(ledger, project(bench.spec), now=NOW, connect=destination_for)
    assert summary.totals == {"delivered": len(batch)}
    assert Counter(bench.arrived()) == Counter(each.op_id for each in batch)


# What is refused, what has to wait, what nobody answers


def test_one_refused_in_a_batch_does_not_touch_the_others(bench: Bench) -> None:
    needs(bench, "refuse")
    outcomes = send(bench, bench.delivery("ann", 1), bench.delivery("refuse", 2), bench.delivery("ann", 3))
    assert states(outcomes) == ["delivered", "failed", "delivered"]
    assert outcomes[1].reason and not outcomes[1].refused_us
    assert bench.arrived() == ["ann-1", "ann-3"]


def test_a_destination_that_asks_to_wait_is_left_alone(bench: Bench) -> None:
    """Whoever shared the refused call, or came after it, waits; one attempt is charged, the rest are untried."""
    needs(bench, "wait")
    outcomes = send(bench, bench.delivery("ann", 1), bench.delivery("wait", 2), bench.delivery("ann", 3))
    assert Counter(states(outcomes)[1:]) + Counter(states(outcomes)[:1]) in (
        Counter(delivered=1, retry=1, untried=1),
        Counter(retry=1, untried=2),
    )
    waiting = [outcome for outcome in outcomes if outcome.state != "delivered"]
    assert [outcome.after for outcome in waiting] == [bench.waits] * len(waiting)
    assert bench.arrived() == [outcome.op_id for outcome in outcomes if outcome.state == "delivered"]


def test_while_it_waits_nothing_more_is_sent(bench: Bench) -> None:
    """Through the ledger: rounds come every few seconds, the destination hears of none before its time."""
    needs(bench, "wait")
    if bench.waits is None:
        pytest.skip(f"{bench.spec.type}: cannot say how long to wait")
    with open_ledger("sqlite://") as ledger:
        enqueue(ledger, bench, bench.delivery("wait", 1), bench.delivery("ann", 2))
        deliver(ledger, project(bench.spec), now=NOW, connect=destination_for)
        before = bench.arrived()
        for share in (0.1, 0.3):
            # A round sits out the last seconds of a wait itself, if it has the time: these have not, and a slow machine
            # gets no nearer to the end of the wait in one.
            now, short = NOW + share * bench.waits, timedelta(seconds=2)
            deliver(ledger, project(bench.spec), now=now, connect=destination_for, budget=short)
        assert bench.arrived() == before
        assert [row["state"] for row in ledger.about(["wait-1"])] == ["retry"]
        assert [row["attempt"] for row in ledger.about(["wait-1"])] == [1]


def test_a_destination_that_is_not_there_is_a_retry_and_spares_the_rest(bench: Bench) -> None:
    needs(bench, "absent")
    with bench.connect(bench.absent) as connection:
        outcomes = connection.deliver([bench.delivery("ann", 1), bench.delivery("ann", 2)], now=NOW, within=MINUTE)
    assert states(outcomes) == ["retry", "untried"]


def test_a_refused_secret_rests_the_destination_and_fails_nobody(bench: Bench) -> None:
    needs(bench, "locked")
    with bench.connect(bench.locked) as connection:
        outcomes = connection.deliver([bench.delivery("ann", 1), bench.delivery("ann", 2)], now=NOW, within=MINUTE)
    assert states(outcomes) == ["retry", "untried"]
    assert all(outcome.after == timedelta(minutes=15) for outcome in outcomes)
    assert outcomes[0].refused_us
    assert bench.arrived() == []


def test_silence_after_sending_is_repeated_only_where_repeating_is_safe(bench: Bench) -> None:
    needs(bench, "silent")
    with bench.connect() as connection:
        [outcome] = connection.deliver([bench.delivery("silent", 1)], now=NOW, within=MINUTE)
        assert outcome.state == ("retry" if connection.repeatable else "unknown")
        [again] = connection.deliver([bench.delivery("ann", 2)], now=NOW, within=MINUTE)
    assert again.state == "delivered"
    assert bench.arrived() == ["silent-1", "ann-2"]


def test_the_same_operation_again_has_one_effect_where_that_is_promised(bench: Bench) -> None:
    with bench.connect() as connection:
        for minutes in range(2):
            [outcome] = connection.deliver(
                [bench.delivery("ann", 1)], now=NOW + timedelta(minutes=minutes), within=MINUTE
            )
            assert outcome.state == "delivered"
        assert set(bench.arrived()) == {"ann-1"}
        assert len(bench.arrived()) == 1 or not connection.repeatable


def test_a_server_that_recovers_gets_every_operation_once(bench: Bench) -> None:
    """Refusals, waits and lost answers through the ledger: what may be repeated is, and nothing is left behind."""
    names = [name for name in ("ann", "refuse", "silent") if name not in bench.lacks]
    with open_ledger("sqlite://") as ledger:
        enqueue(ledger, bench, *(bench.delivery(name, number) for number, name in enumerate(names)))
        for hours in range(4):
            deliver(ledger, project(bench.spec), now=NOW + timedelta(hours=8 * hours), connect=destination_for)
        ended = {str(row["op_id"]): row["state"] for row in ledger.about([f"{n}-{i}" for i, n in enumerate(names)])}
    assert ended["ann-0"] == "delivered"
    assert ended.get("refuse-1", "failed") == "failed"
    assert max(Counter(bench.arrived()).values()) == 1
    assert set(bench.arrived()) == {label for label in ended if not label.startswith("refuse")}


def test_no_time_left_means_untried(bench: Bench) -> None:
    assert states(send(bench, bench.delivery("ann", 1), within=timedelta(milliseconds=10))) == ["untried"]
    assert bench.arrived() == []


# What is sent


def test_a_trigger_reaches_it_as_well_as_a_list(bench: Bench) -> None:
    needs(bench, "act")
    assert states(send(bench, bench.act("ann", 1))) == ["delivered"]
    assert bench.arrived() == ["ann-1"]


def test_who_left_is_removed_and_who_came_back_is_there_again(bench: Bench) -> None:
    if bench.held is None:
        pytest.skip(f"{bench.spec.type}: takes messages and events, holds no members")
    assert states(send(bench, bench.delivery("ann", 1), bench.delivery("ann", 2))) == ["delivered"] * 2
    assert bench.held() == {"ann-1", "ann-2"}
    assert states(send(bench, bench.removal("ann", 1), bench.removal("ann", 9))) == ["delivered"] * 2
    assert bench.held() == {"ann-2"}
    again = bench.delivery("ann", 1)
    assert states(send(bench, Delivery("again", again.kind, again.payload))) == ["delivered"]
    assert bench.held() == {"ann-1", "ann-2"}


# What is not


def test_nobody_and_no_secret_is_named_in_logs_or_outcomes(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    names = [name for name in ("ann", "refuse", "silent", "wait") if name not in bench.lacks]
    said = [send(bench, bench.delivery(name)) for name in names]
    for other in (bench.absent, bench.locked):
        if other is not None:
            with bench.connect(other) as connection:
                said.append(connection.deliver([bench.delivery("ann")], now=NOW, within=MINUTE))
    ours = [record.getMessage() for record in caplog.records if record.name not in SERVERS]
    words = " ".join(ours) + " ".join(outcome.reason for outcomes in said for outcome in outcomes)
    assert [canary for canary in bench.canaries if canary in words] == []


# The log of the servers the tests run; all other lines are the connector's or its libraries'.
SERVERS = {"mail.log", "werkzeug"}


def test_connecting_dials_nobody_and_closing_twice_is_no_mistake(bench: Bench) -> None:
    connection = bench.connect(bench.absent)
    connection.close()
    connection.close()


def test_an_address_inside_the_own_network_is_refused_unless_allowed(bench: Bench) -> None:
    if "allow_private" not in type(bench.spec).model_fields:
        pytest.skip(f"{bench.spec.type}: has no URL that a user gives")
    outside = bench.spec.model_copy(update={"allow_private": False})
    with bench.connect(outside) as connection:
        outcomes = connection.deliver([bench.delivery("ann", 1)], now=NOW, within=MINUTE)
    assert states(outcomes) == ["failed"]
    assert "private" in outcomes[0].reason
    assert bench.arrived() == []


def test_a_dry_run_dials_nobody_and_keeps_the_payload(bench: Bench) -> None:
    dry, planned = bench.spec.model_copy(update={"dry_run": True}), bench.delivery("ann", 1)
    with open_ledger("sqlite://") as ledger:
        enqueue(ledger, bench, planned)
        summary = deliver(ledger, project(dry), now=NOW, connect=destination_for)
        [shown] = ledger.about([planned.op_id])
    assert summary.totals == {"dry_run": 1}
    assert json.loads(str(shown["payload"])) == planned.payload
    assert bench.arrived() == []


def test_never_more_than_the_rate_arrives_however_many_workers_ask(bench: Bench) -> None:
    limited = bench.spec.model_copy(update={"rate": 4.0})
    taken: list[float] = []
    with open_ledger("sqlite://") as ledger:
        enqueue(ledger, bench, *(bench.delivery("ann", number) for number in range(40)))
        for tenth in range(0, 40, 2):
            for worker in ("one", "two"):
                claim = claims.claim(
                    ledger, limited.name, limit=3, now=NOW + timedelta(seconds=tenth / 10), lease=MINUTE,
                    worker=worker, repeatable=True, max_attempts=5, rate=limited.rate,
                )  # fmt: skip
                taken += [tenth / 10] * len(claim.ops)
    for start in taken:
        assert sum(start <= at < start + 2 for at in taken) <= 4 * 2 + 3
    assert len(taken) >= 4 * 3

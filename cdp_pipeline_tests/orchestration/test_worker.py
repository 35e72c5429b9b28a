"""The resident worker and the sensor's tick that does the same: on files that grow, to a receiver that counts."""

import itertools
import os
import random
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.live import Follower
from cdp_pipeline.activation.positions import may_read, stop_reading
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.lake import open_lake
from cdp_pipeline.orchestration.installation import prepare_dagster_home
from cdp_pipeline.orchestration.sensors import events_sensor
from cdp_pipeline.orchestration.worker import Worker
from cdp_pipeline_tests.activation.wired import WIRE, Wired, environment, opened, wired
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.orchestration.commands import Cdp
from cdp_pipeline_tests.processes import processes
from cdp_pipeline_tests.waiting import PATIENCE, eventually


def look(wire: Wired) -> None:
    with open_lake(wire.project.settings.lake, read_only=True) as lake, wire.ledger() as ledger:
        Follower(ledger, wire.project).look(lake, datetime.now(UTC))


def work(folder: Path, given: dict[str, str]) -> None:
    """A worker, until killed."""
    os.environ.update(given)
    wire = opened(folder, given)
    prepare_dagster_home(wire.project)
    with dg.DagsterInstance.get() as instance:
        Worker(wire.project, instance).run()


def test_workers_killed_at_any_moment_act_on_every_event_exactly_once(tmp_path: Path, ledger_address: str) -> None:
    dice, workers, kills = random.Random(11), list[BaseProcess](), 0
    # What the ledger does by itself is tested on both alike; here the whole way has to hold on a server, too.
    database = None if ledger_address.startswith("sqlite") else ledger_address
    events, most = (40, 6) if database is None else (20, 3)

    def kill() -> None:
        nonlocal kills
        for worker in workers:
            if worker.is_alive():
                os.kill(worker.pid or 0, signal.SIGKILL)
                kills += 1

    def answer(request: Received) -> Answer:
        roll = dice.random()
        if roll < 0.15 and kills < most:
            kill()
        return Answer(503, {"Retry-After": "0"}, applied=False) if roll > 0.85 else Answer()

    with Receiver(answer) as receiver:
        wire, given = wired(tmp_path, receiver.url, database), environment(tmp_path, receiver.url, database)
        look(wire)
        expected = list[int]()
        # As long as it takes for every kill: how soon chance brings them depends on the machine.
        while len(expected) < events or kills < most:
            number = len(expected)
            if not any(worker.is_alive() for worker in workers) and kills < most:
                worker = processes.Process(target=work, args=(tmp_path, given))
                worker.start()
                workers.append(worker)
            account = dice.choice(["A1", "B2", "C3"])
            if dice.random() < 0.5:
                wire.click(f"e{number}", "alarm_raised", 0, account=account)
            else:
                wire.order(100 + number, account, 250, 0)
            expected.append(number)
            time.sleep(dice.uniform(0, 0.4))
            if dice.random() < 0.1 and kills < most:
                kill()
        kill()
        for worker in workers:
            worker.join()
        look(wire)
        with wire.ledger() as ledger:
            # The leases of those who were killed have run out by then.
            for hours in range(1, 25):
                deliver(ledger, wire.project, now=datetime.now(UTC) + timedelta(hours=hours), connect=destination_for)
            assert {state for *_, state in ledger.counts()} == {"delivered"}
        occasions = Counter(effect["occasion"] for effect in receiver.effects.values())
        assert len(occasions) == len(expected) and set(occasions.values()) == {1}


def test_cdp_worker_delivers_and_tells_dagster_without_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver:
        wire = wired(tmp_path, receiver.url)
        look(wire)
        for name, value in environment(tmp_path, receiver.url).items():
            monkeypatch.setenv(name, value)
        worker = Cdp(WIRE, wire.data, tmp_path / "lake").start("worker")
        try:
            for number, words in enumerate(["click", "complaint", "order"]):
                if words == "click":
                    wire.click("c", "review_written", 0, account="A1", stars=1)
                elif words == "complaint":
                    wire.complaint("new.csv", "T", "Bob@Example.com", "late", 0)
                else:
                    wire.order(7, "C3", 100, 0)
                eventually(lambda wanted=number + 1: len(receiver.effects) >= wanted)
        finally:
            worker.send_signal(signal.SIGTERM)
            out, err = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0, err
        assert "source clicks: read as it comes" in out
        assert [effect["type"] for effect in receiver.effects.values()] == [
            "trigger.bad_review", "trigger.alarm", "trigger.large_order",
        ]  # fmt: skip
        assert [effect["data"]["person"] for effect in receiver.effects.values()] == ["A1", "B2", "C3"]
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "lake" / "dagster"))
        with dg.DagsterInstance.get() as instance:
            assert instance.get_runs() == []
            told: Counter[str] = Counter()
            for asset in ("outbox", "deliveries"):
                found = instance.fetch_materializations(dg.AssetKey(["activation", asset]), limit=10).records
                for record in found:
                    assert record.asset_materialization is not None
                    told.update({name: value.value for name, value in record.asset_materialization.metadata.items()})
        assert told == {
            "alarm pending": 1, "bad_review pending": 1, "large_order pending": 1, "hook delivered": 3,
        }  # fmt: skip


def test_a_tick_acts_and_delivers_at_once_unless_a_worker_reads(tmp_path: Path) -> None:
    with Receiver() as receiver:
        wire = wired(tmp_path, receiver.url)
        sensor = events_sensor(wire.project, lambda: datetime.now(UTC), watch=timedelta(0))

        def tick() -> dg.SensorResult | dg.SkipReason:
            with dg.build_sensor_context() as context:
                return sensor(context)  # type: ignore[return-value]

        assert isinstance(tick(), dg.SkipReason)
        wire.click("c", "alarm_raised", 0, account="A1")
        result = tick()
        assert isinstance(result, dg.SensorResult) and len(receiver.effects) == 1
        assert [event.asset_key.path[-1] for event in result.asset_events] == ["outbox", "deliveries"]
        with wire.ledger() as ledger:
            assert may_read(ledger, "worker", datetime.now(UTC), rather=True)
            wire.click("d", "alarm_raised", 0, account="A1")
            skipped = tick()
            assert isinstance(skipped, dg.SkipReason) and "worker" in str(skipped.skip_message)
            stop_reading(ledger, "worker")
        assert isinstance(tick(), dg.SensorResult) and len(receiver.effects) == 2


def test_what_comes_while_a_tick_watches_is_acted_on_in_that_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second passes with each look: however slow the machine, there are four in a tick.
    passing = SimpleNamespace(monotonic=itertools.count().__next__, sleep=time.sleep)
    monkeypatch.setattr("cdp_pipeline.orchestration.sensors.time", passing)

    def answer(_: Received) -> Answer:
        if not receiver.effects:
            wire.click("late", "alarm_raised", 0, account="B2")
        return Answer()

    with Receiver(answer) as receiver:
        wire = wired(tmp_path, receiver.url)
        look(wire)
        wire.click("soon", "alarm_raised", 0, account="A1")
        with dg.build_sensor_context() as context:
            result = events_sensor(wire.project, lambda: datetime.now(UTC), timedelta(seconds=4))(context)
        assert isinstance(result, dg.SensorResult)
        assert {event.asset_key.path[-1]: event.metadata for event in result.asset_events} == {
            "outbox": {"alarm pending": dg.IntMetadataValue(2)},
            "deliveries": {"hook delivered": dg.IntMetadataValue(2)},
        }
        assert [effect["data"]["person"] for effect in receiver.effects.values()] == ["A1", "B2"]

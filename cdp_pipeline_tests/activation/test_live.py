"""Acts on events before they are loaded: what the batch would do, done sooner, and never twice."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cdp_pipeline.activation.fire import fire
from cdp_pipeline.activation.ledger import Ledger, open_ledger, outbox
from cdp_pipeline.activation.live import Follower, followed, telling
from cdp_pipeline.activation.positions import may_read, stop_reading
from cdp_pipeline.activation.tables import outbox_rows
from cdp_pipeline.lake import Mirror, open_lake
from cdp_pipeline.traits.bands import BANDS
from cdp_pipeline_tests.activation.projects import crossing, trigger
from cdp_pipeline_tests.activation.test_fire import DAILY, NOTE, rows
from cdp_pipeline_tests.activation.test_guards import RECENCY
from cdp_pipeline_tests.activation.wired import LOBBY, OFFICE, PEOPLE, TABLET, Wired, environment, opened, wired


def look(wire: Wired, follower: Follower) -> Counter[str]:
    with open_lake(wire.project.settings.lake, read_only=True) as lake:
        return follower.look(lake, datetime.now(UTC))


def batch(wire: Wired, ledger: Ledger, ago: timedelta = timedelta(0)) -> dict[str, dict[str, int]]:
    with open_lake(wire.project.settings.lake, read_only=True) as lake:
        return fire(ledger, lake, wire.project, now=datetime.now(UTC) - ago)


def decided(ledger: Ledger) -> dict[str, tuple[Any, ...]]:
    """By op_id what was decided, for whom, on what occasion and with what words."""
    names = ("origin", "person_id", "occasion", "payload_hash", "state")
    return {row["op_id"]: tuple(row[name] for name in names) for row in outbox_rows(ledger).to_pylist()}


def happen(wire: Wired, dice: random.Random, number: int) -> str | None:
    """One thing that happens; the occasion it must become of somebody who was known before, None for all else."""
    account, (email, device) = dice.choice(list(PEOPLE.items()))
    kind = dice.choice(
        ["review", "alarm", "view", "complaint", "order", "stranger", "torn", "old", "device", "again", "tablet"]
    )
    id_ = f"e{number}"
    if kind == "review":
        stars = dice.randint(1, 6)  # Six stars there are not: such a row is set aside.
        wire.click(id_, "review_written", account=account, stars=stars, sku="s1")
        return f"{id_}:review_written" if stars <= 2 else None
    if kind == "alarm":
        wire.click(id_, "alarm_raised", dice.uniform(0, 40), account=account, device=f"new-{number}")
        return f"{id_}:alarm_raised"
    if kind == "view":
        wire.click(id_, "page_viewed", account=account)
    if kind == "complaint":
        wire.complaint(f"{number // 7}.csv", id_, email.upper(), 'said "no",\nand rang off')
        return f"{id_}:complained" if email else None
    if kind == "order":
        total = dice.choice([20, 99.99, 100, 250])
        wire.order(number + 10, account, total, dice.uniform(0, 0.01))
        return f"{number + 10}:order_placed" if total >= 100 else None
    if kind == "stranger":
        # Of an account nobody knows yet, on a device that is known: only the batch can say whose it is.
        wire.click(id_, "alarm_raised", account=f"N{number}", device=LOBBY)
        wire.click(f"{id_}s", "alarm_raised", device=TABLET)
    if kind == "torn":
        wire.write(f"clicks/{wire.now.date()}.jsonl", '{"id": "torn", "at": \n')
    if kind == "old":
        wire.click(id_, "alarm_raised", 49, account=account)
    if kind in ("device", "tablet"):
        # On the tablet that many share it is the account that says whose it is; the office's address says nothing.
        whose = {"device": device} if kind == "device" else {"device": TABLET, "account": account, "email": OFFICE}
        wire.click(id_, "alarm_raised", **whose)
        return f"{id_}:alarm_raised"
    if kind == "again":
        for _ in range(2):
            wire.click(id_, "review_written", account=account, stars=1, sku="S2")
        return f"{id_}:review_written"
    return None


def test_what_is_told_early_is_what_the_batch_would_have_decided_and_the_batch_adds_only_the_rest(
    tmp_path: Path,
) -> None:
    wire, dice = wired(tmp_path), random.Random(7)
    wire.compute()
    assert list(followed(wire.project)) == list(telling(wire.project)) == ["clicks", "complaints", "orders"]
    sooner, later = wire.ledger(), open_ledger(f"sqlite:///{tmp_path / 'later.sqlite'}")
    for ledger in (sooner, later):
        batch(wire, ledger, ago=timedelta(days=3))  # The triggers are not new.
    follower = Follower(sooner, wire.project)
    assert look(wire, follower) == {}
    expected: Counter[str] = Counter()
    for number in range(36):
        expected[happen(wire, dice, number) or ""] += 1
        if dice.random() < 0.3:
            follower = Follower(sooner, wire.project)  # As after a restart.
        if dice.random() < 0.15:
            look(wire, follower)
    follower = Follower(sooner, wire.project)
    look(wire, follower)
    del expected[""]
    early = decided(sooner)
    assert len(early) == len(expected) and set(expected.values()) == {1}

    wire.know(*(("account", f"N{number}", f"new-{number}", "ok") for number in range(60)))
    wire.compute()
    batch(wire, later)
    whole = decided(later)
    assert {id_: whole.get(id_) for id_ in early} == early, (
        "the same operations, for the same people, in the same words"
    )
    rest = {person for id_, (_, person, *_) in whole.items() if id_ not in early}
    assert rest and all(person.startswith("new-") or person == "E5" for person in rest)
    counts = batch(wire, sooner)
    assert decided(sooner) == whole
    assert sum(states.get("known", 0) for states in counts.values()) == len(early)
    sooner.close()
    later.close()


def test_before_people_were_ever_computed_nothing_is_acted_on_early(tmp_path: Path) -> None:
    wire = opened(tmp_path, environment(tmp_path, "http://127.0.0.1:9/"))
    with open_lake(wire.project.settings.lake) as lake, wire.ledger() as ledger:
        follower = Follower(ledger, wire.project)
        follower.prepare(lake, wire.now)
        wire.write("shop.sqlite", "")
        assert follower.look(lake, wire.now) == {}
        wire.click("e1", "alarm_raised", account="A1")
        assert follower.look(lake, datetime.now(UTC)) == {}


def test_an_event_is_acted_on_although_the_clock_of_its_device_is_ahead(tmp_path: Path) -> None:
    wire = wired(tmp_path)
    with wire.ledger() as ledger:
        look(wire, Follower(ledger, wire.project))
        wire.click("soon", "alarm_raised", -20 / 3600, account="A1")
        wire.click("far", "alarm_raised", -1, account="B2")
        assert look(wire, Follower(ledger, wire.project)) == {"alarm pending": 1}
        assert {person for _, person, *_ in decided(ledger).values()} == {"A1"}


def test_an_event_that_a_guard_asks_about_keeps_at_once_what_waits_for_an_hour_and_leaves_moves_to_their_run(
    tmp_path: Path,
) -> None:
    wire = wired(tmp_path)
    wire.compute()
    day = wire.now.astimezone(wire.project.zone).date() - timedelta(days=1)
    calm = trigger(name="calm", unless=[{"event": "alarm_raised", "window": "last 2 days"}])
    wire = replace(wire, project=replace(wire.project, triggers={"calm": calm}, traits={"recency": RECENCY}))
    with open_lake(wire.project.settings.lake) as lake:
        daily = [{"person_id": person, "day": day, "recency": 130} for person in ("A1", "B2")]
        moves = [crossing(person, day) for person in ("A1", "B2")]
        lake.publish(Mirror(DAILY, rows(DAILY, *daily)), Mirror(BANDS, rows(BANDS, *moves)), note=NOTE)
    with wire.ledger() as ledger:
        look(wire, Follower(ledger, wire.project))
        assert batch(wire, ledger) == {"calm": {"pending": 2}}
        with ledger.writing() as connection:
            later = (wire.now + timedelta(hours=5)).replace(tzinfo=None)
            connection.execute(outbox.update().values(next_at=later))
        wire.click("e1", "alarm_raised", account="A1")
        assert look(wire, Follower(ledger, wire.project)) == {"calm kept by a guard": 1}
        assert {person: state for _, person, _, _, state in decided(ledger).values()} == {
            "A1": "suppressed", "B2": "pending"
        }  # fmt: skip
        assert ledger.evaluated_until("calm") == day, "what crossed today is for the next run to say"


def test_reading_is_one_s_at_a_time_and_whoever_has_begun_last_may_take_it(
    ledger: Ledger,
) -> None:
    now = datetime.now(UTC)
    assert may_read(ledger, "sensor", now)
    assert may_read(ledger, "sensor", now)
    assert may_read(ledger, "worker", now, rather=True)
    assert not may_read(ledger, "sensor", now)
    stop_reading(ledger, "sensor")
    assert not may_read(ledger, "sensor", now)
    stop_reading(ledger, "worker")
    assert may_read(ledger, "sensor", now)

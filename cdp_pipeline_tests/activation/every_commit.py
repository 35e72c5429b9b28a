"""Three days of a small audience, killed before and after every commit that the ledger makes, one after the other.

Where the test of random kills hopes to meet a bad moment, this one visits each: plan, hold, approve, claim, send,
settle. The oracle is the run that nobody disturbs: what arrives must be just that, in that order.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.protocol import Delivery, DestinationConnection, Outcome
from cdp_pipeline.activation.refresh import plan_sync
from cdp_pipeline.activation.sync import approve, conservation, submit
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline_tests.activation.projects import NOW, project, sync, webhook
from cdp_pipeline_tests.destinations.servers import Receiver
from cdp_pipeline_tests.processes import processes

DAYS = [
    {"a": "gold", "b": "gold", "c": "gold"},
    {"b": "silver", "d": "gold"},  # Two leave, one changes, one comes.
    {"a": "gold", "b": "silver", "d": "gold"},  # One is back.
]


class Once(DestinationConnection):
    """A line on which nothing may be repeated whose fate is unknown, as with letters."""

    def __init__(self, line: DestinationConnection) -> None:
        self._line, self.batch_size = line, line.batch_size

    repeatable = False

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        return self._line.deliver(batch, now=now, within=within)

    def close(self) -> None:
        self._line.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def line(spec: Destination) -> DestinationConnection:
    return Once(destination_for(spec)) if spec.name.startswith("once") else destination_for(spec)


def vips(name: str) -> Sync:
    return sync(name=name, destination=name, mapping={"id": "person_id", "tier": "tier"}, key="id")


def live(
    address: str, hook: str, name: str, diary: Path, later: timedelta, die_at: int = 0, after: bool = False
) -> None:
    """Live through the days that are left, each noted in the diary when it begins; die at a commit, if at any."""
    with open_ledger(address) as ledger:
        if die_at:
            _die_at(ledger, die_at, after)
        for day in range(int(diary.read_text()), len(DAYS)):
            diary.write_text(str(day))
            live_day(ledger, hook, name, day, NOW + timedelta(days=day) + later)
        diary.write_text(str(len(DAYS)))


def live_day(ledger: Ledger, hook: str, name: str, day: int, now: datetime) -> None:
    people = [{"person_id": one, "tier": tier} for one, tier in DAYS[day].items()]
    found = plan_sync(ledger, vips(name), pa.Table.from_pylist(people))
    if submit(ledger, found, dry_run=False, now=now).state == "held":
        approve(ledger, found.plan_id, by="ann", now=now)
    whole = project(webhook(hook, name=name, max_attempts=20))
    deliver(ledger, whole, now=now, connect=line, only={name})


def _die_at(ledger: Ledger, number: int, after: bool) -> None:
    engine, seen, dies = ledger._engine, count(1), [False]
    commit = engine.dialect.do_commit

    def about_to(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("writes") and next(seen) == number:
            dies[0] = True

    def do_commit(raw: Any) -> None:
        if dies[0] and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        commit(raw)
        if dies[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(engine, "commit", about_to)
    engine.dialect.do_commit = do_commit  # type: ignore[method-assign]


def _sent(receiver: Receiver, name: str) -> dict[str, list[tuple[bool, Any]]]:
    """What took effect, by key, in the order in which it did."""
    found: dict[str, list[tuple[bool, Any]]] = {}
    for payload in (receiver.effects[op_id] for op_id in receiver.order):
        if payload["type"] == f"sync.{name}":
            found.setdefault(payload["key"], []).append((payload["member"], payload["data"].get("tier")))
    return found


UNDISTURBED = {
    "a": [(True, "gold"), (False, None), (True, "gold")],
    "b": [(True, "gold"), (True, "silver")],
    "c": [(True, "gold"), (False, None)],
    "d": [(True, "gold")],
}


def every_commit(address: str, folder: Path, line_is: str, first: int = 1, step: int = 1) -> int:
    """Die at each commit in turn, before it and after it, and go on; at how many. `line_is`: 'hook' or 'once'.

    `first` and `step`: not at each, but at some.
    """
    diary, points = folder / "diary", 0
    with Receiver() as receiver, open_ledger(address) as ledger:
        for after in (False, True):
            for die_at in count(first, step):
                name = f"{line_is}_{'after' if after else 'before'}_{die_at}"
                diary.write_text("0")
                life = processes.Process(
                    target=live, args=(address, receiver.url, name, diary, timedelta(0), die_at, after)
                )
                life.start()
                life.join()
                if life.exitcode == 0:
                    break
                assert life.exitcode == -signal.SIGKILL
                points += 1
                live(address, receiver.url, name, diary, timedelta(hours=3))
                _check(ledger, receiver, name)
    return points


def _check(ledger: Ledger, receiver: Receiver, name: str) -> None:
    sent = _sent(receiver, name)
    counts = {state: number for (origin, _, state), number in ledger.counts().items() if origin == f"sync:{name}"}
    accounts = conservation(ledger, vips(name), DAYS[-1])
    assert accounts.holds, (name, accounts)
    if not name.startswith("once"):
        assert sent == UNDISTURBED, name
        assert counts == {"delivered": 8} and accounts.states == {"delivered": 3}, (name, counts)
        return
    doubts = counts.get("unknown", 0) + counts.get("doubtful", 0)
    told = {op_id: receiver.arrivals[op_id] for op_id in receiver.order}
    assert set(told.values()) == {1}, f"{name}: repeated, though nobody knew whether it had arrived"
    missing = sum(map(len, UNDISTURBED.values())) - sum(map(len, sent.values()))
    assert 0 <= missing <= doubts <= 4, (name, counts)
    for key, moves in sent.items():
        rest = iter(UNDISTURBED[key])
        assert all(move in rest for move in moves), (name, key, moves)

"""Workers that are killed amid deliveries to a receiver that fails a quarter of the time, and what came of it.

The receiver is the oracle: it counts effects by idempotency key and knows nothing of the ledger. The test and
`benchmarks/crash.py` differ only in how often they kill.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.process import BaseProcess
from typing import Any

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import Op, open_ledger, operation_id
from cdp_pipeline.activation.pauses import paused, resume
from cdp_pipeline.activation.plan import plan
from cdp_pipeline.activation.sync import Conservation, approve, conservation, holds, submit
from cdp_pipeline.destinations import destination_for
from cdp_pipeline_tests.activation.projects import DAY, NOW, project, sync, webhook
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.processes import processes

SPEED = 6000  # An hour of the workers' clock passes in 0.6 seconds.
PEOPLE, OCCASIONS, MEMBERS = 20, 3, 30


def clock(started: float) -> datetime:
    return NOW + timedelta(seconds=(time.time() - started) * SPEED)


def work(url: str, hook: str, started: float) -> None:
    """Deliver until killed."""
    whole = project(webhook(hook, max_attempts=20))
    with open_ledger(url) as ledger:
        while True:
            deliver(
                ledger, whole, now=clock(started), connect=destination_for,
                budget=timedelta(seconds=5), lease_beyond=timedelta(hours=1),
            )  # fmt: skip
            time.sleep(0.005)


class Murderer:
    """A receiver's mood: fails, applies and hangs up, or kills one of the workers while it waits for the answer."""

    def __init__(self, kills: int) -> None:
        self.wanted = kills
        self.dice = random.Random(7)
        self.workers: list[BaseProcess] = []
        self.kills = 0
        self.lock = threading.Lock()

    def __call__(self, request: Received) -> Answer:
        roll = self.dice.random()
        if roll < 0.125:
            return Answer(503, applied=False)
        if roll < 0.25:
            return Answer(hang_up=True)
        if roll < 0.40:
            with self.lock:
                alive = [worker for worker in self.workers if worker.is_alive()]
                if alive and self.kills < self.wanted:
                    os.kill(self.dice.choice(alive).pid or 0, signal.SIGKILL)
                    self.kills += 1
            return Answer(hang_up=True, applied=self.dice.random() < 0.5)
        return Answer()


def act(person: int, occasion: int) -> Op:
    op_id = operation_id("act", person, occasion)
    return Op(op_id, "trigger:slipping", "hook", f"p{person}", "act", {"p": person, "o": occasion}, str(occasion), "0")


@dataclass
class Outcome:
    """What an audience should be like over there, and what the receiver saw."""

    kills: int
    requests: int
    effects: list[dict[str, Any]]
    most_often: int
    returns: int
    wanted: set[str]
    accounts: Conservation

    @property
    def acts(self) -> list[tuple[int, int]]:
        return [(effect["p"], effect["o"]) for effect in self.effects if "p" in effect]

    @property
    def there(self) -> set[str]:
        """Who is a member over there, told by the effects alone."""
        found: set[str] = set()
        for effect in self.effects:
            if "member" in effect:
                (found.add if effect["member"] else found.discard)(effect["key"])
        return found

    def check(self) -> None:
        """Nothing is missing, nothing is extra, nothing twice, and each person got theirs in order."""
        assert Counter(self.acts) == dict.fromkeys([(p, o) for p in range(PEOPLE) for o in range(OCCASIONS)], 1)
        for person in range(PEOPLE):
            assert [occasion for p, occasion in self.acts if p == person] == list(range(OCCASIONS))
        assert self.there == self.wanted
        assert self.returns >= 1, "nobody left and came back"
        assert self.accounts.holds and self.accounts.states == {"delivered": len(self.wanted)}


def crash(ledger_address: str, kills: int) -> Outcome:
    """Deliver acts and an audience that people leave and come back to, killing a worker `kills` times."""
    murderer, started = Murderer(kills), time.time()
    vips = sync(mapping={"id": "person_id"}, key="id")
    first, second = ({f"m{number}" for number in numbers} for numbers in (range(MEMBERS), range(10, MEMBERS + 10)))
    with Receiver(murderer) as receiver, open_ledger(ledger_address) as ledger:
        ops = [act(person, occasion) for occasion in range(OCCASIONS) for person in range(PEOPLE)]
        ledger.fire("slipping", ops, day=DAY, now=NOW)

        def wanted(members: set[str]) -> None:
            # Nobody is refused over there: what is given up after too many faults, or stopped because so much of it is,
            # somebody lets go on.
            ledger.retry(clock(started))
            for subject in paused(ledger):
                resume(ledger, subject, clock(started))
            found = plan(vips, members, {}, holds(ledger, vips))
            if submit(ledger, found, dry_run=False, now=clock(started)).state == "held":
                approve(ledger, found.plan_id, by="test", now=NOW)
                submit(ledger, found, dry_run=False, now=clock(started))

        current, returns = first, 0
        wanted(current)
        try:
            for round_number in range(100_000):
                with murderer.lock:
                    murderer.workers = [worker for worker in murderer.workers if worker.is_alive()]
                    for _ in range(2 - len(murderer.workers)):
                        worker = processes.Process(target=work, args=(ledger_address, receiver.url, started))
                        worker.start()
                        murderer.workers.append(worker)
                time.sleep(0.05)
                if round_number % 10 == 5:
                    wanted(current)
                open_states = {state for (*_, state) in ledger.counts()} - {"delivered", "suppressed"}
                if open_states or plan(vips, current, {}, holds(ledger, vips)).ops:
                    continue
                if murderer.kills >= kills and current is second and returns:
                    break
                current, returns = (second, returns) if current is first else (first, returns + 1)
                wanted(current)
        finally:
            for worker in murderer.workers:
                worker.kill()
                worker.join()
        effects = [receiver.effects[op_id] for op_id in receiver.order]
        return Outcome(
            murderer.kills, len(receiver.requests), effects, max(receiver.arrivals.values()), returns, second,
            conservation(ledger, vips, second),
        )  # fmt: skip

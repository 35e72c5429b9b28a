"""Carry out what the ledger has decided: claim, send, settle, until nothing is due or the time is up.

Runs inside a sensor's tick as well as in a command; several may run at once. What to send was decided before.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cdp_pipeline.activation.claims import Claimed, claim, destinations_due, rest, settle, show_dry_run, waiting_for
from cdp_pipeline.activation.gates import Gates
from cdp_pipeline.activation.hours import untimely
from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.activation.notices import Notice, notify
from cdp_pipeline.activation.pauses import lifted, refuse, trip
from cdp_pipeline.activation.protocol import Connect, DestinationError, Outcome
from cdp_pipeline.activation.receipts import note_addresses
from cdp_pipeline.consent.ledger import ConsentLedger
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.project import Project

log = logging.getLogger(__name__)
BUDGET = timedelta(seconds=45)
LEASE_BEYOND_BUDGET = timedelta(minutes=2)
SHORTEST_ROUND = timedelta(seconds=1)
LONGEST_WAIT_IN_A_ROUND = timedelta(seconds=5)
SHOWN_AT_ONCE = 1_000
PAUSE_WITHOUT_WORD = timedelta(seconds=30)


@dataclass
class DeliverySummary:
    """What one round of deliveries led to, by destination and state; `late` outcomes came after their lease."""

    by_destination: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, destination: str, counts: dict[str, int]) -> None:
        self.by_destination.setdefault(destination, Counter()).update(counts)

    @property
    def totals(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for counts in self.by_destination.values():
            total.update(counts)
        return total

    @property
    def said(self) -> Counter[str]:
        """The counts by '<destination> <state>', as Dagster is told them."""
        return Counter(
            {f"{name} {state}": n for name, counts in self.by_destination.items() for state, n in counts.items()}
        )


@dataclass(frozen=True)
class _Round:
    """One round of deliveries: who makes it, when it began and when it has to end."""

    now: datetime
    started: float
    budget: timedelta
    lease_beyond: timedelta
    worker: str
    project: Project
    gates: Gates | None
    consents: Callable[[], ConsentLedger] | None

    @property
    def passed(self) -> timedelta:
        return timedelta(seconds=time.monotonic() - self.started)

    @property
    def left(self) -> timedelta:
        return self.budget - self.passed

    @property
    def clock(self) -> datetime:
        return self.now + self.passed

    def refusals(self, claimed: Sequence[Claimed], destination: Destination) -> dict[str, Outcome]:
        """By op_id what must not be sent now: what comes at the wrong time, then what the gates refuse."""
        refused = untimely(self.project, claimed, self.clock)
        if self.gates is None:
            return refused
        timely = [op for op in claimed if op.delivery.op_id not in refused]
        return refused | self.gates.refusals(timely, destination, self.clock)


def deliver(
    ledger: Ledger,
    project: Project,
    *,
    now: datetime,
    connect: Connect,
    limit: int = 10_000,
    worker: str = "worker",
    budget: timedelta = BUDGET,
    lease_beyond: timedelta = LEASE_BEYOND_BUDGET,
    only: Collection[str] | None = None,
    gates: Gates | None = None,
    consents: Callable[[], ConsentLedger] | None = None,
) -> DeliverySummary:
    """Deliver what is due, at each destination's pace, in about `budget` and never starting more than `limit`.

    In `consents` is written down which addresses turn out to be dead, so that nobody writes there again.
    """
    this = _Round(now, time.monotonic(), budget, lease_beyond, worker, project, gates, consents)
    summary = DeliverySummary()
    for name in destinations_due(ledger, now):
        spec = project.destinations.get(name)
        # One that is no longer declared: its operations wait until it is back or somebody dismisses them.
        if spec is None or (only is not None and name not in only):
            continue
        if spec.dry_run:
            _show(ledger, spec, summary, this)
            continue
        if not lifted(ledger, spec, now):
            summary.add(name, {"paused": 1})
            continue
        try:
            limit -= _deliver_to(ledger, spec, summary, this, connect, limit)
        except DestinationError as error:
            # One that is declared wrongly must not keep the others from being served; its operations wait.
            log.warning("destination '%s': %s", name, error)
            summary.add(name, {"unusable": 1})
    return summary


def _show(ledger: Ledger, spec: Destination, summary: DeliverySummary, this: _Round) -> None:
    """Let be seen what would be sent to a destination in dry run, what the gates would refuse, and why."""
    while this.left > SHORTEST_ROUND and (waiting := waiting_for(ledger, spec.name, SHOWN_AT_ONCE)):
        summary.add(spec.name, show_dry_run(ledger, waiting, this.refusals(waiting, spec), this.clock))


def _deliver_to(
    ledger: Ledger,
    spec: Destination,
    summary: DeliverySummary,
    this: _Round,
    connect: Connect,
    limit: int,
) -> int:
    """Serve one destination until nothing is due, it asks to wait, or time or limit are used up; how many it was."""
    done = 0
    with connect(spec) as connection:
        while done < limit and this.left > SHORTEST_ROUND:
            taken = claim(
                ledger,
                spec.name,
                limit=min(connection.batch_size, limit - done),
                now=this.clock,
                lease=this.left + this.lease_beyond,
                worker=this.worker,
                repeatable=connection.repeatable,
                max_attempts=spec.max_attempts,
                rate=spec.rate,
            )
            if not taken.ops:
                if not timedelta(0) < taken.wait < min(this.left, LONGEST_WAIT_IN_A_ROUND):
                    break
                time.sleep(taken.wait.total_seconds())
                continue
            refused = this.refusals(taken.ops, spec)
            passed = [claimed.delivery for claimed in taken.ops if claimed.delivery.op_id not in refused]
            outcomes = connection.deliver(passed, now=this.clock, within=this.left) if passed else []
            done += len(taken.ops)
            # Before they are settled: whoever dies in between has noted it.
            if this.consents is not None and any(outcome.address is not None for outcome in outcomes):
                note_addresses(ledger, this.consents(), this.project, outcomes, this.clock)
            heard = [*refused.values(), *outcomes]
            summary.add(spec.name, settle(ledger, taken, heard, now=this.clock, max_attempts=spec.max_attempts))
            _pause(ledger, spec, this, [claimed.origin for claimed in taken.ops], outcomes)
            resting = [outcome for outcome in outcomes if outcome.state == "untried"]
            if resting:
                asked = [outcome.after for outcome in resting if outcome.after is not None]
                rest(ledger, spec.name, this.clock + max(asked, default=PAUSE_WITHOUT_WORD), resting[0].reason)
                break
    return done


def _pause(
    ledger: Ledger, spec: Destination, this: _Round, origins: Collection[str], outcomes: Collection[Outcome]
) -> None:
    """Stop what refuses us, or is refused too often, and tell the project's people once."""
    found = []
    if refusing := [outcome for outcome in outcomes if outcome.refused_us]:
        found.append(refuse(ledger, spec, refusing[0].reason, this.clock))
    if any(outcome.state in ("failed", "retry") for outcome in outcomes):
        found += trip(ledger, spec.name, set(origins), this.clock)
    for pause in found:
        if pause is not None:
            notice = Notice(
                f"paused:{pause.subject}:{pause.since.isoformat()}", f"{pause.subject} is paused",
                f"{pause.reason}. Then: cdp sync resume {pause.subject}", "/assets/activation/deliveries",
            )  # fmt: skip
            notify(ledger, this.project, notice, this.clock)

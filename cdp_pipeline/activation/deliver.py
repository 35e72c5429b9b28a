"""Carry out what the ledger has decided: claim, send, settle, until nothing is due or the time is up.

Runs inside a sensor's tick as well as in a command; several may run at once. What to send was decided before.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.activation.protocol import Connect
from cdp_pipeline.spec.destination import Smtp, Webhook
from cdp_pipeline.spec.project import Project

BUDGET = timedelta(seconds=45)
LEASE_BEYOND_BUDGET = timedelta(minutes=2)
LONGEST_PAUSE_WITHOUT_WORD = timedelta(seconds=30)


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
) -> DeliverySummary:
    """Deliver what is due, at each destination's pace, in about `budget` and never starting more than `limit`."""
    # The name in the ledger is this round's own: a later round of the same worker must not settle for it.
    round_name, started, summary = f"{worker}:{uuid.uuid4().hex[:12]}", time.monotonic(), DeliverySummary()
    for name in ledger.destinations_due(now):
        if only is not None and name not in only:
            continue
        spec = project.destinations.get(name)
        if spec is None:
            continue  # No longer declared: its operations wait until it is back or somebody dismisses them.
        if spec.dry_run:
            summary.add(name, {"dry_run": ledger.show_dry_run(name, now)})
            continue
        until = started + budget.total_seconds()
        limit -= _deliver_to(ledger, spec, summary, now, started, until, connect, limit, round_name, lease_beyond)
    return summary


def _deliver_to(
    ledger: Ledger,
    spec: Webhook | Smtp,
    summary: DeliverySummary,
    now: datetime,
    started: float,
    until: float,
    connect: Connect,
    limit: int,
    worker: str,
    lease_beyond: timedelta,
) -> int:
    done = 0
    with connect(spec) as connection:
        while done < limit and (left := until - time.monotonic()) > 1:
            clock = now + timedelta(seconds=time.monotonic() - started)
            claim = ledger.claim(
                spec.name,
                limit=min(connection.batch_size, limit - done),
                now=clock,
                lease=timedelta(seconds=left) + lease_beyond,
                worker=worker,
                repeatable=connection.repeatable,
                max_attempts=spec.max_attempts,
                rate=spec.rate,
            )
            if not claim.ops:
                if not timedelta(0) < claim.wait < timedelta(seconds=min(left, 5)):
                    break
                time.sleep(claim.wait.total_seconds())
                continue
            outcomes = connection.deliver(
                [claimed.delivery for claimed in claim.ops], now=clock, within=timedelta(seconds=left)
            )
            after = now + timedelta(seconds=time.monotonic() - started)
            settled = zip(claim.ops, outcomes, strict=True)
            summary.add(spec.name, ledger.settle(settled, worker=worker, now=after, max_attempts=spec.max_attempts))
            done += len(outcomes)
            resting = [outcome for outcome in outcomes if outcome.state == "untried"]
            if resting:
                rest = max(
                    (outcome.after for outcome in resting if outcome.after is not None),
                    default=LONGEST_PAUSE_WITHOUT_WORD,
                )
                ledger.pause(spec.name, after + rest, resting[0].reason)
                break
    return done

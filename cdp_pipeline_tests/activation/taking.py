"""A worker of the tests' own: takes what is due, on terms that matter to few tests."""

from __future__ import annotations

from datetime import datetime, timedelta

from cdp_pipeline.activation import claims
from cdp_pipeline.activation.claims import Claim
from cdp_pipeline.activation.ledger import Ledger

LEASE = timedelta(hours=1)


def take(
    ledger: Ledger,
    now: datetime,
    *,
    destination: str = "hook",
    limit: int = 1000,
    lease: timedelta = LEASE,
    worker: str = "test",
    repeatable: bool = True,
    max_attempts: int = 3,
    rate: float = 1e6,
) -> Claim:
    """What is due, all of it unless told otherwise, at a destination that takes the same operation twice for one."""
    return claims.claim(
        ledger, destination, limit=limit, now=now, lease=lease, worker=worker, repeatable=repeatable,
        max_attempts=max_attempts, rate=rate,
    )  # fmt: skip

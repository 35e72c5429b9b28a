"""Deliver what is due: past the gates a project declares, to its real destinations. How is activation/deliver.py's."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial

from cdp_pipeline.activation.deliver import BUDGET, DeliverySummary, deliver
from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.lake import Lake
from cdp_pipeline.orchestration.installation import Clock, consents_of, gates_of
from cdp_pipeline.spec.project import Project

COLLECTED_AFTER = (50_000, 20, 100)


def deliver_due(
    project: Project,
    ledger: Ledger,
    clock: Clock,
    *,
    worker: str,
    budget: timedelta = BUDGET,
    only: Collection[str] | None = None,
    lake: Callable[[], Lake] | None = None,
) -> DeliverySummary:
    """One round of deliveries, to the destinations in `only` or to all; `lake` gives one that is open already."""
    # Thousands of rows in hand are no garbage: looked through at every 700 new ones, they took a quarter of the time.
    gc.set_threshold(*COLLECTED_AFTER)
    with gates_of(project, ledger, clock, lake) as gates:
        return deliver(
            ledger, project, now=clock(), connect=destination_for, worker=worker, budget=budget, only=only, gates=gates,
            consents=partial(consents_of, ledger),
        )  # fmt: skip

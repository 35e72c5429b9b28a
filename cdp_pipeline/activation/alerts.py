"""Tell the project's people that something failed, once per occasion, through the same ledger as everything else."""

from __future__ import annotations

from datetime import datetime, timedelta

from cdp_pipeline.activation.deliver import DeliverySummary, deliver
from cdp_pipeline.activation.gates import Gates
from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.activation.notices import notify
from cdp_pipeline.activation.protocol import Connect
from cdp_pipeline.spec.project import Project

BUDGET = timedelta(seconds=20)


def alert(
    ledger: Ledger,
    project: Project,
    *,
    key: str,
    title: str,
    text: str,
    link: str,
    now: datetime,
    connect: Connect,
    gates: Gates | None = None,
) -> DeliverySummary:
    """Send an alert to every alert destination, once per `key` (such as the run's id and the check's name).

    What does not get through now stays in the ledger and is tried again with the next deliveries. A destination in
    dry run gets nothing; the log says what it would have got. What else is due there leaves with it, through `gates`.
    """
    names = notify(ledger, project, key=key, title=title, text=text, link=link, now=now)
    return deliver(ledger, project, now=now, connect=connect, worker="alert", budget=BUDGET, only=names, gates=gates)

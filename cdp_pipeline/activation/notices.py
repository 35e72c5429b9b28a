"""What the project's own people are told, as operations of the ledger. Delivering them is deliver.py's."""

from __future__ import annotations

import logging
from datetime import datetime
from email.utils import parseaddr
from typing import NamedTuple

from cdp_pipeline.activation.ledger import Ledger, Op, operation_id
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.project import Project

log = logging.getLogger(__name__)


class Notice(NamedTuple):
    """One thing to tell, once: `key` is what happened (such as the run's id and the check's name)."""

    key: str
    title: str
    text: str
    link: str


def notify(ledger: Ledger, project: Project, notice: Notice, now: datetime) -> list[str]:
    """Record a message to every alert destination, once per key; the names of those destinations.

    A destination in dry run gets nothing; the log says what it would have got.
    """
    names = [name for name in project.settings.alerts if name in project.destinations]
    ops = [
        Op(
            op_id=operation_id("alert", notice.key, name),
            origin=f"alert:{operation_id(notice.key)[:12]}",
            destination=name,
            person_id="",
            kind="alert",
            occasion=notice.key,
            payload=_payload(project, project.destinations[name], notice, now),
        )
        for name in names
    ]
    fresh = set(ledger.send_once(ops, now))
    for op in ops:
        if op.op_id in fresh and project.destinations[op.destination].dry_run:
            log.info("dry run: would tell '%s': %s. %s %s", op.destination, notice.title, notice.text, notice.link)
    return names


def _payload(project: Project, destination: Destination, notice: Notice, now: datetime) -> dict[str, object]:
    if not destination.words:
        data = {"project": project.settings.name, "title": notice.title, "text": notice.text, "link": notice.link}
        return {"type": "alert", "timestamp": now.isoformat(), "data": data}
    heading = f"[{project.settings.name}] {notice.title}"
    said = {"subject": heading, "title": heading, "body": f"{notice.text}\n\n{notice.link}\n"}
    payload: dict[str, object] = {name: said[name] for name in destination.words if name in said}
    if "to" in destination.needed:
        # To the project's owner where that is an address, else to whom the letters come from.
        owner = project.settings.owner or ""
        payload["to"] = owner if "@" in owner else parseaddr(getattr(destination, "sender", ""))[1]
    return payload

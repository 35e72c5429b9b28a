"""What is told to us of messages after they left: kept as it came, on disk, until it is written down as receipts.

Whether it is genuine, and what it says, is its connector's business: `genuine` and `told` of the module of its type.
Being called is receiver.py's.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType

from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.activation.protocol import DestinationError
from cdp_pipeline.activation.receipts import Report, note
from cdp_pipeline.consent.ledger import ConsentLedger
from cdp_pipeline.destinations.bounces import reports_of_mail
from cdp_pipeline.destinations.file import put_whole
from cdp_pipeline.destinations.returned import unread
from cdp_pipeline.spec.destination import Destination, Smtp
from cdp_pipeline.spec.project import Project

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Callback:
    """A request as it came: the query as it was written, headers by their names in lower case."""

    destination: str
    at: datetime
    body: bytes
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def speaker(spec: Destination) -> ModuleType | None:
    """The connector's module, if whoever it delivers to may call back."""
    module = import_module(f"cdp_pipeline.destinations.{spec.type}")
    return module if hasattr(module, "genuine") else None


def told(project: Project, callback: Callback) -> list[Report]:
    """What it says; ValueError where that cannot be understood."""
    spec = project.destinations.get(callback.destination)
    module = None if spec is None else speaker(spec)
    if module is None:
        raise ValueError(f"nobody calls back for '{callback.destination}'")
    found: list[Report] = module.told(spec, callback)
    return found


def keep(folder: Path, callback: Callback) -> None:
    """Put it where take_in finds it; it lasts once this has returned."""
    said = {"destination": callback.destination, "at": callback.at.isoformat(), "query": callback.query}
    name = f"{callback.at:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:12]}.callback"
    put_whole(folder / name, json.dumps(said).encode() + b"\n" + callback.body)


def take_in_mail(ledger: Ledger, consents: ConsentLedger, project: Project, now: datetime) -> Counter[str]:
    """Write down what unread mail at the return paths reports; how many were new, by event."""
    counts: Counter[str] = Counter()
    places = {spec.returned for spec in project.destinations.values() if isinstance(spec, Smtp) and spec.returned}
    for place in sorted(places):
        try:
            for mail in unread(place):
                counts += note(ledger, consents, project, reports_of_mail(mail, now), now)
        except (DestinationError, OSError) as problem:
            log.warning("mail that came back: %s", problem)
    return counts


def take_in(ledger: Ledger, consents: ConsentLedger, project: Project, folder: Path, now: datetime) -> Counter[str]:
    """Write down as receipts what was kept, oldest first, and forget it; how many were new, by event.

    What is not understood stays where it is. Whoever dies in between, or comes second, writes nothing twice.
    """
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.callback")):
        try:
            head, _, body = path.read_bytes().partition(b"\n")
            said = json.loads(head)
            at = datetime.fromisoformat(said["at"])
            reports = told(project, Callback(said["destination"], at, body, said["query"]))
        except FileNotFoundError:
            continue  # Somebody else has just taken it in.
        except ValueError as error:
            log.warning("%s stays: %s", path, error)
            continue
        counts += note(ledger, consents, project, reports, now)
        path.unlink(missing_ok=True)
    return counts

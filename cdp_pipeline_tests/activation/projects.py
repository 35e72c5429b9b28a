"""Small projects, built by hand, for the tests of activation."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.destination import Smtp, Webhook
from cdp_pipeline.spec.project import LakeLocation, Project, ProjectSettings
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline.spec.trigger import Trigger
from cdp_pipeline_tests.destinations.servers import SECRET

NOW = datetime(2026, 3, 10, 9, 0, tzinfo=UTC)
DAY = date(2026, 3, 9)


def webhook(url: str, **fields: Any) -> Webhook:
    given = {"name": "hook", "allow_private": True, "dry_run": False, "rate": 1000, "secret": SECRET, **fields}
    return Webhook(kind="destination", type="webhook", description="A receiver.", url=url, **given)


def mail(port: int, **fields: Any) -> Smtp:
    given = {"name": "mail", "dry_run": False, "security": "none", "rate": 1000, "sender": "Shop <shop@example.com>"}
    return Smtp(
        kind="destination", type="smtp", description="Mail.", host="127.0.0.1", port=port, **{**given, **fields}
    )


def trigger(**fields: Any) -> Trigger:
    given = {
        "name": "slipping",
        "on": {"crossed": {"trait": "recency", "to": "alarm"}},
        "do": [{"destination": "hook"}],
    }
    return Trigger.model_validate({"kind": "trigger", "description": "Somebody slips away.", **given, **fields})


def sync(**fields: Any) -> Sync:
    given = {
        "name": "vips",
        "audience": "vip",
        "destination": "hook",
        "mode": "mirror",
        "mapping": {"person_id": "person_id"},
    }
    return Sync.model_validate({"kind": "sync", "description": "VIPs, kept over there.", **given, **fields})


def project(*documents: Any, **settings: Any) -> Project:
    kinds = ("destination", "trigger", "sync", "consent", "contact_policy", "identifier")
    by_kind: dict[str, dict[str, Any]] = {kind: {} for kind in kinds}
    for document in documents:
        by_kind[document.kind][document.name] = document
    whole = ProjectSettings(
        kind="project", name="tests", description="For tests.", first_day=date(2025, 1, 1),
        **{"lake": LakeLocation(path="lake"), **settings},
    )  # fmt: skip
    return Project(
        folder=Path(), settings=whole, sources={}, identifiers=by_kind["identifier"], matches={}, attributes={},
        traits={}, predictions={}, audiences={}, triggers=by_kind["trigger"], destinations=by_kind["destination"],
        syncs=by_kind["sync"], consents=by_kind["consent"], contact_policies=by_kind["contact_policy"],
    )  # fmt: skip


def crossing(person: str, day: date = DAY, to: str = "alarm", before: str | None = "watch") -> dict[str, object]:
    return {"person_id": person, "trait": "recency", "day": day, "from_band": before, "to_band": to}


def move(
    person: str, day: date = DAY, audience: str = "vip", change: str = "entered", cause: str = "rule"
) -> dict[str, object]:
    return {"audience": audience, "person_id": person, "day": day, "change": change, "cause": cause}

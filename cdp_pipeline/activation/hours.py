"""When a trigger's acts may go out: within its valid hours, and before they are no use any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from cdp_pipeline.activation.claims import Claimed
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline.spec.base import duration_text
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trigger import DAYS, ValidHours

ONE_DAY = timedelta(days=1)


def untimely(project: Project, claimed: Iterable[Claimed], now: datetime) -> dict[str, Outcome]:
    """By op_id the acts of triggers that must not be sent now: too late for ever, or outside the valid hours."""
    found = {}
    for op in claimed:
        kind, _, name = op.origin.partition(":")
        trigger = project.triggers.get(name) if kind == "trigger" else None
        if trigger is None:
            continue
        op_id = op.delivery.op_id
        if trigger.expires is not None and now - op.decided_at > trigger.expires:
            found[op_id] = Outcome(op_id, "suppressed", expired(trigger.expires))
        elif trigger.valid_hours is not None:
            wait = until_open(trigger.valid_hours, now, project.zone)
            if wait:
                found[op_id] = Outcome(op_id, "waits", "outside its valid hours", wait)
    return found


def expired(expires: timedelta) -> str:
    """Why something that waited too long is not sent."""
    return f"expired: it waited longer than {duration_text(expires)}"


def until_open(hours: ValidHours, now: datetime, zone: ZoneInfo) -> timedelta:
    """How long until the hours begin; nothing, where they are on. Hours over midnight belong to the day they begin."""
    today = now.astimezone(zone).date()
    coming = []
    for day in (today + ONE_DAY * number for number in range(-1, 9)):
        if DAYS[day.weekday()] not in hours.days:
            continue
        begin, end = _opening(hours, day, zone)
        if begin <= now < end:
            return timedelta(0)
        if begin > now:
            coming.append(begin - now)
    return min(coming)


def _opening(hours: ValidHours, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    closes = day if hours.from_ < hours.to else day + ONE_DAY
    begin, end = datetime.combine(day, hours.from_, zone), datetime.combine(closes, hours.to, zone)
    return begin.astimezone(UTC), end.astimezone(UTC)

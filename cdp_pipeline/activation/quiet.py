"""When it is night where somebody lives. Pure; daylight saving is the time zone's business."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from cdp_pipeline.spec.contact_policy import QuietHours


def zone_of(hours: QuietHours, attributes: Mapping[str, object], otherwise: ZoneInfo) -> ZoneInfo:
    """The person's time zone, the project's where theirs is not known."""
    said = str(attributes.get(hours.zone or "") or "")
    if not said:
        return otherwise
    try:
        return ZoneInfo(hours.zones.get(said, "") if hours.zones else said)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        return otherwise


def quiet_until(hours: QuietHours, zone: ZoneInfo, now: datetime) -> datetime | None:
    """When the quiet hours that it is in end (UTC), or None when it is in none.

    They last while the person's clock shows a time from `from` to before `to`, so an hour that comes twice when clocks
    are put back is quiet twice. Where clocks are put forward over `to`, what waits may wait up to an hour longer.
    """
    local = now.astimezone(zone)
    if not _within(hours, local.time()):
        return None
    day = local.date() + timedelta(days=local.time() >= hours.to)
    ends = [datetime.combine(day, hours.to.replace(fold=fold), zone).astimezone(UTC) for fold in (0, 1)]
    return min((end for end in ends if end > now), default=now.astimezone(UTC) + timedelta(minutes=30))


def _within(hours: QuietHours, clock: time) -> bool:
    if hours.from_ < hours.to:
        return hours.from_ <= clock < hours.to
    return clock >= hours.from_ or clock < hours.to


def longest(hours: Iterable[tuple[QuietHours, ZoneInfo]], now: datetime) -> datetime | None:
    """When the last of several quiet hours that it is in ends."""
    ends = [end for one, zone in hours if (end := quiet_until(one, zone, now)) is not None]
    return max(ends, default=None)

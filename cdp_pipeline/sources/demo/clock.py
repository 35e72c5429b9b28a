"""One day of the company's life, from midnight to midnight on its own clocks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from datetime import date as Date
from zoneinfo import ZoneInfo

import numpy as np

from cdp_pipeline.sources.demo.text import Numbers

ZONE = ZoneInfo("Europe/London")
_EPOCH = Date(1970, 1, 1)


@dataclass(frozen=True)
class Day:
    """`number` counts from the first generated day; `start` is local midnight in seconds since 1970."""

    number: int
    date: Date
    start: int
    seconds: int

    @classmethod
    def of(cls, first: Date, number: int) -> Day:
        today = first + timedelta(days=number)
        start = _midnight(today)
        return cls(number, today, start, _midnight(today + timedelta(days=1)) - start)

    @property
    def since_1970(self) -> int:
        return (self.date - _EPOCH).days

    @property
    def shop_hours_offset(self) -> int:
        """Seconds between UTC and the clocks on the wall while the stores are open."""
        noon = datetime.combine(self.date, time(12), ZONE)
        offset = noon.utcoffset()
        return int(offset.total_seconds()) if offset else 0

    def at(self, seconds: Numbers) -> Numbers:
        """Instants of this day, in seconds since 1970, from seconds since midnight."""
        return self.start + np.clip(seconds.astype(np.int64), 0, self.seconds - 1)


def _midnight(day: Date) -> int:
    return int(datetime.combine(day, time(), ZONE).astimezone(UTC).timestamp())

"""Windows: which days of events a trait or a condition sees, said in words and turned into a first and a last day.

All are whole days in the project's time zone. `last 30 days` as of day D is [D-29, D], which is the half-open span of
time [start of D-29, start of D+1): so neighbouring windows share no event, and days of 23 or 25 hours are days.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, PlainSerializer

from cdp_pipeline.spec.base import Part, unknown

Unit = Literal["day", "week", "month", "quarter", "year"]
MOST = {"day": 36_500, "week": 5_200, "month": 1_200, "year": 100}


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """When a day begins in a zone, in UTC and without saying so, as the lake keeps times."""
    return datetime.combine(day, time(), zone).astimezone(UTC).replace(tzinfo=None)


class Window(Part):
    """A span of whole days, told from the as-of day D. Months and years go by the calendar, weeks begin on Monday.

    lifetime: all up to D. last: `number` units up to and with D; last 2 months is [D+1 minus 2 months, D]. this: from
    the first day of D's week, month, quarter or year to D. previous: the whole one before that. between: what the last
    `number` units see and the last `until` units do not. next: `number` units from D+1 on, as far as rows loaded by
    the end of D know of them. session: up to D, and of that the last run of events without a longer gap.
    """

    reach: Literal["lifetime", "last", "this", "previous", "between", "next", "session"] = "lifetime"
    number: int = 0
    until: int = 0
    unit: Unit = "day"

    def span(self, day: date) -> tuple[date | None, date]:
        """The first and the last day seen from the end of `day`; without a first, all before the last."""
        match self.reach:
            case "last":
                return _back(day, self.number, self.unit), day
            case "this":
                return _start(day, self.unit), day
            case "previous":
                last = _start(day, self.unit) - timedelta(days=1)
                return _start(last, self.unit), last
            case "between":
                return _back(day, self.number, self.unit), _back(day, self.until, self.unit) - timedelta(days=1)
            case "next":
                return day + timedelta(days=1), _back(day, -self.number, self.unit) - timedelta(days=1)
        return None, day

    def __str__(self) -> str:
        units = f"{self.unit}{'' if max(self.number, self.until) == 1 else 's'}"
        match self.reach:
            case "last" | "next":
                return f"{self.reach} {self.number} {units}"
            case "this" | "previous":
                return f"{self.reach} {self.unit}"
            case "between":
                return f"between {self.number} and {self.until} {units} ago"
        return "last session" if self.reach == "session" else "lifetime"


def _start(day: date, unit: Unit) -> date:
    """The first day of the week, month, quarter or year that the day is in."""
    if unit == "week":
        return day - timedelta(days=day.weekday())
    first_month = {"month": day.month, "quarter": (day.month - 1) // 3 * 3 + 1, "year": 1}[unit]
    return date(day.year, first_month, 1)


def _back(day: date, number: int, unit: Unit) -> date:
    """The first of the days that many units cover when `day` is the last."""
    after = day + timedelta(days=1)
    if unit in ("day", "week"):
        return after - timedelta(days=number * (7 if unit == "week" else 1))
    year, month = divmod(after.year * 12 + after.month - 1 - number * (12 if unit == "year" else 1), 12)
    return date(year, month + 1, min(after.day, monthrange(year, month + 1)[1]))


_COUNTED = r"(last|next) (\d{1,6}) (day|week|month|year)s?"
_CALENDAR = r"(this|previous) (week|month|quarter|year)"
_BETWEEN = r"between (\d{1,6}) and (\d{1,6}) (day|week|month|year)s? ago"
_PATTERN = f"^(lifetime|last session|{_COUNTED}|{_CALENDAR}|{_BETWEEN})$"


def parse_window(text: object) -> object:
    """Turn 'last 90 days' and the like into a Window; anything else raises ValueError with the nearest right answer."""
    if isinstance(text, Window):
        return text
    words = " ".join(text.split()) if isinstance(text, str) else ""
    if words in ("lifetime", "last session"):
        return Window(reach="session" if words == "last session" else "lifetime")
    if found := re.fullmatch(_CALENDAR, words):
        return Window.model_validate({"reach": found[1], "unit": found[2]})
    if found := re.fullmatch(_COUNTED, words):
        return Window.model_validate({"reach": found[1], "number": _sound(found[2], found[3]), "unit": found[3]})
    if found := re.fullmatch(_BETWEEN, words):
        far, near, unit = _sound(found[1], found[3]), _sound(found[2], found[3]), found[3]
        if far <= near:
            right = f"between {max(near, far + 1)} and {far} {unit}s ago"
            raise ValueError(f"begins with the end further away: write '{right}'")
        return Window.model_validate({"reach": "between", "number": far, "until": near, "unit": unit})
    raise ValueError(_nearest(text, words))


def _sound(number: str, unit: str) -> int:
    if not 1 <= int(number) <= MOST[unit]:
        raise ValueError(f"counts from 1 to {MOST[unit]:,} {unit}s, got {int(number):,}")
    return int(number)


def _nearest(text: object, words: str) -> str:
    if found := re.fullmatch(r"(last|next) (week|month|quarter|year)", words):
        some = "3 months' for the three months" if found[2] == "quarter" else f"1 {found[2]}' for the {found[2]}"
        whole = f"'previous {found[2]}' for the whole one before, or " if found[1] == "last" else ""
        return f"'{words}' is not clear: write {whole}'{found[1]} {some} {'up to' if whole else 'after'} the day"
    numbers = [*re.findall(r"\d+", words), "90", "30"]
    units = ("day", "week", "month", "year")
    known = ["lifetime", "last session"]
    reach = "next" if words.startswith(("next", "in ", "coming")) else "last"
    known += [f"{reach} {numbers[0]} {unit}s" for unit in units]
    known += [f"between {numbers[0]} and {numbers[1]} {unit}s ago" for unit in units]
    known += [f"{reach} {unit}" for reach in ("this", "previous") for unit in ("week", "month", "quarter", "year")]
    said = unknown("window", text, known)
    return said if "did you mean" in said else f"{said}, write 'last 90 days', 'this month', 'lifetime' or the like"


_WindowPattern = Annotated[
    str,
    Field(
        pattern=_PATTERN,
        json_schema_extra={
            "examples": ["last 90 days", "lifetime", "last 3 months", "this month", "previous quarter",
                         "between 60 and 30 days ago", "next 14 days", "last session"]
        },
    ),
]  # fmt: skip
WindowText = Annotated[
    Window, BeforeValidator(parse_window, json_schema_input_type=_WindowPattern), PlainSerializer(str)
]

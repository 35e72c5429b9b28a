"""The words every kind of YAML document shares: names, durations, and the strict frozen model they build on.

Nothing here knows about a particular kind, reads a file or computes anything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import date, time, timedelta
from difflib import get_close_matches
from functools import lru_cache
from heapq import nlargest
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

MANY_NAMES, COMPARED_NAMES = 200, 20
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
Priority = Annotated[
    int, Field(ge=0, le=1000, description="The higher goes first where not all that is wanted may be sent.")
]
SqlFragment = Annotated[str, Field(min_length=1, description="One SQL expression in DuckDB's dialect.")]


def shown(value: object) -> str:
    """A value as a message shows it: as it is written in YAML, and never long."""
    words = {None: "nothing", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unknown(what: str, word: object, known: Iterable[str]) -> str:
    """Say that a word is not known, and name its nearest neighbour, or all that are known when they are few."""
    names, text = sorted(known), shown(word)
    nearest = _nearest(str(word)[:100], tuple(names))
    if nearest:
        return f"unknown {what} {text}, did you mean '{nearest[0]}'?"
    if len(names) == 1:
        return f"unknown {what} {text}, there is only {names[0]}"
    return f"unknown {what} {text}" + (f", there are {', '.join(names)}" if 1 < len(names) <= 16 else "")


@lru_cache(maxsize=4096)
def _nearest(word: str, names: tuple[str, ...]) -> list[str]:
    """The name most like a word, if any is. Of very many, only those that share most pairs of letters are compared."""
    if len(names) > MANY_NAMES:
        shared = Counter(name for pair in _pairs(word) for name in _names_by_pair(names).get(pair, ()))
        likeness = {name: 2 * count / (len(word) + len(name)) for name, count in shared.items()}
        names = tuple(nlargest(COMPARED_NAMES, likeness, key=likeness.__getitem__))
    return get_close_matches(word, names, n=1)


@lru_cache(maxsize=8)
def _names_by_pair(names: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        for pair in _pairs(name):
            found.setdefault(pair, []).append(name)
    return found


def _pairs(word: str) -> set[str]:
    return {word[at : at + 2] for at in range(len(word) - 1)}


def counted(number: int, thing: str) -> str:
    """`1 source`, `2 sources`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


class Part(BaseModel):
    """A strict, frozen piece of a document: unknown fields are mistakes, not options."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Document(Part):
    """What every YAML document has: a kind, a name unique within its kind, and words for people."""

    name: Name
    description: Annotated[str, Field(min_length=1, description="What it is, in a marketer's words.")]
    owner: str | None = Field(default=None, description="Who answers for it: team:crm or ann@example.com.")


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(unknown("time zone", name, available_timezones())) from None
    return name


TimeZone = Annotated[str, AfterValidator(_known_zone), Field(json_schema_extra={"examples": ["Europe/Berlin", "UTC"]})]


def sound_pattern(pattern: str) -> str:
    """The pattern, or a ValueError that says why it is no regular expression to RE2, which DuckDB and Arrow share."""
    import pyarrow
    from pyarrow.compute import match_substring_regex

    try:
        match_substring_regex(pyarrow.nulls(1, pyarrow.string()), pattern)  # `array` would import pandas
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"is not a regular expression (RE2): {str(error).partition(': ')[2]}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(sound_pattern)]

_UNITS = {"minute": 60, "hour": 3600, "day": 86400, "week": 604800}


def parse_duration(text: object) -> timedelta:
    """Turn '30 days', '1 hour' or '15 minutes' into a timedelta; anything else raises ValueError."""
    if isinstance(text, timedelta):
        return text
    found = re.fullmatch(r"\s*(\d{1,6})\s*(minute|hour|day|week)s?\s*", str(text))
    if found is None:
        raise ValueError("should be a duration such as '15 minutes', '2 hours', '30 days' or '4 weeks'")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def duration_text(span: timedelta) -> str:
    """`30 days`, `2 hours`, `15 minutes`; the longest unit it is whole in."""
    unit = next(unit for unit in ("day", "hour", "minute") if span.total_seconds() % _UNITS[unit] == 0)
    return f"{int(span.total_seconds() // _UNITS[unit])} {unit}s"


_DurationText = Annotated[
    str, Field(pattern=r"^\d+ (minute|hour|day|week)s?$", json_schema_extra={"examples": ["15 minutes", "30 days"]})
]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=_DurationText),
    PlainSerializer(duration_text),
]


def _some_time(span: timedelta) -> timedelta:
    if not span:
        raise ValueError("should be some time, such as '2 hours', got none")
    return span


SomeTime = Annotated[Duration, AfterValidator(_some_time)]


def in_whole_days(span: timedelta) -> timedelta:
    """The span, or a ValueError where it is not whole days."""
    if span < timedelta(days=1) or span % timedelta(days=1):
        raise ValueError("should be whole days, such as '30 days'")
    return span


WholeDays = Annotated[Duration, AfterValidator(in_whole_days)]


def _clock_time(value: object) -> object:
    """Only text: pydantic takes a number for seconds since midnight."""
    if isinstance(value, time):
        return value
    try:
        found = time.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        found = None
    if found is None or found.tzinfo is not None or found.microsecond:
        raise ValueError("should be a time of day such as '21:00'")
    return found


TimeOfDay = Annotated[
    time, BeforeValidator(_clock_time, json_schema_input_type=str), Field(json_schema_extra={"examples": ["21:00"]})
]


def _iso_day(value: object) -> object:
    """Only text: pydantic takes a number for seconds since 1970."""
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("should be a date such as 2026-01-31") from None


Day = Annotated[date, BeforeValidator(_iso_day)]

"""What a condition may ask of a value: every operator with the sorts of values it suits and what it is compared with.

What an operator does is in audiences/operators.py. Adding one is a line here, one there, and its line in the test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

from cdp_pipeline.spec.base import in_whole_days, parse_duration, shown, sound_pattern, unknown

Scalar = str | int | float | bool
Value = Scalar | list[Scalar] | dict[str, Scalar]
_Operator = Literal[
    "=", "!=", "<", "<=", ">", ">=", "between", "not_between", "in", "not_in",
    "contains", "not_contains", "starts_with", "not_starts_with", "ends_with", "not_ends_with",
    "like", "not_like", "matches", "not_matches", "is_null", "not_null", "is_true", "is_false",
    "before", "after", "within_last", "not_within_last", "within_next", "anniversary_within",
    "has_any", "has_all", "has_none", "size_is", "size_at_least", "size_at_most",
    "within_km", "increased_by", "decreased_by", "changed_by",
]  # fmt: skip
LIKELY = {
    "==": "=", "equals": "=", "is": "=", "eq": "=", "<>": "!=", "not_equals": "!=", "is_not": "!=", "ne": "!=",
    "more_than": ">", "greater_than": ">", "gt": ">", "at_least": ">=", "gte": ">=", "less_than": "<", "lt": "<",
    "at_most": "<=", "lte": "<=", "one_of": "in", "is_in": "in", "none_of": "not_in", "includes": "contains",
    "begins_with": "starts_with", "regex": "matches", "regexp": "matches", "exists": "not_null", "is_known": "not_null",
    "is_set": "not_null", "is_not_null": "not_null", "is_unknown": "is_null", "is_empty": "is_null",
    "since": "within_last", "in_last": "within_last", "in_next": "within_next", "birthday_within": "anniversary_within",
    "near": "within_km", "rose_by": "increased_by", "fell_by": "decreased_by", "grew_by": "increased_by",
}  # fmt: skip
"""What people write who know other tools."""


def _known(name: object) -> object:
    if isinstance(name, str) and name not in get_args(_Operator):
        meant = LIKELY.get(name)
        said = f"unknown operator '{name}', did you mean '{meant}'?" if meant else unknown("operator", name, OPERATORS)
        raise ValueError(said if "did you mean" in said else f"{said}, there are {', '.join(OPERATORS)}")
    return name


OperatorName = Annotated[_Operator, BeforeValidator(_known)]
Kind = Literal["text", "number", "boolean", "date", "timestamp", "list"]
"""The sorts of values: integers, numbers and money are all `number`; a list is one of texts."""
KIND_WORDS: dict[Kind, str] = {
    "text": "strings", "number": "numbers", "boolean": "true or false", "date": "dates", "timestamp": "times",
    "list": "lists",
}  # fmt: skip


@dataclass(frozen=True)
class Operator:
    """The kinds of values it is asked of, how it reads in words, and what may be wrong with its value in YAML.

    typed: each value it is given must be of the type of what it is asked of.
    """

    kinds: frozenset[Kind]
    words: str
    objection: Callable[[Any], str | None]
    typed: bool = False

    def objection_to(self, name: str, value: Any) -> str | None:
        """Why this cannot be its value, in words that begin with its name."""
        said = self.objection(value)
        return None if said is None else f"'{name}' {said}"


def _nothing(value: Any) -> str | None:
    return "takes no value" if value is not None else None


def _one(value: Any) -> str | None:
    return "needs one value" if value is None or isinstance(value, list | dict) else None


def _several(value: Any) -> str | None:
    return None if isinstance(value, list) and value else "needs a list of values"


def _two(value: Any) -> str | None:
    if not isinstance(value, list) or len(value) != 2:
        return "needs a list of two values, lowest first"
    low, high = value
    if isinstance(low, str) == isinstance(high, str) and low > high:
        return "has its two values the wrong way round, lowest first"
    return None


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else f"needs some text, got {shown(value)}"


def _texts(value: Any) -> str | None:
    whole = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    return None if whole else "needs a list of texts"


def _like(value: Any) -> str | None:
    said = _text(value)
    return said or ("needs a pattern without a backslash, which engines read differently" if "\\" in value else None)


def _pattern(value: Any) -> str | None:
    said = _text(value)
    try:
        return said or (sound_pattern(value) and None)
    except ValueError as error:
        return f"needs a pattern, {shown(value)} {error}"


def _size(value: Any) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return None if whole else f"needs a whole number, got {shown(value)}"


def _duration(value: Any, most: int = 36_500, what: str = "whole days") -> str | None:
    try:
        number = whole_days(value)
    except ValueError:
        return f"needs {what}, such as '30 days' or '4 weeks', got {shown(value)}"
    return None if number <= most else f"needs {what}, {most:,} of them or fewer, got {shown(value)}"


def _year(value: Any) -> str | None:
    return _duration(value, most=365)


def _day(value: Any) -> str | None:
    try:
        day_meant(value, date.min + timedelta(days=40_000))
    except ValueError as error:
        return f"{error}, got {shown(value)}"
    return None


def _fields(value: Any, wanted: dict[str, tuple[float, float]], form: str) -> str | None:
    if not isinstance(value, dict):
        return f"needs {form}"
    for name in value:
        if name not in wanted:
            return f"needs {form}: {unknown('field', name, wanted)}"
    for name, (low, high) in wanted.items():
        number = value.get(name)
        if not isinstance(number, int | float) or isinstance(number, bool):
            return f"needs {form}: {name} should be a number, got {shown(number)}"
        if not low <= number <= high:
            return f"needs {form}: {name} should be between {low:g} and {high:g}, got {shown(number)}"
    return None


def _place(value: Any) -> str | None:
    limits = {"lat": (-90.0, 90.0), "lon": (-180.0, 180.0), "km": (0.0, 20_016.0)}
    return _fields(value, limits, "a place such as {lat: 51.5, lon: -0.1, km: 25}")


def _change(value: Any) -> str | None:
    form = "a change such as {by: 10, over: 30 days} or {percent: 20, over: 30 days}"
    if not isinstance(value, dict) or ("by" in value) == ("percent" in value) or "over" not in value:
        return f"needs {form}"
    said = _duration(value["over"], what="whole days for 'over'")
    if said is not None:
        return said
    amount = "by" if "by" in value else "percent"
    rest = {name: item for name, item in value.items() if name != "over"}
    said = _fields(rest, {amount: (0.0, 1e15)}, form)
    return said or (None if rest[amount] > 0 else f"needs {form}: {amount} should be more than 0")


TEXT: frozenset[Kind] = frozenset({"text"})
NUMBER: frozenset[Kind] = frozenset({"number"})
BOOLEAN: frozenset[Kind] = frozenset({"boolean"})
LIST: frozenset[Kind] = frozenset({"list"})
MOMENT: frozenset[Kind] = frozenset({"date", "timestamp"})
ORDERED = TEXT | NUMBER | MOMENT
SINGLE = ORDERED | BOOLEAN
OPERATORS: dict[str, Operator] = {
    "=": Operator(SINGLE, "=", _one, typed=True),
    "!=": Operator(SINGLE, "is not", _one, typed=True),
    "<": Operator(ORDERED, "<", _one, typed=True),
    "<=": Operator(ORDERED, "<=", _one, typed=True),
    ">": Operator(ORDERED, ">", _one, typed=True),
    ">=": Operator(ORDERED, ">=", _one, typed=True),
    "between": Operator(ORDERED, "is between", _two, typed=True),
    "not_between": Operator(ORDERED, "is not between", _two, typed=True),
    "in": Operator(SINGLE, "is one of", _several, typed=True),
    "not_in": Operator(SINGLE, "is none of", _several, typed=True),
    "contains": Operator(TEXT | LIST, "contains", _one, typed=True),
    "not_contains": Operator(TEXT | LIST, "does not contain", _one, typed=True),
    "starts_with": Operator(TEXT, "starts with", _one, typed=True),
    "not_starts_with": Operator(TEXT, "does not start with", _one, typed=True),
    "ends_with": Operator(TEXT, "ends with", _one, typed=True),
    "not_ends_with": Operator(TEXT, "does not end with", _one, typed=True),
    "like": Operator(TEXT, "looks like", _like),
    "not_like": Operator(TEXT, "does not look like", _like),
    "matches": Operator(TEXT, "matches", _pattern),
    "not_matches": Operator(TEXT, "does not match", _pattern),
    "is_null": Operator(SINGLE | LIST, "is unknown", _nothing),
    "not_null": Operator(SINGLE | LIST, "is known", _nothing),
    "is_true": Operator(BOOLEAN, "is true", _nothing),
    "is_false": Operator(BOOLEAN, "is false", _nothing),
    "before": Operator(MOMENT, "is before", _day),
    "after": Operator(MOMENT, "is after", _day),
    "within_last": Operator(MOMENT, "is within the last", _duration),
    "not_within_last": Operator(MOMENT, "is not within the last", _duration),
    "within_next": Operator(MOMENT, "is within the next", _duration),
    "anniversary_within": Operator(frozenset({"date"}), "has its anniversary within the next", _year),
    "has_any": Operator(LIST, "has any of", _texts),
    "has_all": Operator(LIST, "has all of", _texts),
    "has_none": Operator(LIST, "has none of", _texts),
    "size_is": Operator(LIST, "has this many:", _size),
    "size_at_least": Operator(LIST, "has at least this many:", _size),
    "size_at_most": Operator(LIST, "has at most this many:", _size),
    "within_km": Operator(NUMBER, "is near", _place),
    "increased_by": Operator(NUMBER, "rose by at least", _change),
    "decreased_by": Operator(NUMBER, "fell by at least", _change),
    "changed_by": Operator(NUMBER, "changed by at least", _change),
}
"""Every operator of a condition."""
CHANGES = ("increased_by", "decreased_by", "changed_by")
COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
"""Operators that compare two of a kind: a trait with a value or with another trait."""
BY_THE_DAY = ("before", "after", "within_last", "not_within_last", "within_next", "anniversary_within")
"""Operators that ask on which day of the project's calendar something is."""


def whole_days(text: object) -> int:
    """The days of a duration such as '30 days' or '2 weeks'; ValueError says what is wrong."""
    return in_whole_days(parse_duration(text)).days


def day_meant(text: object, today: date) -> date:
    """The day a text means: 2026-01-31, 'today', '30 days ago' or 'in 2 weeks'; ValueError says what is wrong."""
    if text == "today":
        return today
    relative = re.fullmatch(r"(?:(\d.*) ago|in (\d.*))", str(text))
    try:
        if relative is not None:
            past, coming = relative.groups()
            return today - timedelta(days=whole_days(past)) if past else today + timedelta(days=whole_days(coming))
        return date.fromisoformat(text if isinstance(text, str) else "")
    except (ValueError, OverflowError):
        raise ValueError("needs a day such as 2026-01-31, 'today', '30 days ago' or 'in 2 weeks'") from None


def is_iso(value: object, kind: type[date]) -> bool:
    """Whether a text is a date or, for `datetime`, a time without a zone."""
    try:
        return isinstance(value, str) and getattr(kind.fromisoformat(value), "tzinfo", None) is None
    except ValueError:
        return False


def misfit(value: object, kind: Kind) -> str | None:
    """Why a value written in YAML cannot be compared with values of a kind."""
    match kind:
        case "number":
            fits, wanted = isinstance(value, int | float) and not isinstance(value, bool), "a number"
        case "boolean":
            fits, wanted = isinstance(value, bool), "true or false"
        case "date":
            fits, wanted = is_iso(value, date), "a date such as 2026-01-31"
        case "timestamp":
            fits, wanted = is_iso(value, datetime), "a time such as 2026-01-31 18:30:00"
        case _:
            fits, wanted = isinstance(value, str), "text in quotes"
    return None if fits else f"should be {wanted}, got {shown(value)}"


HINTS: dict[Kind, str] = {
    "text": "=, in, contains or starts_with", "number": "=, < or between", "boolean": "is_true or is_false",
    "date": "before, after or within_last", "timestamp": "before, after or within_last",
    "list": "contains, has_any, has_all, has_none or size_at_least",
}  # fmt: skip


def unsuited(name: str, kind: Kind, about: str, word: str) -> str | None:
    """Why an operator cannot be asked of something (`about`, of the type `word`), and which could."""
    kinds = OPERATORS[name].kinds
    if kind in kinds:
        return None
    several = {ORDERED: "what has an order", SINGLE: "one value"}
    wanted = several.get(kinds) or " or ".join(words for one, words in KIND_WORDS.items() if one in kinds)
    return f"'{name}' is for {wanted}, '{about}' is {word}: ask with {HINTS[kind]}"

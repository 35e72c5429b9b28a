"""Every condition spelled out in plain Python for one person on one day: what audiences are held to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import combinations, pairwise
from typing import Any

from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.window import Window

Row = dict[str, Any]
CONDITIONS: dict[str | None, Callable[[Row], bool]] = {
    None: lambda row: True,
    "amount > 0": lambda row: row["amount"] is not None and row["amount"] > 0,
    "channel = 'web'": lambda row: row["channel"] == "web",
    "brand = 'x'": lambda row: row["brand"] == "x",
    "country = 'de'": lambda row: row["country"] == "de",
}
"""The conditions over rows that tests use, in SQL and in Python."""


def holds(one: Rule, person: str, day: date, company: Row, whole: Project) -> bool:
    """The rule, spelled out for one person on one day."""

    def of(table: str, **where: Any) -> Row:
        wanted = {"person_id": person, **where}
        return next((row for row in company.get(table, []) if wanted.items() <= row.items()), {})

    def days_ago(number: int) -> date:
        """The newest day by then that traits were computed for, up to a quarter older."""
        back = range(number, number + max(1, number // 4) + 1)
        computed = {row["day"] for row in company.get("traits", [])}
        return next((then for n in back if (then := day - timedelta(days=n)) in computed), date.min)

    def each(rules: list[Rule] | None) -> list[bool]:
        return [holds(inner, person, day, company, whole) for inner in rules or []]

    match one.subject:
        case "all":
            return all(each(one.all))
        case "any":
            return any(each(one.any))
        case "none":
            return not any(each(one.none))
        case "trait" if one.op in ("increased_by", "decreased_by", "changed_by"):
            then = days_ago(span(one.value["over"]).days)
            name = str(one.trait)
            return moved(str(one.op), of("traits", day=day).get(name), of("traits", day=then).get(name), one.value)
        case "trait" if isinstance(one.value, dict):
            now, other = (of("traits", day=day).get(name) for name in (str(one.trait), one.value["trait"]))
            return other is not None and compared(str(one.op), now, other, day, whole)
        case "trait":
            return compared(str(one.op), of("traits", day=day).get(str(one.trait)), one.value, day, whole)
        case "attribute" if one.op == "within_km":
            lat, lon = (of("customers").get(str(name)) for name in (one.attribute, one.longitude))
            return None not in (lat, lon) and km(lat, lon, one.value["lat"], one.value["lon"]) <= one.value["km"]
        case "attribute":
            return compared(str(one.op), of("customers").get(str(one.attribute)), one.value, day, whole)
        case "prediction":
            return compared(str(one.op), of("churn", day=day).get(one.field), one.value, day, whole)
        case "band":
            moves = [row for row in company.get("bands", []) if row["person_id"] == person and row["day"] <= day]
            return (max(moves, key=lambda row: row["day"])["to_band"] if moves else "ok") == one.is_
        case "identifier":
            return bool(of("identifiers", type=one.identifier))
        case "audience":
            return all(each(whole.audiences[str(one.audience)].rules))
        case "account":
            return account(one, person, day, company, whole)
        case "reachable":
            consent = f"{one.reachable}_consent"
            agrees = of("customers").get(consent) is True or consent not in whole.attributes
            return bool(of("identifiers", type=one.reachable)) and agrees
        case "related":
            rows = related(one, person, day, company, whole)
            return all(compared(m.op, len(rows), m.value, day, whole) for *_, m in one.measures) == one.did
        case "sequence":
            return (steps_reached(one, person, day, company) == len(one.sequence or [])) == one.did
    named = [row for row in company.get("timeline", []) if row["person_id"] == person and row["event"] in one.event]
    named = [row for row in named if goes_on(row, one.related or [], company, whole)]
    rows = [row for row in within(one.window, one.gap, named, day) if CONDITIONS[one.when](row)]
    asked = [compared(m.op, figure(name, of, rows), m.value, day, whole) for name, of, m in one.measures]
    return all(asked) == one.did


def happened(what: Any, row: Row) -> bool:
    return row["event"] in what.event and CONDITIONS[what.when](row)


def within(window: Window, gap: timedelta | None, rows: list[Row], day: date) -> list[Row]:
    """The rows a window sees from the end of a day."""
    first, last = window.span(day)
    known = [row for row in rows if (first is None or row["_day"] >= first) and row["_day"] <= last]
    if window.reach == "next":
        known = [row for row in known if row["_loaded_at"].date() <= day]
    if window.reach == "session" and known:
        known.sort(key=lambda row: row["occurred_at"])
        breaks = [i for i, (a, b) in enumerate(pairwise(known), 1)
                  if b["occurred_at"] - a["occurred_at"] > (gap or timedelta(minutes=30))]  # fmt: skip
        known = known[breaks[-1] if breaks else 0 :]
    return known


def figure(name: str, of: str | None, rows: list[Row]) -> Any:
    if name == "count":
        return len(rows)
    if name in ("first", "last"):
        days = [row["_day"] for row in rows]
        return (min if name == "first" else max)(days) if days else None
    values = [row[of] for row in rows if row[of] is not None]
    if name == "distinct":
        return len(set(values))
    if name == "sum":
        return sum(values)
    if not values:
        return None
    return {"min": min, "max": max, "average": lambda found: sum(found) / len(found)}[name](values)


def steps_reached(one: Rule, person: str, day: date, company: Row) -> int:
    """How many steps: every choice of events is tried."""
    steps = one.sequence or []
    rows = [row for row in company.get("timeline", []) if row["person_id"] == person]
    rows = [row for row in rows if one.same is None or row[one.same] is not None]

    def place(row: Row) -> tuple[Any, ...]:
        number = next((number for number, step in enumerate(steps) if happened(step, row)), len(steps))
        return row["occurred_at"], number, row["event_id"]

    rows.sort(key=place)
    first, last = one.window.span(day)
    best = 0
    for length in range(1, len(steps) + 1):
        for chosen in combinations(range(len(rows)), length):
            events = [rows[at] for at in chosen]
            if not all(happened(step, row) for step, row in zip(steps, events, strict=False)):
                continue
            if not all((first is None or row["_day"] >= first) and row["_day"] <= last for row in events):
                continue
            if one.same is not None and len({row[one.same] for row in events}) > 1:
                continue
            if one.within is not None and events[-1]["occurred_at"] - events[0]["occurred_at"] > one.within:
                continue
            anchored = [at for at, row in enumerate(rows) if one.same is None or row[one.same] == events[0][one.same]]
            between = [[rows[at] for at in anchored if a < at < b] for a, b in pairwise(chosen)]
            if one.strict and any(between):
                continue
            if one.without is not None and any(happened(one.without, row) for some in between for row in some):
                continue
            if all(step.within is None or b["occurred_at"] - a["occurred_at"] <= step.within
                   for step, (a, b) in zip(steps[1:], pairwise(events), strict=False)):  # fmt: skip
                best = length
                break
    return best


def account(one: Rule, person: str, day: date, company: Row, whole: Project) -> bool:
    asked = one.account
    assert asked is not None
    groups = {row["person_id"]: row["group_id"] for row in company["groups"] if row["kind"] == asked.group}
    if person not in groups:
        return False
    there = {row["person_id"] for row in company["traits"] if row["day"] == day}
    people = [other for other in there if groups.get(other) == groups[person]]
    held = sum(all(holds(inner, other, day, company, whole) for inner in asked.rules) for other in people)
    if asked.at_least is not None:
        return held >= asked.at_least
    if asked.share is not None:
        return held / len(people) >= asked.share
    return {"any": held > 0, "all": held == len(people), "none": held == 0}[asked.have or "any"]


def related(one: Rule, person: str, day: date, company: Row, whole: Project) -> list[Row]:
    """The rows of the first source that lead through all hops."""
    first, *others = one.related or []
    found = []
    for row in rows_of(first, company, whole):
        if first.on:
            theirs = next((r for r in company["customers"] if r["person_id"] == person), {})
            is_theirs = all(
                theirs.get(left) is not None and theirs[left] == row[right] for left, right in first.on.items()
            )
        else:
            owners = {r["value"]: r["person_id"] for r in company["identifiers"] if r["type"] == "email"}
            is_theirs = owners.get(row["email"]) == person
        if is_theirs and ("_day" not in row or row["_day"] <= day) and goes_on(row, others, company, whole):
            found.append(row)
    return found


def goes_on(row: Row, hops: list[Any], company: Row, whole: Project) -> bool:
    if not hops:
        return True
    return any(
        all(row[left] is not None and row[left] == other[right] for left, right in hops[0].on.items())
        and goes_on(other, hops[1:], company, whole)
        for other in rows_of(hops[0], company, whole)
    )


def rows_of(hop: Any, company: Row, whole: Project) -> list[Row]:
    current = [row for row in company.get(hop.source, []) if row.get("_valid_to") is None]
    return [row for row in current if CONDITIONS[hop.when](row)]


def moved(op: str, now: Any, then: Any, change: Any) -> bool:
    if now is None or then is None:
        return False
    now, then, change = exactly(now), exactly(then), {name: exactly(size) for name, size in change.items()}
    up = {"increased_by": now - then, "decreased_by": then - now, "changed_by": abs(now - then)}[op]
    if "by" in change:
        return up >= change["by"]
    return then != 0 and up * 100 >= abs(then) * change["percent"]


def exactly(value: Any) -> Any:
    """A number as it is written."""
    return Decimal(str(value)) if isinstance(value, int | float) else value


def km(lat: float, lon: float, other_lat: float, other_lon: float) -> float:
    """The great circle by the angle between two vectors from the middle of the earth."""
    (a, b), (c, d) = ((math.radians(x) for x in pair) for pair in ((lat, lon), (other_lat, other_lon)))
    one = (math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a))
    two = (math.cos(c) * math.cos(d), math.cos(c) * math.sin(d), math.sin(c))
    return 6371.0088 * 2 * math.asin(min(1, math.dist(one, two) / 2))


def the_day(value: Any, day: date) -> date:
    if value == "today":
        return day
    if value.endswith(" ago"):
        return day - span(value.removesuffix(" ago"))
    return day + span(value.removeprefix("in ")) if value.startswith("in ") else date.fromisoformat(value)


def span(text: str) -> timedelta:
    number, unit = text.split()
    return timedelta(days=int(number) * (7 if unit.startswith("week") else 1))


def anniversaries(born: date, days: list[date]) -> bool:
    return any(
        (day.month, day.day) == (born.month, born.day)
        or ((born.month, born.day) == (2, 29) and (day.month, day.day) == (2, 28) and (day + timedelta(1)).month == 3)
        for day in days
        if day > born
    )


def compared(op: str, found: Any, value: Any, day: date, whole: Project) -> bool:
    """An operator, of a value that may be unknown."""
    if op in ("is_null", "not_null"):
        return (found is None) == (op == "is_null")
    if found is None:
        return False
    if op.startswith("not_"):
        return not compared(op.removeprefix("not_"), found, value, day, whole)
    if isinstance(found, Decimal):
        value = [exactly(v) for v in value] if isinstance(value, list) else exactly(value)
    if op in ("before", "after", "within_last", "within_next", "anniversary_within"):
        if isinstance(found, datetime):
            found = found.replace(tzinfo=UTC).astimezone(whole.zone).date()
        coming = [] if op in ("before", "after") else [
            day + timedelta(days=number) for number in range(1, span(value).days + 1)
        ]  # fmt: skip
        return {
            "before": lambda: found < the_day(value, day),
            "after": lambda: found > the_day(value, day),
            "within_last": lambda: day - span(value) < found <= day,
            "within_next": lambda: found in coming,
            "anniversary_within": lambda: found <= day and anniversaries(found, coming),
        }[op]()
    if isinstance(found, date):
        read = type(found).fromisoformat
        value = [read(v) for v in value] if isinstance(value, list) else value and read(value)
    answers: dict[str, Callable[[], bool]] = {
        "=": lambda: found == value, "!=": lambda: found != value, "<": lambda: found < value,
        "<=": lambda: found <= value, ">": lambda: found > value, ">=": lambda: found >= value,
        "in": lambda: found in value, "between": lambda: value[0] <= found <= value[1],
        "contains": lambda: value in found if isinstance(found, list) else value.lower() in found.lower(),
        "starts_with": lambda: found.lower().startswith(value.lower()),
        "ends_with": lambda: found.lower().endswith(value.lower()),
        "like": lambda: bool(re.fullmatch(like(value), found, re.IGNORECASE | re.DOTALL)),
        "matches": lambda: bool(re.search(value, found, re.IGNORECASE)),
        "is_true": lambda: found, "is_false": lambda: not found,
        "has_any": lambda: bool(set(found) & set(value)), "has_all": lambda: set(value) <= set(found),
        "has_none": lambda: not set(found) & set(value), "size_is": lambda: len(found) == value,
        "size_at_least": lambda: len(found) >= value, "size_at_most": lambda: len(found) <= value,
    }  # fmt: skip
    return answers[op]()


def like(pattern: str) -> str:
    return "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in pattern)

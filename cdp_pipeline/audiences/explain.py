"""Why one person is, or is not, in an audience: its conditions as a tree, with what was found of the person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from cdp_pipeline.audiences.accounts import with_their_groups
from cdp_pipeline.audiences.rules import (
    Scope,
    columns_of,
    every_rule,
    gathered,
    holds,
    leaves,
    may_be_older,
    reach_rule,
)
from cdp_pipeline.audiences.scope import named
from cdp_pipeline.spec.audience import Account, Compared, Happening, Rule
from cdp_pipeline.spec.operators import CHANGES, OPERATORS, whole_days

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project


@dataclass(frozen=True)
class Answer:
    """One condition, whether it holds, what was found (a value, a count, a band), and what it is made of.

    told: what was found in words, where the value alone does not speak for itself.
    """

    says: str
    holds: bool
    found: Any = None
    inner: tuple[Answer, ...] = ()
    told: str | None = None

    def __str__(self) -> str:
        return "\n".join(self._lines(0))

    def _lines(self, depth: int) -> Iterator[str]:
        found = f" ({self.told})" if self.told else ""
        yield f"{'  ' * depth}{'yes' if self.holds else 'no '}  {self.says}{found}"
        for answer in self.inner:
            yield from answer._lines(depth + 1)


def explain(project: Project, name: str, person_id: str, scope: Scope, day: date) -> Answer | None:
    """The answer of an audience about a person as of a day; nothing if the person was not there that day."""
    whole = Rule(audience=name)
    people = with_their_groups(leaves(every_rule(project, [whole])), scope, named([person_id]))
    table = gathered(project, [whole], scope.of_people(people), [day])
    table = table.filter(table.person_id == person_id)
    every = list(_nodes(project, [whole]))
    columns = {f"holds_{number}": holds(rule, table) for number, rule in enumerate(every)}
    found = {column: table[column] for rule in every if not _inner(project, rule) for column in columns_of(rule)}
    rows = table.select(**columns, **found).to_pyarrow().to_pylist()
    return _answer(project, whole, iter(range(len(every))), rows[0]) if rows else None


def _inner(project: Project, rule: Rule) -> Sequence[Rule]:
    """What a condition is made of. What is asked of an account's people is not asked of the person."""
    if rule.audience is not None:
        return project.audiences[rule.audience].rules
    if rule.reachable is not None:
        return reach_rule(project, rule.reachable).all or []
    return rule.all or rule.any or rule.none or ()


def _nodes(project: Project, rules: Sequence[Rule]) -> Iterator[Rule]:
    """Every rule of a tree, each before what it is made of."""
    for rule in rules:
        yield rule
        yield from _nodes(project, _inner(project, rule))


def _answer(project: Project, rule: Rule, numbers: Iterator[int], row: dict[str, Any]) -> Answer:
    number = next(numbers)
    parts = _inner(project, rule)
    inner = tuple(_answer(project, part, numbers, row) for part in parts)
    values = [] if parts else [row[column] for column in columns_of(rule)]
    found = values[0] if len(values) == 1 else values or None
    return Answer(words(rule), row[f"holds_{number}"], found, inner, told(rule, values))


GROUPS = {"all": "all of these hold", "any": "at least one of these holds", "none": "none of these holds"}
FIGURES = {
    "count": "times", "sum": "the sum of", "average": "the average of", "min": "the least", "max": "the largest",
    "distinct": "how many different", "first": "the first time", "last": "the last time",
}  # fmt: skip

UNITS = {"day": 86_400, "hour": 3_600, "minute": 60}


def words(rule: Rule) -> str:
    """A condition in words."""
    match rule.subject:
        case "all" | "any" | "none" as group:
            return GROUPS[group]
        case "audience":
            return f"is in the audience {rule.audience}"
        case "reachable":
            return f"can be reached by {rule.reachable}"
        case "identifier":
            return f"has an identifier of type {rule.identifier}"
        case "band":
            return f"{rule.band} is in the band {rule.is_}"
        case "event":
            return _event(rule)
        case "sequence":
            return _sequence(rule)
        case "related":
            return f"{'has' if rule.did else 'does not have'}{_times(rule)} {_hops(rule)}"
        case "account":
            assert rule.account is not None
            return _account(rule.account)
    of_item = "" if rule.item is None else f" for {rule.item}"
    what = rule.trait or rule.attribute or f"{rule.field} of {rule.prediction}{of_item}"
    if rule.longitude is not None:
        what = f"{what} and {rule.longitude}"
    return f"{what} {_asked(str(rule.op), rule.value)}"


def _asked(op: str, value: Any) -> str:
    said = OPERATORS[op].words
    if isinstance(value, dict) and "trait" in value:
        return f"{said} {value['trait']}"
    if op in CHANGES:
        amount = value["by"] if "by" in value else f"{value['percent']} percent"
        return f"{said} {amount} over {value['over']}"
    if op == "within_km":
        return f"{said} {value['lat']}, {value['lon']}: at most {value['km']} km away"
    if isinstance(value, list):
        return f"{said} {' and '.join(map(str, value))}"
    return said if value is None else f"{said} {value}"


def _happening(what: Rule | Happening) -> str:
    return " or ".join(what.event or []) + (f" where {what.when}" if what.when else "")


def _times(rule: Rule) -> str:
    asked = rule.count
    if asked is None or (asked.op == ">=" and asked.value == 1):
        return ""
    return f" at least {asked.value} times" if asked.op == ">=" else f" so many times: {_asked(asked.op, asked.value)}"


def _event(rule: Rule) -> str:
    further = [_figure(name, of, asked) for name, of, asked in rule.measures if name != "count"]
    did = f"{'did' if rule.did else 'did not do'} {' or '.join(rule.event or [])}{_times(rule)}"
    when = f" where {rule.when}" if rule.when else ""
    related = f" with {_hops(rule)}" if rule.related else ""
    return f"{did}{when}{related}, {rule.window}" + "".join(f", {one}" for one in further)


def _figure(name: str, of: str | None, asked: Compared) -> str:
    return f"{FIGURES[name]}{f' {of}' if of else ''} {_asked(asked.op, asked.value)}"


def _sequence(rule: Rule) -> str:
    said = " then ".join(
        _happening(step) + (f" within {_span(step.within)}" if step.within else "") for step in rule.sequence or []
    )
    parts = [
        "directly after one another" if rule.strict else "",
        f"with the same {rule.same}" if rule.same else "",
        f"without {_happening(rule.without)} between" if rule.without else "",
        f"all within {_span(rule.within)}" if rule.within else "",
        str(rule.window),
    ]
    return f"{'did' if rule.did else 'did not do'} {said}, {', '.join(part for part in parts if part)}"


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    unit, size = next((unit, size) for unit, size in UNITS.items() if seconds % size == 0)
    return f"{seconds // size} {unit}{'' if seconds == size else 's'}"


def _hops(rule: Rule) -> str:
    return " leading to ".join(hop.source + (f" where {hop.when}" if hop.when else "") for hop in rule.related or [])


def _account(account: Account) -> str:
    what = "; ".join(whole_words(rule) for rule in account.rules)
    if account.at_least is not None:
        some = f"for at least {account.at_least} people"
    elif account.share is not None:
        some = f"for at least {account.share:.0%} of the people"
    else:
        some = {"any": "for somebody", "all": "for everybody", "none": "for nobody"}[account.have or "any"]
    return f"{some} of the same {account.group}: {what}"


def whole_words(rule: Rule) -> str:
    """A condition in words with all it is made of."""
    nested = rule.all or rule.any or rule.none
    return words(rule) if nested is None else f"{words(rule)} ({'; '.join(map(whole_words, nested))})"


def told(rule: Rule, values: Sequence[Any]) -> str | None:
    """What was found, in words."""
    match rule.subject:
        case "all" | "any" | "none" | "audience" | "identifier" | "reachable":
            return None
        case "sequence":
            steps = rule.sequence or []
            reached = f"reached step {values[0]} of {len(steps)}"
            missing = f", not {_happening(steps[values[0]])}" if 0 < values[0] < len(steps) else ""
            return f"{reached}{missing}"
        case "account":
            assert rule.account is not None
            return f"it is in no {rule.account.group}" if values[1] is None else f"{values[0]} of {values[1]}"
        case "event" if len(values) > 1:
            figures = [f"{FIGURES[name]}{f' {of}' if of else ''}" for name, of, _ in rule.measures]
            return ", ".join(f"{name} is {_shown(value)}" for name, value in zip(figures, values, strict=True))
    if rule.op in CHANGES:
        assert isinstance(rule.value, dict)
        return _moved(str(rule.value["over"]), *values)
    if rule.other_trait is not None:
        return f"it is {_shown(values[0])}, {rule.other_trait} is {_shown(values[1])}"
    return f"it is {' and '.join(map(_shown, values))}"


def _moved(over: str, now: Any, then: Any, before: int | None) -> str:
    """What a trait was and is; of another day than the one asked for where that was not computed."""
    asked = whole_days(over)
    if before is None:
        return f"it is {_shown(now)}; of them nothing was computed {asked} to {asked + may_be_older(asked)} days before"
    if before == asked:
        return f"it is {_shown(now)}, {over} before it was {_shown(then)}"
    return f"it is {_shown(now)}, {before} days before it was {_shown(then)} ({over} before was not computed)"


def _shown(value: Any) -> str:
    return "unknown" if value is None else str(value)

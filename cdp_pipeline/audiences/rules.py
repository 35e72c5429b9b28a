"""A tree of rules becomes one boolean column over one row per person and day.

What a condition asks of other tables (events, bands, identifiers, …) is gathered first, each kind in one pass, however
many audiences ask. A question about something unknown is answered with no: every comparison with NULL is false, so
`none` and `did: false` of it are true; only is_null and not_null speak of NULL itself. `contains` and `starts_with`
ignore case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import reduce
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any

import ibis

from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.traits.as_of import in_batches, observed
from cdp_pipeline.traits.staged import days_table


@dataclass(frozen=True)
class Scope:
    """The tables conditions are asked of. Only `traits` is always needed: its rows are the people there are each day.

    traits: traits.daily. customers: profile.customers. predictions: by name. bands: traits.bands. timeline:
    profile.timeline. identifiers: identity.identifiers.
    """

    traits: ibis.Table
    customers: ibis.Table | None = None
    predictions: Mapping[str, ibis.Table] = field(default_factory=dict)
    bands: ibis.Table | None = None
    timeline: ibis.Table | None = None
    identifiers: ibis.Table | None = None


class ScopeError(ValueError):
    """A condition asks for a table that was not given."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"a condition asks about '{subject}', but no {subject} were given: add them to the Scope")
        self.subject = subject


def given(subject: str, table: ibis.Table | None) -> ibis.Table:
    if table is None:
        raise ScopeError(subject)
    return table


def matching(project: Project, rules: Sequence[Rule], scope: Scope, days: Sequence[date]) -> ibis.Table:
    """The people for whom all these rules hold at the end of each day: person_id, day. No rules: everybody."""
    table = gathered(project, rules, scope, days)
    return table.filter(holds_all(rules, table)).select("person_id", "day")


def gathered(project: Project, rules: Sequence[Rule], scope: Scope, days: Sequence[date]) -> ibis.Table:
    """One row per person and day with one column for everything the rules ask about, audiences they name included.

    Audiences are answered in order of dependency, each once, as the column `audience_<name>`.
    """
    batches = audiences_in_order(project, rules)
    every = [*rules, *(rule for batch in batches for name in batch for rule in project.audiences[name].rules)]
    asked = list(leaves(every))
    days = sorted(set(days))
    table = scope.traits.filter(scope.traits.day.isin(days))
    table = table.select("person_id", "day", **{column_of(rule): table[rule.trait] for rule in asked if rule.trait})
    for gather in (_attributes, _predictions, _bands, _events, _identifiers):
        for found in gather(project, asked, scope, days):
            table = table.left_join(found.table, found.keys).drop(*[f"{key}_right" for key in found.keys])
            table = table.mutate(**{c: table[c].fill_null(other) for c, other in found.otherwise.items()})
    for batch in batches:
        table = table.mutate(**{f"audience_{name}": holds_all(project.audiences[name].rules, table) for name in batch})
    return table


def audiences_in_order(project: Project, rules: Iterable[Rule]) -> list[tuple[str, ...]]:
    """The audiences these rules name, and those that these name, in batches: each needs only those of earlier ones."""
    needed: dict[str, set[str]] = {}
    waiting = sorted(_named_audiences(rules))
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = _named_audiences(project.audiences[name].rules)
            waiting.extend(needed[name])
    return in_batches(needed)


def _named_audiences(rules: Iterable[Rule]) -> set[str]:
    return {rule.audience for rule in leaves(rules) if rule.audience}


def leaves(rules: Iterable[Rule]) -> Iterator[Rule]:
    """Every condition in the trees."""
    for rule in rules:
        nested = rule.all or rule.any or rule.none
        if nested is None:
            yield rule
        else:
            yield from leaves(nested)


def column_of(rule: Rule) -> str:
    """The column of the gathered table that a condition is answered from."""
    subject = rule.subject
    if subject == "event":
        asked = f"{rule.event}:{rule.when}:{rule.window}"
        return f"event_{hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()}"
    name = f"{subject}_{getattr(rule, subject)}"
    return f"{name}_{rule.field}" if subject == "prediction" else name


def holds_all(rules: Sequence[Rule], table: ibis.Table) -> Any:
    return reduce(and_, (holds(rule, table) for rule in rules), ibis.literal(True))


def holds(rule: Rule, table: ibis.Table) -> Any:
    """Whether a rule holds: true or false in every row, never NULL."""
    match rule.subject:
        case "all":
            return holds_all(rule.all or [], table)
        case "any":
            return _holds_any(rule.any or [], table)
        case "none":
            return ~_holds_any(rule.none or [], table)
    column = table[column_of(rule)]
    match rule.subject:
        case "trait" | "attribute" | "prediction":
            assert rule.op is not None
            return OPERATORS[rule.op](column, rule.value).fill_null(False)
        case "band":
            return column == rule.is_
        case "event":
            return column >= rule.count if rule.did else column < rule.count
    return column


def _holds_any(rules: Sequence[Rule], table: ibis.Table) -> Any:
    return reduce(or_, (holds(rule, table) for rule in rules))


def _like(column: Any, value: Any) -> Any:
    """A column and a YAML value, brought to types that every engine compares alike."""
    type_ = column.type()
    if type_.is_decimal() or type_.is_floating() or isinstance(value, float):
        return column.cast("float64"), ibis.literal(float(value), "float64")
    if type_.is_date():
        return column, ibis.literal(date.fromisoformat(str(value)), "date")
    if type_.is_timestamp():
        return column, ibis.literal(datetime.fromisoformat(str(value)), "timestamp(6)")
    return column, ibis.literal(str(value) if type_.is_string() else value, type_)


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda column, value: compare(*_like(column, value))


def _is_in(column: Any, values: list[Any]) -> Any:
    pairs = [_like(column, value) for value in values]
    return pairs[0][0].isin([value for _, value in pairs])


def _contains(column: Any, value: Any) -> Any:
    if column.type().is_array():
        return column.contains(value)
    return column.lower().contains(str(value).lower())


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": _compared(eq),
    "!=": _compared(ne),
    "<": _compared(lt),
    "<=": _compared(le),
    ">": _compared(gt),
    ">=": _compared(ge),
    "in": _is_in,
    "not_in": lambda column, values: ~_is_in(column, values),
    "between": lambda column, ends: OPERATORS[">="](column, ends[0]) & OPERATORS["<="](column, ends[1]),
    "contains": _contains,
    "starts_with": lambda column, value: column.lower().startswith(str(value).lower()),
    "is_null": lambda column, value: column.isnull(),
    "not_null": lambda column, value: column.notnull(),
}
"""Every operator of a condition: column and YAML value to boolean, NULL where the column is."""


@dataclass(frozen=True)
class Found:
    """Columns to join, by person_id or by person_id and day, and what each says of people it does not know."""

    table: ibis.Table
    otherwise: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        return [key for key in ("person_id", "day") if key in self.table.columns]


def _attributes(project: Project, asked: list[Rule], scope: Scope, days: list[date]) -> Iterator[Found]:
    rules = [rule for rule in asked if rule.attribute]
    if rules:
        customers = given("customers", scope.customers)
        yield Found(customers.select("person_id", **{column_of(rule): customers[rule.attribute] for rule in rules}))


def _predictions(project: Project, asked: list[Rule], scope: Scope, days: list[date]) -> Iterator[Found]:
    for name in sorted({rule.prediction for rule in asked if rule.prediction}):
        scores = given(f"predictions.{name}", scope.predictions.get(name))
        scores = scores.filter(scores.day.isin(days))
        rules = [rule for rule in asked if rule.prediction == name]
        yield Found(scores.select("person_id", "day", **{column_of(rule): scores[rule.field] for rule in rules}))


def _bands(project: Project, asked: list[Rule], scope: Scope, days: list[date]) -> Iterator[Found]:
    traits = sorted({rule.band for rule in asked if rule.band})
    if traits:
        moves = given("bands", scope.bands)
        moves = moves.filter(moves.trait.isin(traits)).rename(moved_on="day")
        every = days_table("day", days)
        moves = moves.join(every, moves.moved_on <= every.day)
        states = moves.group_by("person_id", "day").aggregate(
            **{f"band_{name}": moves.to_band.argmax(moves.moved_on, where=moves.trait == name) for name in traits}
        )
        yield Found(states, {f"band_{name}": project.traits[name].band_names[0] for name in traits})


def _events(project: Project, asked: list[Rule], scope: Scope, days: list[date]) -> Iterator[Found]:
    counts = {column_of(rule): _counting(rule) for rule in asked if rule.event}
    if counts:
        timeline = given("timeline", scope.timeline)
        people = timeline.filter(timeline.event.isin(sorted({rule.event for rule in asked if rule.event})))
        people = people.filter(people.person_id.notnull()).select("person_id").distinct()
        yield Found(observed(timeline, people, days, counts), dict.fromkeys(counts, 0))


def _counting(rule: Rule) -> Trait:
    """The trait that counts the events a condition asks about, so that they are found as traits are."""
    return Trait(
        kind="trait",
        name="asked",
        description="How often it happened.",
        evaluation="count",
        event=[str(rule.event)],
        when=rule.when,
        window=rule.window,
    )


def _identifiers(project: Project, asked: list[Rule], scope: Scope, days: list[date]) -> Iterator[Found]:
    types = sorted({rule.identifier for rule in asked if rule.identifier})
    if types:
        found = given("identifiers", scope.identifiers)
        found = found.filter(found.person_id.notnull() & found.type.isin(types))
        columns = {f"identifier_{type_}": (found.type == type_).any() for type_ in types}
        yield Found(found.group_by("person_id").aggregate(**columns), dict.fromkeys(columns, False))

"""A tree of rules becomes one boolean column over one row per person and day.

What a condition asks of other tables (events, bands, identifiers, …) is gathered first, each kind in one pass, however
many audiences ask. A question about something unknown is answered with no: every comparison with NULL is false, so
`none` and `did: false` of it are true; only is_null and not_null speak of NULL itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import reduce
from operator import and_, or_
from typing import Any
from zoneinfo import ZoneInfo

import ibis

from cdp_pipeline.audiences.accounts import account_column, account_holds, groups, with_accounts
from cdp_pipeline.audiences.events import figure_columns, with_figures
from cdp_pipeline.audiences.operators import by_the_clock, changed, compare, compare_two, days_later, distance_km
from cdp_pipeline.audiences.related import related, related_column
from cdp_pipeline.audiences.scope import Found, Scope, ScopeError, digest, given
from cdp_pipeline.audiences.sequences import sequence_column, sequences
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.operators import BY_THE_DAY, CHANGES, whole_days
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.reach import WAYS, reached_by
from cdp_pipeline.spec.types import attribute_type
from cdp_pipeline.traits.as_of import in_batches
from cdp_pipeline.traits.cells import days_table

__all__ = [
    "Scope", "ScopeError", "audiences_in_order", "column_of", "every_rule", "gathered", "holds", "holds_all", "leaves",
    "matching", "named_audiences",
]  # fmt: skip


def matching(project: Project, rules: Sequence[Rule], scope: Scope, days: Sequence[date]) -> ibis.Table:
    """The people for whom all these rules hold at the end of each day: person_id, day. No rules: everybody."""
    table = gathered(project, rules, scope, days)
    return table.filter(holds_all(rules, table)).select("person_id", "day")


def gathered(project: Project, rules: Sequence[Rule], scope: Scope, days: Sequence[date]) -> ibis.Table:
    """One row per person and day with one column for everything the rules ask about, audiences they name included.

    Audiences are answered in order of dependency, each once, as the column `audience_<name>`.
    """
    asked = list(leaves(every_rule(project, rules)))
    days = sorted(set(days))
    table = scope.traits.filter(scope.traits.day.isin(days))
    traits = {name for rule in asked for name in rule.traits}
    table = table.select("person_id", "day", **{f"trait_{name}": table[name] for name in sorted(traits)})
    table = _joined(table, [found for gather in GATHERED for found in gather(project, asked, scope, days)])
    table = with_figures(table, project, asked, scope, days)
    further = {
        _clock_column(rule): by_the_clock(
            str(rule.op), table[column_of(rule)], rule.value, table.day, days, project.zone
        )
        for rule in asked
        if rule.op in BY_THE_DAY and table[column_of(rule)].type().is_timestamp()
    }
    table = table.mutate(**further) if further else table
    channels = sorted({rule.reachable for rule in asked if rule.reachable})
    reached = {f"reachable_{name}": holds(reach_rule(project, name), table) for name in channels}
    table = table.mutate(**reached) if reached else table
    for batch in audiences_in_order(project, rules):
        inside = [rule for name in batch for rule in project.audiences[name].rules]
        table = with_accounts(table, leaves(inside), holds_all)
        table = table.mutate(**{f"audience_{name}": holds_all(project.audiences[name].rules, table) for name in batch})
    return with_accounts(table, leaves(rules), holds_all)


def _joined(table: ibis.Table, founds: Sequence[Found]) -> ibis.Table:
    """The table with all that was found beside it: one chain of joins, one projection."""
    joined, values = table, dict[str, Any]()
    for number, found in enumerate(founds):
        keys = {key: f"{key}_{number}" for key in found.keys}
        joined = joined.left_join(found.table.rename({new: key for key, new in keys.items()}), list(keys.items()))
        values |= {column: found.otherwise.get(column) for column in found.table.columns if column not in keys}
    if not founds:
        return table
    return joined.select(
        *table.columns,
        **{
            column: joined[column] if none is None else joined[column].fill_null(none)
            for column, none in values.items()
        },
    )


def audiences_in_order(project: Project, rules: Iterable[Rule]) -> list[tuple[str, ...]]:
    """The audiences these rules name, and those that these name, in batches: each needs only those of earlier ones."""
    needed: dict[str, set[str]] = {}
    waiting = sorted(named_audiences(rules))
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = named_audiences(project.audiences[name].rules)
            waiting.extend(needed[name])
    return in_batches(needed)


def every_rule(project: Project, rules: Sequence[Rule]) -> list[Rule]:
    """These rules, those of all audiences that they name, also by way of others, and what makes people reachable."""
    batches = audiences_in_order(project, rules)
    every = [*rules, *(rule for batch in batches for name in batch for rule in project.audiences[name].rules)]
    channels = sorted({rule.reachable for rule in leaves(every) if rule.reachable})
    return [*every, *(reach_rule(project, name) for name in channels)]


def named_audiences(rules: Iterable[Rule]) -> set[str]:
    """The audiences these rules name themselves."""
    return {rule.audience for rule in leaves(rules) if rule.audience}


def reach_rule(project: Project, channel: str) -> Rule:
    """What must hold of a person whom the channel reaches."""
    types = {name: attribute_type(attribute, project.sources) for name, attribute in project.attributes.items()}
    yes_or_no = [name for name, type_ in types.items() if type_ == "boolean"]
    addresses = WAYS[channel].identifiers
    found = reached_by(channel, project.identifiers or addresses, yes_or_no)
    return Rule.model_validate({"all": found or [{"identifier": addresses[0]}]})


def known_of(project: Project, rules: Sequence[Rule], scope: Scope) -> ibis.Table:
    """One row per person in `scope.traits`, on whatever day, with what rules on identifiers and attributes ask about.

    Of attributes nothing is known where there is no table of them.
    """
    asked = list(leaves(rules))
    if scope.customers is None:
        nothing = {rule.attribute: ibis.null("boolean") for rule in asked if rule.attribute is not None}
        scope = replace(scope, customers=scope.traits.select("person_id", **nothing).distinct())
    founds = [found for gather in (_identifiers, _attributes) for found in gather(project, asked, scope, [])]
    table = _joined(scope.traits.select("person_id").distinct(), founds)
    return table.mutate(day=ibis.null("date"))  # `holds` wants one; nothing asked here is of a day


def leaves(rules: Iterable[Rule]) -> Iterator[Rule]:
    """Every condition in the trees; of one about an account, what is asked of its people comes before it."""
    for rule in rules:
        yield from leaves(rule.inner)
        if not (rule.all or rule.any or rule.none):
            yield rule


def column_of(rule: Rule) -> str:
    """The column of the gathered table that a condition is answered from; of several, the first."""
    return columns_of(rule)[0]


def columns_of(rule: Rule) -> list[str]:
    """All columns of the gathered table that a condition is answered from."""
    subject = rule.subject
    name = f"{subject}_{getattr(rule, subject)}"
    match subject:
        case "event":
            return figure_columns(rule)
        case "sequence":
            return [sequence_column(rule)]
        case "related":
            return [related_column(rule)]
        case "account":
            return [account_column(rule), f"{account_column(rule)}_of"]
        case "prediction":
            return [f"{name}_{rule.field}" if rule.item is None else f"{name}_{rule.field}_{digest(rule.item)}"]
        case "trait" if rule.op in CHANGES:
            ago = f"{_days_back(rule)}_days_ago"
            return [name, f"{name}_{ago}", f"computed_{ago}"]
        case "trait" if rule.other_trait is not None:
            return [name, f"trait_{rule.other_trait}"]
        case "attribute" if rule.longitude is not None:
            return [name, f"attribute_{rule.longitude}"]
    return [name]


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
    columns = [table[column] for column in columns_of(rule)]
    match rule.subject:
        case "trait" | "attribute" | "prediction":
            return _compared(rule, table, columns).fill_null(False)
        case "band":
            return columns[0] == rule.is_
        case "event" | "related":
            asked = zip(rule.measures, columns, strict=True)
            held = [compare(m.op, column, m.value, table.day).fill_null(False) for (*_, m), column in asked]
            return reduce(and_, held) if rule.did else ~reduce(and_, held)
        case "sequence":
            done = columns[0] == len(rule.sequence or [])
            return done if rule.did else ~done
        case "account":
            assert rule.account is not None
            return account_holds(rule.account, *columns).fill_null(False)
    return columns[0]


def _holds_any(rules: Sequence[Rule], table: ibis.Table) -> Any:
    return reduce(or_, (holds(rule, table) for rule in rules))


def _compared(rule: Rule, table: ibis.Table, columns: list[Any]) -> Any:
    op, value = str(rule.op), rule.value
    if rule.other_trait is not None:
        return compare_two(op, *columns)
    if isinstance(value, dict):
        if op in CHANGES:
            return changed(op, columns[0], columns[1], value)
        return distance_km(columns[0], columns[1], value) <= float(value["km"])
    if op in BY_THE_DAY and columns[0].type().is_timestamp():
        return table[_clock_column(rule)]
    return compare(op, columns[0], value, table.day)


def _with_clock_answers(table: ibis.Table, asked: Sequence[Rule], days: Sequence[date], zone: ZoneInfo) -> ibis.Table:
    """The table with the answers to which day a time falls on."""
    found = {
        _clock_column(rule): by_the_clock(str(rule.op), table[column_of(rule)], rule.value, table.day, days, zone)
        for rule in asked
        if rule.op in BY_THE_DAY and table[column_of(rule)].type().is_timestamp()
    }
    return table.mutate(**found) if found else table


def _clock_column(rule: Rule) -> str:
    """The column that answers which day a time falls on: it needs the project's zone, which a table does not know."""
    return f"{column_of(rule)}_{digest(rule.op, rule.value)}"


def _days_back(rule: Rule) -> int:
    assert isinstance(rule.value, dict)
    return whole_days(rule.value["over"])


def may_be_older(distance: int) -> int:
    """How many days more than asked the traits of so many days ago may be old, where that day was not computed."""
    return max(1, distance // 4)


def _earlier(project: Project, asked: list[Rule], scope: Scope, days: list[date]) -> Iterator[Found]:
    """What traits were so many days before, as traits.daily has it: of the newest day by then that was computed.

    With how many days before the values are of: more than asked where that day was not computed, by may_be_older at
    most.
    """
    by_distance: dict[int, list[Rule]] = {}
    for rule in asked:
        if rule.op in CHANGES:
            by_distance.setdefault(_days_back(rule), []).append(rule)
    for distance, rules in sorted(by_distance.items()):
        oldest = distance + may_be_older(distance)
        near = [day - timedelta(days=back) for day in days for back in range(distance, oldest + 1)]
        then, all_days = (
            table.filter(table.day.isin(sorted(set(near))))
            for table in (scope.traits, scope.traits if scope.all_days is None else scope.all_days)
        )
        computed = all_days.select(computed="day").distinct()
        wanted = days_table("day", days)
        newest = wanted.join(
            computed,
            [
                days_later(computed.computed, distance) <= wanted.day,
                days_later(computed.computed, oldest) >= wanted.day,
            ],
        )
        newest = newest.group_by("day").aggregate(computed=newest.computed.max())
        rows = then.rename(computed="day").join(newest, "computed")
        values = {columns_of(rule)[1]: rows[rule.trait] for rule in rules}
        before = rows.day.delta(rows.computed, unit="day")
        yield Found(rows.select("person_id", "day", **values, **{columns_of(rules[0])[2]: before}))


def _attributes(project: Project, asked: list[Rule], scope: Scope, days: list[date]) -> Iterator[Found]:
    names = {name for rule in asked for name in (rule.attribute, rule.longitude) if name is not None}
    if names:
        customers = given("customers", scope.customers)
        yield Found(customers.select("person_id", **{f"attribute_{name}": customers[name] for name in sorted(names)}))


def _predictions(project: Project, asked: list[Rule], scope: Scope, days: list[date]) -> Iterator[Found]:
    for name in sorted({rule.prediction for rule in asked if rule.prediction}):
        scores = given(f"predictions.{name}", scope.predictions.get(name))
        scores = scores.filter(scores.day.isin(days))
        rules = [rule for rule in asked if rule.prediction == name]
        for item in sorted({rule.item for rule in rules}, key=str):
            of_item = scores if item is None else scores.filter(scores.item == item)
            columns = {column_of(rule): of_item[rule.field] for rule in rules if rule.item == item}
            yield Found(of_item.select("person_id", "day", **columns))


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


def _identifiers(project: Project, asked: list[Rule], scope: Scope, days: list[date]) -> Iterator[Found]:
    types = sorted({rule.identifier for rule in asked if rule.identifier})
    if types:
        found = given("identifiers", scope.identifiers)
        found = found.filter(found.person_id.notnull() & found.type.isin(types))
        columns = {f"identifier_{type_}": (found.type == type_).any() for type_ in types}
        yield Found(found.group_by("person_id").aggregate(**columns), dict.fromkeys(columns, False))


GATHERED: tuple[Callable[[Project, list[Rule], Scope, list[date]], Iterator[Found]], ...] = (
    _earlier, _attributes, _predictions, _bands, sequences, related, _identifiers, groups,
)  # fmt: skip
"""What is found elsewhere than in the traits of the day and in events."""

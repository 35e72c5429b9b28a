"""What is asked of all people of a person's group (a household, a company): of how many of them it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.scope import Found, Scope, digest, given

if TYPE_CHECKING:
    from cdp_pipeline.spec.audience import Account, Rule
    from cdp_pipeline.spec.project import Project


def account_column(rule: Rule) -> str:
    """The column with the number of the group's people for whom the rules hold; with `_of`, of how many."""
    assert rule.account is not None
    return f"account_{digest(rule.account.group, [inner.model_dump_json() for inner in rule.account.rules])}"


def groups(project: Project, asked: Sequence[Rule], scope: Scope, days: Sequence[date]) -> Iterator[Found]:
    """Which group of each kind a person is in."""
    for kind in sorted({rule.account.group for rule in asked if rule.account is not None}):
        members = given("groups", scope.groups)
        yield Found(members.filter(members["kind"] == kind).select("person_id", **{f"group_{kind}": "group_id"}))


def with_accounts(
    table: ibis.Table, asked: Iterable[Rule], holds_all: Callable[[Sequence[Rule], ibis.Table], Any]
) -> ibis.Table:
    """The table with the columns of every condition about an account, those without others inside them first."""
    waiting = {account_column(rule): rule for rule in asked if rule.account is not None}
    waiting = {column: rule for column, rule in waiting.items() if column not in table.columns}
    while waiting:
        inside = {column: {account_column(one) for one in _accounts(rule.inner)} for column, rule in waiting.items()}
        ready = {column: rule for column, rule in waiting.items() if not inside[column] & waiting.keys()}
        table = table.mutate(
            **{name: value for rule in ready.values() for name, value in _counts(rule, table, holds_all)}
        )
        waiting = {column: rule for column, rule in waiting.items() if column not in ready}
    return table


def _accounts(rules: Iterable[Rule]) -> Iterator[Rule]:
    for rule in rules:
        if rule.account is not None:
            yield rule
        yield from _accounts(rule.inner)


def _counts(
    rule: Rule, table: ibis.Table, holds_all: Callable[[Sequence[Rule], ibis.Table], Any]
) -> Iterator[tuple[str, Any]]:
    """For how many people of the person's group the rules hold, and how many there are; NULL without a group."""
    assert rule.account is not None
    # Who is in no group is a group of their own here, lest all of them become one that is as large as all others.
    group = table[f"group_{rule.account.group}"]
    theirs = ibis.window(group_by=[ibis.coalesce(group, table.person_id), table.day])
    held = holds_all(rule.account.rules, table).cast("int64")
    for column, count in ((account_column(rule), held.sum()), (f"{account_column(rule)}_of", held.count())):
        yield column, ibis.ifelse(group.notnull(), count.over(theirs), ibis.null("int64"))


def account_holds(account: Account, held: Any, people: Any) -> Any:
    """Whether it holds for enough of them; NULL for whoever is in no such group."""
    if account.at_least is not None:
        return held >= account.at_least
    if account.share is not None:
        return held.cast("float64") / people.cast("float64") >= account.share
    return {"any": held >= 1, "all": held == people, "none": held == 0}[account.have or "any"]


def with_their_groups(asked: Iterable[Rule], scope: Scope, people: ibis.Table) -> ibis.Table:
    """These people (a table with person_id) and all whom these conditions may look at: those of their groups.

    Conditions about accounts can lie inside each other, so there are as many steps as such conditions.
    """
    accounts = {account_column(rule): rule.account.group for rule in asked if rule.account is not None}
    for _ in accounts:
        members = given("groups", scope.groups)
        members = members.filter(members["kind"].isin(sorted(set(accounts.values()))))
        theirs = members.semi_join(people, "person_id")
        people = people.union(members.semi_join(theirs, "group_id").select("person_id"), distinct=True)
    return people

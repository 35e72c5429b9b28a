"""Who is in which audience on some days, tested before anybody may use it: what is published, and what is held."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.audiences.expectations import Verdicts, facts, judge
from cdp_pipeline.audiences.look import scope_of
from cdp_pipeline.audiences.members import HELD, MEMBERS, SIZES, held_now, members, picked, sizes
from cdp_pipeline.audiences.reach import reach
from cdp_pipeline.audiences.rules import Scope, ScopeError, gathered
from cdp_pipeline.identity.named import UnknownIdentifier, resolve_identifier
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.spec.audience import Rule

if TYPE_CHECKING:
    import pyarrow as pa

    from cdp_pipeline.lake import Lake, LakeView
    from cdp_pipeline.spec.project import Project


@dataclass(frozen=True)
class Decided:
    """The rows of MEMBERS, SIZES and HELD of these audiences and days, as they are to be published.

    Of an audience that is held on a day, members and size stay what they were. `people` is what was found of each, held
    or not. `gathered`: what rules.gathered says of the last day, for those audiences that could be asked.
    """

    members: ibis.Table
    sizes: pa.Table
    held: pa.Table
    verdicts: Verdicts
    people: Mapping[tuple[str, date], dict[str, int]]
    asked: Sequence[str]
    gathered: ibis.Table


def decide(
    lake: Lake,
    project: Project,
    names: Sequence[str],
    days: Sequence[date],
    accepted: Collection[tuple[str, date]] = (),
) -> Decided:
    """Find the members of these audiences at the end of each day in one pass, and test them.

    `accepted`: the audiences and days of which somebody accepts a change beyond max_change.
    """
    here, scope = lake.local, scope_of(lake, project)
    last = days[-1:]
    try:
        unasked: dict[str, str] = {}
        of_last = gathered(project, _asking(project, names), scope, last)
    except ScopeError:
        unasked = _unasked(project, names, scope, last)
        of_last = gathered(project, _asking(project, [n for n in names if n not in unasked]), scope, last)
    asked = [name for name in names if name not in unasked]
    every = [str(rule.audience) for rule in _asking(project, asked)]
    table = lake.held(of_last)
    rows = lake.held(picked(table, every) if len(days) == 1 else members(project, every, scope, days))
    mine = rows.filter(rows.audience.isin(asked))
    local = scope_of(here, project)
    assert local.identifiers is not None
    reached = lake.held(reach(project, rows, local.identifiers, local.customers))
    counted = sizes(mine, reached, asked, days) if asked else here.read(SIZES).limit(0)
    counted = lake.held(counted)
    told = here.read(SIZES)
    known = _known(here, project, asked)
    found = facts(project, asked, days, rows, counted, told, reached, local.customers, known)
    elsewhere = _held_elsewhere(here, names, days)
    verdicts = judge(project, names, days, found, unasked=unasked, held_before=elsewhere, accepted=accepted)
    people = {(row["audience"], row["day"]): row for row in counted.to_pyarrow().to_pylist()}
    held = [
        {"audience": name, "day": day, "because": why, "people": people.get((name, day), {}).get("people")}
        for (name, day), why in verdicts.held.items()
    ]
    return Decided(
        members=_kept(mine, here.read(MEMBERS), held),
        sizes=_kept(counted, told, held).to_pyarrow(),
        held=_arrow(held),
        verdicts=verdicts,
        people=people,
        asked=asked,
        gathered=table,
    )


def _asking(project: Project, names: Sequence[str]) -> list[Rule]:
    """Questions for these audiences and for those that their tests compare them with."""
    tested = {other for name in names for other in project.audiences[name].tests.named_audiences}
    return [Rule(audience=name) for name in sorted({*names, *tested})]


def _unasked(project: Project, names: Sequence[str], scope: Scope, days: Sequence[date]) -> dict[str, str]:
    """The audiences that ask for a table there is none of yet, and which."""
    found = {}
    for name in names:
        try:
            gathered(project, _asking(project, [name]), scope, days)
        except ScopeError as error:
            found[name] = f"it asks {error.subject}, which was not computed yet"
    return found


def _held_elsewhere(here: LakeView, names: Sequence[str], days: Sequence[date]) -> dict[tuple[str, date], str]:
    """Why audiences that are not computed now are held on which of the days: then, or since and until now."""
    held = here.read(HELD)
    rows = held.filter(~held.audience.isin(list(names))).to_pyarrow().to_pylist()
    found = {(row["audience"], row["day"]): row["because"] for row in rows}
    for name, why in held_now(here.read(SIZES), held).items():
        since = max((row["day"] for row in rows if row["audience"] == name), default=None)
        found |= {(name, day): why for day in days if since is not None and day > since}
    return found


def _known(here: LakeView, project: Project, names: Sequence[str]) -> dict[str, str]:
    """The people that the identifiers in tests lead to; nobody where an identifier is unknown."""
    tests = [project.audiences[name].tests for name in names]
    found = {}
    for text in sorted({text for one in tests for text in (*one.must_include, *one.must_exclude)}):
        try:
            found[text] = resolve_identifier(text, here.read(IDENTIFIERS), here.read(PEOPLE), project)
        except UnknownIdentifier:
            continue
    return found


def _arrow(held: Sequence[Mapping[str, object]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in held], schema=HELD.schema.to_pyarrow())


def _kept(found: ibis.Table, before: ibis.Table, held: Sequence[Mapping[str, object]]) -> ibis.Table:
    """What was found; of an audience that is held on a day, what there was before."""
    if not held:
        return found
    pairs = ibis.memtable(_arrow(held).select(["audience", "day"]))
    kept = before.semi_join(pairs, ["audience", "day"])
    return found.anti_join(pairs, ["audience", "day"]).union(kept.select(*found.columns).cast(found.schema()))

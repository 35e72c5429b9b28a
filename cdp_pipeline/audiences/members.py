"""audiences.members, .changes and .sizes: who is in which audience each day, who came and went, how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import pairwise

import ibis

from cdp_pipeline.audiences.rules import Scope, gathered
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.staged import days_table

AUDIENCE = Column("string", "The audience.")
DAY = Column("date", "As of the end of this day, in the project's time zone.")
MEMBERS = Table(
    name="audiences.members",
    description="Who is in which audience, each day.",
    columns={"audience": AUDIENCE, "person_id": Column("string", "The member."), "day": DAY},
    key=("audience", "person_id", "day"),
    month_of="day",
    derived=True,
)
CHANGES = Table(
    name="audiences.changes",
    description="Who entered or left which audience, when and why.",
    columns={
        "audience": AUDIENCE,
        "person_id": Column("string", "Who entered or left."),
        "day": DAY,
        "change": Column("string", "entered or left."),
        "cause": Column("string", "Why; 'baseline' (a new audience) and 'merged' are nobody's doing."),
    },
    key=("audience", "person_id", "day"),
    month_of="day",
    derived=True,
)
SIZES = Table(
    name="audiences.sizes",
    description="How many people are in each audience each day, and how many of them can be reached.",
    columns={
        "audience": AUDIENCE,
        "day": DAY,
        "people": Column("int64", "How many members."),
        "reachable_email": Column("int64", "How many of them have an e-mail address."),
        "reachable_phone": Column("int64", "How many of them have a phone number."),
    },
    key=("audience", "day"),
    derived=True,
)
BASELINE, MERGED = "baseline", "merged"
"""Causes that nobody acted: the audience is new, or the person has been merged into another (or erased)."""
CHANNELS = ("email", "phone")


def members(project: Project, names: Sequence[str], scope: Scope, days: Sequence[date]) -> ibis.Table:
    """The rows of MEMBERS of these audiences at the end of each day, all found in one pass."""
    table = gathered(project, [Rule(audience=name) for name in names], scope, days)
    held = [ibis.ifelse(table[f"audience_{name}"], ibis.literal(name), ibis.null("string")) for name in names]
    rows = table.select(ibis.array(held).unnest().name("audience"), "person_id", "day")
    return rows.filter(rows.audience.notnull())


def changes(
    members: ibis.Table,
    before: ibis.Table,
    sizes_before: ibis.Table,
    present: ibis.Table,
    names: Sequence[str],
    days: Sequence[date],
) -> ibis.Table:
    """The rows of CHANGES: each of `days` against the one before it, the first against the last ever computed.

    `members` holds the days themselves; `before` and `sizes_before` what MEMBERS and SIZES hold of earlier days (more
    does no harm), since an audience that was computed and empty has a size but no members. `present` says who there is
    each day (traits.daily).
    """
    days = sorted(set(days))
    first = ibis.date(days[0])
    last = sizes_before.filter(sizes_before.audience.isin(names) & (sizes_before.day < first))
    last = last.group_by("audience").aggregate(day=last.day.max())
    was = before.semi_join(last, ["audience", "day"]).select("audience", "person_id").mutate(day=first)
    if len(days) > 1:
        stayed = members.filter(members.day < ibis.date(days[-1]))
        following = ibis.cases(*[(stayed.day == ibis.date(a), ibis.date(b)) for a, b in pairwise(days)])
        was = was.union(stayed.select("audience", "person_id", day=following))
    key = ["audience", "person_id", "day"]
    entered = members.anti_join(was, key).left_join(last.select("audience", known=True), "audience")
    baseline = entered.known.isnull() & (entered.day == first)
    entered = entered.select(
        *key, change=ibis.literal("entered"), cause=ibis.ifelse(baseline, BASELINE, "the conditions hold now")
    )
    left = was.anti_join(members, key)
    left = left.left_join(present.select("person_id", "day", known=True), ["person_id", "day"])
    left = left.select(
        *key,
        change=ibis.literal("left"),
        cause=ibis.ifelse(left.known.isnull(), MERGED, "the conditions hold no longer"),
    )
    return entered.union(left)


def sizes(members: ibis.Table, identifiers: ibis.Table, names: Sequence[str], days: Sequence[date]) -> ibis.Table:
    """The rows of SIZES of these audiences and days, empty audiences included."""
    held = identifiers.filter(identifiers.person_id.notnull() & identifiers.type.isin(CHANNELS))
    held = held.group_by("person_id").aggregate(**{channel: (held.type == channel).any() for channel in CHANNELS})
    rows = members.left_join(held, "person_id").drop("person_id_right")
    counted = rows.group_by("audience", "day").aggregate(
        people=rows.count(), **{f"reachable_{channel}": rows.count(where=rows[channel]) for channel in CHANNELS}
    )
    every = ibis.array(list(names)).unnest().name("audience").as_table().cross_join(days_table("day", days))
    found = every.left_join(counted, ["audience", "day"])
    return found.select(
        "audience", "day", **{c: found[c].fill_null(0) for c in SIZES.columns if c not in ("audience", "day")}
    )

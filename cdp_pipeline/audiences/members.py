"""audiences.members, .changes and .sizes: who is in which audience each day, who came and went, how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import ibis

from cdp_pipeline.audiences.rules import Scope, gathered
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.reach import CHANNELS
from cdp_pipeline.traits.cells import days_table

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
        "reachable_email": Column("int64", "How many of them have an e-mail address and agree to be written to."),
        "reachable_phone": Column("int64", "How many of them have a phone number and agree to be called or texted."),
    },
    key=("audience", "day"),
    derived=True,
)
HELD = Table(
    name="audiences.held",
    description="Audiences that may not be used on a day, and why. Whoever is in them stays as on the last good day.",
    columns={
        "audience": AUDIENCE,
        "day": DAY,
        "people": Column("int64", "How many members it would have."),
        "because": Column("string", "The tests that failed, or the audience it depends on."),
    },
    key=("audience", "day"),
    derived=True,
)
BASELINE, MERGED = "baseline", "merged"
"""Causes that nobody acted: the audience is new, or the person has been merged into another (or erased)."""


def members(project: Project, names: Sequence[str], scope: Scope, days: Sequence[date]) -> ibis.Table:
    """The rows of MEMBERS of these audiences at the end of each day, all found in one pass."""
    return picked(gathered(project, [Rule(audience=name) for name in names], scope, days), names)


def picked(table: ibis.Table, names: Sequence[str]) -> ibis.Table:
    """The rows of MEMBERS of these audiences from what rules.gathered says of them."""
    if len(names) == 1:  # a plain filter, which engines apply before they join what the other conditions ask
        [name] = names
        rows = table.filter(table[f"audience_{name}"])
        return rows.select(ibis.literal(name).name("audience"), "person_id", "day")
    held = [ibis.ifelse(table[f"audience_{name}"], ibis.literal(name), ibis.null("string")) for name in names]
    those = ibis.array(held).filter(lambda name: name.notnull())
    return table.select(those.unnest().name("audience"), "person_id", "day")


def changes(
    members: ibis.Table, sizes: ibis.Table, present: ibis.Table, names: Sequence[str], days: Sequence[date]
) -> ibis.Table:
    """The rows of CHANGES of these audiences and days: each day against the one before it that was computed and good.

    `members` and `sizes` are MEMBERS and SIZES, those days included: an audience that was computed and empty has a
    size but no members, and a day on which it was held has neither. `present` says who there is each day
    (traits.daily).
    """
    computed = sizes.filter(sizes.audience.isin(names)).select("audience", "day")
    computed = computed.mutate(previous=computed.day.lag().over(group_by="audience", order_by="day"))
    computed = computed.filter(computed.day.isin(sorted(set(days))))
    key = ["audience", "person_id", "day"]
    now = members.select(*key).join(computed, ["audience", "day"])
    was = members.select("audience", "person_id", previous="day").join(
        computed.filter(computed.previous.notnull()), ["audience", "previous"]
    )
    entered = now.anti_join(was, key)
    cause = ibis.ifelse(entered.previous.isnull(), BASELINE, "the conditions hold now")
    entered = entered.select(*key, change=ibis.literal("entered"), cause=cause)
    left = was.anti_join(now, key).select(*key)
    left = left.left_join(present.select("person_id", "day", known=True), ["person_id", "day"])
    cause = ibis.ifelse(left.known.isnull(), MERGED, "the conditions hold no longer")
    return entered.union(left.select(*key, change=ibis.literal("left"), cause=cause))


def held_now(sizes: ibis.Table, held: ibis.Table) -> dict[str, str]:
    """The audiences that may not be used now, and why: those held on their newest day. From SIZES and HELD."""
    newest = held.group_by("audience").aggregate(day=held.day.max(), because=held.because.argmax(held.day))
    good = sizes.group_by("audience").aggregate(good=sizes.day.max())
    rows = newest.left_join(good, "audience")
    rows = rows.filter(rows.good.isnull() | (rows.good <= rows.day)).select("audience", "because")
    return {row["audience"]: row["because"] for row in rows.to_pyarrow().to_pylist()}


def sizes(members: ibis.Table, reached: ibis.Table, names: Sequence[str], days: Sequence[date]) -> ibis.Table:
    """The rows of SIZES of these audiences and days, empty audiences included; `reached` is reach.reach of members."""
    rows = members.left_join(reached, "person_id").drop("person_id_right")
    counted = rows.group_by("audience", "day").aggregate(
        people=rows.count(), **{f"reachable_{channel}": rows.count(where=rows[channel]) for channel in CHANNELS}
    )
    every = ibis.array(list(names)).unnest().name("audience").as_table().cross_join(days_table("day", days))
    found = every.left_join(counted, ["audience", "day"])
    return found.select(
        "audience", "day", **{c: found[c].fill_null(0) for c in SIZES.columns if c not in ("audience", "day")}
    )

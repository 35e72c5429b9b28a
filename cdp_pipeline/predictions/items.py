"""People × items: which items a prediction speaks of, what is known of each pair as of a day, and what then happened.

Pure functions over the timeline, shared by affinity and topics. Estimators belong to their own modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.predictions.targets import at_each, events_of
from cdp_pipeline.profile.timeline import event_scope

if TYPE_CHECKING:
    from cdp_pipeline.spec.prediction import Items, ItemTarget

PAIR = {
    "_times": "days on which they had {event} with the item",
    "_recent": "of these, days within the last {days} days",
    "_decayed": "these days, each worth less the older it is (e-fold in {days} days)",
    "_slow": "these days, each worth less the older it is (e-fold in {slow} days)",
    "_recency": "days since the last one",
    "_since_first": "days since the first one",
}
PERSON = {
    "_person_times": "days on which they had {event} at all",
    "_person_recent": "of these, days within the last {days} days",
    "_person_decayed": "these days, e-fold in {days} days",
    "_person_slow": "these days, e-fold in {slow} days",
    "_person_recency": "days since the last {event} at all",
    "_person_items": "different items so far",
    "_person_items_recent": "different items within the last {days} days",
}
ITEM = {
    "_item_share": "share of the people who ever had {event} with the item",
    "_item_share_recent": "share of the people who had it within the last {days} days",
    "_item_rate": "share of the people's days with {event} that concern the item",
}
KNOWN = PAIR | PERSON | ITEM
"""What is known of a person and an item, in words."""
SLOWER = 3
"""How many horizons the slower memory of a habit lasts."""


def words(event: str, horizon_days: int) -> dict[str, str]:
    """The columns of KNOWN, said of an event and a horizon."""
    said = {"event": event, "days": horizon_days, "slow": SLOWER * horizon_days}
    return {name: text.format(**said) for name, text in KNOWN.items()}


def item_days(timeline: ibis.Table, target: ItemTarget) -> ibis.Table:
    """(person_id, item, _day): the days on which identified people had a target event with each item."""
    found = events_of(timeline, target)
    item = event_scope(found)[target.item].cast("string")
    return found.select("person_id", "_day", item=item).filter(lambda t: t.item.notnull() & (t.item != "")).distinct()


def listed_items(pairs: ibis.Table, items: Items) -> ibis.Table:
    """(day, item): the items spoken of on each day, those most people had; `pairs` are (person_id, day, item)."""
    counts = pairs.group_by("day", "item").agg(people=lambda t: t.count())
    counts = counts.filter(counts.people >= items.at_least)
    place = ibis.row_number().over(group_by="day", order_by=[ibis.desc(counts.people), counts.item])
    return counts.mutate(place=place).filter(lambda t: t.place < items.at_most).select("day", "item")


def known_pairs(happened: ibis.Table, who: ibis.Table, days: Sequence[date], items: Items, horizon: int) -> ibis.Table:
    """(person_id, day, item, KNOWN): people with every item listed on the day, from rows up to it.

    `happened` is `item_days`. People are those of `who` (person_id, day) who had the event before. All columns are
    float64, rounded, so that no last bit of a sum makes a new model.
    """
    past = at_each(happened, days).filter(lambda t: t._day <= t.day).semi_join(who, ["person_id", "day"])
    past = past.mutate(ago=lambda t: t.day.delta(t._day, unit="day").cast("float64"))
    pairs = past.group_by("person_id", "day", "item").agg(**_figures(past, horizon))
    of_person = past.group_by("person_id", "day", "ago").agg(n=lambda t: t.count())
    person = of_person.group_by("person_id", "day").agg(
        **{name.replace("_", "_person_", 1): value for name, value in _figures(of_person, horizon).items()}
    )
    breadth = pairs.group_by("person_id", "day").agg(
        _person_items=pairs.count(), _person_items_recent=(pairs._recent > 0).sum()
    )
    grid = person.select("person_id", "day").inner_join(listed_items(pairs, items), "day")
    keys = ["person_id", "day"]
    table = grid.left_join(pairs, [*keys, "item"]).select(*keys, "item", *(_zero(pairs[name]) for name in PAIR))
    table = table.left_join(person, keys).select(
        *table.columns, *(_zero(person[name]) for name in PERSON if name in person.columns)
    )
    table = table.left_join(breadth, keys).select(
        *table.columns, *(_zero(breadth[name]) for name in breadth.columns if name not in keys)
    )
    of_item = table.group_by("day", "item").agg(
        _item_share=(table._times > 0).mean(),
        _item_share_recent=(table._recent > 0).mean(),
        _item_rate=table._times.sum() / table._person_times.sum().nullif(0),
    )
    table = table.left_join(of_item, ["day", "item"]).select(*table.columns, *ITEM)
    return table.select(*keys, "item", *(table[name].cast("float64").round(6).name(name) for name in KNOWN))


def _figures(past: ibis.Table, horizon: int) -> dict[str, ibis.Value]:
    return {
        "_times": past.count(),
        "_recent": (past.ago < horizon).sum(),
        "_decayed": (-past.ago / horizon).exp().sum(),
        "_slow": (-past.ago / (SLOWER * horizon)).exp().sum(),
        "_recency": past.ago.min(),
        "_since_first": past.ago.max(),
    }


def _zero(column: ibis.Column) -> ibis.Value:
    """What a pair that never happened has: no days; how long ago stays unknown."""
    name = column.get_name()
    return column if name.endswith(("recency", "since_first")) else column.fill_null(0).name(name)


def pair_labels(happened: ibis.Table, pairs: ibis.Table, days: Sequence[date], horizon: int) -> ibis.Table:
    """The pairs (person_id, day, item, …) with `label`: 1 if it happened in (day, day + horizon]."""
    joined = pairs.left_join(hits(happened, days, horizon), ["person_id", "day", "item"])
    return joined.select(*pairs.columns, label=joined.hit.notnull().cast("int64"))


def outcomes_of(happened: ibis.Table, days: Sequence[date], horizon: int) -> ibis.Table:
    """(person_id, day, item, label): 1 for pairs that happened, 0 for others of people and items known by the day."""
    past = at_each(happened, days).filter(lambda t: t._day <= t.day)
    people, items = past.select("person_id", "day").distinct(), past.select("item", "day").distinct()
    return pair_labels(happened, people.inner_join(items, "day").select("person_id", "day", "item"), days, horizon)


def hits(happened: ibis.Table, days: Sequence[date], horizon: int) -> ibis.Table:
    """(person_id, day, item, hit): the pairs that happened in (day, day + horizon]."""
    ahead = happened.filter((happened._day > min(days)) & (happened._day.delta(max(days), unit="day") <= horizon))
    ahead = at_each(ahead, days).mutate(ahead=lambda t: t._day.delta(t.day, unit="day"))
    ahead = ahead.filter(lambda t: t.ahead.between(1, horizon))
    return ahead.select("person_id", "day", "item").distinct().mutate(hit=True)

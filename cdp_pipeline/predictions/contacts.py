"""Contacts and answers: who was contacted by what, whether they answered, and what was known of that before each day.

Pure functions over the timeline; the estimator is answers.py, the path of scores response.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.predictions.items import listed_items
from cdp_pipeline.predictions.targets import at_each, events_of
from cdp_pipeline.profile.timeline import event_scope

if TYPE_CHECKING:
    from cdp_pipeline.spec.prediction import EventTarget, Items, Response, ResponseTarget, Uplift

OF_ITEM = {
    "_contacted": "times they were contacted by it",
    "_answered": "of these, times they answered",
    "_contact_recency": "days since the last contact by it",
    "_answer_recency": "days since the last answer to it",
}
OF_PERSON = {
    "_contacted_all": "times they were contacted at all",
    "_answered_all": "of these, times they answered",
    "_answer_recency_all": "days since the last answer to anything",
}
USUAL = {
    "_usual": "share of all contacts by it that were answered",
    "_usual_contacts": "contacts by it so far, of everybody",
}
CONTACTS = OF_ITEM | OF_PERSON | USUAL
"""What is known of a person's contacts, in words."""


def contacts(timeline: ibis.Table, exposure: EventTarget, item_of: str, target: ResponseTarget) -> ibis.Table:
    """(event_id, person_id, item, occurred_at, _day, answered_on): every contact; null: not answered in time.

    `item_of` is the column or property of the contact that is its item; contacts without one are left out.
    """
    sent = events_of(timeline, exposure)
    item = event_scope(sent)[item_of].cast("string")
    same = {} if target.same is None else {"same": event_scope(sent)[target.same].cast("string")}
    sent = sent.select("event_id", "person_id", "occurred_at", "_day", item=item, **same)
    sent = sent.filter(sent.item.notnull() & (sent.item != ""))
    back = events_of(timeline, target)
    same = {} if target.same is None else {"same": event_scope(back)[target.same].cast("string")}
    back = back.select(answerer="person_id", answered_at="occurred_at", answered_on="_day", **same)
    alike = [("person_id", "answerer"), *([] if target.same is None else ["same"])]
    pairs = sent.inner_join(back, alike)
    pairs = pairs.filter(
        (pairs.answered_at >= pairs.occurred_at)
        & (pairs.answered_on.delta(pairs._day, unit="day") <= target.within.days)
    )
    answered = pairs.group_by("event_id").agg(answered_on=pairs.answered_on.min())
    joined = sent.left_join(answered, "event_id")
    return joined.select(
        *(sent[name] for name in ("event_id", "person_id", "item", "occurred_at", "_day")), "answered_on"
    )


def known_contacts(every: ibis.Table, who: ibis.Table, days: Sequence[date], items: Items) -> ibis.Table:
    """(person_id, day, item, CONTACTS): each of `who` (person_id, day) with every item listed on the day.

    `every` is `contacts`; rows after the day, and answers after it, are not known yet. Columns are float64, rounded.
    """
    keys = ["person_id", "day"]
    past = at_each(every, days).filter(lambda t: t._day <= t.day)
    past = past.mutate(
        ago=past.day.delta(past._day, unit="day"),
        answered_ago=ibis.ifelse(
            past.answered_on <= past.day, past.day.delta(past.answered_on, unit="day"), ibis.null("int64")
        ),
    )
    pairs = past.group_by(*keys, "item").agg(
        _contacted=past.count(),
        _answered=past.answered_ago.count(),
        _contact_recency=past.ago.min(),
        _answer_recency=past.answered_ago.min(),
    )
    people = past.group_by(*keys).agg(
        _contacted_all=past.count(),
        _answered_all=past.answered_ago.count(),
        _answer_recency_all=past.answered_ago.min(),
    )
    usual = past.group_by("day", "item").agg(
        _usual=past.answered_ago.count() / past.count(), _usual_contacts=past.count()
    )
    table = who.select(*keys).inner_join(listed_items(pairs.select(*keys, "item"), items), "day")
    for found, key in ((pairs, [*keys, "item"]), (people, keys), (usual, ["day", "item"])):
        table = table.left_join(found, key).select(
            *table.columns, *(_or_none(found[name]) for name in found.columns if name not in key)
        )
    return table.select(*keys, "item", *(table[name].cast("float64").round(6).name(name) for name in CONTACTS))


def _or_none(column: ibis.Column) -> ibis.Value:
    """Nobody contacted is no contacts; how long ago stays unknown."""
    name = column.get_name()
    return column if "recency" in name else column.fill_null(0).name(name)


def next_answers(
    every: ibis.Table, prediction: Response | Uplift, days: Sequence[date], of_each_item: bool = True
) -> ibis.Table:
    """(person_id, day, item, label): the first contact by each item (or at all) after each day, and whether it was
    answered.

    Only contacts early enough that their time to answer ends within the horizon: so the label is known when it has
    passed, and a training window never reaches into the test window.
    """
    room = prediction.horizon.days - prediction.target.within.days
    ahead = at_each(every, days).mutate(ahead=lambda t: t._day.delta(t.day, unit="day"))
    ahead = ahead.filter(lambda t: t.ahead.between(1, room))
    group = ["person_id", "day", *(["item"] if of_each_item else [])]
    place = ibis.row_number().over(group_by=group, order_by=[ahead.occurred_at, ahead.event_id])
    first = ahead.mutate(place=place).filter(lambda t: t.place == 0)
    return first.select("person_id", "day", "item", label=first.answered_on.notnull().cast("int64"))


def drawn(timeline: ibis.Table, prediction: Uplift, days: Sequence[date]) -> ibis.Table:
    """(person_id, day, treated, label): on which side the first coin after each day fell, and what they then did.

    Only of people for whom a coin was thrown so early that their time to act ends within the horizon.
    """
    treatment = prediction.treatment
    every = contacts(timeline, treatment, treatment.arm, prediction.target)
    every = every.filter(every.item.isin([*treatment.treated, *treatment.control]))
    rows = next_answers(every, prediction, days, of_each_item=False)
    return rows.select("person_id", "day", treated=rows.item.isin(treatment.treated).cast("int64"), label=rows.label)

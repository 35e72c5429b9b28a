"""Whom a channel reaches: who has an address for it, and agrees, where the project knows about agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.spec.audience import CHANNELS, Rule
from cdp_pipeline.spec.types import attribute_type

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project

CONSENTS = {"email": ("email_consent",), "phone": ("phone_consent", "sms_consent")}
"""The yes-or-no attributes that permit each channel; one of them is enough."""


def consents(project: Project, channel: str) -> list[str]:
    """The attributes that say whether people may be written to by a channel, as far as this project has them."""
    return [
        name
        for name in CONSENTS[channel]
        if name in project.attributes and attribute_type(project.attributes[name], project.sources) == "boolean"
    ]


def reach_rule(project: Project, channel: str) -> Rule:
    """What must hold of a person whom the channel reaches."""
    asked = [Rule(attribute=name, op="=", value=True) for name in consents(project, channel)]
    return Rule(all=[Rule(identifier=channel), *([Rule(any=asked)] if asked else [])])


def reach(project: Project, people: ibis.Table, identifiers: ibis.Table, customers: ibis.Table | None) -> ibis.Table:
    """For each of `people` (a column person_id): whether each channel reaches them, as a column named after it.

    `identifiers` is identity.identifiers, `customers` profile.customers, which is needed where there are consents.
    """
    rows = people.select("person_id").distinct()
    held = identifiers.filter(identifiers.type.isin(CHANNELS)).semi_join(rows, "person_id")
    held = held.group_by("person_id").aggregate(**{channel: (held.type == channel).any() for channel in CHANNELS})
    asked = {channel: consents(project, channel) for channel in CHANNELS}
    names = [name for some in asked.values() for name in some]
    rows = rows.left_join(held, "person_id").drop("person_id_right")
    if customers is not None and names:
        rows = rows.left_join(customers.select("person_id", *names), "person_id").drop("person_id_right")
    reached = {}
    for channel, needed in asked.items():
        has, agrees = rows[channel].fill_null(False), ibis.literal(not needed)
        for name in needed if customers is not None else ():
            agrees = agrees | rows[name].fill_null(False)
        reached[channel] = has & agrees
    return rows.select("person_id", **reached)

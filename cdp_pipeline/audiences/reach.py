"""Whom a channel reaches: who has an address for it, and agrees, where the project knows about agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.audiences.rules import holds, known_of, reach_rule
from cdp_pipeline.audiences.scope import Scope
from cdp_pipeline.spec.reach import CHANNELS

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project


def reach(project: Project, people: ibis.Table, identifiers: ibis.Table, customers: ibis.Table | None) -> ibis.Table:
    """For each of `people` (a column person_id): whether each channel reaches them, as a column named after it.

    `identifiers` is identity.identifiers, `customers` profile.customers: without it nobody is known to have agreed.
    """
    rules = {channel: reach_rule(project, channel) for channel in CHANNELS}
    scope = Scope(traits=people, customers=customers, identifiers=identifiers)
    table = known_of(project, list(rules.values()), scope)
    return table.select("person_id", **{channel: holds(rule, table) for channel, rule in rules.items()})

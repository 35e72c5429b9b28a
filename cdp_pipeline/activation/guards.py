"""Whom a trigger leaves alone: those for whom its own `unless` or a guard of its purpose holds."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import ibis

from cdp_pipeline.audiences.accounts import with_their_groups
from cdp_pipeline.audiences.look import scope_of
from cdp_pipeline.audiences.rules import every_rule, gathered, holds_all, leaves
from cdp_pipeline.audiences.scope import persons
from cdp_pipeline.lake.questions import Asked
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trigger import Trigger

UNLESS = "unless"
"""What a trigger's own conditions are called among the guards."""


def guards_of(project: Project, trigger: Trigger) -> dict[str, list[Rule]]:
    """By name the guards a trigger heeds; each holds where all its rules do."""
    own = {UNLESS: [Rule(any=trigger.unless)]} if trigger.unless else {}
    shared = {guard.name: guard.when for guard in project.guards.values() if trigger.purpose in guard.purposes}
    return own | shared


def guarded(
    asked: Asked, project: Project, trigger: Trigger, person_ids: Collection[str], day: date
) -> dict[str, list[str]]:
    """Those of these people whom a guard keeps from the trigger as of the end of a day, with the guards' names."""
    guards = guards_of(project, trigger)
    if not guards or not person_ids:
        return {}

    def question(people: ibis.Table) -> ibis.Table:
        rules = [rule for each in guards.values() for rule in each]
        scope = scope_of(asked, project)
        scope = scope.of_people(with_their_groups(leaves(every_rule(project, rules)), scope, people))
        table = gathered(project, rules, scope, [day])
        held = table.select("person_id", **{name: holds_all(each, table) for name, each in guards.items()})
        return held.semi_join(people, "person_id")

    rows = asked.answer(("guards", trigger.name), question, persons(person_ids), when=day).to_pylist()
    found = {str(row["person_id"]): [name for name in guards if row[name]] for row in rows}
    return {person_id: names for person_id, names in found.items() if names}

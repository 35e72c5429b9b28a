"""Evaluate every trigger for a day: read the lake, ask triggers.py, record in the ledger. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, datetime

import ibis

from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.activation.triggers import fired, horizon, occasions
from cdp_pipeline.audiences.accounts import with_their_groups
from cdp_pipeline.audiences.look import scope_of
from cdp_pipeline.audiences.members import HELD, SIZES, held_now
from cdp_pipeline.audiences.rules import every_rule, leaves, matching
from cdp_pipeline.lake.lake import LakeView
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trigger import Trigger

Rows = list[dict[str, object]]


def fire(
    ledger: Ledger, lake: LakeView, project: Project, *, now: datetime, day: date | None = None
) -> dict[str, dict[str, int]]:
    """Record what each trigger calls for, by trigger and state; 'known' are operations that were recorded before.

    Each is evaluated for the newest day that what it watches was computed for (not after `day`, if given). One that an
    audience guards (`unless`) waits while that audience is held: nobody knows whom it would keep safe.
    """
    aliases = merged_people(lake)
    held = held_now(lake.read(SIZES), lake.read(HELD))
    counts = {}
    for trigger in project.triggers.values():
        if any(rule.audience in held for rule in leaves(every_rule(project, trigger.unless))):
            continue
        newest = _newest_day(lake, trigger, day)
        if newest is not None:
            counts[trigger.name] = _fire(ledger, lake, project, trigger, newest, now, aliases)
    return counts


def _fire(
    ledger: Ledger,
    lake: LakeView,
    project: Project,
    trigger: Trigger,
    day: date,
    now: datetime,
    aliases: Mapping[str, str],
) -> dict[str, int]:
    not_before = horizon(day, ledger.evaluated_until(trigger.name))
    changes, crossings = _moves(lake, trigger, not_before, day)
    happened = occasions(trigger, changes, crossings, not_before=not_before, until=day)
    ids = sorted({occasion.person_id for occasion in happened})
    ops = fired(
        trigger,
        happened,
        people=known_people(lake, project, ids, day),
        destinations=project.destinations,
        guarded=_guarded(lake, project, trigger, ids, day),
    )
    return ledger.fire(
        trigger.name,
        ops,
        day=day,
        now=now,
        cool_down=trigger.cool_down,
        once=trigger.once,
        aliases=aliases,
        counts_dry_run=all(project.destinations[act.destination].dry_run for act in trigger.do),
    )


def _newest_day(lake: LakeView, trigger: Trigger, until: date | None) -> date | None:
    crossed, audience = trigger.on.crossed, trigger.on.entered or trigger.on.left
    days = _table(lake, "traits.daily" if crossed is not None else "audiences.sizes")
    if days is None:
        return None
    if crossed is None:
        days = days.filter(days.audience == audience)
    if until is not None:
        days = days.filter(days.day <= ibis.date(until))
    return _rows(days.aggregate(day=days.day.max()))[0]["day"]  # type: ignore[return-value]


def known_people(
    lake: LakeView, project: Project, person_ids: Collection[str], day: date, only: Collection[str] | None = None
) -> dict[str, dict[str, object]]:
    """What is known of some people by id: attributes, traits as of the day, and the newest score of each prediction.

    Of a prediction over items, it is the item that comes first for the person, of a ranking all items of their newest
    list in its order. `only`: no more than these names.
    """
    people: dict[str, dict[str, object]] = {person_id: {} for person_id in person_ids}
    if not people:
        return people
    customers, traits = _table(lake, "profile.customers"), _table(lake, "traits.daily")
    parts = [customers, None if traits is None else traits.filter(traits.day == ibis.date(day))]
    for name in project.predictions if only is None else project.predictions.keys() & only:
        scores = _table(lake, f"predictions.{name}")
        if scores is not None:
            scores = scores.filter(scores.day <= ibis.date(day))
            if project.predictions[name].a_list:
                for person_id, items in _lists(scores, list(people)).items():
                    people[person_id][name] = items
                continue
            of_items = "item" in scores.columns
            scores = scores.filter(scores["rank"] == 1) if of_items else scores
            value = scores.item if of_items else scores.score
            parts.append(scores.group_by("person_id").aggregate(value.argmax(scores.day).name(name)))
    for part in parts:
        if part is not None and only is not None:
            part = part.select("person_id", *(name for name in part.columns if name in only and name != "person_id"))
        if part is not None:
            for row in _rows(part.filter(part.person_id.isin(list(people)))):
                people[str(row["person_id"])].update(row)
    return people


def _lists(scores: ibis.Table, people: list[str]) -> dict[str, list[str]]:
    """The items of each person's newest list, best first."""
    mine = scores.filter(scores.person_id.isin(people))
    newest = mine.group_by("person_id").aggregate(day=mine.day.max())
    found: dict[str, list[str]] = {}
    for row in _rows(mine.semi_join(newest, ["person_id", "day"]).order_by("person_id", "rank")):
        found.setdefault(str(row["person_id"]), []).append(str(row["item"]))
    return found


def merged_people(lake: LakeView) -> dict[str, str]:
    """Ids that were merged into another, and the living one they resolve to."""
    if not lake.exists("identity.people"):
        return {}
    people = lake.table("identity.people")
    merged = people.filter(people.merged_into.notnull()).select("person_id", "merged_into")
    return {str(row["person_id"]): str(row["merged_into"]) for row in _rows(merged)}


def _moves(lake: LakeView, trigger: Trigger, not_before: date, until: date) -> tuple[Rows, Rows]:
    crossed = trigger.on.crossed
    name = "audiences.changes" if crossed is None else "traits.bands"
    if not lake.exists(name):
        return [], []
    table = lake.table(name)
    table = table.filter(table.day.between(ibis.date(not_before), ibis.date(until)))
    if crossed is not None:
        return [], _rows(table.filter(table.trait == crossed.trait, table.to_band == crossed.to))
    return _rows(table.filter(table.audience == (trigger.on.entered or trigger.on.left))), []


def _guarded(lake: LakeView, project: Project, trigger: Trigger, person_ids: list[str], day: date) -> set[str]:
    """Those for whom any of the trigger's `unless` rules holds."""
    if not trigger.unless or not person_ids:
        return set()
    scope = scope_of(lake, project)
    scope = scope.of_people(with_their_groups(leaves(every_rule(project, trigger.unless)), scope, person_ids))
    guarded: set[str] = set()
    for rule in trigger.unless:
        guarded.update(str(row["person_id"]) for row in _rows(matching(project, [rule], scope, [day])))
    return guarded.intersection(person_ids)


def _table(lake: LakeView, name: str) -> ibis.Table | None:
    return lake.table(name) if lake.exists(name) else None


def _rows(table: ibis.Table) -> Rows:
    return table.to_pyarrow().to_pylist()

"""From a change to the operations it calls for: edge-triggered, once per occasion, whatever is run again.

Pure functions over rows. What was done before is the ledger's to know; reading the lake is fire.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from types import MappingProxyType

from cdp_pipeline.activation.ledger import DecidedState, Op, guarded_by, operation_id
from cdp_pipeline.activation.messages import message
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.trigger import OF_EVENT, Trigger

Row = Mapping[str, object]
CATCH_UP = timedelta(days=2)
NOT_AN_ACT = ("baseline", "merged")


@dataclass(frozen=True)
class Occasion:
    """One thing that happened to one person; its text is the same however often it is computed."""

    person_id: str
    text: str
    day: date
    event: Mapping[str, object] = field(default_factory=dict, compare=False)
    """What is known of the event it is about, if it is about one."""


def horizon(day: date, evaluated: date | None) -> date:
    """The oldest day whose changes may still cause an act when evaluating `day`.

    A trigger looks back to the day it was last evaluated for, two days at most; a new one sees only the day itself.
    So neither a backfill of past days nor a long outage sends what nobody expects any more.
    """
    return day if evaluated is None else max(evaluated, day - CATCH_UP)


def occasions(
    trigger: Trigger, changes: Iterable[Row], crossings: Iterable[Row], *, not_before: date, until: date
) -> list[Occasion]:
    """What sets the trigger off, from rows of audiences.changes and traits.bands within the days given.

    People who were there when an audience or a trait was first computed, and moves caused by merging or splitting
    people, are no occasions: nothing happened to anybody.
    """
    on = trigger.on
    found: list[Occasion] = []
    if on.crossed is not None:
        for row in crossings:
            day = row["day"]
            if (
                row["trait"] == on.crossed.trait
                and row["to_band"] == on.crossed.to
                and row["from_band"] is not None
                and on.crossed.from_ in (None, row["from_band"])
                and isinstance(day, date)
                and not_before <= day <= until
            ):
                text = f"crossed:{on.crossed.trait}:{on.crossed.to}:{day.isoformat()}"
                found.append(Occasion(str(row["person_id"]), text, day))
    elif on.entered is not None or on.left is not None:
        audience, change = (on.entered, "entered") if on.entered is not None else (on.left, "left")
        for row in changes:
            day = row["day"]
            if (
                row["audience"] == audience
                and row["change"] == change
                and row["cause"] not in NOT_AN_ACT
                and isinstance(day, date)
                and not_before <= day <= until
            ):
                found.append(Occasion(str(row["person_id"]), f"{change}:{audience}:{day.isoformat()}", day))
    return sorted(found, key=lambda occasion: (occasion.day, occasion.person_id))


def guarded_state(trigger: Trigger) -> DecidedState:
    """What becomes of an act that a guard keeps from being sent."""
    return "held" if trigger.if_guarded == "wait" else "suppressed"


def fired(
    trigger: Trigger,
    happened: Iterable[Occasion],
    *,
    people: Mapping[str, Row],
    destinations: Mapping[str, Destination],
    guarded: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Op]:
    """The operations of occasions, one per act; those that must not be sent say why.

    `people` holds what is known of each person: attributes and traits by name. `guarded` are those whom guards keep
    from it, with the guards' names.
    """
    ops = []
    for occasion in happened:
        # An event is one person's: whoever they are found to be later, it is the same operation.
        whose = () if occasion.event else (occasion.person_id,)
        told = {f"{OF_EVENT}{name}": value for name, value in occasion.event.items()}
        person = {**people.get(occasion.person_id, {}), **told, "person_id": occasion.person_id}
        for index, act in enumerate(trigger.do):
            said = message(trigger.name, act, destinations[act.destination], person, occasion.text, occasion.day)
            state, reason = said.state, said.reason
            guards = tuple(guarded.get(occasion.person_id, ())) if said.state == "pending" else ()
            if guards:
                state = guarded_state(trigger)
                reason = guarded_by(guards)
            ops.append(
                Op(
                    op_id=operation_id("trigger", trigger.name, index, *whose, occasion.text),
                    origin=f"trigger:{trigger.name}",
                    destination=act.destination,
                    person_id=occasion.person_id,
                    kind="act",
                    key=str(index),
                    payload=said.payload,
                    occasion=occasion.text,
                    state=state,
                    reason=reason,
                    guards=guards,
                )
            )
    return ops

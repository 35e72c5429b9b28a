"""`kind: trigger`: an act on a change, once per occasion, unless something speaks against it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdp_pipeline.spec.audience import Happening, Rule
from cdp_pipeline.spec.base import (
    NAME_PATTERN,
    Document,
    Duration,
    Name,
    Part,
    Priority,
    SomeTime,
    TimeOfDay,
    WholeDays,
)

TEMPLATES = ("subject", "title", "body", "html")
"""The templates a message can have; which of them is up to the destination's type."""


class Crossing(Part):
    """A trait's value moved into a band (`to`), from a certain one if `from` is given."""

    trait: Name
    to: Name
    from_: Name | None = Field(default=None, alias="from")


class Missing(Happening):
    """No such event for a time (`for`) after the last one that made us wait for it: `after`."""

    after: Happening
    for_: SomeTime = Field(alias="for")


class DateReached(Part):
    """The day that an attribute or trait names, or so many days before or after it."""

    of: Name
    before: WholeDays | None = None
    after: WholeDays | None = None

    @model_validator(mode="after")
    def _one_direction(self) -> DateReached:
        if self.before is not None and self.after is not None:
            raise ValueError("needs at most one of 'before' and 'after'")
        return self

    @property
    def offset(self) -> timedelta:
        """How long after the date it is reached; before it, less than nothing."""
        return (self.after or timedelta(0)) - (self.before or timedelta(0))


class Change(Part):
    """What sets the trigger off. Exactly one is given."""

    entered: Name | None = Field(default=None, description="An audience somebody entered.")
    left: Name | None = Field(default=None, description="An audience somebody left.")
    crossed: Crossing | None = None
    seen: Happening | None = Field(default=None, description="An event somebody did, as soon as it is known.")
    missing: Missing | None = None
    date: DateReached | None = None

    @property
    def event(self) -> Happening | None:
        """The event that an act is about, if it is about one: what was seen, or what nothing came after."""
        return self.seen if self.missing is None else self.missing.after

    @model_validator(mode="after")
    def _exactly_one(self) -> Change:
        *others, last = Change.model_fields
        if sum(getattr(self, name) is not None for name in Change.model_fields) != 1:
            raise ValueError(f"needs exactly one of {', '.join(map(repr, others))} and '{last}'")
        return self


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class ValidHours(Part):
    """The hours of the day, in the project's zone, in which it may be sent; `to` before `from`: over midnight."""

    from_: TimeOfDay = Field(alias="from")
    to: TimeOfDay
    days: Annotated[list[Literal[DAYS]], Field(min_length=1)] = list(DAYS)  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _some_time(self) -> ValidHours:
        if self.from_ == self.to:
            raise ValueError("'from' and 'to' are the same time: leave valid_hours out if any hour will do")
        return self


OF_EVENT = "event."
Said = Annotated[str, Field(pattern=rf"^({re.escape(OF_EVENT)})?{NAME_PATTERN[1:]}", max_length=70)]


class Act(Part):
    """One delivery: to which destination, with which fields, and for messages with which words (Liquid templates)."""

    destination: Name
    mapping: dict[str, Said] = Field(
        default={},
        description="Field sent: the attribute, trait or prediction it is filled from, person_id, or event.<column>.",
    )
    to: Name | None = Field(default=None, description="For messages: the attribute that holds the address.")
    subject: str | None = None
    title: str | None = None
    body: str | None = None
    html: str | None = None


class Trigger(Document):
    """When a change happens to a person, act; not again within `cool_down`, nor where `unless` or a guard holds.

    What comes outside `valid_hours` waits for them, and what waited longer than `expires` is not sent any more. Where
    a guard of its purpose holds, it is dropped, or with `if_guarded: wait` sent once no guard holds any more.
    """

    kind: Literal["trigger"]
    purpose: Name | None = Field(default=None, description="What people's data is used for here.")
    priority: Priority = 100
    on: Change
    cool_down: Duration = timedelta(0)
    once: bool = Field(default=False, description="True: at most once in a person's life.")
    valid_hours: ValidHours | None = None
    expires: SomeTime | None = Field(default=None, description="How long it may wait before it is no use any more.")
    unless: list[Rule] = []
    if_guarded: Literal["drop", "wait"] = "drop"
    do: Annotated[list[Act], Field(min_length=1)]

"""`kind: contact_policy`: how often, when, and whether at all people are contacted, whatever calls for it.

One document per project. It holds at the moment of sending, see activation/gates.py.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdp_pipeline.spec.base import Document, Duration, Name, Part, TimeOfDay, TimeZone
from cdp_pipeline.spec.destination import Channel


class Reach(Part):
    """What a rule is about: one channel, or some purposes; without them, all."""

    channel: Channel | None = None
    purposes: list[Name] = []

    def concerns(self, channel: str | None, purpose: str | None) -> bool:
        """Whether a contact by this channel for this purpose is one of those meant."""
        return self.channel in (None, channel) and (not self.purposes or purpose in self.purposes)


class Cap(Reach):
    """At most so many contacts of one person within a time; the more important ones (`priority`) go first."""

    most: Annotated[int, Field(gt=0)]
    within: Duration


class QuietHours(Reach):
    """A time of day, on the person's clock, at which nobody is contacted; what comes then waits until it is over.

    `zone` is the attribute that says where somebody's clock is: the name of a time zone, or with `zones` a value, such
    as a country, that stands for one. Whose is not known has the project's.
    """

    from_: TimeOfDay = Field(alias="from")
    to: TimeOfDay
    zone: Name | None = None
    zones: dict[str, TimeZone] = {}

    @model_validator(mode="after")
    def _is_a_time(self) -> QuietHours:
        if self.from_ == self.to:
            raise ValueError("'from' and 'to' are the same time: quiet hours would never begin, or never end")
        return self


class Control(Part):
    """People who are left out on purpose, so that what the others do can be compared with what they do.

    Of everything, of some purposes, or of the triggers and syncs named. Who is in it depends on the person alone.
    """

    name: Name
    share: Annotated[float, Field(gt=0, lt=1)]
    purposes: list[Name] = []
    triggers: list[Name] = []
    syncs: list[Name] = []


class Budget(Reach):
    """At most so much within a time: messages, or money where each message costs some."""

    triggers: list[Name] = []
    most: Annotated[Decimal, Field(gt=0)]
    each: Annotated[Decimal, Field(gt=0)] = Decimal(1)
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None
    within: Duration


class ContactPolicy(Document):
    """Caps, quiet hours, control groups and budgets of all contacts."""

    kind: Literal["contact_policy"]
    caps: list[Cap] = []
    quiet_hours: list[QuietHours] = []
    controls: list[Control] = []
    budgets: list[Budget] = []

"""`kind: trigger`: an act on a change, once per occasion, unless something speaks against it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.base import Document, Duration, Name, Part, Priority

TEMPLATES = ("subject", "title", "body", "html")
"""The templates a message can have; which of them is up to the destination's type."""


class Crossing(Part):
    """A trait's value moved into a band (`to`), from a certain one if `from` is given."""

    trait: Name
    to: Name
    from_: Name | None = Field(default=None, alias="from")


class Change(Part):
    """What sets the trigger off. Exactly one is given."""

    entered: Name | None = Field(default=None, description="An audience somebody entered.")
    left: Name | None = Field(default=None, description="An audience somebody left.")
    crossed: Crossing | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Change:
        if sum(value is not None for value in (self.entered, self.left, self.crossed)) != 1:
            raise ValueError("needs exactly one of 'entered', 'left' and 'crossed'")
        return self


class Act(Part):
    """One delivery: to which destination, with which fields, and for messages with which words (Liquid templates)."""

    destination: Name
    mapping: dict[str, Name] = Field(
        default={}, description="Field sent: attribute, trait or person_id it is filled from."
    )
    to: Name | None = Field(default=None, description="For messages: the attribute that holds the address.")
    subject: str | None = None
    title: str | None = None
    body: str | None = None
    html: str | None = None


class Trigger(Document):
    """When a change happens to a person, act; not again within `cool_down`, nor where `unless` holds."""

    kind: Literal["trigger"]
    purpose: Name | None = Field(default=None, description="What people's data is used for here.")
    priority: Priority = 100
    on: Change
    cool_down: Duration = timedelta(0)
    once: bool = Field(default=False, description="True: at most once in a person's life.")
    unless: list[Rule] = []
    do: Annotated[list[Act], Field(min_length=1)]

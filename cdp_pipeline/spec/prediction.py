"""`kind: prediction`: what is foreseen of people, of whom, and what its model must prove first; a class per `type:`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.base import Document, Name, Part, SqlFragment, WholeDays


class EventTarget(Part):
    """The events that what is foreseen is about."""

    event: Annotated[list[Name], Field(min_length=1)]
    when: SqlFragment | None = None


class Target(EventTarget):
    """What is foreseen: that one of these events happens within the horizon, or (`happens: false`) that none does."""

    happens: bool = True


class ValueTarget(EventTarget):
    """What is foreseen: the total of `value` over these events within the horizon."""

    value: SqlFragment = "amount"


class Gates(Part):
    """What a model must prove on the newest labelled window before it scores anybody."""

    min_auc: Annotated[float, Field(ge=0.5, lt=1)] = 0.6
    max_calibration_error: Annotated[float, Field(gt=0, le=1)] = 0.1
    min_lift: Annotated[float, Field(ge=1)] = 1.2


class Minimum(Part):
    """The least data a model may be trained on; below it every score is the population's rate (`basis = prior`)."""

    people: Annotated[int, Field(gt=0)] = 200
    positives: Annotated[int, Field(gt=0)] = 50


class ScoreBand(Part):
    """A named range of scores, entered at `above`; listed from low to high."""

    name: Name
    above: Annotated[float, Field(ge=0, lt=1)]


class Prediction(Document):
    """One score of whom it speaks of, trained on past cut-offs and proven on the newest one that is fully labelled."""

    kind: Literal["prediction"]
    type: str
    population: list[Rule] = Field(
        default=[], description="Whom it speaks of, as rules over traits; default: everybody."
    )
    horizon: WholeDays
    cutoffs: Annotated[int, Field(ge=1, le=24)] = 4
    every: WholeDays = Field(default=timedelta(days=30), description="Distance between training cut-offs.")
    minimum: Minimum = Minimum()
    bands: list[ScoreBand] = []

    @model_validator(mode="after")
    def _bands_are_a_ladder(self) -> Self:
        if len({band.name for band in self.bands}) != len(self.bands):
            raise ValueError("two bands have the same name")
        steps = [band.above for band in self.bands]
        if steps != sorted(set(steps)):
            raise ValueError("bands should be listed from low to high")
        return self


class Features(Prediction):
    """A prediction that learns from people's traits and their own history of its target."""

    target: EventTarget
    features: list[Name] = Field(default=[], description="Traits to learn from; default: every numeric trait.")


class Binary(Features):
    """The probability that the target happens within the horizon."""

    type: Literal["binary"] = "binary"
    target: Target
    gates: Gates = Gates()


class Value(Features):
    """How much a person will bring within the horizon."""

    type: Literal["value"]
    target: ValueTarget


PREDICTIONS: tuple[type[Prediction], ...] = (Binary, Value)

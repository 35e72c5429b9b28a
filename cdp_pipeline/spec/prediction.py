"""`kind: prediction`: one score per person, what it foresees, for whom, and what its model must prove first."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.base import Document, Name, Part, SqlFragment, WholeDays


class Target(Part):
    """What is foreseen: that one of these events happens within the horizon, or (`happens: false`) that none does."""

    event: Annotated[list[Name], Field(min_length=1)]
    when: SqlFragment | None = None
    happens: bool = True


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
    """One score, trained on past cut-offs and proven on the newest one that is fully labelled."""

    kind: Literal["prediction"]
    type: Literal["binary"] = "binary"
    population: list[Rule] = Field(
        default=[], description="Whom it speaks of, as rules over traits; default: everybody."
    )
    target: Target
    horizon: WholeDays
    features: list[Name] = Field(default=[], description="Traits to learn from; default: every numeric trait.")
    cutoffs: Annotated[int, Field(ge=1, le=24)] = 4
    every: WholeDays = Field(default=timedelta(days=30), description="Distance between training cut-offs.")
    gates: Gates = Gates()
    minimum: Minimum = Minimum()
    bands: list[ScoreBand] = []

    @model_validator(mode="after")
    def _bands_are_a_ladder(self) -> Prediction:
        if len({band.name for band in self.bands}) != len(self.bands):
            raise ValueError("two bands have the same name")
        steps = [band.above for band in self.bands]
        if steps != sorted(set(steps)):
            raise ValueError("bands should be listed from low to high")
        return self

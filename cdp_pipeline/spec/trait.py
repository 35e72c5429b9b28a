"""`kind: trait`: one indicator per person, and the named bands its value moves through."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from cdp_pipeline.spec.base import Document, Name, Part, SqlFragment, Window, WindowText

Evaluation = Literal[
    "count", "sum", "average", "min", "max", "stddev", "first", "last", "days_since", "unique_count",
    "ratio", "expression",
]  # fmt: skip
NEEDS_VALUE = ("sum", "average", "min", "max", "stddev", "first", "last", "unique_count")
OVER_TRAITS = ("ratio", "expression")


class Band(Part):
    """A named range. The first band of a trait is the calm one and has no threshold.

    `above` (or `below`) is where the band is entered; `exit` is where it is left again (default: the same place),
    so that a value trembling around the threshold does not cross again and again.
    """

    name: Name
    above: float | None = None
    below: float | None = None
    exit: float | None = None


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Trait(Document):
    """One indicator over a person's events, or over their other traits (`ratio`, `expression`)."""

    kind: Literal["trait"]
    evaluation: Evaluation
    event: Annotated[list[Name], BeforeValidator(_as_list, json_schema_input_type=list[Name] | Name)] = Field(
        default=[], description="One or more event names."
    )
    value: SqlFragment | None = Field(
        default=None, description="What is summed, averaged, …: over the event's columns."
    )
    when: SqlFragment | None = Field(default=None, description="Which of the events count.")
    window: WindowText = Window()
    numerator: Name | None = None
    denominator: Name | None = None
    expression: SqlFragment | None = None
    unit: str | None = None
    bands: list[Band] = []

    @model_validator(mode="after")
    def _has_what_its_evaluation_needs(self) -> Trait:
        needs = {
            "ratio": {"numerator", "denominator"},
            "expression": {"expression"},
            **{evaluation: {"event", "value"} for evaluation in NEEDS_VALUE},
        }.get(self.evaluation, {"event"})
        over_events = {"event", "value", "when"} if self.evaluation not in OVER_TRAITS else set()
        given = {
            field
            for field in ("event", "value", "when", "numerator", "denominator", "expression")
            if getattr(self, field)
        }
        missing, extra = needs - given, given - needs - over_events
        if self.evaluation in ("count", "days_since") and "value" in given:
            extra.add("value")
        if missing:
            raise ValueError(f"evaluation '{self.evaluation}' needs {' and '.join(sorted(missing))}")
        if extra:
            raise ValueError(f"evaluation '{self.evaluation}' has no use for {' and '.join(sorted(extra))}")
        return self

    @model_validator(mode="after")
    def _bands_are_a_ladder(self) -> Trait:
        if not self.bands:
            return self
        calm, *others = self.bands
        if calm.above is not None or calm.below is not None or calm.exit is not None:
            raise ValueError("the first band is where everybody starts and has no threshold")
        if not others:
            raise ValueError("bands need at least two: the calm one and one to enter")
        if len({band.name for band in self.bands}) != len(self.bands):
            raise ValueError("two bands have the same name")
        rising = others[0].above is not None
        enter = [band.above if rising else band.below for band in others]
        if any((band.above is None) == (band.below is None) for band in others) or None in enter:
            raise ValueError("every band after the first needs 'above', or every one needs 'below'")
        steps = [step if rising else -step for step in enter if step is not None]
        if steps != sorted(set(steps)):
            raise ValueError("bands should be listed from the calm one to the most severe")
        for band, step in zip(others, enter, strict=True):
            if band.exit is not None and step is not None and (band.exit > step if rising else band.exit < step):
                raise ValueError(f"band '{band.name}' would be left before it is entered: check 'exit'")
        return self

"""`kind: trait`: one indicator per person, and the named bands its value moves through.

EVALUATIONS says what each evaluation is, needs and gives. How it is computed is a class in traits/evaluations.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from cdp_pipeline.spec.base import Document, Duration, Name, Part, SqlFragment, WholeDays
from cdp_pipeline.spec.window import Window, WindowText

OVER_TRAITS = ("ratio", "expression", "state")
PERIODS = {"day": 1, "week": 7, "month": 30}
LEAST_PERIODS = 3
NO_STATE = "none"
"""The state of whoever is in none of a trait's states, and of everybody before they were first seen."""


@dataclass(frozen=True)
class Takes:
    """What an evaluation is in a marketer's words, and its fields beside `event`, `when` and `window`.

    of: what `value` must be (`number`, `text` or `any`). gives: the result's type as a source's columns say it, `list`
    for a list of texts, or `value` for the type of the value.
    """

    words: str
    gives: Literal["integer", "number", "boolean", "string", "list", "value"]
    of: Literal["number", "text", "any"] | None = None
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()


_WEIGHED = ("weight", "half_life")
EVALUATIONS: dict[str, Takes] = {
    "count": Takes("how many events; 0 without any", "integer"),
    "happened": Takes("whether there was such an event", "boolean"),
    "days_since": Takes("whole days since the newest event; 0 on its day, below 0 for days to come", "integer"),
    "days_since_first": Takes("whole days since the oldest event", "integer"),
    "days_between": Takes("average days from one day with such an event to the next; needs two days", "number"),
    "sum": Takes("the values added up, money to the last cent; 0 without any", "value", "number", ("value",)),
    "average": Takes("the mean of the values", "number", "number", ("value",)),
    "min": Takes("the smallest value", "value", "any", ("value",)),
    "max": Takes("the largest value", "value", "any", ("value",)),
    "stddev": Takes("the sample standard deviation of the values; needs two", "number", "number", ("value",)),
    "median": Takes("the value in the middle; of two, halfway between them", "number", "number", ("value",)),
    "quantile": Takes(
        "the value below which the share `quantile` of the values lies, between two in proportion (0.9: nine tenths)",
        "number", "number", ("value", "quantile"),
    ),
    "first": Takes("the oldest value; of two at one instant, that of the smaller event id", "value", "any", ("value",)),
    "last": Takes("the newest value; of two at one instant, that of the larger event id", "value", "any", ("value",)),
    "most_frequent": Takes(
        "the value with the most events, or the largest sum of `weight`, which fades by half in each `half_life`; of"
        " equals, the one last seen, and of those seen last at one instant, the largest",
        "value", "any", ("value",), _WEIGHED,
    ),
    "top": Takes(
        "the `n` values ranked as most_frequent does, best first; empty without any", "list", "text",
        ("value",), ("n", *_WEIGHED),
    ),
    "unique_count": Takes("how many different values; 0 without any", "integer", "any", ("value",)),
    "unique_list": Takes("the different values from A to Z; empty without any", "list", "text", ("value",)),
    "decayed": Takes(
        "the values added up (without `value`: the events), each halved for every `half_life` it is old",
        "number", "number", ("half_life",), ("value",),
    ),
    "trend": Takes(
        "the least-squares line through the totals of the window's whole periods (without `value`: the counts), counted"
        " back from its last day, periods without events as 0: `report` its slope per period, that slope's"
        " standard error, or the direction up, flat or down at `confidence` (two-sided t-test); needs three periods",
        "number", "number", ("period",), ("value", "report", "confidence"),
    ),
    "nps": Takes(
        "net promoter score: 100 * (answers of 9 and 10 - answers of 0 to 6) / all answers of 0 to 10",
        "number", "number", ("value",),
    ),
    "csat": Takes(
        "customer satisfaction: the share (0 to 1) of answers that are `satisfied_from` (4 of 5) or better",
        "number", "number", ("value",), ("satisfied_from",),
    ),
    "ces": Takes("customer effort score: the mean answer", "number", "number", ("value",)),
    "ratio": Takes(
        "`numerator` / `denominator`, two traits; nothing over 0", "number", needs=("numerator", "denominator")
    ),
    "expression": Takes("SQL over other traits", "value", needs=("expression",)),
    "state": Takes("the name of the first of `states` whose `when` holds", "string", needs=("states",)),
}  # fmt: skip
"""Every evaluation, by the word for it."""


class Band(Part):
    """A named range. The first band of a trait is the calm one and has no threshold.

    `above` (or `below`) is where the band is entered; `exit` is where it is left again (default: the same place),
    so that a value trembling around the threshold does not cross again and again.
    """

    name: Name
    above: float | None = None
    below: float | None = None
    exit: float | None = None


class State(Part):
    """One of the states a person can be in, and when: a condition over other traits. Only the last may do without."""

    name: Name
    when: SqlFragment | None = None


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Trait(Document):
    """One indicator over a person's events, or over their other traits (`ratio`, `expression`, `state`)."""

    kind: Literal["trait"]
    evaluation: Literal[tuple(EVALUATIONS)] = Field(  # type: ignore[valid-type]
        description="\n\n".join(f"{name}: {takes.words}." for name, takes in EVALUATIONS.items())
    )
    event: Annotated[list[Name], BeforeValidator(_as_list, json_schema_input_type=list[Name] | Name)] = Field(
        default=[], description="One or more event names."
    )
    value: SqlFragment | None = Field(
        default=None, description="What is summed, averaged, …: over the event's columns. Where it is null, it is not."
    )
    when: SqlFragment | None = Field(default=None, description="Which of the events count.")
    window: WindowText = Field(default=Window(), description="Which days' events count.")
    gap: Annotated[Duration, Field(gt=timedelta(0))] = Field(
        default=timedelta(minutes=30), description="A longer gap between two of the events ends a session."
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = None
    n: Annotated[int, Field(ge=1, le=20)] = Field(default=3, description="How many values a `top` lists at most.")
    weight: SqlFragment | None = Field(default=None, description="What an event adds to its value's weight; default 1.")
    half_life: WholeDays | None = Field(default=None, description="The age at which an event weighs half.")
    period: Literal["day", "week", "month"] | None = Field(default=None, description="A month is 30 days here.")
    report: Literal["slope", "standard_error", "direction"] = "slope"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    satisfied_from: float = 4
    numerator: Name | None = None
    denominator: Name | None = None
    expression: SqlFragment | None = None
    states: list[State] = []
    unit: str | None = None
    bands: list[Band] = []
    dwell: WholeDays | None = Field(
        default=None, description="A move to another band or state waits until each day of so long has called for it."
    )
    cool_down: WholeDays | None = Field(
        default=None, description="After a move to another band or state there is no other for so long."
    )

    @property
    def band_names(self) -> tuple[str, ...]:
        """What a person can be in by this trait: where everybody starts (of states: NO_STATE), then its bands."""
        if self.states:
            return (NO_STATE, *(state.name for state in self.states if state.name != NO_STATE))
        return tuple(band.name for band in self.bands)

    @model_validator(mode="after")
    def _has_what_its_evaluation_needs(self) -> Trait:
        takes = EVALUATIONS[self.evaluation]
        of_events = () if self.evaluation in OVER_TRAITS else ("event",)
        may = (*takes.may, "when", "window") if of_events else takes.may
        needs = {*of_events, *takes.needs}
        given = {field for field in self.model_fields_set & _CHOSEN_FIELDS if getattr(self, field) not in (None, [])}
        if missing := needs - given:
            raise ValueError(f"evaluation '{self.evaluation}' needs {' and '.join(sorted(missing))}")
        if extra := given - needs - set(may) - {"gap"}:
            raise ValueError(f"evaluation '{self.evaluation}' has no use for {' and '.join(sorted(extra))}")
        if "gap" in given and self.window.reach != "session":
            raise ValueError(f"only window 'last session' has a gap, this is '{self.window}'")
        return self

    @model_validator(mode="after")
    def _window_suits_the_evaluation(self) -> Trait:
        if self.half_life is not None and self.window.reach == "next":
            raise ValueError(f"what fades looks back, window '{self.window}' looks ahead")
        if self.evaluation == "trend" and self.period is not None:
            if self.window.reach in ("lifetime", "session"):
                raise ValueError(
                    f"a trend needs a window of so many days, such as 'last 12 weeks', not '{self.window}'"
                )
            longest = max(_days_seen(self.window, date(2024, month, 28) + timedelta(days=3)) for month in range(1, 13))
            if longest // PERIODS[self.period] < LEAST_PERIODS:
                whole = longest // PERIODS[self.period]
                least = f"'last {LEAST_PERIODS * PERIODS[self.period]} days'"
                raise ValueError(
                    f"a trend needs {LEAST_PERIODS} whole periods, '{self.window}' holds {whole}:"
                    f" write {least} or longer, or a shorter period"
                )
        return self

    @model_validator(mode="after")
    def _states_can_all_be_reached(self) -> Trait:
        names = [state.name for state in self.states]
        if len(set(names)) != len(names):
            raise ValueError(f"two states have the same name: '{next(n for n in names if names.count(n) > 1)}'")
        for state in self.states[:-1]:
            if state.when is None:
                raise ValueError(f"only the last state may do without 'when': nobody gets past '{state.name}'")
        return self

    @model_validator(mode="after")
    def _bands_are_a_ladder(self) -> Trait:
        if not self.bands:
            if (self.dwell or self.cool_down) and not self.states:
                raise ValueError("only bands and states have 'dwell' and 'cool_down'")
            return self
        calm, *others = self.bands
        if calm.above is not None or calm.below is not None or calm.exit is not None:
            raise ValueError(f"the first band, '{calm.name}', is where everybody starts and has no threshold")
        if not others:
            raise ValueError("bands need at least two: the calm one and one to enter")
        if twice := [band.name for i, band in enumerate(self.bands) if band.name in self.band_names[:i]]:
            raise ValueError(f"two bands have the same name: '{twice[0]}'")
        rising = others[0].above is not None
        enter = [band.above if rising else band.below for band in others]
        for band, step in zip(others, enter, strict=True):
            if step is None or (band.above is None) == (band.below is None):
                both = "every band after the first needs 'above', or every one needs 'below'"
                raise ValueError(f"{both}: look at '{band.name}'")
        steps = [step if rising else -step for step in enter if step is not None]
        for before, after, one, other in zip(steps, steps[1:], others, others[1:], strict=False):
            if after <= before:
                order = "bands should be listed from the calm one to the most severe"
                raise ValueError(f"{order}: '{other.name}' comes after '{one.name}'")
        for band, step in zip(others, enter, strict=True):
            if band.exit is not None and step is not None and (band.exit > step if rising else band.exit < step):
                raise ValueError(f"band '{band.name}' would be left before it is entered: check 'exit'")
        return self


_CHOSEN_FIELDS = {
    "event", *(field for takes in EVALUATIONS.values() for field in (*takes.needs, *takes.may)), "when", "window", "gap"
}  # fmt: skip


def _days_seen(window: Window, day: date) -> int:
    first, last = window.span(day)
    return 0 if first is None else (last - first).days + 1

"""`kind: audience`: a set of people, as a tree of conditions, with the tests it must pass."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from cdp_pipeline.spec.base import Document, Name, Part, SqlFragment
from cdp_pipeline.spec.window import Window, WindowText

Operator = Literal[
    "=", "!=", "<", "<=", ">", ">=", "in", "not_in", "between", "contains", "starts_with", "is_null", "not_null"
]
Scalar = str | int | float | bool
OPERATORS = get_args(Operator)
SUBJECTS = ("all", "any", "none", "trait", "attribute", "prediction", "band", "event", "audience", "identifier")


class Rule(Part):
    """One condition. Exactly one of its subjects is given.

    all, any, none: nested conditions. trait, attribute, prediction: compared by `op` with `value`
    (a prediction's `field` is score, rank or band). band: a trait whose band `is` a name. event: happened
    (`did: true`) or not within a window, at least `count` times, when a condition over the event holds.
    audience: is a member of it. identifier: has at least one of that type.
    """

    all: list[Rule] | None = None
    any: list[Rule] | None = None
    none: list[Rule] | None = None
    trait: Name | None = None
    attribute: Name | None = None
    prediction: Name | None = None
    field: Literal["score", "rank", "band"] = "score"
    op: Operator | None = None
    value: Scalar | list[Scalar] | None = None
    band: Name | None = None
    is_: Name | None = Field(default=None, alias="is")
    event: Name | None = None
    did: bool = True
    count: Annotated[int, Field(gt=0)] = 1
    when: SqlFragment | None = None
    window: WindowText = Window()
    audience: Name | None = None
    identifier: Name | None = None

    @property
    def subject(self) -> str:
        """Which of SUBJECTS this rule is about."""
        return next(subject for subject in SUBJECTS if getattr(self, subject) is not None)

    @model_validator(mode="after")
    def _is_one_sound_condition(self) -> Rule:
        given = [subject for subject in SUBJECTS if getattr(self, subject) is not None]
        if len(given) != 1:
            raise ValueError(
                f"needs exactly one of {', '.join(SUBJECTS)}" + (f", got {' and '.join(given)}" if given else "")
            )
        subject = given[0]
        belongs = {
            "trait": {"op", "value"}, "attribute": {"op", "value"}, "prediction": {"op", "value", "field"},
            "band": {"is_"}, "event": {"did", "count", "when", "window"},
        }.get(subject, set())  # fmt: skip
        stray = self.model_fields_set - belongs - {subject}
        if stray:
            raise ValueError(
                f"a condition on '{subject}' has no use for {', '.join(sorted(f.rstrip('_') for f in stray))}"
            )
        if subject in ("all", "any", "none") and not getattr(self, subject):
            raise ValueError(f"an empty '{subject}' says nothing")
        if subject == "band" and self.is_ is None:
            raise ValueError("a condition on 'band' needs 'is'")
        if "op" in belongs:
            if self.op is None:
                raise ValueError(f"a condition on '{subject}' needs 'op'")
            self._check_value()
        return self

    def _check_value(self) -> None:
        if self.op in ("is_null", "not_null"):
            if self.value is not None:
                raise ValueError(f"'{self.op}' takes no value")
        elif self.op in ("in", "not_in"):
            if not isinstance(self.value, list) or not self.value:
                raise ValueError(f"'{self.op}' needs a list of values")
        elif self.op == "between":
            if not isinstance(self.value, list) or len(self.value) != 2:
                raise ValueError("'between' needs a list of two values, lowest first")
            low, high = self.value
            if isinstance(low, str) == isinstance(high, str) and low > high:  # type: ignore[operator]
                raise ValueError("'between' has its two values the wrong way round, lowest first")
        elif self.value is None or isinstance(self.value, list):
            raise ValueError(f"'{self.op}' needs one value")


class AudienceTests(Part):
    """What must hold before the audience may be used: its size in people, its change as a share."""

    min_size: Annotated[int, Field(ge=0)] | None = None
    max_size: Annotated[int, Field(ge=0)] | None = None
    max_change: Annotated[float, Field(gt=0)] | None = None


class Audience(Document):
    """People for whom every rule holds, computed at each tick of its cadence."""

    kind: Literal["audience"]
    cadence: Name = "daily"
    rules: Annotated[list[Rule], Field(min_length=1)]
    tests: AudienceTests = AudienceTests()

"""`kind: audience`: a set of people, as a tree of conditions, with the tests it must pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cdp_pipeline.spec.base import Document, Duration, Name, Part, SomeTime, SqlFragment
from cdp_pipeline.spec.operators import BY_THE_DAY, CHANGES, COMPARISONS, OPERATORS, OperatorName, Value
from cdp_pipeline.spec.reach import WAYS
from cdp_pipeline.spec.window import Window, WindowText

SUBJECTS = (
    "all", "any", "none", "trait", "attribute", "prediction", "band", "event", "sequence", "related", "account",
    "audience", "identifier", "reachable",
)  # fmt: skip
MEASURES = ("count", "sum", "average", "min", "max", "distinct", "first", "last")
BELONGS = {
    "trait": {"op", "value"},
    "attribute": {"op", "value", "longitude"},
    "prediction": {"op", "value", "field", "item"},
    "band": {"is_"},
    "event": {"did", "when", "window", "gap", "related", *MEASURES},
    "sequence": {"did", "within", "strict", "without", "same", "window"},
    "related": {"did", "count"},
}
"""What may stand beside each subject."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Events = Annotated[list[Name], Field(min_length=1), BeforeValidator(_as_list, json_schema_input_type=list[Name] | Name)]


class Compared(Part):
    """What is asked of a figure: `{op: ">=", value: 3}`."""

    op: OperatorName
    value: Value | None = None

    @model_validator(mode="after")
    def _value_suits(self) -> Compared:
        said = OPERATORS[self.op].objection_to(self.op, self.value)
        if said is not None:
            raise ValueError(said)
        return self


def _at_least(value: object) -> object:
    """A bare number of times is the least one."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"should be at least 1 (who did not do it is asked by 'did: false'), got {value}")
        return {"op": ">=", "value": value}
    return value


Times = Annotated[Compared, BeforeValidator(_at_least, json_schema_input_type=Compared | int)]


class Measured(Compared):
    """What is asked of the values of events: `{of: amount, op: ">=", value: 100}`."""

    of: SqlFragment


class Happening(Part):
    """Events of one or more names for which a condition holds."""

    event: Events
    when: SqlFragment | None = None


class Step(Happening):
    """One step of a sequence; `within`: at most this long after the step before it."""

    within: Duration | None = None


class Hop(Part):
    """Rows of a source that belong to what came before: each column on the left of `on` equals the one on the right.

    on: left a column of what comes before (an event, a person's attribute, the source before), right one of this
    source. when: which of its rows count.
    """

    source: Name
    on: dict[Name, Name] = {}
    when: SqlFragment | None = None


class Account(Part):
    """What is asked of all people of the person's group (of this person too): for how many of them all rules hold.

    have: any, all or none of them (default: any). at_least: so many. share: at least this part of them.
    """

    group: Name
    have: Literal["any", "all", "none"] | None = None
    at_least: Annotated[int, Field(gt=0)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    rules: Annotated[list[Rule], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_way_to_count(self) -> Account:
        given = [way for way in ("have", "at_least", "share") if getattr(self, way) is not None]
        if len(given) > 1:
            raise ValueError(f"needs one of have, at_least, share, got {' and '.join(given)}")
        return self


class Rule(Part):
    """One condition. Exactly one of its subjects is given.

    all, any, none: nested conditions. trait, attribute, prediction: compared by `op` with `value`, a trait also with
    another one, `value: {trait: name}` (a prediction's `field` is score, rank or band, of one over items that of the
    `item`; `within_km` asks an attribute that holds a latitude and the one that `longitude` names). band: a trait whose
    band `is` a name. event: happened (`did: true`) or not within a window when a condition over the event holds; how
    often, or what its values come to, is asked by `count`, `sum`, `average`, `min`, `max` and `distinct`, on which day
    it happened first or last by `first` and `last`; all that is asked must hold. With `related`, only events count that
    lead to such rows. sequence: these events one after another. related: rows of sources that belong to the person.
    account: the people of their group. audience: is a member of it. identifier: has at least one of that type.
    reachable: has one for the channel, and consents where the project knows of consent.
    """

    all: list[Rule] | None = None
    any: list[Rule] | None = None
    none: list[Rule] | None = None
    trait: Name | None = None
    attribute: Name | None = None
    prediction: Name | None = None
    field: Literal["score", "rank", "band"] = "score"
    item: str | None = Field(default=None, description="Of a prediction over items: which of them, such as 'shoes'.")
    op: OperatorName | None = None
    value: Value | None = None
    longitude: Name | None = Field(default=None, description="For within_km: the attribute with the longitude.")
    band: Name | None = None
    is_: Name | None = Field(default=None, alias="is")
    event: Events | None = None
    did: bool = True
    count: Times | None = Field(default=None, description="How often; a number is the least (default: 1).")
    sum: Measured | None = None
    average: Measured | None = None
    min: Measured | None = None
    max: Measured | None = None
    distinct: Measured | None = None
    first: Compared | None = None
    last: Compared | None = None
    when: SqlFragment | None = None
    window: WindowText = Window()
    gap: Duration | None = Field(default=None, description="For the window 'last session': what ends a session.")
    sequence: Annotated[list[Step], Field(min_length=2)] | None = None
    within: Duration | None = Field(default=None, description="Of a sequence: at most this long from first to last.")
    strict: bool = Field(default=False, description="Of a sequence: nothing else the person did lies between.")
    without: Happening | None = Field(default=None, description="Of a sequence: none of these between two steps.")
    same: SqlFragment | None = Field(default=None, description="Of a sequence: all steps agree in this, say order_id.")
    related: Annotated[list[Hop], Field(min_length=1)] | None = None
    account: Account | None = None
    audience: Name | None = None
    identifier: Name | None = None
    reachable: Literal[tuple(WAYS)] | None = None  # type: ignore[valid-type]

    @property
    def subject(self) -> str:
        """Which of SUBJECTS this rule is about."""
        return self._subjects()[0]

    @property
    def other_trait(self) -> str | None:
        """The trait that a trait is compared with, where it is one."""
        return str(self.value["trait"]) if isinstance(self.value, dict) and "trait" in self.value else None

    @property
    def traits(self) -> list[str]:
        """The traits whose values it compares: none, one, or one with another."""
        return [name for name in (self.trait, self.other_trait) if name is not None]

    @property
    def inner(self) -> list[Rule]:
        """The conditions it is made of, those asked of others' accounts included."""
        nested = self.account.rules if self.account is not None else self.all or self.any or self.none
        return list(nested or [])

    @property
    def measures(self) -> Iterator[tuple[str, str | None, Compared]]:
        """What is asked of the events or related rows: which figure, of what, and how it is compared."""
        given = [(figure, asked) for figure in MEASURES if (asked := getattr(self, figure)) is not None]
        for figure, asked in given or [("count", Compared(op=">=", value=1))]:
            yield figure, asked.of if isinstance(asked, Measured) else None, asked

    def _subjects(self) -> list[str]:
        given = [subject for subject in SUBJECTS if getattr(self, subject) is not None]
        return ["event"] if given == ["event", "related"] else given

    @model_validator(mode="after")
    def _is_one_sound_condition(self) -> Rule:
        given = self._subjects()
        if len(given) != 1:
            raise ValueError(
                f"needs exactly one of {', '.join(SUBJECTS)}" + (f", got {' and '.join(given)}" if given else "")
            )
        subject = given[0]
        stray = self.model_fields_set - BELONGS.get(subject, set()) - {subject}
        if stray:
            raise ValueError(
                f"a condition on '{subject}' has no use for {', '.join(sorted(f.rstrip('_') for f in stray))}"
            )
        if subject in ("all", "any", "none") and not getattr(self, subject):
            raise ValueError(f"an empty '{subject}' says nothing")
        if subject == "band" and self.is_ is None:
            raise ValueError("a condition on 'band' needs 'is'")
        if subject in ("trait", "attribute", "prediction"):
            self._check_comparison(subject)
        if self.gap is not None and self.window.reach != "session":
            raise ValueError(f"only window 'last session' has a gap, this is '{self.window}'")
        self._check_figures()
        if self.sequence is not None:
            self._check_sequence(self.sequence)
        return self

    def _check_comparison(self, subject: str) -> None:
        if self.op is None:
            raise ValueError(f"a condition on '{subject}' needs 'op'")
        if self.other_trait is not None:
            self._check_two_traits(subject, self.value)
            return
        said = OPERATORS[self.op].objection_to(self.op, self.value)
        if said is not None:
            raise ValueError(said)
        if self.op in CHANGES and subject != "trait":
            raise ValueError(f"'{self.op}' is for traits, whose values are kept day by day, not for '{subject}'")
        if self.op == "within_km" and (subject != "attribute" or self.longitude is None):
            raise ValueError(
                "'within_km' needs two attributes: the latitude as 'attribute', the longitude as 'longitude'"
            )
        if self.longitude is not None and self.op != "within_km":
            raise ValueError(f"only 'within_km' has a use for longitude, not '{self.op}'")

    def _check_two_traits(self, subject: str, value: object) -> None:
        if subject != "trait":
            raise ValueError(f"only a trait is compared with a trait, this is about '{subject}'")
        if self.op not in COMPARISONS:
            raise ValueError(f"'{self.op}' is not asked of two traits: ask with {', '.join(COMPARISONS)}")
        if value != {"trait": self.other_trait}:
            raise ValueError("the trait to compare with is written {trait: its_name}, and nothing beside it")
        if self.other_trait == self.trait:
            raise ValueError(f"'{self.trait}' is compared with itself")

    def _check_figures(self) -> None:
        for figure, _, asked in self.measures:
            by_day = figure in ("first", "last")
            if by_day and asked.op not in (*BY_THE_DAY, "between", "not_between", "=", "!=", "<", "<=", ">", ">="):
                raise ValueError(f"{figure}: '{asked.op}' is not asked of a day: ask with {', '.join(BY_THE_DAY)}")
            if figure in ("count", "sum", "average", "distinct") and "number" not in OPERATORS[asked.op].kinds:
                raise ValueError(
                    f"{figure}: '{asked.op}' is not asked of a number: ask with =, <, <=, >, >= or between"
                )
            if asked.op in (*CHANGES, "within_km"):
                raise ValueError(f"{figure}: '{asked.op}' is not asked of events, only of traits and attributes")

    def _check_sequence(self, steps: list[Step]) -> None:
        if self.window.reach == "session":
            raise ValueError("a sequence has no use for 'last session': say 'within: 1 hour', or 'same: session_id'")
        if self.window.reach == "next":
            raise ValueError(f"a sequence looks back, window '{self.window}' looks ahead")
        if steps[0].within is not None:
            raise ValueError("the first step comes after nothing: 'within' belongs to a later step or to the sequence")
        if self.strict and self.without is not None:
            raise ValueError("between the steps of a strict sequence lies nothing anyway: drop 'without'")


def _typed(text: str) -> str:
    if not all(text.partition(":")):
        raise ValueError("should be an identifier with its type, such as 'email:ann@example.com'")
    return text


_IdentifierText = Annotated[
    str, AfterValidator(_typed), Field(json_schema_extra={"examples": ["email:ann@example.com"]})
]


class AudienceTests(Part):
    """What must hold before the audience may be used; where it does not, its syncs and what builds on it are held.

    min_size, max_size: people. max_change: share by which the size may differ from the day before. must_include,
    must_exclude: identifiers of people one knows to belong or not to belong in it. disjoint_from: audiences it shares
    nobody with. subset_of: audiences that hold all its people. share_with: the least share of its people that a
    channel reaches, or that a yes-or-no attribute is true of.
    """

    min_size: Annotated[int, Field(ge=0)] | None = None
    max_size: Annotated[int, Field(ge=0)] | None = None
    max_change: Annotated[float, Field(gt=0)] | None = None
    must_include: list[_IdentifierText] = []
    must_exclude: list[_IdentifierText] = []
    disjoint_from: list[Name] = []
    subset_of: list[Name] = []
    share_with: dict[Name, Annotated[float, Field(gt=0, le=1)]] = {}

    @model_validator(mode="after")
    def _can_be_passed(self) -> AudienceTests:
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise ValueError("'min_size' is more than 'max_size'")
        both = sorted(set(self.must_include) & set(self.must_exclude))
        if both:
            raise ValueError(f"'{both[0]}' is in 'must_include' and in 'must_exclude'")
        return self

    @property
    def named_audiences(self) -> list[str]:
        """The audiences it is compared with."""
        return list(dict.fromkeys([*self.disjoint_from, *self.subset_of]))


class Audience(Document):
    """People for whom every rule holds, computed at each tick of its cadence."""

    kind: Literal["audience"]
    cadence: Name = "daily"
    rules: Annotated[list[Rule], Field(min_length=1)]
    tests: AudienceTests = AudienceTests()
    freshness: SomeTime | None = Field(
        default=None, description="How old it may become; default: twice the time between two ticks of its cadence."
    )

"""`kind: prediction`: what is foreseen of people, of whom, and what its model must prove first; a class per `type:`."""

from __future__ import annotations

from datetime import timedelta
from math import inf
from typing import Annotated, ClassVar, Literal, Self

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


class ItemTarget(EventTarget):
    """What is foreseen: which items these events will concern; `item` is a column or property of them."""

    item: Name


class Items(Part):
    """Which items are spoken of: those that at least so many people had, of these the ones most people had."""

    at_least: Annotated[int, Field(gt=0)] = 50
    at_most: Annotated[int, Field(gt=1, le=1000)] = 100


class ResponseTarget(EventTarget):
    """What is foreseen: that one of these events follows a contact `within` so many days of it.

    With `same`, only one that has the same value in this column or property as the contact, such as its campaign.
    """

    within: WholeDays
    same: Name | None = None


def _contacts_have_time(target: ResponseTarget, horizon: timedelta) -> None:
    if target.within >= horizon:
        raise ValueError(
            "the horizon should be longer than target.within: contacts of the days between them are learned from"
        )


class Gates(Part):
    """What a model must prove on the newest labelled window before it scores anybody."""

    min_auc: Annotated[float, Field(ge=0.5, lt=1)] = 0.6
    max_calibration_error: Annotated[float, Field(gt=0, le=1)] = 0.1
    min_lift: Annotated[float, Field(ge=1)] = 1.2
    max_slice_error: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.08, description="Calibration error within any slice of enough people, what chance gives taken off."
    )


class Minimum(Part):
    """The least data a model may be trained on; below it every score is the population's rate (`basis = prior`)."""

    people: Annotated[int, Field(gt=0)] = 200
    positives: Annotated[int, Field(gt=0)] = 50


class ScoreBand(Part):
    """A named range of scores, entered at `above`; listed from low to high."""

    name: Name
    above: Annotated[float, Field(ge=0)]


class Prediction(Document):
    """One score of whom it speaks of, trained on past cut-offs and proven on the newest one that is fully labelled."""

    over_items: ClassVar[bool] = False
    """Whether a person has a score for each of several items, instead of one."""
    a_list: ClassVar[bool] = False
    """Whether these items are a list to be shown as a whole; of others the first one is what counts."""

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
    highest_band: ClassVar[float] = 1

    @property
    def labelled(self) -> timedelta:
        """How long after a day it takes until a model is shown what happened."""
        return self.horizon

    @property
    def reads(self) -> list[str]:
        """The sources it reads besides the timeline."""
        return []

    @property
    def asks(self) -> list[Rule]:
        """The conditions of an audience that it asks of people when it scores them."""
        return []

    @model_validator(mode="after")
    def _bands_are_a_ladder(self) -> Self:
        if len({band.name for band in self.bands}) != len(self.bands):
            raise ValueError("two bands have the same name")
        steps = [band.above for band in self.bands]
        if steps != sorted(set(steps)):
            raise ValueError("bands should be listed from low to high")
        if steps and steps[-1] >= self.highest_band:
            raise ValueError(f"bands begin below {self.highest_band:g}, where scores end")
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
    slices: list[Name] = Field(
        default=[],
        description="Attributes for whose every value the model is judged alone. What they say is never a feature.",
    )


class ValueGates(Part):
    """What a model of amounts must prove on the newest labelled window before it scores anybody."""

    min_gini: Annotated[float, Field(ge=0, lt=1)] = 0.3
    max_gini_lost: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01, description="How far its Gini may lie below that of BG/NBD x Gamma-Gamma."
    )
    max_total_error: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.15, description="How far the total foreseen may be off, as a share of what came."
    )
    min_coverage: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.7, description="The least share of people within their interval, which promises 0.8."
    )


class Value(Features):
    """How much a person will bring within the horizon, with an interval that holds for 80 % of people."""

    type: Literal["value"]
    target: ValueTarget
    gates: ValueGates = ValueGates()
    discount: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0, description="How much less an amount is worth when it comes a year later: 0.1 for a tenth."
    )
    proven_over: WholeDays | None = Field(
        default=None,
        description="A shorter horizon to learn from and to be proven on, where nobody wants to wait for the whole. "
        "What comes after it is foreseen from people's own rhythm and amounts.",
    )
    highest_band: ClassVar[float] = inf

    @property
    def labelled(self) -> timedelta:
        return self.proven_over or self.horizon

    @model_validator(mode="after")
    def _proven_within_the_horizon(self) -> Self:
        if self.proven_over is not None and self.proven_over >= self.horizon:
            raise ValueError("proven_over should be shorter than the horizon")
        return self


class ItemGates(Part):
    """What a model of people and items must prove on the newest labelled window before it scores anybody."""

    min_auc: Annotated[float, Field(ge=0.5, lt=1)] = 0.6
    max_calibration_error: Annotated[float, Field(gt=0, le=1)] = 0.05


class OverItems(Prediction):
    """A prediction of people and items; it speaks of people who had the target event before, with whatever item."""

    over_items: ClassVar[bool] = True

    target: ItemTarget
    items: Items = Items()


class Affinity(OverItems):
    """Per person and item, the probability that the target concerns the item within the horizon."""

    type: Literal["affinity"]
    gates: ItemGates = ItemGates()


class Response(Features):
    """Per person and item of contact (a channel, a type of campaign), the probability of a response if contacted."""

    over_items: ClassVar[bool] = True

    type: Literal["response"]
    exposure: ItemTarget
    target: ResponseTarget
    reach: dict[str, Annotated[list[Rule], Field(min_length=1)]] = Field(
        default={}, description="Who can be contacted by an item; by an item that is not named, everybody can."
    )
    items: Items = Items()
    gates: ItemGates = ItemGates()

    @property
    def asks(self) -> list[Rule]:
        return [rule for rules in self.reach.values() for rule in rules]

    @model_validator(mode="after")
    def _contacts_have_time(self) -> Self:
        _contacts_have_time(self.target, self.horizon)
        return self


class Treatment(EventTarget):
    """The contacts whose effect is asked for. A coin must have decided who got one; who did not has an event too."""

    arm: Name = Field(description="Column or property of the event that says on which side the coin fell.")
    treated: Annotated[list[str], Field(min_length=1)]
    control: Annotated[list[str], Field(min_length=1)]
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="The share of people who were meant to be treated."
    )

    @model_validator(mode="after")
    def _arms_differ(self) -> Self:
        both = set(self.treated) & set(self.control)
        if both:
            raise ValueError(f"'{min(both)}' is both treated and control")
        return self


class Uplift(Features):
    """How much likelier a contact makes it that a person does something: learned from contacts a coin decided."""

    type: Literal["uplift"]
    treatment: Treatment
    target: ResponseTarget

    @model_validator(mode="after")
    def _contacts_have_time(self) -> Self:
        _contacts_have_time(self.target, self.horizon)
        return self


class Timing(Prediction):
    """Per person and hour of the day (project's time zone), the share of their next target events that fall into it."""

    over_items: ClassVar[bool] = True

    type: Literal["timing"]
    target: EventTarget


class Topics(OverItems):
    """Per person, how much of their taste is each of a few topics that are found in what people take together."""

    type: Literal["topics"]
    topics: Annotated[int, Field(ge=2, le=50)] = 6
    min_agreement: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="Share of people whose main topic must be the same a horizon earlier."
    )


Way = Literal[
    "learned", "again", "replenishment", "looked_at", "ease", "gf_cf", "bought_together", "viewed_together", "session",
    "category_next", "trending", "bestselling", "new", "popular",
]  # fmt: skip
"""A way of recommending (predictions/recommend/)."""
CHAINS: dict[str, list[Way]] = {
    "buy_again": ["learned", "again"],
    "discover": ["learned", "session", "ease", "trending", "bestselling", "popular"],
    "anything": ["learned", "session", "again", "ease", "trending", "bestselling", "popular"],
}


class ItemFilter(Part):
    """Only items that have a row in this source are listed: its column `on` holds the item, `when` says which rows.

    Of a snapshot source the rows as they are now count.
    """

    source: Name
    on: Name
    when: SqlFragment | None = None


class ListGates(Part):
    """What lists must prove on the newest labelled window before they take the champion's place."""

    min_hit_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05, description="Share of the people who had something in the window, on whose list it was."
    )
    min_coverage: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="Share of the items that appear on somebody's list."
    )


class Ranking(Prediction):
    """Per person a list of items, best first: what they will want of the items of the target event.

    The ways of `chain` are asked one after the other until a list is full; what may not be on it is left out first.
    """

    over_items: ClassVar[bool] = True
    a_list: ClassVar[bool] = True

    type: Literal["ranking"]
    target: ItemTarget
    views: ItemTarget | None = Field(default=None, description="Events that show interest in an item.")
    wants: Literal["buy_again", "discover", "anything"] = Field(
        default="anything", description="Items the person had before, only others, or both."
    )
    chain: list[Way] = Field(default=[], description="Ways of recommending, asked in this order; default: by wants.")
    filters: list[ItemFilter] = []
    rest: WholeDays | None = Field(default=None, description="Nothing that the person had within so many days.")
    top: Annotated[int, Field(ge=1, le=200)] = 20
    category: Name = Field(default="category", description="Column or property of the events: the item's category.")
    history: WholeDays = Field(default=timedelta(days=730), description="How far back events count.")
    cutoffs: Annotated[int, Field(ge=1, le=24)] = 2
    gates: ListGates = ListGates()

    @model_validator(mode="after")
    def _each_way_once(self) -> Self:
        if len(set(self.chain)) != len(self.chain):
            raise ValueError("a way of recommending is named twice in the chain")
        if self.views is None and {"session", "viewed_together", "looked_at"} & set(self.chain):
            raise ValueError("session, viewed_together and looked_at need 'views'")
        return self

    @property
    def ways(self) -> list[Way]:
        """The chain as it is asked."""
        usual = [way for way in CHAINS[self.wants] if way != "session" or self.views is not None]
        return self.chain or usual

    @property
    def reads(self) -> list[str]:
        return sorted({one.source for one in self.filters})


PREDICTIONS: tuple[type[Prediction], ...] = (Binary, Value, Affinity, Response, Timing, Topics, Ranking, Uplift)

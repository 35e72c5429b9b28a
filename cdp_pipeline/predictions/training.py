"""Training windows and training sets: past cut-offs with an embargo of one horizon, features as of each, labels after.

The same `features` serve training, scoring and backfill. Estimators belong to model.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.predictions.targets import at_each, labels, target_events
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.prediction import Prediction
from cdp_pipeline.spec.project import Project

HISTORY = {
    "_recency": "days since the last {event}",
    "_times": "days with {event} so far",
    "_since_first": "days since the first {event}",
    "_amount": "total amount of {event}",
    "_tenure": "days since first seen",
    "_active_days": "days with any activity",
}
"""What every model knows besides the declared traits: the person's own history of the target, in words."""

Population = Callable[[ibis.Table, Sequence[date]], ibis.Table]
"""Keeps the rows (person, day, traits) a prediction speaks of on these days; made from its rules by the caller."""


class AsOf(Protocol):
    """Traits of people as they stood at the end of each day (traits.as_of)."""

    def __call__(
        self, timeline: ibis.Table, people: ibis.Table, days: Sequence[date], project: Project, names: Sequence[str]
    ) -> ibis.Table: ...


class LeakageError(ValueError):
    """A training window would see what the test window is asked to foresee."""


class FeatureError(ValueError):
    """A declared feature cannot be learned from."""


@dataclass(frozen=True)
class Cutoffs:
    """The days a model learns from, oldest first, and the newest fully labelled one it is tested on."""

    train: tuple[date, ...]
    test: date
    horizon: timedelta

    @property
    def days(self) -> tuple[date, ...]:
        return (*self.train, self.test)

    def check_embargo(self) -> None:
        """Raise LeakageError unless every training window has ended when the test window begins."""
        for day in self.train:
            if day + self.horizon > self.test:
                raise LeakageError(
                    f"training cut-off {day} is labelled until {day + self.horizon}, after the test cut-off "
                    f"{self.test}: training cut-offs end at {self.test - self.horizon}"
                )


def cutoffs(prediction: Prediction, last_day: date, first_day: date) -> Cutoffs:
    """The newest cut-off whose horizon ends by `last_day` (the last complete day) is the test; training cut-offs
    lie at least a horizon earlier, `every` apart, and each has at least a horizon of history since `first_day`."""
    horizon, every = prediction.horizon, max(prediction.every, timedelta(days=1))
    test = last_day - horizon
    train = (test - horizon - step * every for step in range(prediction.cutoffs))
    return Cutoffs(tuple(sorted(day for day in train if day - horizon >= first_day)), test, horizon)


def population_traits(rules: Iterable[Rule]) -> Iterator[str]:
    """The traits that rules mention, at any depth."""
    for rule in rules:
        if rule.trait or rule.band:
            yield rule.trait or rule.band or ""
        yield from population_traits([*(rule.all or []), *(rule.any or []), *(rule.none or [])])


def feature_names(prediction: Prediction, traits: ibis.Schema) -> list[str]:
    """The traits a model learns from: the declared ones, or every numeric one."""
    learnable = [name for name, type_ in traits.items() if type_.is_numeric() or type_.is_boolean()]
    if not prediction.features:
        return [name for name in learnable if name not in ("person_id", "day") and not name.startswith("_")]
    for name in prediction.features:
        if name not in learnable:
            kind = f"is of type {traits[name]}" if name in traits else "does not exist"
            raise FeatureError(f"prediction '{prediction.name}': feature '{name}' {kind}; features are numeric traits")
    return list(prediction.features)


def history(timeline: ibis.Table, days: Sequence[date], prediction: Prediction) -> ibis.Table:
    """(person_id, day, HISTORY columns) for everybody seen by each day, from rows up to that day only."""
    all_rows = timeline.filter(timeline.person_id.notnull())
    seen = all_rows.group_by("person_id", "_day").agg(events=lambda t: t.count())
    hits = target_events(timeline, prediction)
    hits = hits.group_by("person_id", "_day").agg(amount=hits.amount.sum(), hits=hits.count())
    by_day = seen.left_join(hits, ["person_id", "_day"]).select("person_id", "_day", "hits", "amount")
    past = at_each(by_day, days).filter(lambda t: t._day <= t.day)
    past = past.mutate(ago=past.day.delta(past._day, unit="day"))
    hit = past.hits.notnull()
    return past.group_by("person_id", "day").agg(
        _recency=past.ago.min(where=hit).cast("float64"),
        _times=hit.sum().cast("float64"),
        _since_first=past.ago.max(where=hit).cast("float64"),
        _amount=past.amount.sum().cast("float64"),
        _tenure=past.ago.max().cast("float64"),
        _active_days=past.count().cast("float64"),
    )


def everybody(rows: ibis.Table, days: Sequence[date]) -> ibis.Table:
    return rows


def features(
    as_of: AsOf,
    timeline: ibis.Table,
    people: ibis.Table,
    prediction: Prediction,
    project: Project,
    days: Sequence[date],
    population: Population = everybody,
) -> ibis.Table:
    """(person_id, day, features) of the population as of each day, all features as float64.

    A person without any event up to a day is not in it.
    """
    names = {*(prediction.features or project.traits), *population_traits(prediction.population)}
    traits = as_of(timeline, people, days, project, [name for name in project.traits if name in names])
    learnt = feature_names(prediction, traits.schema())
    rows = population(traits, days).inner_join(history(timeline, days, prediction), ["person_id", "day"])
    # Rounded: the last bit of a parallel sum of floats differs from run to run and would make a new version.
    return rows.select(
        "person_id", "day", *(rows[name].cast("float64").round(6).name(name) for name in [*learnt, *HISTORY])
    )


def training_set(
    as_of: AsOf,
    timeline: ibis.Table,
    people: ibis.Table,
    prediction: Prediction,
    project: Project,
    cutoffs: Cutoffs,
    population: Population = everybody,
) -> ibis.Table:
    """(person_id, day, split, label, features): what was known at each cut-off, and what then happened."""
    cutoffs.check_embargo()
    known = features(as_of, timeline, people, prediction, project, cutoffs.days, population)
    rows = known.inner_join(labels(timeline, cutoffs.days, prediction), ["person_id", "day"])
    split = ibis.ifelse(rows.day == cutoffs.test, "test", "train")
    learnt = [name for name in known.columns if name not in ("person_id", "day")]
    return rows.select("person_id", "day", split.name("split"), "label", *learnt)


def words(prediction: Prediction, project: Project) -> dict[str, str]:
    """Every possible feature in a marketer's words."""
    event = " or ".join(prediction.target.event)
    own = {"_rhythm": f"chance of {event} within {prediction.horizon.days} days by their own rhythm"}
    own |= {name: text.format(event=event) for name, text in HISTORY.items()}
    return {name: trait.description.rstrip(".") for name, trait in project.traits.items()} | own


def training_table(prediction: Prediction, project: Project, traits: ibis.Schema) -> Table:
    """`predictions.<name>_training`: what the model of this prediction learned from and was tested on."""
    said = words(prediction, project)
    return Table(
        name=f"predictions.{prediction.name}_training",
        description=f"What the model of '{prediction.name}' learned from (train) and was tested on (test).",
        columns={
            "person_id": Column("string", "The person."),
            "day": Column("date", "The cut-off: features know nothing after this day."),
            "split": Column("string", "train, or test for the newest fully labelled cut-off."),
            "label": Column("int64", f"1 if, in the {prediction.horizon.days} days after: {prediction.description}"),
            **{name: Column("float64", said[name]) for name in (*feature_names(prediction, traits), *HISTORY)},
        },
        key=("person_id", "day"),
        derived=True,
    )

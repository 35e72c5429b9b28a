"""Training sets of people: features as of each cut-off, labels after it.

The same `features` serve training, scoring and backfill. Estimators belong to model.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.level import lately, looked_at, seasons
from cdp_pipeline.predictions.tables import training_table_of
from cdp_pipeline.predictions.targets import at_each, labels, target_events, worth
from cdp_pipeline.predictions.windows import Cutoffs
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.prediction import Binary, Features, Prediction
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


SLICE = "_slice_"
"""Before the name of an attribute by which a model is judged; what begins so is never learned from."""
KEYS = ("person_id", "day", "split", "label")


class FeatureError(ValueError):
    """A declared feature cannot be learned from."""


def population_traits(rules: Iterable[Rule]) -> Iterator[str]:
    """The traits that rules mention, at any depth."""
    for rule in rules:
        yield from rule.traits
        if rule.band:
            yield rule.band
        yield from population_traits([*(rule.all or []), *(rule.any or []), *(rule.none or [])])


def traits_asked(prediction: Prediction, project: Project) -> list[str]:
    """The traits that its people are chosen by and, where it learns from such, those it may learn from."""
    asked = set(population_traits(prediction.population))
    if isinstance(prediction, Features):
        asked |= set(prediction.features or project.traits)
    return [name for name in project.traits if name in asked]


def feature_names(prediction: Features, traits: ibis.Schema) -> list[str]:
    """The traits a model learns from: the declared ones, or every numeric one."""
    learnable = [name for name, type_ in traits.items() if type_.is_numeric() or type_.is_boolean()]
    if not prediction.features:
        return [name for name in learnable if name not in ("person_id", "day") and not name.startswith("_")]
    for name in prediction.features:
        if name not in learnable:
            kind = f"is of type {traits[name]}" if name in traits else "does not exist"
            raise FeatureError(f"prediction '{prediction.name}': feature '{name}' {kind}; features are numeric traits")
    return list(prediction.features)


def history(timeline: ibis.Table, days: Sequence[date], prediction: Features) -> ibis.Table:
    """(person_id, day, HISTORY columns) for everybody seen by each day, from rows up to that day only."""
    all_rows = timeline.filter(timeline.person_id.notnull())
    seen = all_rows.group_by("person_id", "_day").agg(events=lambda t: t.count())
    hits = target_events(timeline, prediction)
    hits = hits.group_by("person_id", "_day").agg(amount=worth(hits, prediction).sum(), hits=hits.count())
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


def features(known: Known, prediction: Features, project: Project, days: Sequence[date]) -> ibis.Table:
    """(person_id, day, features) of the population as of each day, all features as float64.

    A person without any event up to a day is not in it.
    """
    traits = known.as_of(known.timeline, known.people, days, project, traits_asked(prediction, project))
    learnt = feature_names(prediction, traits.schema())
    past = history(known.timeline, days, prediction)
    rows = known.population(traits, days).inner_join(past, ["person_id", "day"])
    # Rounded: the last bit of a parallel sum of floats differs from run to run and would make a new version.
    return rows.select(
        "person_id", "day", *(rows[name].cast("float64").round(6).name(name) for name in [*learnt, *HISTORY])
    )


def population_of(known: Known, prediction: Prediction, project: Project, days: Sequence[date]) -> ibis.Table:
    """(person_id, day): whom the prediction speaks of on each day, by its rules alone."""
    traits = known.as_of(known.timeline, known.people, days, project, traits_asked(prediction, project))
    return known.population(traits, days).select("person_id", "day")


def inputs(known: Known, prediction: Features, project: Project, day: date) -> ibis.Table:
    """(person_id, features) of the population as of the day."""
    return features(known, prediction, project, [day]).drop("day")


def training_set(known: Known, prediction: Binary, project: Project, windows: Cutoffs) -> ibis.Table:
    """(person_id, day, split, label, _soon, _season, features): what was known at each cut-off, and what then happened.

    Rows of the split 'level' are of the day on which, LATELY days before the test cut-off, the level of then is
    measured: of what came after them only those days are said (`_soon`).
    """
    windows.check_embargo()
    learned = features(known, prediction, project, windows.days)
    rows = learned.inner_join(labels(known.timeline, prediction, windows.days), ["person_id", "day"])
    split = ibis.ifelse(rows.day == windows.test, "test", "train")
    early = _soon(known.timeline, prediction, windows.train) if windows.train else None
    sets = [_with_level(rows.mutate(split=split), known, prediction, windows.days, early)]
    if _level_day(prediction, windows.test) not in windows.train:
        sets.append(
            _before(known, prediction, project, windows.test).mutate(
                split=ibis.literal("level"), label=ibis.null("int64")
            )
        )
    learnt = [name for name in learned.columns if name not in ("person_id", "day")]
    columns = ("person_id", "day", "split", "label", "_soon", "_season", *learnt)
    rows = ibis.union(*(one.select(*columns) for one in sets)) if len(sets) > 1 else sets[0].select(*columns)
    if not prediction.slices:
        return rows
    assert known.attributes is not None
    named = {SLICE + name: known.attributes[name].cast("string") for name in prediction.slices}
    return rows.left_join(known.attributes.select("person_id", **named), "person_id").select(*columns, *named)


def binary_inputs(known: Known, prediction: Binary, project: Project, day: date) -> ibis.Table:
    """(person_id, _soon, _season, features) of the population as of the day; and of some of it LATELY days before.

    Of those the level of now is learned: they alone have `_soon`, and are not scored.
    """
    rows = _with_level(features(known, prediction, project, [day]), known, prediction, [day], None)
    return ibis.union(rows, _before(known, prediction, project, day).select(*rows.columns)).drop("day")


def _level_day(prediction: Binary, day: date) -> date:
    return day - timedelta(lately(prediction.horizon))


def _before(known: Known, prediction: Binary, project: Project, day: date) -> ibis.Table:
    """Features of some people LATELY days before `day`, and what happened to them up to it."""
    before = _level_day(prediction, day)
    people = looked_at(known.people)
    some = replace(known, people=people, timeline=known.timeline.semi_join(people, "person_id"))
    early = _soon(some.timeline, prediction, [before])
    rows = features(some, prediction, project, [before])
    return _with_level(rows, known, prediction, [before], early).filter(lambda t: t._soon.notnull())


def _soon(timeline: ibis.Table, prediction: Binary, days: Sequence[date]) -> ibis.Table:
    """(person_id, day, _soon): the label as it is LATELY days after each day."""
    early = prediction.model_copy(update={"horizon": timedelta(lately(prediction.horizon))})
    return labels(timeline, early, days).rename(_soon="label")


def _with_level(
    rows: ibis.Table, known: Known, prediction: Binary, days: Sequence[date], early: ibis.Table | None
) -> ibis.Table:
    """The rows with their `_season`, and with `_soon` where it is known."""
    rows = rows.left_join(seasons(known.timeline, prediction, days), "day").drop("day_right")
    if early is None:
        return rows.mutate(_soon=ibis.null("int64"))
    return rows.left_join(early, ["person_id", "day"]).drop("person_id_right", "day_right")


def words(prediction: Features, project: Project) -> dict[str, str]:
    """Every possible feature in a marketer's words."""
    event = " or ".join(prediction.target.event)
    own = {"_rhythm": f"chance of {event} within {prediction.horizon.days} days by their own rhythm"}
    own |= {name: text.format(event=event) for name, text in HISTORY.items()}
    return {name: trait.description.rstrip(".") for name, trait in project.traits.items()} | own


def training_table(prediction: Features, project: Project, traits: ibis.Schema) -> Table:
    """`predictions.<name>_training`: what the model of this prediction learned from and was tested on."""
    said = words(prediction, project)
    label = Column("int64", f"1 if, in the {prediction.horizon.days} days after: {prediction.description}")
    names = (*feature_names(prediction, traits), *HISTORY)
    return training_table_of(prediction, label, {name: Column("float64", said[name]) for name in names})


def binary_table(prediction: Binary, project: Project, traits: ibis.Schema) -> Table:
    """`training_table` with what the level of a day is learned from."""
    table = training_table(prediction, project, traits)
    days = lately(prediction.horizon)
    own = {
        "_soon": Column(
            "int64", f"The label as it was after {days} days, where the level of a day is learned from it."
        ),
        "_season": Column("float64", "How much more of the target the horizon was to see than the days just before."),
    }
    features = {name: column for name, column in table.columns.items() if name not in KEYS}
    features |= {
        SLICE + name: Column(
            "string", f"{project.attributes[name].description} To judge by, not to learn from.", pii=True
        )
        for name in prediction.slices
    }
    return replace(table, columns={name: table.columns[name] for name in KEYS} | own | features)

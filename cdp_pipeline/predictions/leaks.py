"""Whether a training set already knows what is to be foreseen: each way to leak, looked for in the rows as they are.

A good score on the test window does not show a leak (a feature of two weeks later raises AUC by .02 only), so rows are
made anew from what was known on their day alone, and must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.predictions.contacts import drawn
from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.kinds import kind_of
from cdp_pipeline.predictions.level import looked_at
from cdp_pipeline.predictions.metrics import ranking
from cdp_pipeline.predictions.model import matrix
from cdp_pipeline.predictions.targets import target_events
from cdp_pipeline.predictions.training import features
from cdp_pipeline.predictions.windows import Cutoffs, LeakageError
from cdp_pipeline.spec.prediction import Binary, Features, Prediction, Response, Uplift
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.window import midnight

if TYPE_CHECKING:
    import pyarrow as pa

SOME = 1_000
"""People whose rows are made anew; a feature that is late is so for most of them."""
NEARLY_ALL = 0.95
LEAST = 100
TELLS_ALL = 0.98
"""A feature that ranks the outcome alone as well as this was taken from it. The best honest one measured .86."""


def can_leak(prediction: Prediction) -> bool:
    """Whether it learns from what was known on a day; a list is made of the events themselves, each with its day."""
    return not prediction.a_list


def looked_for(known: Known, prediction: Prediction, project: Project, training: pa.Table, day: date) -> list[str]:
    """Every leak of a training set, in words, by its rows of `day`."""
    if not isinstance(prediction, Features) or prediction.over_items:
        return findings_of_items(training, rebuilt_items(known, prediction, project, day).to_pyarrow(), prediction, day)
    again = rebuilt(known, prediction, project, day).to_pyarrow()
    labels = relabelled(known, prediction, day).to_pyarrow() if isinstance(prediction, Binary) else None
    return findings(training, again, labels, prediction, day)


def known_on(known: Known, project: Project, day: date) -> Known:
    """All that was known at the end of the day of some people: events up to it, and later ones that were announced."""
    people = looked_at(known.people, SOME)
    past = known.timeline.semi_join(people, "person_id")
    return replace(known, people=people, timeline=told_by(past, project, day))


def told_by(timeline: ibis.Table, project: Project, day: date) -> ibis.Table:
    """The events up to the end of the day, and later ones that were announced by then."""
    end = ibis.literal(midnight(day + timedelta(days=1), project.zone), type=timeline._loaded_at.type())
    return timeline.filter((timeline._day <= day) | (timeline._loaded_at < end))


def rebuilt(known: Known, prediction: Features, project: Project, day: date) -> ibis.Table:
    """(person_id, features) of some people who should be in the set, made from what was known on the day alone."""
    rows = features(known_on(known, project, day), prediction, project, [day]).drop("day")
    if isinstance(prediction, Uplift):
        return rows.semi_join(drawn(known.timeline, prediction, [day]), "person_id")
    return rows


def rebuilt_items(known: Known, prediction: Prediction, project: Project, day: date) -> ibis.Table:
    """(person_id, item, what is learned from) of some people, made from what everybody did up to the day: what is
    usual for an item is a matter of all of them. Who can be reached now is not asked, it is no feature."""
    past = replace(known, timeline=told_by(known.timeline, project, day))
    asked = prediction.model_copy(update={"reach": {}}) if isinstance(prediction, Response) else prediction
    return kind_of(asked).inputs(past, asked, project, day).semi_join(looked_at(known.people, SOME), "person_id")


def relabelled(known: Known, prediction: Binary, day: date) -> ibis.Table:
    """(person_id, label) of the same people, from the events after the day and within the horizon alone."""
    people = looked_at(known.people, SOME)
    ahead = known.timeline.filter(known.timeline._day > day, known.timeline._day <= day + prediction.horizon)
    hit = target_events(ahead, prediction).select("person_id").distinct().mutate(hit=True)
    joined = people.select("person_id").left_join(hit, "person_id")
    happened = joined.hit.notnull()
    return joined.select("person_id", label=(happened if prediction.target.happens else ~happened).cast("int64"))


def findings(
    training: pa.Table, again: pa.Table, labels: pa.Table | None, prediction: Features, day: date
) -> list[str]:
    """Every leak of a training set, in words; `again` and `labels` are rows of `day` as `rebuilt` and `relabelled`."""
    import pyarrow.compute as pc

    named = _named(again)
    past = training.filter(pc.equal(training["split"], "train"))
    of_day = training.filter(pc.equal(training["day"], day)).filter(pc.field("split") != "level")
    found = [*_embargo(training, prediction), *_late(of_day, again, named, day), *_ids(past, named)]
    if labels is not None:
        found += [*_mislabelled(of_day, labels, prediction, day), *_telling_all(past, named)]
    return found


def findings_of_items(training: pa.Table, again: pa.Table, prediction: Prediction, day: date) -> list[str]:
    """Every leak of a training set of people and items, in words; `again` is rows of `day` as `rebuilt_items`."""
    import pyarrow.compute as pc

    of_day = training.filter(pc.equal(training["day"], day))
    return [*_embargo(training, prediction), *_late(of_day, again, _named(again), day)]


def _named(again: pa.Table) -> tuple[str, ...]:
    return tuple(name for name in again.column_names if name not in ("person_id", "item"))


def _embargo(training: pa.Table, prediction: Prediction) -> Iterator[str]:
    grouped = training.group_by(["day", "split"]).aggregate([]).to_pylist()
    past = tuple(sorted(row["day"] for row in grouped if row["split"] == "train"))
    for row in grouped:
        if row["split"] == "test":
            try:
                Cutoffs(past, row["day"], prediction.labelled).check_embargo()
            except LeakageError as leak:
                yield str(leak)


def _late(rows: pa.Table, again: pa.Table, named: tuple[str, ...], day: date) -> Iterator[str]:
    """Features that are not what they are when events end on the day."""
    import numpy as np

    keys = [name for name in ("person_id", "item") if name in again.column_names]
    both = rows.select([*keys, *named]).join(again, keys, join_type="inner", right_suffix=" again")
    what = "people" if keys == ["person_id"] else "pairs of people and items"
    for name in named:
        was, should = matrix(both, (name, f"{name} again")).T
        other = int((~np.isclose(was, should, rtol=1e-6, atol=1e-5, equal_nan=True)).sum())
        if other:
            yield (
                f"feature '{name}' knows what came after {day}: of {both.num_rows} {what} {other} have another value "
                "when events end on that day"
            )
    # Of pairs only those are learned from of which it is known what then came.
    if keys == ["person_id"] and both.num_rows < again.num_rows:
        yield f"{again.num_rows - both.num_rows} of {again.num_rows} people known on {day} are not in the set"


def _mislabelled(rows: pa.Table, labels: pa.Table, prediction: Features, day: date) -> Iterator[str]:
    import pyarrow.compute as pc

    both = rows.select(["person_id", "label"]).join(labels, "person_id", join_type="inner", right_suffix=" again")
    other = pc.sum(pc.not_equal(both["label"], both["label again"])).as_py()
    if other:
        yield (
            f"the target of {day} counts what does not lie in the {prediction.horizon.days} days after it: of "
            f"{both.num_rows} people {other} have another label when only those days count"
        )


def _ids(past: pa.Table, named: tuple[str, ...]) -> Iterator[str]:
    """Features of whole numbers that nearly everybody has for themselves, and keeps."""
    import numpy as np
    import pyarrow.compute as pc

    newest, oldest = (past.filter(pc.equal(past["day"], pick(past["day"]))) for pick in (pc.max, pc.min))
    for name in named:
        values = matrix(newest, (name,))[:, 0]
        values = values[~np.isnan(values)]
        whole = len(values) >= LEAST and (values == np.trunc(values)).all()
        if not whole or len(np.unique(values)) < NEARLY_ALL * len(values):
            continue
        both = oldest.select(["person_id", name]).join(
            newest.select(["person_id", name]), "person_id", join_type="inner", right_suffix=" now"
        )
        was, now = matrix(both, (name, f"{name} now")).T
        if len(was) and (was == now).mean() >= NEARLY_ALL:
            yield f"feature '{name}' is an id: nearly everybody has a whole number of their own in it, and keeps it"


def _telling_all(past: pa.Table, named: tuple[str, ...]) -> Iterator[str]:
    import numpy as np

    label = matrix(past, ("label",))[:, 0]
    if min(label.sum(), (1 - label).sum()) < LEAST:
        return
    for name in named:
        values = matrix(past, (name,))[:, 0]
        least = np.nanmin(values) if not np.isnan(values).all() else 0.0
        area = ranking(label, np.where(np.isnan(values), least - 1, values))
        if max(area, 1 - area) >= TELLS_ALL:
            yield f"feature '{name}' alone tells the target (AUC {max(area, 1 - area):.3f}): it was taken from it"

"""The days a model learns from and the one it is tested on: past cut-offs, an embargo of one horizon between them.

Also the rows of these days: parted, counted, and told in the card. What is in them is each type's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from cdp_pipeline.spec.prediction import Prediction

if TYPE_CHECKING:
    import pyarrow as pa


class LeakageError(ValueError):
    """A training window would see what the test window is asked to foresee."""


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
    horizon, every = prediction.labelled, max(prediction.every, timedelta(days=1))
    test = last_day - horizon
    train = (test - horizon - step * every for step in range(prediction.cutoffs))
    return Cutoffs(tuple(sorted(day for day in train if day - horizon >= first_day)), test, horizon)


def halves(training: pa.Table, prediction: Prediction) -> tuple[pa.Table, pa.Table]:
    """The rows to learn from and the untouched ones to be tested on, in one order; LeakageError where these touch."""
    import pyarrow.compute as pc

    keys = [name for name in ("day", "person_id", "item") if name in training.column_names]
    training = training.sort_by([(name, "ascending") for name in keys])
    past, test = (training.filter(pc.equal(training["split"], split)) for split in ("train", "test"))
    tested = pc.unique(test["day"]).to_pylist()
    if len(tested) > 1:
        raise LeakageError(f"the test split holds {len(tested)} cut-offs; it is one untouched window")
    if tested:
        Cutoffs(tuple(sorted(pc.unique(past["day"]).to_pylist())), tested[0], prediction.labelled).check_embargo()
    return past, test


def lacking(have: Mapping[str, tuple[int, int]]) -> str | None:
    """The first number that is too small to learn from, in words; `have` says how many there are and are needed."""
    return next((f"needs {needed} {what}, has {n}" for what, (n, needed) in have.items() if n < needed), None)


def card_of(
    past: pa.Table, test: pa.Table, seed: int, recipe: str, positives: int, features: Sequence[str] = ()
) -> dict[str, Any]:
    """What the card of every model says of the rows it was learned from and tested on."""
    import pyarrow.compute as pc

    return {
        "train_cutoffs": [str(day) for day in sorted(pc.unique(past["day"]).to_pylist())],
        "test_cutoff": str(test["day"][0]) if test.num_rows else None,
        "train_rows": past.num_rows,
        "train_people": pc.count_distinct(past["person_id"]).as_py(),
        "train_positives": positives,
        "seed": seed,
        "recipe": recipe,
        "features": list(features),
    }

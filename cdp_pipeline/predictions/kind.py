"""What a type of prediction brings to the one path of all: training set, model that proves itself, scores, outcomes.

The types are listed in kinds.py; keeping versions and choosing the champion is registry.py's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import ibis

from cdp_pipeline.lake.table import Table
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.prediction import Prediction
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.predictions.windows import Cutoffs

Population = Callable[[ibis.Table, Sequence[date]], ibis.Table]
"""Keeps the rows (person, day, traits) a prediction speaks of on these days; made from its rules by the caller."""

Members = Callable[[Sequence[Rule], Sequence[date]], ibis.Table]
"""(person_id, day): for whom all rules of an audience hold on these days."""


class AsOf(Protocol):
    """Traits of people as they stood at the end of each day (traits.as_of)."""

    def __call__(
        self, timeline: ibis.Table, people: ibis.Table, days: Sequence[date], project: Project, names: Sequence[str]
    ) -> ibis.Table: ...


def everybody(rows: ibis.Table, days: Sequence[date]) -> ibis.Table:
    return rows


@dataclass(frozen=True)
class Known:
    """All that is known of people, from which what was known on any day can be had.

    sources: the rows of the sources that the prediction reads besides (its `reads`), by name.
    members: asks the rules of an audience; for predictions that have such (its `asks`).
    attributes: person_id and attributes as they are now; for predictions that are judged by slices of them.
    """

    as_of: AsOf
    timeline: ibis.Table
    people: ibis.Table
    population: Population = everybody
    sources: Mapping[str, ibis.Table] = field(default_factory=dict)
    members: Members | None = None
    attributes: ibis.Table | None = None


@dataclass(frozen=True)
class Trained:
    """What training gave: a scorer (None where data were too few), its metrics, and its card.

    `missing` names the number that lacks. `prior` is what can be said of people without a model (JSON).
    """

    scorer: Any | None
    metrics: dict[str, float]
    missing: str | None = None
    card: dict[str, Any] = field(default_factory=dict)
    prior: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Champion:
    """What scores a prediction: a version and its scorer; without one, why, and what can be said all the same."""

    version: str | None
    scorer: Any | None
    why_prior: str | None = None
    prior: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """One demand on a model and whether it was met."""

    name: str
    passed: bool
    words: str


@runtime_checkable
class Watchful(Protocol):
    """A scorer that can say how far the people to be scored have moved from those it was proven on."""

    def drift(self, rows: pa.Table) -> dict[str, float]: ...


class Kind(Protocol):
    """One type of prediction, as a module. A scorer is a plain dataclass: the registry pickles it.

    Two trainings on the same rows with one seed give the same scorer to the last byte.
    """

    RECIPE: str
    """Part of every version id: raise it when training changes, so that models are trained anew."""

    def training_table(self, prediction: Any, project: Project, traits: ibis.Schema) -> Table:
        """`predictions.<name>_training`: person_id, day, split (train or test), label and what is learned from."""
        ...

    def training_set(self, known: Known, prediction: Any, project: Project, windows: Cutoffs) -> ibis.Table:
        """The rows of `training_table`: what was known at each cut-off, and what then happened."""
        ...

    def inputs(self, known: Known, prediction: Any, project: Project, day: date) -> ibis.Table:
        """What is scored on a day: its features, without the column `day`."""
        ...

    def train(self, training: pa.Table, prediction: Any, seed: int = 0, champion: Any | None = None) -> Trained:
        """Learn from the split 'train', measure on the untouched split 'test', beside the champion's scorer."""
        ...

    def judge(self, trained: Trained, prediction: Any) -> list[Gate]:
        """Every gate; a model is promoted only when all pass."""
        ...

    def scores_table(self, prediction: Any) -> Table:
        """`predictions.<name>`: one score per person (and item) and day."""
        ...

    def score(
        self, inputs: pa.Table | pa.RecordBatchReader, champion: Champion, prediction: Any, project: Project, day: date
    ) -> pa.Table:
        """The rows of `scores_table` for one day."""
        ...

    def outcomes(self, timeline: ibis.Table, prediction: Any, days: Sequence[date]) -> ibis.Table | None:
        """(person_id, day[, item], label): what happened within the horizon of these days; None where nothing can.

        A row without an item speaks of all items of which no other row of the person and day does.
        """
        ...

    def realised(self, label: np.ndarray, score: np.ndarray) -> dict[str, float]:
        """How good the scores of a day proved to be, once it is known what happened: figures by name."""
        ...

    def charts(self, card: dict[str, Any], prediction: Any, project: Project) -> dict[str, str]:
        """Pictures of a model by title, as Markdown, drawn from its card: never from people."""
        ...


def definition_of(prediction: Prediction) -> str:
    """What is foreseen, and of whom, as JSON: how it is learned and judged is left out."""
    learned = {"cutoffs", "every", "features", "gates", "minimum", "bands", "reach", "slices"}
    return prediction.model_dump_json(exclude={"kind", "name", "description", "owner", *learned})

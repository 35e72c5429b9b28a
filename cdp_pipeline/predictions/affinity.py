"""`type: affinity`: per person and item, the probability that the target event concerns the item within the horizon.

What is known of pairs is items.py, the estimator habits.py; here they meet the path of all predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.predictions.charts import binary_charts
from cdp_pipeline.predictions.item_metrics import judge_items, least_data, measure_items
from cdp_pipeline.predictions.item_scores import (
    by_item_rates,
    item_card,
    ranked,
    rated,
    whole_people,
)
from cdp_pipeline.predictions.items import KNOWN, item_days, known_pairs, outcomes_of, pair_labels, words
from cdp_pipeline.predictions.kind import Champion, Gate, Known, Trained
from cdp_pipeline.predictions.metrics import gains, ranking, realised, reliability
from cdp_pipeline.predictions.tables import scores_table_of, training_table_of
from cdp_pipeline.predictions.training import population_of
from cdp_pipeline.predictions.windows import Cutoffs, halves
from cdp_pipeline.spec.prediction import Affinity, OverItems
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.predictions.habits import Habits

__all__ = [
    "RECIPE", "charts", "inputs", "judge", "outcomes", "realised", "score", "scores_table", "train", "training_set",
    "training_table",
]  # fmt: skip
RECIPE = "habits/1"
RIVALS = {"own_rate": "how often they had the item so far", "popularity": "how many people had the item lately"}


def training_table(prediction: OverItems, project: Project, traits: ibis.Schema) -> Table:
    said = words(" or ".join(prediction.target.event), prediction.horizon.days)
    label = Column("int64", f"1 if it happened with the item in the {prediction.horizon.days} days after.")
    learned = {name: Column("float64", text) for name, text in said.items()}
    return training_table_of(prediction, label, learned, f"The {prediction.target.item}.")


def training_set(known: Known, prediction: OverItems, project: Project, windows: Cutoffs) -> ibis.Table:
    windows.check_embargo()
    happened = item_days(known.timeline, prediction.target)
    rows = pair_labels(
        happened, _pairs(happened, known, prediction, project, windows.days), windows.days, prediction.horizon.days
    )
    split = ibis.ifelse(rows.day == windows.test, "test", "train")
    return rows.select("person_id", "day", "item", split.name("split"), "label", *KNOWN)


def inputs(known: Known, prediction: OverItems, project: Project, day: date) -> ibis.Table:
    return _pairs(item_days(known.timeline, prediction.target), known, prediction, project, [day]).drop("day")


def _pairs(
    happened: ibis.Table, known: Known, prediction: OverItems, project: Project, days: Sequence[date]
) -> ibis.Table:
    who = population_of(known, prediction, project, days)
    return known_pairs(happened, who, days, prediction.items, prediction.horizon.days)


def train(training: pa.Table, prediction: Affinity, seed: int = 0, champion: Habits | None = None) -> Trained:
    from threadpoolctl import threadpool_limits

    from cdp_pipeline.predictions.habits import Habits

    past, test = halves(training, prediction)
    card, prior = item_card(past, test, seed, RECIPE, list(KNOWN)), {"rate": by_item_rates(past)}
    missing = least_data(past, test, prediction)
    if missing:
        return Trained(None, {}, missing, card, prior)
    # One thread: the same model to the last byte on every machine.
    with threadpool_limits(1):
        scorer = Habits.fit(past, seed)
        score, parts = scorer.contributions(test)
        rivals = _rivals(test)
        if champion is not None:
            rivals["champion"] = champion.contributions(test)[0]
        metrics = measure_items(test, score, rivals, seed)
    label = test["label"].to_numpy().astype(float)
    evidence = {
        "reliability": reliability(label, score),
        "gains": gains(label, score),
        "importance": _importance(scorer, score, parts, label),
    }
    return Trained(scorer, metrics, None, card | evidence, prior)


def _rivals(test: pa.Table) -> dict[str, np.ndarray]:
    import numpy as np

    own = test["_times"].to_numpy() / np.maximum(test["_person_times"].to_numpy(), 1)
    return {"own_rate": own, "popularity": test["_item_share_recent"].to_numpy()}


def _importance(scorer: Habits, score: np.ndarray, parts: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """How much AUC is lost when one group of features says the same of every pair."""
    from cdp_pipeline.predictions.habits import GROUPS

    whole, odds = ranking(label, score), parts.sum(axis=1)
    lost = {name: whole - ranking(label, odds - parts[:, place]) for place, name in enumerate(GROUPS)}
    return dict(sorted(lost.items(), key=lambda item: -item[1]))


def judge(trained: Trained, prediction: Affinity) -> list[Gate]:
    return judge_items(trained, prediction.gates, RIVALS)


def scores_table(prediction: Affinity) -> Table:
    event, days = " or ".join(prediction.target.event), prediction.horizon.days
    return scores_table_of(
        prediction,
        item=f"The {prediction.target.item}.",
        score=f"Probability that {event} concerns the item within the next {days} days, 0 to 1.",
    )


def score(
    inputs: pa.Table | pa.RecordBatchReader, champion: Champion, prediction: Affinity, project: Project, day: date
) -> pa.Table:
    parts = [_scored(rows, champion) for rows in whole_people(inputs)]
    return ranked(parts, scores_table(prediction), champion, prediction, day)


def _scored(rows: pa.Table, champion: Champion) -> pa.Table:
    import pyarrow as pa

    if champion.scorer is None:
        return rated(rows, champion)
    chance, contributions = champion.scorer.contributions(rows)
    keys = {name: rows[name] for name in ("person_id", "item")}
    reasons = _reasons(rows, contributions)
    return pa.table(keys | {"score": chance, "basis": pa.array(["model"] * rows.num_rows), "reasons": reasons})


def _reasons(rows: pa.Table, contributions: np.ndarray) -> pa.Array:
    """What raises or lowers the score, strongest first; the own habit with its figures."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from cdp_pipeline.predictions.habits import GROUPS
    from cdp_pipeline.predictions.scores import text

    times, ago = rows["_times"].to_numpy(), rows["_recency"].to_numpy()
    with_figures = pc.binary_join_element_wise(
        "on ",
        text(times),
        pa.array(np.where(times == 1, " day so far, ", " days so far, ")),
        text(ago),
        " days ago",
        "",
    )
    habit = pc.if_else(pa.array(times == 0), "never so far", with_figures)
    said = [habit if name == "own habit" else pa.array([name] * rows.num_rows) for name in GROUPS]
    order = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :3]
    parts = []
    for place in order.T:
        words = pc.choose(pa.array(place), *said)
        raises = np.take_along_axis(contributions, place[:, None], axis=1)[:, 0] > 0
        parts.append(pc.binary_join_element_wise(words, pa.array(np.where(raises, " (raises)", " (lowers)")), ""))
    return pc.binary_join_element_wise(*parts, "; ")


def outcomes(timeline: ibis.Table, prediction: Affinity, days: Sequence[date]) -> ibis.Table:
    return outcomes_of(item_days(timeline, prediction.target), days, prediction.horizon.days)


def charts(card: dict[str, Any], prediction: Affinity, project: Project) -> dict[str, str]:
    return binary_charts(card, {})

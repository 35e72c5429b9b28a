"""`type: response`: per person and item of contact, the probability that the next contact by it is answered.

What is known of contacts is contacts.py, the estimator answers.py; here they meet the path of all predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.predictions.charts import binary_charts
from cdp_pipeline.predictions.contacts import CONTACTS, contacts, known_contacts, next_answers
from cdp_pipeline.predictions.item_metrics import judge_items, least_data, measure_items
from cdp_pipeline.predictions.item_scores import (
    by_item_rates,
    item_card,
    ranked,
    rated,
    whole_people,
)
from cdp_pipeline.predictions.kind import Champion, Gate, Known, Trained
from cdp_pipeline.predictions.metrics import gains, ranking, realised, reliability
from cdp_pipeline.predictions.tables import scores_table_of, training_table_of
from cdp_pipeline.predictions.training import HISTORY, feature_names, features, words
from cdp_pipeline.predictions.windows import Cutoffs, halves
from cdp_pipeline.spec.prediction import Response
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.predictions.answers import Answers

__all__ = [
    "RECIPE", "charts", "inputs", "judge", "outcomes", "realised", "score", "scores_table", "train", "training_set",
    "training_table",
]  # fmt: skip
RECIPE = "answers/1"
RIVALS = {"past_rate": "how often they answered so far"}


def said(prediction: Response, project: Project) -> dict[str, str]:
    """Every possible feature in a marketer's words."""
    derived = {
        "contacted": CONTACTS["_contacted"],
        "answered": CONTACTS["_answered"],
        "contacted_all": CONTACTS["_contacted_all"],
        "answered_all": "times they answered anything",
        "rate": "how often they answered it so far",
        "rate_all": "how often they answered so far",
        "usual": CONTACTS["_usual"],
    }
    return words(prediction, project) | CONTACTS | derived


def training_table(prediction: Response, project: Project, traits: ibis.Schema) -> Table:
    names = (*feature_names(prediction, traits), *HISTORY, *CONTACTS)
    text = said(prediction, project)
    label = Column("int64", f"1 if they answered within {prediction.target.within.days} days of the contact.")
    learned = {name: Column("float64", text[name]) for name in names}
    return training_table_of(prediction, label, learned, f"The {prediction.exposure.item} of the contact.")


def training_set(known: Known, prediction: Response, project: Project, windows: Cutoffs) -> ibis.Table:
    windows.check_embargo()
    every = _contacts(known.timeline, prediction)
    rows = _known(known, prediction, project, every, windows.days)
    answers = next_answers(every, prediction, windows.days)
    keys = ["person_id", "day", "item"]
    rows = rows.inner_join(answers, keys)
    split = ibis.ifelse(rows.day == windows.test, "test", "train")
    learnt = [name for name in rows.columns if name not in (*keys, "label")]
    return rows.select(*keys, split.name("split"), "label", *learnt)


def inputs(known: Known, prediction: Response, project: Project, day: date) -> ibis.Table:
    rows = _known(known, prediction, project, _contacts(known.timeline, prediction), [day]).drop("day")
    return _reached(rows, known, prediction, day)


def _contacts(timeline: ibis.Table, prediction: Response) -> ibis.Table:
    return contacts(timeline, prediction.exposure, prediction.exposure.item, prediction.target)


def _reached(rows: ibis.Table, known: Known, prediction: Response, day: date) -> ibis.Table:
    """The rows without the items by which a person cannot be contacted."""
    for item, rules in prediction.reach.items():
        assert known.members is not None
        able = known.members(rules, [day]).select("person_id")
        rows = rows.filter(rows.item != item).union(rows.filter(rows.item == item).semi_join(able, "person_id"))
    return rows


def _known(known: Known, prediction: Response, project: Project, every: ibis.Table, days: Sequence[date]) -> ibis.Table:
    """(person_id, day, item, features, CONTACTS) of the population."""
    people = features(known, prediction, project, days)
    pairs = known_contacts(every, people, days, prediction.items)
    rows = pairs.inner_join(people, ["person_id", "day"])
    learnt = [name for name in people.columns if name not in ("person_id", "day")]
    return rows.select("person_id", "day", "item", *learnt, *CONTACTS)


def train(training: pa.Table, prediction: Response, seed: int = 0, champion: Answers | None = None) -> Trained:
    from threadpoolctl import threadpool_limits

    from cdp_pipeline.predictions.answers import Answers, shrunk_rates
    from cdp_pipeline.predictions.model import matrix

    past, test = halves(training, prediction)
    given = {"person_id", "day", "item", "split", "label", *CONTACTS}
    names = [name for name in past.column_names if name not in given and _varies(matrix(past, (name,)))]
    card = item_card(past, test, seed, RECIPE, [*names, *CONTACTS])
    prior = {"rate": by_item_rates(past)}
    missing = least_data(past, test, prediction, items=1)
    if missing:
        return Trained(None, {}, missing, card | {"features": []}, prior)
    # One thread: the same model to the last byte on every machine.
    with threadpool_limits(1):
        scorer = Answers.fit(past, tuple(names))
        score, parts = scorer.contributions(test)
        rivals = {"past_rate": shrunk_rates(test)[1]}
        if champion is not None:
            rivals["champion"] = champion.contributions(test)[0]
        metrics = measure_items(test, score, rivals, seed)
    label = test["label"].to_numpy().astype(float)
    whole, odds = ranking(label, score), parts.sum(axis=1)
    lost = {name: whole - ranking(label, odds - parts[:, place]) for place, name in enumerate(scorer.columns)}
    evidence = {
        "reliability": reliability(label, score),
        "gains": gains(label, score),
        "importance": dict(sorted(lost.items(), key=lambda item: -item[1])),
    }
    return Trained(scorer, metrics, None, card | evidence, prior)


def _varies(values: np.ndarray) -> bool:
    import numpy as np

    return len(np.unique(values)) > 1


def judge(trained: Trained, prediction: Response) -> list[Gate]:
    return judge_items(trained, prediction.gates, RIVALS)


def scores_table(prediction: Response) -> Table:
    days = prediction.target.within.days
    return scores_table_of(
        prediction,
        item=f"The {prediction.exposure.item} of the contact.",
        score=f"Probability that a contact by it is answered within {days} days, 0 to 1.",
    )


def score(
    inputs: pa.Table | pa.RecordBatchReader, champion: Champion, prediction: Response, project: Project, day: date
) -> pa.Table:
    import pyarrow as pa

    from cdp_pipeline.predictions.scores import reasons_of

    text, parts = said(prediction, project), []
    for rows in whole_people(inputs):
        if champion.scorer is None:
            parts.append(rated(rows, champion))
            continue
        chance, given = champion.scorer.contributions(rows)
        keys = {name: rows[name] for name in ("person_id", "item")}
        named = [text.get(name, name) for name in champion.scorer.columns]
        reasons = reasons_of(given, named, champion.scorer.values(rows))
        basis = pa.array(["model"] * rows.num_rows, pa.string())
        parts.append(pa.table(keys | {"score": chance, "basis": basis, "reasons": reasons}))
    return ranked(parts, scores_table(prediction), champion, prediction, day)


def outcomes(timeline: ibis.Table, prediction: Response, days: Sequence[date]) -> ibis.Table:
    """Only of people who were contacted: whether somebody would have answered is never known."""
    return next_answers(_contacts(timeline, prediction), prediction, days)


def charts(card: dict[str, Any], prediction: Response, project: Project) -> dict[str, str]:
    return binary_charts(card, said(prediction, project))

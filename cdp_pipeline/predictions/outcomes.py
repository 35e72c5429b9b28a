"""What came of it: every score joined to what then happened, and how good the scores of each day have proved to be.

Only days whose horizon has passed. How a model did before it scored anybody is in its card, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.prediction import Prediction

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

OUTCOMES = Table(
    name="predictions.outcomes",
    description="Every score whose horizon has passed, beside what then happened.",
    columns={
        "prediction": Column("string", "The prediction."),
        "day": Column("date", "The day of the score: it foresaw the days after."),
        "person_id": Column("string", "The person."),
        "item": Column("string", "The item scored, where a prediction scores several for each person."),
        "score": Column("float64", "What was foreseen."),
        "label": Column("float64", "What happened: 1 or 0, the amount, or a figure whose mean is the effect."),
        "basis": Column("string", "model: a personal score; prior: a known rate."),
        "model_version": Column("string", "The version that said so."),
    },
    key=("prediction", "day", "person_id", "item"),
    month_of="day",
)
REALISED = Table(
    name="predictions.realised",
    description="How good the scores of a day have proved to be, once their horizon has passed.",
    columns={
        "prediction": Column("string", "The prediction."),
        "day": Column("date", "The day of the scores."),
        "metric": Column("string", "auc, ece (calibration error), lift_10 (lift of the best tenth), people, …"),
        "value": Column("float64", "Its value over everybody scored that day."),
        "known_on": Column("date", "The last of the days foreseen."),
        "model_version": Column("string", "The version that scored."),
        "foreseen": Column(
            "boolean", "Whether the model had seen nothing of these days when it was trained: only then it is judged."
        ),
    },
    key=("prediction", "day", "metric"),
)

Scored = Mapping[date, tuple[int, float]]
"""Per day the number of scores and their mean."""


def scored_days(scores: ibis.Table) -> Scored:
    """The days of a scores table."""
    days = scores.group_by("day").agg(people=scores.count(), mean=scores.score.mean())
    return {row["day"]: (row["people"], row["mean"]) for row in days.to_pyarrow().to_pylist()}


def due(scored: Scored, realised: Iterable[Mapping[str, Any]], horizon: timedelta, days: Sequence[date]) -> list[date]:
    """The days of scores whose outcome is to be looked up when `days` (of knowing) are computed, oldest first.

    Those whose horizon ends on one of `days`, and every earlier one that was never looked up or has been scored anew
    since. `realised` holds the rows of REALISED of this prediction.
    """
    known: dict[date, dict[str, float]] = {}
    for row in realised:
        known.setdefault(row["day"], {})[row["metric"]] = row["value"]

    def differs(day: date) -> bool:
        people, mean = scored[day]
        before = known.get(day)
        return before is None or before["scored"] != people or abs(before["mean_score"] - mean) > 1e-9

    ends = set(days)
    return sorted(day for day in scored if day + horizon <= max(ends) and (day + horizon in ends or differs(day)))


def joined(scores: ibis.Table, happened: ibis.Table, prediction: Prediction, days: Sequence[date]) -> ibis.Table:
    """The rows of OUTCOMES of these days: scores, and what `happened` (person_id, day[, item], label) says of them.

    A row without an item says it of all items of which no other row of the person speaks. Somebody who is not known
    under that id any more (merged into another person since) has no outcome.
    """
    of_days = scores.filter(scores.day.isin(list(days)))
    key = [name for name in ("person_id", "day", "item") if name in scores.columns]
    if "item" in key:
        named, others = happened.filter(happened.item.notnull()), happened.filter(happened.item.isnull())
        rows = of_days.left_join(named.select(*key, _named="label"), key)
        rows = rows.select(*of_days.columns, "_named")
        both = rows.left_join(others.select("person_id", "day", _other="label"), ["person_id", "day"])
        rows = both.select(*of_days.columns, label=ibis.coalesce(both["_named"], both["_other"]))
        rows = rows.filter(rows.label.notnull())
    else:
        rows = of_days.inner_join(happened.select(*key, "label"), key)
    item = rows.item if "item" in key else ibis.null("string")
    return rows.select(
        prediction=ibis.literal(prediction.name),
        day=rows.day,
        person_id=rows.person_id,
        item=item,
        score=rows.score,
        label=rows.label.cast("float64"),
        basis=rows.basis,
        model_version=rows.model_version,
    )


def realised(
    outcomes: pa.Table,
    scored: Scored,
    prediction: Prediction,
    labelled_to: Mapping[str, date],
    measures: Callable[[np.ndarray, np.ndarray], dict[str, float]],
) -> pa.Table:
    """The rows of REALISED for rows of OUTCOMES of one prediction, per day.

    `labelled_to` says until which day each model version knew what happened; `measures` turns (label, score) into
    figures. `scored` and `mean_score` are over all scores of the day, the rest over those with an outcome.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = []
    for day in sorted(set(outcomes["day"].to_pylist())):
        of_day = outcomes.filter(pc.equal(outcomes["day"], day))
        version = of_day["model_version"][0].as_py()
        people, mean = scored[day]
        figures = measures(of_day["label"].to_numpy(), of_day["score"].to_numpy())
        figures |= {"scored": float(people), "mean_score": mean, "with_outcome": float(of_day.num_rows)}
        rows += [
            {
                "prediction": prediction.name, "day": day, "metric": metric, "value": value,
                "known_on": day + prediction.horizon, "model_version": version,
                "foreseen": labelled_to.get(version, day) <= day,
            }
            for metric, value in figures.items() if value == value
        ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=REALISED.schema.to_pyarrow())


def broken_promises(figures: Iterable[Mapping[str, Any]], prediction: Prediction) -> list[str]:
    """What the newest truly foreseen day fell short of, of what its model's gates demanded, in words.

    `figures` holds the rows of REALISED of this prediction.
    """
    foreseen = [row for row in figures if row["foreseen"]]
    newest = max((row["day"] for row in foreseen), default=None)
    found = {row["metric"]: row["value"] for row in foreseen if row["day"] == newest}
    gates = getattr(prediction, "gates", None)
    least = {"auc": getattr(gates, "min_auc", 0), "lift_10": getattr(gates, "min_lift", 0)}
    most = {"ece": getattr(gates, "max_calibration_error", float("inf"))}
    short = [(name, f"at least {bound:g}") for name, bound in least.items() if found.get(name, bound) < bound]
    short += [(name, f"at most {bound:g}") for name, bound in most.items() if found.get(name, bound) > bound]
    said = f"{prediction.name}: scores of {newest} came to"
    return [f"{said} {name.replace('_', ' ')} {found[name]:.3f}, {demanded} was promised" for name, demanded in short]


def labelled_to(models: Iterable[Mapping[str, Any]], prediction: Prediction) -> dict[str, date]:
    """Until which day each version knew what happened: the end of its test window's horizon."""
    import json

    known = {}
    for row in models:
        card = json.loads(row["card"]) if row["name"] == prediction.name else {}
        if card.get("test_cutoff"):
            known[row["version"]] = date.fromisoformat(card["test_cutoff"]) + timedelta(days=card["horizon_days"])
    return known

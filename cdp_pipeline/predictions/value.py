"""`type: value`: how much a person will bring within the horizon, with an interval that holds for 80 % of people.

The estimator is worth.py's, the figures it is judged by are amounts.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.predictions import training
from cdp_pipeline.predictions.amounts import calibration, captured, gini, measure_amounts, realised
from cdp_pipeline.predictions.charts import importance_chart, picture
from cdp_pipeline.predictions.clock import CLOCK, with_clock
from cdp_pipeline.predictions.kind import Champion, Gate, Known, Trained
from cdp_pipeline.predictions.model import matrix
from cdp_pipeline.predictions.scores import chunks, finished, reasons_of
from cdp_pipeline.predictions.tables import scores_table_of, training_table_of
from cdp_pipeline.predictions.targets import totals
from cdp_pipeline.predictions.windows import Cutoffs, card_of, halves, lacking
from cdp_pipeline.predictions.worth import Worth, by_calendar
from cdp_pipeline.spec.prediction import Value
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from matplotlib.axes import Axes

__all__ = [
    "RECIPE", "charts", "inputs", "judge", "outcomes", "realised", "score", "scores_table", "train", "training_set",
    "training_table",
]  # fmt: skip

RECIPE = "loglinear+trees at the level of rhythm x spend/3"
KEYS = ("person_id", "day", "split", "label")


def outcomes(timeline: ibis.Table, prediction: Value, days: Sequence[date]) -> ibis.Table:
    """(person_id, day, label): what everybody seen by each day brought within the horizon."""
    return totals(timeline, prediction, days, prediction.horizon)


def training_set(known: Known, prediction: Value, project: Project, windows: Cutoffs) -> ibis.Table:
    """(person_id, day, split, label, CLOCK, features): what was known at each cut-off, and what was then brought."""
    windows.check_embargo()
    learned = _features(known, prediction, project, windows.days)
    rows = learned.inner_join(
        totals(known.timeline, prediction, windows.days, prediction.labelled), ["person_id", "day"]
    )
    split = ibis.ifelse(rows.day == windows.test, "test", "train")
    learnt = [name for name in learned.columns if name not in ("person_id", "day")]
    return rows.select("person_id", "day", split.name("split"), "label", *learnt)


def inputs(known: Known, prediction: Value, project: Project, day: date) -> ibis.Table:
    """(person_id, CLOCK, features) of the population as of the day."""
    return _features(known, prediction, project, [day]).drop("day")


def _features(known: Known, prediction: Value, project: Project, days: Sequence[date]) -> ibis.Table:
    return with_clock(training.features(known, prediction, project, days), known.timeline, prediction, days)


def training_table(prediction: Value, project: Project, traits: ibis.Schema) -> Table:
    """`predictions.<name>_training`: what the model of this prediction learned from and was tested on."""
    said = words(prediction, project)
    label = Column("float64", f"What they brought in the {prediction.labelled.days} days after.")
    names = (*training.feature_names(prediction, traits), *training.HISTORY, *CLOCK)
    return training_table_of(prediction, label, {name: Column("float64", said[name]) for name in names})


def words(prediction: Value, project: Project) -> dict[str, str]:
    """Every possible feature in a marketer's words."""
    event, days = " or ".join(prediction.target.event), prediction.labelled.days
    return training.words(prediction, project) | {
        **{name: text.format(event=event) for name, text in CLOCK.items()},
        "_expected": f"days with {event} to be expected within {days} days by their own rhythm",
        "_worth": f"what a day with {event} of theirs is likely to bring",
        "_value": f"what they would bring within {days} days by their own rhythm",
        "_own": f"what they would bring within {days} days at their own average",
    }


def train(rows: pa.Table, prediction: Value, seed: int = 0, champion: Worth | None = None) -> Trained:
    """Learn from the split 'train', measure on the untouched split 'test', beside BG/NBD x Gamma-Gamma, what people
    brought per day so far, and the champion where there is one.

    With less than the declared minimum there is no model: `missing` names the number that lacks.
    """
    import sklearn.ensemble  # noqa: F401 - brings the thread pool that is limited below
    from threadpoolctl import threadpool_limits

    past, test = halves(rows, prediction)
    label = matrix(past, ("label",))[:, 0]
    card = card_of(past, test, seed, RECIPE, int((label > 0).sum()))
    missing = _missing(past, test, prediction)
    if missing:
        everybody = matrix(rows, ("label",))[:, 0]
        prior = {"amount": float(everybody.mean()) if len(everybody) else 0.0}
        return Trained(None, {}, missing, card, prior)
    with threadpool_limits(1):
        scorer = _learn(past, test, prediction, seed)
        metrics, evidence = _prove(scorer, test, seed, champion)
    return Trained(scorer, metrics, None, card | evidence, {"amount": float(label.mean())})


def _learn(past: pa.Table, test: pa.Table, prediction: Value, seed: int) -> Worth:
    import numpy as np

    listed = (name for name in past.column_names if name not in (*KEYS, *CLOCK))
    names = tuple(name for name in listed if len(np.unique(matrix(past, (name,)))) > 1)
    labelled = prediction.labelled
    return Worth.fit(
        past, test.drop_columns("label"), names, labelled.days, prediction.horizon.days, prediction.discount, seed
    )


def _prove(scorer: Worth, test: pa.Table, seed: int, champion: Worth | None) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics on the test window beside simpler rivals, and what the charts are drawn from."""
    label = matrix(test, ("label",))[:, 0]
    score, low, high = scorer.within(test, seed).scores(test)
    since_first, amount = matrix(test, ("_since_first", "_amount")).T
    rivals = {
        "rhythm": by_calendar(test, scorer.labelled_days),
        "rate": _per_day(amount, since_first) * scorer.labelled_days,
    }
    if champion is not None:
        rivals["champion"] = champion.within(test, seed).scores(test)[0]
    evidence = {
        "features": list(scorer.features),
        "level": scorer.level,
        "season": float(matrix(test, ("_ahead",))[0, 0]) / scorer.labelled_days,
        "calibration": calibration(label, score),
        "gains": [captured(label, score, step / 20) for step in range(1, 21)],
        "importance": _importance(scorer, test, label, seed),
    }
    return measure_amounts(label, score, low, high, rivals, seed), evidence


def _per_day(amount: np.ndarray, since_first: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.nan_to_num(amount) / np.maximum(np.nan_to_num(since_first), 30)


def _missing(past: pa.Table, test: pa.Table, prediction: Value) -> str | None:
    """The first number that is too small to learn from, in words."""
    import pyarrow.compute as pc

    brought = [int((matrix(part, ("label",)) > 0).sum()) for part in (past, test)]
    have = {
        "people in the training windows": (pc.count_distinct(past["person_id"]).as_py(), prediction.minimum.people),
        "people there who brought something": (brought[0], prediction.minimum.positives),
        "people in the test window who brought something": (brought[1], 1),
    }
    return lacking(have)


def _importance(model: Worth, test: pa.Table, label: np.ndarray, seed: int) -> dict[str, float]:
    """How much Gini is lost when one feature is shuffled among people, most important first."""
    import numpy as np

    random, names = np.random.default_rng(seed), model.linear.features
    rows = random.choice(len(label), min(len(label), 20_000), replace=False)
    values, label = model.inputs(test)[rows], label[rows]
    whole, lost = gini(label, model.learned(values)), {}
    for i, name in enumerate(names):
        shuffled = values.copy()
        shuffled[:, i] = random.permutation(shuffled[:, i])
        lost[name] = whole - gini(label, model.learned(shuffled))
    return dict(sorted(lost.items(), key=lambda item: -item[1]))


def judge(trained: Trained, prediction: Value) -> list[Gate]:
    """Every gate of a model of amounts; never absolute error, which foreseeing nothing would win."""
    if trained.missing:
        return [Gate("minimum_data", False, trained.missing)]
    m, gates = trained.metrics, prediction.gates
    verdicts = [
        Gate("minimum_data", True, f"learned from {trained.card['train_people']} people"),
        Gate("gini", m["gini"] >= gates.min_gini, f"Gini {m['gini']:.3f}, at least {gates.min_gini:g} is needed"),
        Gate(
            "not_worse_than_rhythm",
            m["gain_over_rhythm"] >= -gates.max_gini_lost,
            f"Gini {m['gini']:.3f}, rhythm and amounts alone (BG/NBD x Gamma-Gamma) reach {m['rhythm_gini']:.3f}",
        ),
        Gate(
            "total",
            abs(m["total_ratio"] - 1) <= gates.max_total_error,
            f"foresaw {m['total_ratio']:.2f} times what came, off by at most {gates.max_total_error:g} is allowed",
        ),
        Gate(
            "interval",
            m["coverage"] >= gates.min_coverage,
            f"{m['coverage']:.0%} of people were within their interval, at least {gates.min_coverage:.0%} is needed",
        ),
    ]
    if "champion_gini" in m:
        words = f"Gini {m['gini']:.3f}, the champion reaches {m['champion_gini']:.3f}"
        verdicts.append(Gate("not_worse_than_champion", m["gain_over_champion_high"] >= 0, words))
    return verdicts


def scores_table(prediction: Value) -> Table:
    """`predictions.<name>`: one amount per person and day."""
    worth = f", a year later worth {prediction.discount:.0%} less" if prediction.discount else ""
    interval = {
        "low": Column("float64", "It will be less for a tenth of people; 0 where a tenth or more bring nothing."),
        "high": Column("float64", "80 % of people will lie between low and high."),
    }
    return scores_table_of(
        prediction,
        f"Amount within the next {prediction.horizon.days} days{worth}.",
        between=interval,
        basis="model: personal; prior: the mean of everybody, where there is no model.",
    )


def score(
    rows: pa.Table | pa.RecordBatchReader, champion: Champion, prediction: Value, project: Project, day: date
) -> pa.Table:
    """The rows of `scores_table` for one day, best first; equal scores are ranked by person id."""
    said = words(prediction, project)
    parts = [_scored(part, champion, said) for part in chunks(rows)]
    return finished(parts, champion, prediction, scores_table(prediction), day)


def _scored(rows: pa.Table, champion: Champion, said: dict[str, str]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    model, count = champion.scorer, rows.num_rows
    if model is None:
        amount = np.full(count, champion.prior.get("amount", 0.0))
        low = high = pa.nulls(count, pa.float64())
        why = pa.array(np.full(count, f"the mean of everybody: {champion.why_prior}"), pa.string())
    else:
        values = model.inputs(rows)
        amount, low, high = (pa.array(np.round(column, 2)) for column in model.scores(rows, values))
        names = [said.get(name, name) for name in model.linear.features]
        why = reasons_of(model.linear.contributions(values), names, values)
    basis = pa.array(np.full(count, "prior" if model is None else "model"), pa.string())
    columns = {"score": amount, "low": low, "high": high, "basis": basis, "reasons": why}
    return pa.table({"person_id": rows["person_id"]} | columns)


def charts(card: dict[str, Any], prediction: Value, project: Project) -> dict[str, str]:
    """Pictures of amounts by title; none where there is no model."""
    if "calibration" not in card:
        return {}

    def honest(axes: Axes) -> None:
        said, came, _ = zip(*card["calibration"], strict=True)
        axes.plot(range(1, len(said) + 1), said, marker="o", label="foreseen")
        axes.plot(range(1, len(came) + 1), came, marker="s", label="came")
        axes.set(xlabel="tenth of people, lowest scores first", ylabel="mean amount", yscale="symlog")
        axes.legend(loc="upper left")

    def captures(axes: Axes) -> None:
        shares = [step / 20 for step in range(21)]
        axes.plot(shares, [0, *card["gains"]], marker=".", label="model")
        axes.plot([0, 1], [0, 1], color="lightgrey", label="at random")
        axes.set(xlabel="share of people taken, best first", ylabel="share of the amount found", xlim=(0, 1))
        axes.legend(loc="lower right")

    return {
        "calibration": picture("Foreseen and came, on the test window", honest),
        "gains": picture("Amount found on the test window", captures),
        "importance": importance_chart(card, words(prediction, project), "Gini"),
    }

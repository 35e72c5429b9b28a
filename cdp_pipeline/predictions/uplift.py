"""`type: uplift`: per person, how much likelier a contact makes it that they do something; only of randomised contacts.

The estimators are effects.py, what they are judged by is qini.py. Where targeting has no value it says so, and
everybody gets the average effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.predictions.charts import picture
from cdp_pipeline.predictions.contacts import drawn
from cdp_pipeline.predictions.item_metrics import codes
from cdp_pipeline.predictions.kind import Champion, Gate, Known, Trained
from cdp_pipeline.predictions.logistic import Logistic
from cdp_pipeline.predictions.metrics import ranking
from cdp_pipeline.predictions.model import log_scaled, matrix
from cdp_pipeline.predictions.qini import (
    SHARE,
    Order,
    best,
    chance_area,
    effect,
    measure_effects,
    sample_ratio,
    together,
)
from cdp_pipeline.predictions.scores import chunks, finished, reasons_of
from cdp_pipeline.predictions.tables import scores_table_of, training_table_of
from cdp_pipeline.predictions.training import HISTORY, feature_names, features, inputs, words
from cdp_pipeline.predictions.windows import Cutoffs, card_of, halves, lacking
from cdp_pipeline.spec.prediction import Uplift
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from matplotlib.axes import Axes

    from cdp_pipeline.predictions.effects import Effects

__all__ = [
    "RECIPE", "charts", "inputs", "judge", "outcomes", "realised", "score", "scores_table", "train", "training_set",
    "training_table",
]  # fmt: skip
RECIPE = "t/s-logistic, t-trees, transformed class/1"
BY_CHANCE = 0.001
"""A share of treated that comes by chance less often than this did not come by chance."""
FOR_FOLDS = 30
"""Of either arm who did it, at least: a quarter of the people, from which a learner is chosen, must not be without."""
ALIKE = 0.02
"""How far beyond .5 features may rank the arms, where there are so many people that chance leaves less room."""


def training_table(prediction: Uplift, project: Project, traits: ibis.Schema) -> Table:
    said = words(prediction, project)
    label = Column("int64", f"1 if they did it within {prediction.target.within.days} days of that.")
    arm = Column("int64", "1 if the first contact after it reached them, 0 if they were held out of it.")
    learned = {name: Column("float64", said[name]) for name in (*feature_names(prediction, traits), *HISTORY)}
    return training_table_of(prediction, label, {"treated": arm, **learned})


def training_set(known: Known, prediction: Uplift, project: Project, windows: Cutoffs) -> ibis.Table:
    windows.check_embargo()
    learned = features(known, prediction, project, windows.days)
    rows = learned.inner_join(drawn(known.timeline, prediction, windows.days), ["person_id", "day"])
    split = ibis.ifelse(rows.day == windows.test, "test", "train")
    learnt = [name for name in learned.columns if name not in ("person_id", "day")]
    return rows.select("person_id", "day", split.name("split"), "label", "treated", *learnt)


def outcomes(timeline: ibis.Table, prediction: Uplift, days: Sequence[date]) -> ibis.Table:
    """(person_id, day, label): a figure whose mean is the effect, of people for whom a coin was thrown.

    What a contact changed in a single person is never known. Their outcome counts 1 / share if they were treated and
    -1 / (1 - share) if not, so that the mean over any people is what the contact changed among them.
    """
    rows, share = drawn(timeline, prediction, days), prediction.treatment.share
    worth = ibis.ifelse(rows.treated == 1, 1 / share, -1 / (1 - share))
    return rows.select("person_id", "day", label=rows.label * worth)


def realised(label: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """effect (of contacting everybody) and effect_of_best (on the best SHARE of people) of labels as `outcomes`."""
    first = best(score)
    return {"effect": float(label.mean()), "effect_of_best": float((label * first).sum() / first.sum())}


def train(training: pa.Table, prediction: Uplift, seed: int = 0, champion: Effects | None = None) -> Trained:
    """Learn from the split 'train'; prove on people no model has seen: by cross-fitting there, and on the test window.

    The choice of the learner is part of what is cross-fitted, and done anew three times over: so the interval of its
    Qini knows of the choice and of the luck of the folds.
    """
    import pyarrow as pa
    import sklearn.ensemble  # noqa: F401 - brings the thread pool that is limited below
    from threadpoolctl import threadpool_limits

    from cdp_pipeline.predictions.effects import REPEATS, Effects, unseen

    past, test = halves(training, prediction)
    both = pa.concat_tables([past, test])
    names = tuple(name for name in _learnt(past) if _varies(past, name))
    known = _missing(past, test, prediction)
    card = card_of(past, test, seed, RECIPE, sum(past["label"].to_pylist()), [] if known else names)
    if known:
        return Trained(None, {}, known, card)
    label, treated = matrix(both, ("label", "treated")).T
    people = codes(both["person_id"])
    # One thread: the same model to the last byte on every machine.
    with threadpool_limits(1):
        arms = _arms(both, names, treated, people, prediction, seed)
        scorer = Effects.fit(past, names, seed)
        newest = scorer.change(test)

        def of_fold(fold: np.ndarray) -> np.ndarray:
            learned = Effects.fit(past.filter(pa.array(~fold)), names, seed, repeats=1)
            return learned.change(past.filter(pa.array(fold)))

        said = [_joined(unseen(of_fold, people[: past.num_rows], seed + one), newest) for one in range(REPEATS)]
        metrics = arms | together([measure_effects(label, treated, scores, people, {}, seed) for scores in said])
        rivals = {} if champion is None else {"champion": champion.change(test)}
        at = slice(past.num_rows, None)
        of_newest = measure_effects(label[at], treated[at], newest, codes(test["person_id"]), rivals, seed)
    metrics |= {f"newest_{name}": of_newest[name] for name in ("qini", "qini_low", "qini_high")}
    metrics |= {name: value for name, value in of_newest.items() if "champion" in name}
    evidence = {
        "learner": scorer.learner,
        "learners": scorer.chosen_by,
        "verdict": _verdict(metrics),
        "curve": _curve(label, treated, said),
        "fifths": _fifths(label, treated, said[0]),
    }
    prior = {name: metrics[name] for name in ("effect", "effect_low", "effect_high")} if _fair(metrics) else {}
    return Trained(scorer, metrics, None, card | evidence, prior)


def _learnt(rows: pa.Table) -> list[str]:
    return [name for name in rows.column_names if name not in ("person_id", "day", "split", "treated", "label")]


def _varies(rows: pa.Table, name: str) -> bool:
    import numpy as np

    return len(np.unique(matrix(rows, (name,)))) > 1


def _joined(past: np.ndarray, test: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.concatenate([past, test])


def _missing(past: pa.Table, test: pa.Table, prediction: Uplift) -> str | None:
    """The first number that is too small to learn from, in words."""
    import pyarrow.compute as pc

    least, have = prediction.minimum, {}
    for where, rows, people, positives in (
        ("training windows", past, least.people, max(least.positives, FOR_FOLDS)), ("test window", test, 2, 1)
    ):  # fmt: skip
        for arm, said in ((1, "treated"), (0, "held out")):
            of_arm = rows.filter(pc.equal(rows["treated"], arm))
            did = pc.sum(of_arm["label"]).as_py() or 0
            have[f"{said} people in the {where}"] = (pc.count_distinct(of_arm["person_id"]).as_py(), people)
            have[f"{said} people in the {where} who did it"] = (did, positives)
            have[f"{said} people in the {where} who did not"] = (of_arm.num_rows - did, positives)
    return lacking(have)


def _arms(
    rows: pa.Table, names: tuple[str, ...], treated: np.ndarray, people: np.ndarray, prediction: Uplift, seed: int
) -> dict[str, float]:
    """Whether a coin decided the arms: their shares are as meant, and nothing known before tells who was treated."""
    from cdp_pipeline.predictions.effects import PENALTY, unseen

    values = log_scaled(matrix(rows, names))[0]
    told = unseen(
        lambda fold: Logistic.fit(values[~fold], treated[~fold], PENALTY).probability(values[fold]), people, seed
    )
    return {
        "treated_share": float(treated.mean()),
        "meant_share": prediction.treatment.share,
        "sample_ratio": sample_ratio(treated, prediction.treatment.share),
        "arms_auc": ranking(treated, told),
        "arms_auc_most": 0.5 + max(ALIKE, 4 * chance_area(treated)),
    }


def _fair(m: dict[str, float]) -> bool:
    return m["sample_ratio"] >= BY_CHANCE and m["arms_auc"] <= m["arms_auc_most"]


def _valuable(m: dict[str, float]) -> bool:
    return m["qini_low"] > 0 and m["gain_best_low"] > 0


def _verdict(m: dict[str, float]) -> str:
    """What is known of the contact, in words."""
    if not _fair(m):
        return "nothing can be said: no coin decided who was treated"
    average = f"the contact changes the probability by {_between(m, 'effect')} on average"
    if _valuable(m):
        return (
            f"targeting has value: among the best {SHARE:.0%} it changes {_between(m, 'gain_best')} more than among "
            f"everybody (Qini {_between(m, 'qini')}); {average}"
        )
    return (
        f"no targeting value: the best {SHARE:.0%} gain {_between(m, 'gain_best')} more than everybody, "
        f"Qini {_between(m, 'qini')}; {average}"
    )


def _between(m: dict[str, float], name: str) -> str:
    return f"{m[name]:+.3f} ({m[f'{name}_low']:+.3f} to {m[f'{name}_high']:+.3f})"


def judge(trained: Trained, prediction: Uplift) -> list[Gate]:
    """Every gate; people are only scored one by one where a coin decided, and targeting has value."""
    if trained.missing:
        return [Gate("minimum_data", False, trained.missing)]
    m = trained.metrics
    verdicts = [
        Gate("minimum_data", True, f"learned from {trained.card['train_people']} people"),
        Gate(
            "sample_ratio",
            m["sample_ratio"] >= BY_CHANCE,
            f"{m['treated_share']:.1%} were treated, {m['meant_share']:.1%} were meant to be "
            f"(by chance: p = {m['sample_ratio']:.2g})",
        ),
        Gate(
            "arms_alike",
            m["arms_auc"] <= m["arms_auc_most"],
            f"what was known before tells the treated with AUC {m['arms_auc']:.3f}, at most {m['arms_auc_most']:.3f} "
            "comes from a coin",
        ),
        Gate("targeting_value", _fair(m) and _valuable(m), trained.card["verdict"]),
        Gate(
            "newest_window",
            m["newest_qini_high"] >= 0,
            f"Qini {_between(m, 'newest_qini')} on the newest window",
        ),
    ]
    if "champion_qini" in m:
        said = f"Qini {m['newest_qini']:.3f} on the newest window, the champion reaches {m['champion_qini']:.3f}"
        verdicts.append(Gate("not_worse_than_champion", m["gain_over_champion_high"] >= 0, said))
    return verdicts


def scores_table(prediction: Uplift) -> Table:
    """`predictions.<name>`: what a contact would change, per person and day."""
    return scores_table_of(
        prediction,
        f"How much likelier a contact makes it within {prediction.target.within.days} days, -1 to 1.",
        basis="model: personal; prior: the average effect, where targeting has no value.",
    )


def score(
    rows: pa.Table | pa.RecordBatchReader, champion: Champion, prediction: Uplift, project: Project, day: date
) -> pa.Table:
    """The rows of `scores_table` for one day; nobody's where not even an average effect is known."""
    said, parts = words(prediction, project), []
    if champion.scorer is not None or "effect" in champion.prior:
        parts = [_scored(part, champion, said) for part in chunks(rows)]
    return finished(parts, champion, prediction, scores_table(prediction), day)


def _scored(rows: pa.Table, champion: Champion, said: dict[str, str]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    model, count = champion.scorer, rows.num_rows
    if model is None:
        change = np.full(count, champion.prior["effect"])
        why = pa.array(np.full(count, f"the average effect: {champion.why_prior}"), pa.string())
    else:
        change, given = model.change(rows), model.contributions(rows)
        if given is None:
            why = pa.array(np.full(count, f"told by {model.learner}, which say no single reason"), pa.string())
        else:
            named = [said.get(name, name) for name in model.features]
            why = reasons_of(given, named, matrix(rows, model.features))
    basis = pa.array(np.full(count, "prior" if model is None else "model"), pa.string())
    columns = {"score": np.round(change, 6), "basis": basis, "reasons": why}
    return pa.table({"person_id": rows["person_id"]} | columns)


def _curve(label: np.ndarray, treated: np.ndarray, said: list[np.ndarray]) -> list[float]:
    """What contacting the best 0, 5, … 100 % brings more than none, per person there is."""
    import numpy as np

    steps, total = np.linspace(0, len(label), 21), np.zeros(21)
    for scores in said:
        total += np.interp(steps, *Order(label, treated, scores).curve())
    # A gain counts the treated only; of everybody's contacts it would be so much more.
    return [float(gain) for gain in total / len(said) / treated.sum()]


def _fifths(label: np.ndarray, treated: np.ndarray, score: np.ndarray) -> list[tuple[float, float]]:
    """(mean score, effect) per fifth of people, highest scores first."""
    import numpy as np

    parts = np.array_split(np.argsort(-score, kind="stable"), 5)
    return [(float(score[one].mean()), effect(label[one], treated[one], np.ones(len(one)))) for one in parts]


def charts(card: dict[str, Any], prediction: Uplift, project: Project) -> dict[str, str]:
    """Pictures by title; none where there is no model."""
    if "curve" not in card:
        return {}

    def qini(axes: Axes) -> None:
        shares = [step / 20 for step in range(21)]
        axes.plot(shares, card["curve"], marker=".", label="best first")
        axes.plot([0, 1], [0, card["curve"][-1]], color="lightgrey", label="at random")
        axes.set(xlabel="share of people contacted", ylabel="more who do it, per person there is", xlim=(0, 1))
        axes.legend(loc="lower right")

    def honest(axes: Axes) -> None:
        foreseen, came = zip(*card["fifths"], strict=True)
        axes.plot(range(1, 6), foreseen, marker="o", label="foreseen")
        axes.plot(range(1, 6), came, marker="s", label="came")
        axes.axhline(0, color="lightgrey")
        axes.set(xlabel="fifth of people, highest scores first", ylabel="what a contact changes")
        axes.legend(loc="upper right")

    return {
        "qini": picture("What contacts bring, on people not seen before", qini),
        "effects": picture("Effect by fifth of people, on people not seen before", honest),
    }

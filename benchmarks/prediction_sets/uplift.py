"""Who is moved by an e-mail: women's and men's mail of the MineThatData challenge (Hillstrom), half of its rows

Outcome: a visit. There is no time in the data: people are split into two folds three times over, a model learned on one
fold speaks of the other, and figures are those of the three splits together. The product's own training and scores,
over a training set made straight from the file. An arm of the women's mail whose people got each other's features has
no heterogeneity by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from cdp_pipeline.predictions.effects import Effects, unseen
from cdp_pipeline.predictions.logistic import Logistic
from cdp_pipeline.predictions.model import log_scaled, matrix
from cdp_pipeline.predictions.qini import measure_effects, together
from cdp_pipeline.predictions.uplift import judge, train
from cdp_pipeline.spec.prediction import Uplift
from prediction_sets.row import Row

SPLITS = 3
LEARNED, TESTED = date(2008, 1, 1), date(2008, 3, 1)
PREDICTION = Uplift.model_validate(
    {
        "kind": "prediction", "type": "uplift", "name": "moved_by_mail", "description": "Visits because of the mail.",
        "treatment": {"event": ["mailed", "held_out"], "arm": "segment", "treated": ["mail"], "control": ["none"]},
        "target": {"event": ["visit"], "within": "14 days"}, "horizon": "30 days",
    }
)  # fmt: skip
ARMS = {"women's mail": "Womens E-Mail", "men's mail": "Mens E-Mail"}


def arm(data: Path, segment: str) -> pa.Table:
    """Those who got the mail and those who got none, as uplift.training_set makes rows; split and day still to come."""
    found = duckdb.sql(
        f"""SELECT row_id::VARCHAR AS person_id, (segment <> 'No E-Mail')::BIGINT AS treated, visit::BIGINT AS label,
                   recency::DOUBLE AS recency, history::DOUBLE AS history, mens::DOUBLE AS mens,
                   womens::DOUBLE AS womens, newbie::DOUBLE AS newbie,
                   (zip_code = 'Rural')::DOUBLE AS rural, (zip_code = 'Urban')::DOUBLE AS urban,
                   (channel = 'Web')::DOUBLE AS web, (channel = 'Phone')::DOUBLE AS phone
            FROM '{data}/hillstrom.csv' WHERE segment IN ('No E-Mail', '{segment}') ORDER BY row_id"""
    )
    return found.to_arrow_table()


def without_heterogeneity(rows: pa.Table) -> pa.Table:
    """The same people, each with the features of somebody else."""
    others = pa.array(np.random.default_rng(0).permutation(rows.num_rows))
    own = rows.select(["person_id", "treated", "label"])
    for name in rows.column_names[3:]:
        own = own.append_column(name, rows[name].take(others))
    return own


def halved(rows: pa.Table, test: np.ndarray) -> pa.Table:
    """The rows as a training set whose test window are the rows chosen."""
    return rows.append_column("split", pa.array(np.where(test, "test", "train"))).append_column(
        "day", pa.array([TESTED if one else LEARNED for one in test])
    )


def rows(data: Path, splits: int = SPLITS) -> Iterator[Row]:
    women, men = (arm(data, segment) for segment in ARMS.values())
    for name, people, value in (
        ("women's mail", women, True),
        ("men's mail", men, False),
        ("women's mail, features of others", without_heterogeneity(women), False),
    ):
        yield from _of_arm(name, people, value, splits)


def _of_arm(name: str, people: pa.Table, value: bool, splits: int) -> Iterator[Row]:
    label, treated = matrix(people, ("label", "treated")).T
    each = np.arange(len(label))
    names = tuple(people.column_names[3:])
    values = log_scaled(matrix(people, names))[0]
    found, says = [], []
    for split in range(splits):

        def ours(fold: np.ndarray, split: int = split) -> np.ndarray:
            trained = train(halved(people, fold), PREDICTION, split)
            assert isinstance(trained.scorer, Effects), trained.missing
            gates = {gate.name: gate.passed for gate in judge(trained, PREDICTION)}
            assert gates["sample_ratio"] and gates["arms_alike"]
            says.append(gates["targeting_value"])
            return trained.scorer.change(people.filter(pa.array(fold)))

        def response(fold: np.ndarray) -> np.ndarray:
            got = ~fold & (treated == 1)
            return Logistic.fit(values[got], label[got], 30.0).probability(values[fold])

        rivals = {
            "response model": unseen(response, each, split),
            "random": np.random.default_rng(0).random(len(label)),
        }
        found.append(measure_effects(label, treated, unseen(ours, each, split), each, rivals, split))
    m = together(found)
    window = f"{len(label):,} people, 2 folds x {splits}"
    yield Row(name, window, "effect of the mail", m["effect"], None, None, m["effect_low"], m["effect_high"])
    yield Row(name, window, "Qini", m["qini"], None, None, m["qini_low"], m["qini_high"])
    yield Row(
        name, window, "gain of the best 30 %", m["gain_best"], "everybody", 0.0, m["gain_best_low"], m["gain_best_high"]
    )
    for rival in rivals:
        gain = [m[f"gain_over_{rival}{end}"] for end in ("_low", "_high")]
        yield Row(name, window, "Qini", m["qini"], rival, m[f"{rival}_qini"], *gain)
    demanded = "1: targeting has value" if value else "0: no targeting value"
    share = sum(says) / len(says)
    yield Row(
        name, window, f"verdict: value, share of {len(says)} runs", share, demanded=demanded, met=share == float(value)
    )

"""What the estimator finds, what it must not find, and when it says that it cannot say anything."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cdp_pipeline.predictions.gates import judge
from cdp_pipeline.predictions.kind import Trained
from cdp_pipeline.predictions.metrics import ranking
from cdp_pipeline.predictions.model import Scorer, is_new, matrix, train
from cdp_pipeline_tests.predictions.people import TRAIN_DAYS, features, prediction, to_score, training, truth


@pytest.fixture(scope="module")
def planted() -> Trained:
    return train(training(2000), prediction())


def scorer_of(trained: Trained) -> Scorer:
    assert isinstance(trained.scorer, Scorer)
    return trained.scorer


def test_a_planted_signal_is_found_almost_wholly_and_passes_every_gate(planted: Trained) -> None:
    test = training(2000).filter(pc.equal(training(2000)["split"], "test"))
    best = ranking(matrix(test, ("label",))[:, 0], truth(*matrix(test, ("signal", "curve")).T))
    assert planted.metrics["auc"] > best - 0.03
    assert planted.metrics["auc_low"] > planted.metrics["baseline_auc"]
    assert planted.metrics["ece"] < 0.05
    assert [gate.words for gate in judge(planted, prediction()) if not gate.passed] == []


def test_probabilities_are_near_the_planted_ones(planted: Trained) -> None:
    rows, columns = to_score(4000), features(4000, 9)
    said, prior = scorer_of(planted).probability(rows)
    planned = truth(columns["signal"], columns["curve"])[~prior]
    error = np.abs(said[~prior] - planned).mean()
    assert error < 0.12
    assert error < 0.5 * np.abs(planned - planned.mean()).mean()
    assert np.corrcoef(said[~prior], planned)[0, 1] > 0.9


def test_noise_fails_the_gates() -> None:
    trained = train(training(planted=False), prediction())
    failed = {gate.name: gate.words for gate in judge(trained, prediction()) if not gate.passed}
    assert 0.4 < trained.metrics["auc"] < 0.6
    assert "at least 0.6 is needed" in failed["auc"]


def test_the_same_data_in_any_order_make_the_same_model(planted: Trained) -> None:
    rows = training(2000)
    order = np.random.default_rng(5).permutation(rows.num_rows)
    again = train(rows.take(pa.array(order)), prediction())
    assert again.metrics == planted.metrics
    assert again.card == planted.card
    people = to_score(500)
    assert (scorer_of(again).probability(people)[0] == scorer_of(planted).probability(people)[0]).all()


def test_too_little_data_gives_no_model_and_names_the_missing_number() -> None:
    trained = train(training(people=30), prediction(minimum={"people": 31, "positives": 5}))
    assert trained.scorer is None
    assert trained.missing == "needs 31 people in the training windows, has 30"
    few = train(training(people=30), prediction(minimum={"people": 10, "positives": 500}))
    assert few.missing is not None and few.missing.startswith("needs 500 people there for whom it happened, has ")
    label = matrix(training(people=30), ("label",))
    assert trained.prior["rate"] == pytest.approx((label.sum() + 0.5) / (len(label) + 1))
    assert [gate.name for gate in judge(trained, prediction())] == ["minimum_data"]


def test_an_empty_training_set_gives_an_even_chance() -> None:
    trained = train(training().slice(0, 0), prediction())
    assert trained.missing == "needs 200 people in the training windows, has 0"
    assert trained.prior == {"rate": 0.5}


def test_a_signal_that_tells_all_is_no_obstacle() -> None:
    rows = training(people=300)
    told = pc.cast(pc.greater(rows["signal"], 0), pa.int64())
    trained = train(rows.set_column(3, "label", told), prediction())
    assert trained.metrics["auc"] > 0.99
    assert trained.metrics["ece"] < 0.1


def test_newcomers_get_the_rate_of_newcomers(planted: Trained) -> None:
    rows = to_score(2000)
    score, prior = scorer_of(planted).probability(rows)
    assert (prior == is_new(rows)).all()
    assert 0 < prior.sum() < 1000
    assert score[prior] == pytest.approx(scorer_of(planted).rate_new)


def test_contributions_of_the_logistic_add_up_to_its_log_odds(planted: Trained) -> None:
    model = scorer_of(planted).model
    values = model.inputs(to_score(50))
    chance = model.linear.probability(values)
    odds = model.linear.contributions(values).sum(axis=1) + model.linear.intercept
    assert np.log(chance / (1 - chance)) == pytest.approx(odds)


def test_a_target_that_does_not_happen_learns_the_complement() -> None:
    rows = training(people=400)
    turned = rows.set_column(3, "label", pc.subtract(1, rows["label"]))
    absent = train(turned, prediction(target={"event": ["order"], "happens": False}))
    present = train(rows, prediction())
    assert absent.metrics["rhythm_auc"] == pytest.approx(present.metrics["rhythm_auc"])
    people = to_score(200)
    apart = scorer_of(absent).probability(people)[0] + scorer_of(present).probability(people)[0]
    assert apart == pytest.approx(np.ones(200), abs=0.15)


def test_what_was_not_known_of_anybody_in_the_first_windows_does_not_keep_a_model_from_being_trained() -> None:
    rows = training(400)
    early = pc.less(rows["day"], TRAIN_DAYS[-1])
    young = rows.set_column(
        rows.column_names.index("signal"), "signal", pc.if_else(early, pa.scalar(None, pa.float64()), rows["signal"])
    )
    said, _ = scorer_of(train(young, prediction())).probability(to_score(100))
    assert np.isfinite(said).all()

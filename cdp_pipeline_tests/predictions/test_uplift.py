"""Who is moved by a contact: coins are read as a loop does, Qini is what one gets by hand, and value is only claimed
where there is some."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import ibis
import joblib
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from cdp_pipeline.predictions import effects, uplift
from cdp_pipeline.predictions.kind import Champion, Known, Trained
from cdp_pipeline.predictions.leaks import looked_for
from cdp_pipeline.predictions.qini import Order, Qini, best, effect, measure_effects, sample_ratio, together
from cdp_pipeline.predictions.registry import MODELS, champion, renew
from cdp_pipeline.predictions.windows import Cutoffs, LeakageError
from cdp_pipeline.spec.prediction import Uplift
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.traits.shop import DAYS, event, project, timeline_rows, trait

SHOP = project(trait("orders", "count"))
DAY, TRAINED = date(2024, 6, 1), date(2024, 4, 1)


def prediction(**fields: Any) -> Uplift:
    """Mails are `visit`s here, their arm is the channel, and orders are what they are to bring."""
    document = {
        "kind": "prediction", "type": "uplift", "name": "moved", "description": "Who is moved.",
        "treatment": {"event": ["visit"], "arm": "channel", "treated": ["mail"], "control": ["held"]},
        "target": {"event": ["order"], "within": "2 days"}, "horizon": "5 days",
        "minimum": {"people": 50, "positives": 20},
    }  # fmt: skip
    return Uplift.model_validate(document | fields)


def people(moved: bool, count: int = 1000, seed: int = 3, coin: bool = True) -> pa.Table:
    """Contacts of two windows: a mail moves everybody alike, or only those of a high `taste`."""
    parts = []
    for split, day in (("train", TRAINED), ("test", DAY)):
        random = np.random.default_rng([seed, day.month])
        taste, noise = random.normal(size=count), random.exponential(10, count)
        treated = random.random(count) < (0.5 if coin else 1 / (1 + np.exp(-taste)))
        change = np.where(taste > 0, 0.5, 0.0) if moved else np.full(count, 0.25)
        label = random.random(count) < 0.2 + change * treated
        parts.append(
            pa.table(
                {
                    "person_id": [f"{split}_{number:05}" for number in range(count)],
                    "day": [day] * count, "split": [split] * count, "treated": treated.astype("int64"),
                    "label": label.astype("int64"), "taste": taste, "noise": noise,
                }
            )
        )  # fmt: skip
    return pa.concat_tables(parts)


def gates(trained: Trained) -> dict[str, bool]:
    return {gate.name: gate.passed for gate in uplift.judge(trained, prediction())}


def by_hand(rows: list[tuple[int, int, float]]) -> list[tuple[int, float]]:
    """(people, gained) of (label, treated, score): after each distinct score, treated hits - control hits × ratio."""
    points = [(0, 0.0)]
    for score in sorted({row[2] for row in rows}, reverse=True):
        taken = [row for row in rows if row[2] >= score]
        given, held = ([row for row in taken if row[1] == arm] for arm in (1, 0))
        ratio = len(given) / len(held) if held else 0
        points.append((len(taken), sum(row[0] for row in given) - sum(row[0] for row in held) * ratio))
    return points


def area(points: list[tuple[int, float]]) -> float:
    whole = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
    return whole - points[-1][0] * points[-1][1] / 2


def test_qini_is_what_one_computes_on_paper() -> None:
    label, treated = np.array([1, 0, 0, 1]), np.array([1, 0, 1, 0])
    right = Qini(label, treated, np.array([0.9, 0.8, 0.7, 0.6]))
    assert right.own.curve()[1].tolist() == [0, 1, 1, 1, 0]  # 1 - 0; 1 - 0; 1 - 0 × 2; 1 - 1 × 2 / 2
    assert right.of() == 1  # area .5 + 1 + 1 + .5 = 3, as the perfect order has: .5 + 2 + .5
    wrong = Qini(label, treated, np.array([0.6, 0.7, 0.8, 0.9]))
    assert wrong.own.curve()[1].tolist() == [0, 0, -1, -0.5, 0]
    assert wrong.of() == pytest.approx(-1.5 / 3)
    assert Qini(label, treated, np.ones(4)).of() == 0


some_rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=2, max_size=12
)


@settings(max_examples=40)
@given(some_rows, st.data())
def test_curves_are_those_of_a_loop_and_a_weight_is_a_row_that_often(
    rows: list[tuple[int, int, float]], data: st.DataObject
) -> None:
    weight = np.array(data.draw(st.lists(st.integers(1, 3), min_size=len(rows), max_size=len(rows))))
    label, treated, score = (np.array(column) for column in zip(*rows, strict=True))
    repeated = [row for row, times in zip(rows, weight, strict=True) for _ in range(times)]
    found = Order(label, treated, score).curve(weight.astype(float))
    assert np.column_stack(found) == pytest.approx(np.array(by_hand(repeated)))
    perfect = area(by_hand([(y, t, y * (2 * t - 1)) for y, t, _ in repeated]))
    if perfect:
        assert Qini(label, treated, score).of(weight.astype(float)) == pytest.approx(area(by_hand(repeated)) / perfect)


def test_the_best_share_takes_its_part_of_equal_scores() -> None:
    assert best(np.array([3.0, 2, 2, 2, 1, 1, 1, 1, 1, 1]), 0.3).tolist() == [1, *[pytest.approx(2 / 3)] * 3, *[0] * 6]
    assert best(np.ones(10), 0.3).sum() == pytest.approx(3)


def test_bounds_hold_the_figure_and_grow_with_the_luck_of_the_splits() -> None:
    random = np.random.default_rng(1)
    label, treated = random.integers(0, 2, 400), random.integers(0, 2, 400)
    one, two = (measure_effects(label, treated, random.random(400), np.arange(400), {}, 0) for _ in range(2))
    both = together([one, two])
    assert both["effect"] == one["effect"] and both["effect_low"] == pytest.approx(one["effect_low"])
    assert both["qini"] == pytest.approx((one["qini"] + two["qini"]) / 2)
    widths = [each["qini_high"] - each["qini_low"] for each in (one, two)]
    assert both["qini_high"] - both["qini_low"] > sum(widths) / 2


def test_a_share_of_treated_that_no_coin_gives_is_told() -> None:
    assert sample_ratio(np.r_[np.ones(500), np.zeros(500)], 0.5) == 1
    assert sample_ratio(np.r_[np.ones(531), np.zeros(469)], 0.5) == pytest.approx(0.0499, abs=1e-3)  # z = 1.96
    assert sample_ratio(np.r_[np.ones(600), np.zeros(400)], 0.5) < 1e-9


def coins() -> list[dict[str, Any]]:
    day = DAYS[4]

    def at(ahead: int) -> date:
        return day + timedelta(days=ahead)

    told = [
        ("a", -1, "order"), ("a", 1, "mail"), ("a", 3, "order"),  # treated, and did it
        ("b", -1, "order"), ("b", 2, "held"), ("b", 3, "mail"), ("b", 5, "order"),  # held out first, too late
        ("c", -2, "order"), ("c", 2, "mail"), ("c", 5, "order"),  # treated, three days are too many
        ("d", -2, "order"), ("d", 4, "mail"), ("d", 4, "order"),  # no time left to see what follows
        ("e", -2, "order"), ("e", 1, "other"), ("e", 2, "order"),  # neither arm
        ("f", -1, "order"), ("f", 0, "mail"), ("f", 1, "order"),  # before
        ("g", -1, "order"), ("g", 1, "held"), ("g", 1, "order"),  # held out, and did it all the same
    ]  # fmt: skip
    return [
        event(event_id=f"{number:02}", person_id=person, _day=at(ahead), event="order" if what == "order" else "visit",
              channel=None if what == "order" else what)
        for number, (person, ahead, what) in enumerate(told)
    ]  # fmt: skip


def test_the_first_coin_after_a_day_counts_and_what_followed_in_time() -> None:
    timeline, day = ibis.memtable(timeline_rows(coins())), DAYS[4]
    known = Known(as_of, timeline, timeline.select("person_id").distinct())
    rows = uplift.training_set(known, prediction(), SHOP, Cutoffs((), day, timedelta(days=5))).to_pyarrow()
    table = uplift.training_table(prediction(), SHOP, as_of(timeline, known.people, [day], SHOP).schema())
    assert rows.column_names == list(table.columns)
    found = {row["person_id"]: (row["treated"], row["label"]) for row in rows.to_pylist()}
    assert found == {"a": (1, 1), "b": (0, 0), "c": (1, 0), "g": (0, 1)}
    worth = {
        row["person_id"]: row["label"]
        for row in uplift.outcomes(timeline, prediction(), [day]).to_pyarrow().to_pylist()
    }
    assert worth == {"a": 2, "b": 0, "c": 0, "g": -2}
    assert looked_for(known, prediction(), SHOP, rows, day) == []  # though of the others it holds nobody
    assert looked_for(known, prediction(), SHOP, rows.slice(1), day) == [
        "1 of 4 people known on 2024-02-29 are not in the set"
    ]
    with pytest.raises(LeakageError, match="training cut-off"):
        uplift.training_set(known, prediction(), SHOP, Cutoffs((day,), day, timedelta(days=5)))


def test_who_is_moved_is_found_and_proven() -> None:
    trained = uplift.train(people(True), prediction())
    assert all(gates(trained).values())
    assert "targeting has value" in trained.card["verdict"]
    asked = people(True, count=400, seed=8)
    change = trained.scorer.change(asked)
    taste = asked["taste"].to_numpy()
    assert change[taste > 0.5].mean() > 0.35 and abs(change[taste < -0.5].mean()) < 0.15
    m = trained.metrics
    assert m["effect_low"] < 0.25 < m["effect_high"] and m["gain_best"] > 0.1
    assert set(uplift.charts(trained.card, prediction(), SHOP)) == {"qini", "effects"}
    scores = uplift.score(asked.drop_columns(["day", "split", "treated", "label"]), Champion("v", trained.scorer),
                          prediction(), SHOP, DAY)  # fmt: skip
    assert scores["rank"].to_pylist() == list(range(1, 801)) and set(scores["basis"].to_pylist()) == {"model"}
    told = scores["reasons"][0].as_py()
    assert told.startswith("told by trees") or (told.startswith("taste: ") and "(raises)" in told.split(";")[0])


def test_where_all_are_moved_alike_there_is_no_targeting_value_and_all_get_the_average(tmp_path: Path) -> None:
    rows, none = people(False), MODELS.schema.to_pyarrow().empty_table()
    renewed = renew(rows, prediction(), none, tmp_path, datetime(2024, 7, 1, tzinfo=UTC))
    assert renewed.status == "rejected"
    assert [gate["name"] for gate in renewed.card["gates"] if not gate["passed"]] == ["targeting_value"]
    verdict, prior = renewed.card["verdict"], renewed.card["prior"]
    assert "no targeting value" in verdict and "on average" in verdict
    assert prior["effect_low"] < 0.25 < prior["effect_high"]
    models = pa.Table.from_pylist([renewed.row], schema=none.schema)
    best = champion(prediction(), models, tmp_path, rows.column_names)
    scores = uplift.score(people(False, 5), best, prediction(), SHOP, DAY)
    assert {*scores["score"].to_pylist()} == {round(prior["effect"], 6)}
    assert {*scores["basis"].to_pylist()} == {"prior"} and verdict in scores["reasons"][0].as_py()


def test_what_no_coin_decided_is_never_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "LEARNERS", {"logistic": effects.TLogistic.fit})
    trained = uplift.train(people(True, coin=False), prediction())
    passed = gates(trained)
    assert not passed["arms_alike"] and not passed["targeting_value"] and trained.prior == {}
    meant = prediction(treatment=prediction().treatment.model_dump() | {"share": 0.7})
    trained = uplift.train(people(True), meant)
    assert not gates(trained)["sample_ratio"] and "no coin" in trained.card["verdict"]
    nobody = uplift.score(people(True, 5), Champion("v", None, "no coin", trained.prior), prediction(), SHOP, DAY)
    assert nobody.num_rows == 0


def test_too_few_people_are_refused_with_the_missing_number() -> None:
    few = uplift.train(people(True, count=60), prediction())
    assert few.missing is not None and few.missing.startswith("needs 50 treated people in the training windows, has ")
    assert uplift.judge(few, prediction())[0].name == "minimum_data"
    rare = people(True)
    seldom = pa.array(rare["label"].to_numpy() * (np.arange(rare.num_rows) % 20 == 0))
    rare = rare.set_column(rare.column_names.index("label"), "label", seldom)
    told = uplift.train(rare, prediction()).missing
    assert told == "needs 30 treated people in the training windows who did it, has 12"
    nothing = uplift.train(people(True, count=9).slice(0, 0), prediction())
    assert nothing.missing is not None


def test_two_trainings_make_the_same_model_to_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"trees of each arm": effects.TTrees.fit, "logistic with interactions": effects.SLogistic.fit}
    monkeypatch.setattr(effects, "LEARNERS", chosen)
    rows = people(True, 300)

    def made() -> str:
        file = io.BytesIO()
        trained = uplift.train(rows, prediction())
        joblib.dump((trained.scorer, trained.metrics, trained.card, trained.prior), file)
        return hashlib.sha256(file.getvalue()).hexdigest()

    assert made() == made()


@pytest.mark.parametrize("learner", list(effects.LEARNERS))
def test_every_learner_finds_a_plain_effect_whatever_the_share_of_treated(learner: str) -> None:
    random = np.random.default_rng(5)
    values, treated = random.normal(size=(4000, 2)), (random.random(4000) < 0.2).astype(float)
    label = (random.random(4000) < 0.2 + 0.5 * treated * (values[:, 0] > 0)).astype(float)
    with threadpool_limits(1):
        change = effects.LEARNERS[learner](values, label, treated, 0).change(values)
    assert change[values[:, 0] > 0.5].mean() > 0.25 and abs(change[values[:, 0] < -0.5].mean()) < 0.15
    assert change.mean() == pytest.approx(effect(label, treated, np.ones(4000)), abs=0.04)


def test_what_cannot_be_declared_is_refused() -> None:
    both = prediction().treatment.model_dump() | {"control": ["mail"]}
    with pytest.raises(ValidationError, match="both treated and control"):
        prediction(treatment=both)
    with pytest.raises(ValidationError, match="should be longer than"):
        prediction(horizon="2 days")


def test_what_scores_came_to_is_the_effect_among_the_best_and_all() -> None:
    label = np.array([2.0, -2, 2, 0, 0, 0, -2, 2, -2, 0])
    found = uplift.realised(label, np.arange(10.0)[::-1])
    assert found == {"effect": 0, "effect_of_best": pytest.approx(2 / 3)}

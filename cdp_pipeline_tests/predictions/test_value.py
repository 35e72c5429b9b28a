"""type: value: what people will bring, from events to scores, against plain counting and planted truths."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any

import ibis
import joblib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from cdp_pipeline.predictions import value
from cdp_pipeline.predictions.amounts import calibration, captured, gini, realised
from cdp_pipeline.predictions.clock import CLOCK
from cdp_pipeline.predictions.kind import Champion, Known, Trained
from cdp_pipeline.predictions.model import matrix
from cdp_pipeline.predictions.targets import totals
from cdp_pipeline.predictions.windows import LeakageError, cutoffs
from cdp_pipeline.predictions.worth import Bounds
from cdp_pipeline.spec.prediction import Value
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.traits.shop import event, project, timeline_rows, trait

FIRST, LAST = date(2023, 1, 1), date(2024, 6, 30)


def prediction(**fields: Any) -> Value:
    document = {
        "kind": "prediction", "name": "worth", "type": "value", "description": "What they will spend.",
        "target": {"event": ["order"]}, "horizon": "60 days", "minimum": {"people": 100},
        "bands": [{"name": "small", "above": 0}, {"name": "large", "above": 150}],
    }  # fmt: skip
    return Value.model_validate(document | fields)


SHOP = project(trait("orders_30d", "count", window="last 30 days"), trait("spent", "sum", value="amount"), prediction())


def buyers(seed: int = 3, people: int = 500, season: float = 1.0) -> list[dict[str, Any]]:
    """People who order at rates and amounts of their own, some of whom stop; `season` times as often in December."""
    random, rows = np.random.default_rng(seed), []
    for person in range(people):
        day, rate = FIRST + timedelta(days=int(random.integers(0, 500))), random.gamma(1, 1 / 30)
        each = random.lognormal(3.5, 0.7)
        while day <= LAST and random.random() > 0.04:
            amount = Decimal(f"{each * random.lognormal(0, 0.4):.2f}")
            rows.append(event(event_id=f"e{len(rows)}", person_id=f"p_{person:03}", _day=day, amount=amount))
            busy = season if day.month in (11, 12) else 1.0
            day += timedelta(days=1 + int(random.exponential(1 / rate / busy)))
    return rows


def known(rows: list[dict[str, Any]]) -> Known:
    timeline = ibis.memtable(timeline_rows(rows))
    return Known(as_of, timeline, timeline.select("person_id").distinct())


def training_set(rows: list[dict[str, Any]], asked: Value, last: date = LAST) -> pa.Table:
    return value.training_set(known(rows), asked, SHOP, cutoffs(asked, last, FIRST)).to_pyarrow()


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return buyers()


@pytest.fixture(scope="module")
def learned(events: list[dict[str, Any]]) -> pa.Table:
    return training_set(events, prediction())


@pytest.fixture(scope="module")
def trained(learned: pa.Table) -> Trained:
    return value.train(learned, prediction())


def test_labels_are_what_came_after_each_cut_off(events: list[dict[str, Any]], learned: pa.Table) -> None:
    days = sorted(set(learned["day"].to_pylist()))
    spent = {
        (row["person_id"], day): sum(
            float(one["amount"]) for one in events
            if one["person_id"] == row["person_id"] and day < one["_day"] <= day + timedelta(days=60)
        )
        for day in days for row in learned.filter(pc.equal(learned["day"], day)).slice(0, 40).to_pylist()
    }  # fmt: skip
    said = {(row["person_id"], row["day"]): row["label"] for row in learned.to_pylist()}
    assert spent
    assert {key: said[key] for key in spent} == pytest.approx(spent)


def test_a_declared_value_takes_the_place_of_the_amount() -> None:
    rows = [event(event_id="a", person_id="p", _day=date(2024, 1, day), amount=Decimal(10)) for day in (1, 5)]
    rows.append(event(event_id="b", person_id="p", _day=date(2024, 1, 9), amount=Decimal(7)))
    table = ibis.memtable(timeline_rows([row | {"event_id": str(i)} for i, row in enumerate(rows)]))
    doubled = prediction(target={"event": ["order"], "value": "2 * amount", "when": "amount > 8"})
    found = totals(table, doubled, [date(2024, 1, 1)], timedelta(days=30)).to_pyarrow().to_pylist()
    assert found == [{"person_id": "p", "day": date(2024, 1, 1), "label": 20.0}]


def test_amounts_are_foreseen_better_than_by_what_was_spent_per_day(trained: Trained) -> None:
    m = trained.metrics
    assert m["gain_over_rate"] > 0
    assert m["gain_over_rhythm"] > -0.02
    assert 0.75 < m["total_ratio"] < 1.3
    assert 0.72 < m["coverage"] < 0.9


def test_two_trainings_are_identical_and_the_order_of_rows_does_not_matter(learned: pa.Table, trained: Trained) -> None:
    order = np.random.default_rng(1).permutation(learned.num_rows)
    again = value.train(learned.take(pa.array(order)), prediction())
    assert again.metrics == trained.metrics
    assert again.card == trained.card
    files = [BytesIO(), BytesIO()]
    for file, made in zip(files, (again, trained), strict=True):
        joblib.dump(made.scorer, file)
    assert files[0].getvalue() == files[1].getvalue()


def test_scores_have_ordered_intervals_bands_and_reasons(events: list[dict[str, Any]], trained: Trained) -> None:
    asked = prediction()
    inputs = value.inputs(known(events), asked, SHOP, LAST).to_pyarrow()
    rows = value.score(inputs, Champion("v1", trained.scorer), asked, SHOP, LAST).to_pylist()
    assert [row["rank"] for row in rows] == list(range(1, inputs.num_rows + 1))
    assert all(0 <= row["low"] <= row["high"] for row in rows)
    assert {row["band"] for row in rows} == {"small", "large"}
    assert all((row["score"] >= 150) == (row["band"] == "large") for row in rows)
    assert all("(raises)" in row["reasons"] or "(lowers)" in row["reasons"] for row in rows)


def test_too_few_people_give_the_mean_and_the_missing_number(events: list[dict[str, Any]], learned: pa.Table) -> None:
    asked = prediction(minimum={"people": 5000})
    few = value.train(learned, asked)
    assert few.scorer is None
    assert few.missing is not None and few.missing.startswith("needs 5000 people in the training windows, has ")
    assert [gate.words for gate in value.judge(few, asked)] == [few.missing]
    inputs = value.inputs(known(events), asked, SHOP, LAST).to_pyarrow().slice(0, 3)
    rows = value.score(inputs, Champion("v1", None, few.missing, few.prior), asked, SHOP, LAST).to_pylist()
    mean = float(matrix(learned, ("label",)).mean())
    assert [row["score"] for row in rows] == pytest.approx([mean] * 3)
    assert {(row["basis"], row["low"]) for row in rows} == {("prior", None)}


def test_a_lifetime_is_the_learned_days_and_what_rhythm_brings_after_them(
    events: list[dict[str, Any]], learned: pa.Table, trained: Trained
) -> None:
    scorer, test = trained.scorer, learned.filter(pc.equal(learned["split"], "test"))
    assert scorer is not None
    lifetime = prediction(horizon="730 days", proven_over="60 days")
    assert cutoffs(lifetime, LAST, FIRST) == cutoffs(prediction(), LAST, FIRST)
    whole = value.train(learned, lifetime)
    assert whole.scorer is not None
    assert whole.metrics == trained.metrics
    short, long = scorer.scores(test)[0], whole.scorer.scores(test)[0]
    assert long == pytest.approx(short + scorer.buying.later(test, 60, 730, 0.0))
    dear = replace(whole.scorer, discount=0.2).scores(test)[0]
    assert (dear < long).all()
    # The mean wait is a good year: 20 % a year take away between one and two years' worth of it.
    assert 1.2**-2 < dear.sum() / long.sum() < 1.2**-0.5


def test_a_busy_season_of_last_year_is_foreseen() -> None:
    """Before the second busy season, as much more is ahead as there was a year before; after it no more than usual."""
    rows, asked = buyers(seed=5, people=400, season=4.0), prediction(horizon="30 days")
    again = [row | {"_day": row["_day"] + timedelta(days=364), "event_id": f"{row['event_id']}n"} for row in rows]
    both = [*rows, *(row for row in again if row["_day"] > LAST)]
    ahead, came = [], []
    for year_ago in (date(2023, 9, 1), date(2023, 11, 1), date(2024, 1, 1)):
        inputs = value.inputs(known(both), asked, SHOP, year_ago + timedelta(days=364)).to_pyarrow()
        ahead += set(inputs["_ahead"].to_pylist())
        until = year_ago + timedelta(days=30)
        came.append(len({(row["person_id"], row["_day"]) for row in both if year_ago < row["_day"] <= until}))
    assert len(ahead) == 3
    quiet, busy, after = ahead
    assert busy / quiet == pytest.approx(came[1] / came[0], rel=0.2)
    assert after / quiet == pytest.approx(came[2] / came[0], rel=0.2)
    assert busy > 1.3 * after


def test_the_clock_of_a_day_knows_nothing_of_later_ones(events: list[dict[str, Any]]) -> None:
    day = date(2024, 2, 1)
    before = [row for row in events if row["_day"] <= day]
    truncated, whole = (value.inputs(known(rows), prediction(), SHOP, day).to_pyarrow() for rows in (before, events))
    assert truncated.sort_by("person_id").equals(whole.sort_by("person_id"))
    assert whole.select(list(CLOCK)).num_rows > 100


def test_without_a_year_behind_every_day_ahead_is_an_average_one(events: list[dict[str, Any]]) -> None:
    inputs = value.inputs(known(events), prediction(), SHOP, date(2023, 6, 1)).to_pyarrow()
    assert set(inputs["_ahead"].to_pylist()) == {60.0}


def test_the_clock_counts_days_by_how_many_people_acted_on_them() -> None:
    """Two orders a day in spring, six in the rest of two equal years: a spring day is a third as long."""
    days = [date(2022, 1, 1) + timedelta(days=n) for n in range(2 * 364)]
    rows = [
        event(event_id=f"e{day}{i}", person_id=f"p{i}" if day == days[-80] else f"q{i}", _day=day)
        for day in days for i in range(2 if (day - days[0]).days % 364 < 91 else 6) if i or day != days[-70]
    ]  # fmt: skip
    found = value.inputs(known(rows), prediction(horizon="60 days"), SHOP, days[-1]).to_pyarrow().to_pylist()
    told = {row["person_id"]: row for row in found}
    average = (91 * 2 + 273 * 6) / 364
    assert told["p0"]["_recency"] == 79
    assert told["p0"]["_recency_clock"] == pytest.approx(79 * 6 / average, rel=0.01)
    assert told["q1"]["_recency_clock"] == 0
    assert told["q1"]["_ahead"] == pytest.approx(60 * 2 / average, rel=0.01)


def test_a_missing_embargo_is_refused(learned: pa.Table) -> None:
    windows = cutoffs(prediction(), LAST, FIRST)
    with pytest.raises(LeakageError, match="training cut-offs end at"):
        value.training_set(known([]), prediction(), SHOP, replace(windows, train=(windows.test,)))
    late = learned.filter(pc.equal(learned["split"], "train"))
    moved = late.set_column(1, "day", pa.array([windows.test - timedelta(days=1)] * late.num_rows))
    with pytest.raises(LeakageError, match="training cut-off"):
        value.train(pa.concat_tables([moved, learned.filter(pc.equal(learned["split"], "test"))]), prediction())


def test_gates_name_what_a_model_of_amounts_lacks(trained: Trained) -> None:
    wrong = replace(trained, metrics=trained.metrics | {"total_ratio": 1.4, "coverage": 0.5, "gain_over_rhythm": -0.02})
    failed = {gate.name: gate.words for gate in value.judge(wrong, prediction()) if not gate.passed}
    assert failed["total"] == "foresaw 1.40 times what came, off by at most 0.15 is allowed"
    assert failed["interval"] == "50% of people were within their interval, at least 70% is needed"
    assert "BG/NBD x Gamma-Gamma" in failed["not_worse_than_rhythm"]
    assert all(word not in " ".join(failed) for word in ("mae", "error"))


def test_foreseeing_nothing_wins_no_figure_but_absolute_error() -> None:
    amount = np.array([0.0] * 95 + [20.0] * 5)
    nothing, honest = np.zeros(100), np.full(100, 1.0)
    assert realised(amount, nothing)["mae"] <= realised(amount, honest)["mae"]
    assert realised(amount, nothing)["total_ratio"] == 0
    assert realised(amount, nothing)["gini"] == pytest.approx(0)
    assert "gini" not in realised(np.zeros(3), np.ones(3))


def test_gini_is_as_counted_by_hand() -> None:
    amount, score = np.array([0.0, 10.0, 30.0, 0.0]), np.array([1.0, 3.0, 2.0, 0.0])
    # Best first: 10, 30, 0, 0 of 40; areas above the diagonal by trapezoids, against 30, 10, 0, 0.
    ours = np.mean([0.125, 0.625, 1.0, 1.0]) - 0.5
    best = np.mean([0.375, 0.875, 1.0, 1.0]) - 0.5
    assert gini(amount, score) == pytest.approx(ours / best)
    assert gini(amount, amount) == pytest.approx(1)
    assert gini(amount, -amount) == pytest.approx(-1)
    assert captured(amount, score, 0.25) == 0.25
    assert calibration(amount, score, 2) == [(0.5, 0.0, 2), (2.5, 20.0, 2)]


def test_intervals_hold_for_people_like_those_they_were_drawn_from() -> None:
    random = np.random.default_rng(4)
    score = random.gamma(1, 100, 1000)
    draws = random.gamma(0.5, 2, (200, 1000)) * score * (random.random((200, 1000)) < 0.7) / 0.7
    low, high = Bounds.fit(score, draws).of(score)
    came = random.gamma(0.5, 2, 1000) * score * (random.random(1000) < 0.7) / 0.7
    assert ((came >= low) & (came <= high)).mean() == pytest.approx(0.8, abs=0.03)


def test_a_horizon_to_be_proven_on_is_shorter_and_bands_may_be_amounts() -> None:
    with pytest.raises(ValidationError, match="proven_over should be shorter than the horizon"):
        prediction(proven_over="60 days")
    assert prediction(bands=[{"name": "rich", "above": 5000}]).bands[0].above == 5000

"""The best hour: clocks are those of the zone, own hours are drawn to everybody's, and it has to prove itself."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.predictions import timing
from cdp_pipeline.predictions.hours import Hours, around_the_clock, hit, surprise
from cdp_pipeline.predictions.kind import Champion, Trained
from cdp_pipeline.predictions.windows import Cutoffs, LeakageError
from cdp_pipeline.spec.prediction import Timing
from cdp_pipeline_tests.predictions.people import known_of
from cdp_pipeline_tests.traits.shop import event, project

SHOP, DAY = project(), date(2024, 6, 1)
WINDOWS = Cutoffs((DAY - timedelta(days=30),), DAY, timedelta(days=30))


def prediction(**fields: Any) -> Timing:
    document = {
        "kind": "prediction", "type": "timing", "name": "best_hour", "description": "When they look.",
        "target": {"event": ["visit"]}, "horizon": "30 days", "minimum": {"people": 50},
    }  # fmt: skip
    return Timing.model_validate(document | fields)


def visitors(people: int = 120, seed: int = 4) -> list[dict[str, Any]]:
    """Everybody looks around an hour of their own, between eight and eight on London's clocks (UTC + 1 in summer)."""
    random, rows = np.random.default_rng(seed), []
    for person in range(people):
        for ago in np.flatnonzero(random.random(200) < 0.12):
            day = DAY + timedelta(days=30 - int(ago))
            hour = (8 + person % 12 + int(random.normal(0, 1.2))) % 24
            at = datetime(day.year, day.month, day.day, hour, 30, tzinfo=ZoneInfo("Europe/London")).astimezone(UTC)
            rows.append(
                event(
                    event_id=f"e{len(rows)}", event="visit", person_id=f"p_{person:03}", _day=day,
                    occurred_at=at.replace(tzinfo=None),
                )
            )  # fmt: skip
    return rows


@cache
def learned() -> tuple[pa.Table, Trained]:
    rows = timing.training_set(known_of(visitors()), prediction(), SHOP, WINDOWS).to_pyarrow()
    return rows, timing.train(rows, prediction())


@settings(max_examples=15)
@given(
    st.lists(st.datetimes(datetime(2024, 1, 1), datetime(2025, 1, 1)), min_size=1, max_size=30),
    st.sampled_from(["Europe/London", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_the_hour_is_that_of_the_clocks_of_the_zone_all_year_round(moments: list[datetime], name: str) -> None:
    zone = ZoneInfo(name)
    table = ibis.memtable({"at": moments}, schema={"at": "timestamp(6)"})
    found = timing.local_hour(table["at"], zone, date(2024, 1, 1), date(2024, 12, 31))
    hours = table.select("at", hour=found).to_pyarrow().to_pylist()
    assert [row["hour"] for row in hours] == [f"{row['at'].replace(tzinfo=UTC).astimezone(zone):%H}" for row in hours]


def test_an_hour_is_smoothed_around_the_clock_and_nothing_is_lost() -> None:
    kernel = around_the_clock(1.5)
    assert kernel.sum(axis=1) == pytest.approx(np.ones(24))
    assert kernel[23, 0] == kernel[11, 12] == kernel[12, 11]


@given(st.integers(0, 2**31), st.floats(0.5, 50), st.floats(0.5, 3))
@settings(max_examples=20)
def test_chances_sum_to_one_and_few_events_stay_near_what_is_usual(seed: int, pull: float, width: float) -> None:
    random = np.random.default_rng(seed)
    usual = random.dirichlet(np.ones(24))
    model = Hours(usual, "_events", pull, width)
    counts = random.poisson(0.5, (5, 24)).astype(float)
    assert model.probability(counts).sum(axis=1) == pytest.approx(np.ones(5))
    assert model.probability(np.zeros((1, 24)))[0] == pytest.approx(usual)
    one = np.zeros((1, 24))
    one[0, 7] = 1
    assert model.probability(one)[0, 7] > usual[7]


def test_an_hour_in_which_nobody_ever_does_it_stays_unlikely_however_wide_the_smoothing() -> None:
    usual = np.r_[np.zeros(8), np.ones(16)] / 16
    own = np.zeros((1, 24))
    own[0, 8] = 40
    assert Hours(usual, "_events", 1, 2).probability(own)[0, :8].max() == 0


def test_log_loss_and_hits_are_what_a_loop_says() -> None:
    random = np.random.default_rng(1)
    chance, happened = random.dirichlet(np.ones(24), 6), random.poisson(0.3, (6, 24)).astype(float)
    events = [(person, hour) for person in range(6) for hour in range(24) for _ in range(int(happened[person, hour]))]
    assert surprise(chance, happened) == pytest.approx(np.mean([-np.log(chance[p, h]) for p, h in events]))
    best = [set(np.argsort(chance[p])[-3:]) for p in range(6)]
    assert hit(chance, happened, 3) == pytest.approx(np.mean([h in best[p] for p, h in events]))


def test_own_hours_are_found_and_the_model_proves_itself() -> None:
    training, trained = learned()
    assert training.column_names == list(timing.training_table(prediction(), SHOP, ibis.schema({})).columns)
    gates = timing.judge(trained, prediction())
    assert all(gate.passed for gate in gates), gates
    assert trained.metrics["hit_3"] > 2 * trained.metrics["usual_hit_3"]
    assert timing.charts(trained.card, prediction(), SHOP).keys() == {"usual hours"}
    again = timing.train(training.take(np.random.default_rng(0).permutation(training.num_rows)), prediction())
    assert again.metrics == trained.metrics
    assert (again.scorer.memory, again.scorer.pull, again.scorer.width) == (
        trained.scorer.memory, trained.scorer.pull, trained.scorer.width,
    )  # fmt: skip


def test_everybody_gets_their_hours_best_first_and_newcomers_the_usual_ones() -> None:
    rows = [*visitors(), event(person_id="new", _day=DAY)]
    inputs = timing.inputs(known_of(rows), prediction(), SHOP, DAY).to_pyarrow()
    scores = timing.score(inputs, Champion("v1", learned()[1].scorer), prediction(), SHOP, DAY).to_pylist()
    first = {row["person_id"]: row for row in scores if row["rank"] == 1}
    assert len(scores) == 24 * 121
    near = [abs(int(first[f"p_{n:03}"]["item"]) - (8 + n % 12)) <= 1 for n in range(120)]
    assert np.mean(near) > 0.85
    assert first["new"]["basis"] == "prior" and first["new"]["reasons"] == "when everybody does"
    assert first["p_000"]["basis"] == "model" and " so far within an hour of it" in first["p_000"]["reasons"]
    mine = [row["score"] for row in scores if row["person_id"] == "p_000"]
    assert sum(mine) == pytest.approx(1, abs=1e-4)


def test_people_who_have_no_hour_of_their_own_do_not_pass_for_those_who_have() -> None:
    training, _ = learned()
    ahead = training["label"].to_numpy()
    swapped = ahead.reshape(-1, 24)[np.random.default_rng(0).permutation(len(ahead) // 24)].ravel()
    keys = [("day", "ascending"), ("person_id", "ascending"), ("item", "ascending")]
    mixed = training.sort_by(keys)
    place = mixed.column_names.index("label")
    trained = timing.train(mixed.set_column(place, "label", pa.array(swapped)), prediction())
    assert not {gate.name: gate.passed for gate in timing.judge(trained, prediction())}["better_than_usual"]


def test_the_past_does_not_know_what_came_later_and_needs_its_embargo() -> None:
    rows, keys = visitors(people=30), [("day", "ascending"), ("person_id", "ascending"), ("item", "ascending")]

    def made(some: list[dict[str, Any]]) -> pa.Table:
        return timing.training_set(known_of(some), prediction(), SHOP, WINDOWS).to_pyarrow().sort_by(keys)

    later = [event(event="visit", person_id=f"p_{n:03}", _day=DAY + timedelta(days=31)) for n in range(30)]
    assert made(rows).equals(made(rows + later))
    close = Cutoffs((DAY - timedelta(days=29),), DAY, timedelta(days=30))
    with pytest.raises(LeakageError, match="labelled until"):
        timing.training_set(known_of([]), prediction(), SHOP, close)


def test_too_few_people_are_refused_with_the_missing_number_and_keep_the_usual_hours() -> None:
    short = timing.train(learned()[0], prediction(minimum={"people": 1000}))
    assert short.scorer is None
    assert short.missing == "needs 1000 people in the training windows who did it again, has 116"
    inputs = timing.inputs(known_of(visitors(people=3)), prediction(), SHOP, DAY).to_pyarrow()
    scores = timing.score(inputs, Champion("v0", None, short.missing, short.prior), prediction(), SHOP, DAY)
    assert set(scores["basis"].to_pylist()) == {"prior"}
    assert len({(r["item"], r["score"]) for r in scores.to_pylist()}) == 24

"""Who answers a contact: contacts and answers are counted as a loop does, habits of answering are found."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, time, timedelta
from functools import cache
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cdp_pipeline.predictions import response
from cdp_pipeline.predictions.contacts import CONTACTS, contacts, known_contacts, next_answers
from cdp_pipeline.predictions.kind import Champion, Trained
from cdp_pipeline.predictions.windows import Cutoffs, LeakageError
from cdp_pipeline.spec.prediction import Items, Response
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.predictions.people import known_of
from cdp_pipeline_tests.traits.shop import DAYS, event, project, timeline_rows, trait

SHOP = project(trait("orders", "count"))
DAY = date(2024, 6, 1)
WINDOWS = Cutoffs(tuple(DAY - timedelta(days=ago) for ago in (98, 84, 70, 56, 42, 28, 21)), DAY, timedelta(days=21))


def prediction(**fields: Any) -> Response:
    """Mails are `visit`s here and answers are `order`s; which mail an answer is to, its `quantity` says."""
    document = {
        "kind": "prediction", "type": "response", "name": "answers", "description": "Who answers.",
        "exposure": {"event": ["visit"], "item": "channel"}, "horizon": "21 days", "cutoffs": 7, "every": "14 days",
        "target": {"event": ["order"], "within": "7 days", "same": "quantity"}, "items": {"at_least": 2},
        "minimum": {"people": 50, "positives": 20}, "gates": {"max_calibration_error": 0.1},
    }  # fmt: skip
    return Response.model_validate(document | fields)


def mailed(people: int = 150, seed: int = 2) -> list[dict[str, Any]]:
    """Everybody gets a mail or a text a week; some answer mails, some texts, some nothing."""
    random, rows = np.random.default_rng(seed), []
    for person in range(people):
        chance = {"email": (0.7, 0.05, 0.05)[person % 3], "sms": (0.05, 0.6, 0.05)[person % 3]}
        for number, ago in enumerate(range(180, -22, -7)):
            day, channel = (
                DAY - timedelta(days=ago + int(random.integers(3))),
                ("email", "sms")[int(random.integers(2))],
            )
            told = {"person_id": f"p_{person:03}", "channel": channel, "quantity": number}
            rows.append(event(event_id=f"s{len(rows)}", event="visit", _day=day, **told))
            if random.random() < chance[channel]:
                rows.append(
                    event(event_id=f"a{len(rows)}", _day=day + timedelta(days=int(random.integers(1, 5))), **told)
                )
    return rows


@cache
def learned() -> tuple[pa.Table, Trained]:
    rows = response.training_set(known_of(mailed()), prediction(), SHOP, WINDOWS).to_pyarrow()
    return rows, response.train(rows, prediction())


some_events = st.lists(
    st.builds(
        lambda day, hour, **fields: event(_day=day, occurred_at=datetime.combine(day, time(hour)), **fields),
        day=st.sampled_from(DAYS), hour=st.integers(0, 23), person_id=st.sampled_from(["a", "b"]),
        channel=st.sampled_from(["email", "sms", None]), quantity=st.integers(1, 2),
        event=st.sampled_from(["visit", "visit", "order"]),
    ),
    max_size=20,
)  # fmt: skip


def numbered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"event_id": f"e{number:02}"} for number, row in enumerate(rows)]


def answered_on(sent: dict[str, Any], rows: list[dict[str, Any]], same: bool) -> date | None:
    back = (
        row["_day"] for row in rows
        if row["event"] == "order" and row["person_id"] == sent["person_id"]
        and row["occurred_at"] >= sent["occurred_at"] and row["_day"] - sent["_day"] <= timedelta(days=2)
        and (not same or row["quantity"] == sent["quantity"])
    )  # fmt: skip
    return min(back, default=None)


@settings(max_examples=8)
@given(some_events, st.sampled_from(DAYS), st.booleans())
def test_contacts_and_answers_are_what_a_loop_over_events_says(
    rows: list[dict[str, Any]], day: date, same: bool
) -> None:
    rows = numbered(rows)
    spec = prediction(
        target={"event": ["order"], "within": "2 days"} | ({"same": "quantity"} if same else {}), horizon="5 days"
    )
    sent = [row | {"on": answered_on(row, rows, same)} for row in rows if row["event"] == "visit" and row["channel"]]
    every = contacts(ibis.memtable(timeline_rows(rows)), spec.exposure, spec.exposure.item, spec.target)
    found = {row["event_id"]: row["answered_on"] for row in every.to_pyarrow().to_pylist()}
    assert found == {row["event_id"]: row["on"] for row in sent}

    past = [row | {"on": row["on"] if row["on"] and row["on"] <= day else None} for row in sent if row["_day"] <= day]
    expected = {}
    for person in ("a", "b"):
        for item in {row["channel"] for row in past}:
            mine = [row for row in past if row["person_id"] == person]
            by_it, usual = [r for r in mine if r["channel"] == item], [r for r in past if r["channel"] == item]

            def age(days: list[date]) -> float | None:
                return min(((day - one).days for one in days), default=None)

            expected[person, item] = {
                "_contacted": len(by_it),
                "_answered": sum(r["on"] is not None for r in by_it),
                "_contact_recency": age([r["_day"] for r in by_it]),
                "_answer_recency": age([r["on"] for r in by_it if r["on"]]),
                "_contacted_all": len(mine),
                "_answered_all": sum(r["on"] is not None for r in mine),
                "_answer_recency_all": age([r["on"] for r in mine if r["on"]]),
                "_usual": pytest.approx(sum(r["on"] is not None for r in usual) / len(usual), abs=1e-5),
                "_usual_contacts": len(usual),
            }
    who = ibis.memtable({"person_id": ["a", "b"], "day": [day, day]})
    table = known_contacts(every, who, [day], Items(at_least=1)).to_pyarrow().to_pylist()
    assert {(r["person_id"], r["item"]): {name: r[name] for name in CONTACTS} for r in table} == expected

    ahead = [row for row in sent if 1 <= (row["_day"] - day).days <= 3]
    first = {
        (r["person_id"], r["channel"]): r
        for r in sorted(ahead, key=lambda r: (r["occurred_at"], r["event_id"]), reverse=True)
    }
    labels = next_answers(every, spec, [day]).to_pyarrow().to_pylist()
    assert {(r["person_id"], r["item"]): r["label"] for r in labels} == {
        key: int(r["on"] is not None) for key, r in first.items()
    }


def test_who_answers_what_is_found_and_the_model_proves_itself() -> None:
    training, trained = learned()
    traits = as_of(known_of([]).timeline, known_of([]).people, DAYS[:1], SHOP).schema()
    table = response.training_table(prediction(), SHOP, traits)
    assert table.schema.to_pyarrow().names == training.column_names
    assert all(column.description for column in table.columns.values())
    gates = response.judge(trained, prediction())
    assert all(gate.passed for gate in gates), gates
    assert trained.metrics["gain_over_past_rate_low"] > 0
    charts = response.charts(trained.card, prediction(), SHOP)
    assert charts.keys() >= {"calibration", "gains", "importance"}


def test_the_best_channel_of_each_person_comes_first_with_its_reasons() -> None:
    inputs = response.inputs(known_of(mailed()), prediction(), SHOP, DAY).to_pyarrow()
    rows = response.score(inputs, Champion("v1", learned()[1].scorer), prediction(), SHOP, DAY).to_pylist()
    assert len(rows) == 300
    first = {row["person_id"]: row for row in rows if row["rank"] == 1}
    right = [first[f"p_{n:03}"]["item"] == ("email", "sms")[n % 3] for n in range(150) if n % 3 < 2]
    assert sum(right) / len(right) > 0.95
    eager = [first[f"p_{n:03}"]["score"] for n in range(150) if n % 3 < 2]
    tired = [first[f"p_{n:03}"]["score"] for n in range(150) if n % 3 == 2]
    assert np.mean(eager) > 4 * np.mean(tired)
    assert any("how often they answered it so far" in row["reasons"] for row in first.values())


def test_nobody_is_offered_a_channel_that_does_not_reach_them() -> None:
    rows = mailed(people=12)
    asked: list[tuple[Any, list[date]]] = []

    def members(rules: Any, days: Any) -> ibis.Table:
        asked.append((rules, days))
        return ibis.memtable({"person_id": ["p_001", "p_002", "p_009"], "day": [DAY] * 3})

    spec = prediction(reach={"sms": [{"reachable": "phone"}]})
    inputs = response.inputs(replace(known_of(rows), members=members), spec, SHOP, DAY).to_pyarrow()
    assert asked == [(spec.reach["sms"], [DAY])]
    scores = response.score(inputs, Champion("v1", learned()[1].scorer), spec, SHOP, DAY).to_pylist()
    texted = {row["person_id"] for row in scores if row["item"] == "sms"}
    assert texted == {"p_001", "p_002", "p_009"}
    assert {row["person_id"] for row in scores if row["item"] == "email"} == {f"p_{n:03}" for n in range(12)}
    first = {row["person_id"]: row["item"] for row in scores if row["rank"] == 1}
    assert first["p_001"] == "sms" and first["p_004"] == "email"


def test_two_trainings_are_identical_whatever_the_order_of_rows() -> None:
    training, trained = learned()
    again = response.train(training.take(np.random.default_rng(0).permutation(training.num_rows)), prediction())
    assert again.metrics == trained.metrics
    assert again.scorer.logistic.weight.tobytes() == trained.scorer.logistic.weight.tobytes()


def test_the_training_set_of_a_past_day_does_not_know_what_came_later() -> None:
    rows, after = mailed(people=20), DAY + timedelta(days=22)
    keys = [("day", "ascending"), ("person_id", "ascending"), ("item", "ascending")]

    def made(some: list[dict[str, Any]]) -> pa.Table:
        return response.training_set(known_of(some), prediction(), SHOP, WINDOWS).to_pyarrow().sort_by(keys)

    later = [
        event(event_id=f"x{n}{kind}", event=kind, person_id=f"p_{n:03}", channel="sms", quantity=1, _day=after)
        for n in range(20) for kind in ("visit", "order")
    ]  # fmt: skip
    assert made(rows).equals(made(rows + later))


def test_a_missing_embargo_is_rejected_and_contacts_need_time_to_be_answered() -> None:
    close = Cutoffs((DAY - timedelta(days=20),), DAY, timedelta(days=21))
    with pytest.raises(LeakageError, match="labelled until"):
        response.training_set(known_of([]), prediction(), SHOP, close)
    with pytest.raises(ValidationError, match="horizon should be longer than"):
        prediction(horizon="7 days")


def test_too_few_contacts_are_refused_with_the_missing_number() -> None:
    short = response.train(learned()[0], prediction(minimum={"people": 50, "positives": 5000}))
    assert short.scorer is None
    assert short.missing.startswith("needs 5000 pairs there for which it happened, has ")
    assert set(short.prior["rate"]) == {"email", "sms"}

"""Interests: planted tastes are found as soft topics, keep their names, and people without any are not made up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cdp_pipeline.predictions import topics
from cdp_pipeline.predictions.kind import Champion, Known, Trained
from cdp_pipeline.predictions.registry import MODELS, champion, renew
from cdp_pipeline.predictions.themes import Themes
from cdp_pipeline.spec.prediction import Topics
from cdp_pipeline_tests.predictions.test_affinity import DAY, KINDS, SHOP, WINDOWS, known_of, shoppers

NOW = datetime(2024, 7, 1, tzinfo=UTC)
HALVES = (set(KINDS[:3]), set(KINDS[3:]))


def prediction(**fields: Any) -> Topics:
    document = {
        "kind": "prediction", "type": "topics", "name": "interests", "description": "What they care for.",
        "target": {"event": ["order"], "item": "category"}, "horizon": "28 days", "items": {"at_least": 5},
        "topics": 2, "minimum": {"people": 50, "positives": 20},
    }  # fmt: skip
    return Topics.model_validate(document | fields)


@cache
def learned() -> tuple[Known, pa.Table, Trained]:
    known = known_of(shoppers())
    rows = topics.training_set(known, prediction(), SHOP, WINDOWS).to_pyarrow()
    return known, rows, topics.train(rows, prediction())


def test_what_is_taken_together_becomes_a_topic_and_the_model_proves_itself() -> None:
    _, _, trained = learned()
    gates = topics.judge(trained, prediction())
    assert all(gate.passed for gate in gates), gates
    found = [set(foremost[:3]) for foremost in trained.card["topics"].values()]
    assert found in (list(HALVES), list(HALVES)[::-1])
    assert sum(trained.card["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert topics.charts(trained.card, prediction(), SHOP).keys() == {"topics"}


def test_everybody_is_a_mixture_of_topics_with_what_they_take_of_each() -> None:
    known, _, trained = learned()
    inputs = topics.inputs(known, prediction(), SHOP, DAY).to_pyarrow()
    rows = topics.score(inputs, Champion("v1", trained.scorer), prediction(), SHOP, DAY).to_pylist()
    people = {row["person_id"] for row in rows}
    for person in people:
        assert sum(row["score"] for row in rows if row["person_id"] == person) == pytest.approx(1, abs=1e-5)
    first = [row for row in rows if row["rank"] == 1]
    right = [set(row["item"].split(" + ")) <= HALVES[int(row["person_id"][2:]) % 2] for row in first]
    assert np.mean(right) > 0.9
    assert all(row["reasons"].startswith("takes ") for row in rows)


def test_two_trainings_are_identical_whatever_the_order_of_rows() -> None:
    _, training, trained = learned()
    again = topics.train(training.take(np.random.default_rng(0).permutation(training.num_rows)), prediction())
    assert again.metrics == trained.metrics
    assert again.scorer.weight.tobytes() == trained.scorer.weight.tobytes()


def test_a_topic_that_was_known_before_keeps_its_name() -> None:
    random = np.random.default_rng(0)
    items = tuple("abcdef")
    taken = np.zeros((200, 6))
    taken[:100, :3], taken[100:, 3:] = random.poisson(3, (100, 3)), random.poisson(2, (100, 3))
    first = Themes.fit(taken, items, 2, seed=0)
    renamed = Themes(first.items, ("breakfast", "laundry"), first.weight, first.reach)
    other = Themes.fit(taken[:, ::-1] * [1, 2, 1, 3, 1, 1], items[::-1], 2, seed=1, before=renamed)
    assert set(other.names) == {"breakfast", "laundry"}
    for name in other.names:
        old = {renamed.items[n] for n in np.argsort(-renamed.weight[renamed.names.index(name)])[:3]}
        new = {other.items[n] for n in np.argsort(-other.weight[other.names.index(name)])[:3]}
        assert old == new
    strange = Themes.fit(random.poisson(2, (200, 4)).astype(float), ("w", "x", "y", "z"), 2, seed=0, before=renamed)
    assert not {"breakfast", "laundry"} & set(strange.names)


def test_a_model_trained_anew_takes_the_names_of_the_champion(tmp_path: Path) -> None:
    """Audiences ask for a topic by its name, so it must outlive the model that found it."""
    _, training, _ = learned()
    first = renew(training, prediction(), MODELS.schema.to_pyarrow().empty_table(), tmp_path, NOW)
    assert first.row["status"] == "champion"
    models = pa.Table.from_pylist([first.row], schema=MODELS.schema.to_pyarrow())
    known = champion(prediction(), models, tmp_path, training.column_names).scorer
    rare = pc.if_else(pc.is_in(training["item"], pa.array([known.names[0].split(" + ")[0]])), 0.3, 1.0)
    changed = training.set_column(training.column_names.index("_slow"), "_slow", pc.multiply(training["_slow"], rare))
    again = topics.train(changed, prediction())
    assert set(again.scorer.names) != set(known.names), "by itself it would have been called otherwise"
    second = renew(changed, prediction(), models, tmp_path, NOW)
    assert set(json.loads(second.row["card"])["topics"]) == set(known.names)


def test_somebody_of_whom_nothing_is_known_is_an_even_mixture() -> None:
    model = learned()[2].scorer
    assert model.shares(np.zeros((1, len(model.items))))[0] == pytest.approx([0.5, 0.5])


def test_tastes_that_do_not_last_are_not_published() -> None:
    _, training, trained = learned()
    shuffled = {"agreement": 0.4}
    gates = topics.judge(Trained(trained.scorer, trained.metrics | shuffled, None, trained.card), prediction())
    assert [gate.name for gate in gates if not gate.passed] == ["agreement"]
    short = topics.train(training, prediction(topics=6))
    assert short.missing == "needs 7 items, has 6"
    inputs = pa.table({"person_id": ["a"], "item": ["tea"], "_slow": [1.0]})
    assert topics.score(inputs, Champion("v0", None, short.missing), prediction(), SHOP, DAY).num_rows == 0
    assert topics.outcomes(ibis.memtable({"a": [1]}), prediction(), [DAY]) is None

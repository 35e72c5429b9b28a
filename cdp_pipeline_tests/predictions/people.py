"""Made-up training sets for the tests of predictions: people with a planted signal, or none."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import ibis
import numpy as np
import pyarrow as pa

from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.training import HISTORY
from cdp_pipeline.spec.prediction import Binary
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.traits.shop import timeline_rows

TEST_DAY = date(2024, 6, 1)
TRAIN_DAYS = [TEST_DAY - timedelta(days=ago) for ago in (150, 120, 90, 60)]


def prediction(**fields: Any) -> Binary:
    document = {
        "kind": "prediction", "name": "buys", "description": "Buys again.", "target": {"event": ["order"]},
        "horizon": "60 days", "bands": [{"name": "low", "above": 0}, {"name": "high", "above": 0.6}],
    }  # fmt: skip
    return Binary.model_validate(document | fields)


def known_of(rows: list[dict[str, Any]]) -> Known:
    """All that these events tell, of everybody in them."""
    timeline = ibis.memtable(timeline_rows(rows))
    return Known(as_of, timeline, timeline.filter(timeline.person_id.notnull()).select("person_id").distinct())


def truth(signal: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """The planted probability: a line in one trait and a step in another, which only trees see."""
    return 1 / (1 + np.exp(-(1.2 * signal + np.where(np.abs(curve) < 0.7, 1.5, -1.0))))


def features(count: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    tenure = random.integers(1, 400, count).astype(float)
    times = random.integers(0, 6, count).astype(float)
    recency = np.where(times > 0, np.floor(tenure * random.random(count)), np.nan)
    return {
        "signal": random.normal(size=count),
        "curve": random.normal(size=count),
        "noise": np.where(random.random(count) < 0.2, np.nan, random.exponential(20, count)),
        "_recency": recency,
        "_times": times,
        "_since_first": np.where(times > 0, tenure, np.nan),
        "_amount": np.where(times > 0, 10 * times, np.nan),
        "_tenure": tenure,
        "_active_days": np.maximum(times, 1),
    }


def training(people: int = 600, planted: bool = True, seed: int = 1) -> pa.Table:
    """A training set of five cut-offs of `people` each, as training_set makes it."""
    parts = []
    for step, day in enumerate([*TRAIN_DAYS, TEST_DAY]):
        columns = features(people, seed * 100 + step)
        chance = truth(columns["signal"], columns["curve"]) if planted else np.full(people, 0.4)
        happened = np.random.default_rng(seed * 1000 + step).random(people) < chance
        early, unknown = np.arange(people) % 2 == 0, pa.nulls(people, pa.int64())
        keys = {
            "person_id": [f"p_{number:06}" for number in range(people)],
            "day": [day] * people,
            "split": ["test" if day == TEST_DAY else "train"] * people,
            "label": happened.astype("int64"),
            "_soon": pa.array(happened & early).cast(pa.int64()) if day < TEST_DAY else unknown,
            "_season": [1.0] * people,
        }
        parts.append(pa.table(keys | {name: pa.array(values, from_pandas=True) for name, values in columns.items()}))
    return pa.concat_tables(parts)


def to_score(people: int, seed: int = 9) -> pa.Table:
    columns = {name: pa.array(values, from_pandas=True) for name, values in features(people, seed).items()}
    level = {"_soon": pa.nulls(people, pa.int64()), "_season": [1.0] * people}
    return pa.table({"person_id": [f"p_{number:06}" for number in range(people)]} | level | columns)


assert set(HISTORY) <= set(features(1, 0))

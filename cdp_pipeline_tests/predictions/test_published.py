"""The three tables of a prediction in a real lake: from events to scores, and once more without any change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import numpy as np

from cdp_pipeline.lake import Lake, Mirror
from cdp_pipeline.predictions.binary import inputs, training_set, training_table
from cdp_pipeline.predictions.champions import register
from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.registry import MODELS, champion, renew
from cdp_pipeline.predictions.scores import score, scores_table
from cdp_pipeline.predictions.windows import cutoffs
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.predictions.people import prediction
from cdp_pipeline_tests.traits.shop import event, project, timeline_rows, trait

FIRST, LAST = date(2023, 1, 1), date(2023, 12, 31)
PREDICTION = prediction(horizon="30 days", gates={"min_auc": 0.55, "min_lift": 1}, minimum={"people": 100})
SHOP = project(trait("orders_30d", "count", window="last 30 days"), trait("spent", "sum", value="amount"), PREDICTION)


def a_year() -> list[dict[str, Any]]:
    """People who order at rates of their own, some of whom stop."""
    random, rows = np.random.default_rng(3), []
    for person in range(400):
        day, rate = FIRST + timedelta(days=int(random.integers(0, 360))), random.gamma(1, 1 / 30)
        while day <= LAST and random.random() > 0.05:
            rows.append(event(event_id=f"e{len(rows)}", person_id=f"p_{person:03}", _day=day))
            day += timedelta(days=1 + int(random.exponential(1 / rate)))
    return rows


def run(lake: Lake, timeline: ibis.Table, people: ibis.Table, folder: Path, now: datetime) -> list[dict[str, Any]]:
    """What the assets do: training set, model, scores."""
    windows = cutoffs(PREDICTION, LAST, FIRST)
    known = Known(as_of, timeline, people)
    rows = training_set(known, PREDICTION, SHOP, windows)
    training = training_table(PREDICTION, SHOP, as_of(timeline, people, [LAST], SHOP).schema())
    lake.publish(Mirror(training, rows.to_pyarrow()))
    learned = lake.read(training).to_pyarrow()
    renewed = renew(learned, PREDICTION, lake.read(MODELS).to_pyarrow(), folder, now, lake.snapshot)
    assert register(lake, renewed)["status"] == "champion", renewed.card["gates"]
    best = champion(PREDICTION, lake.read(MODELS).to_pyarrow(), folder, list(training.columns))
    table = scores_table(PREDICTION)
    to_score = inputs(known, PREDICTION, SHOP, LAST).to_pyarrow()
    lake.publish(Mirror(table, score(to_score, best, PREDICTION, SHOP, LAST), within={"day": [LAST]}))
    return lake.read(table).order_by("rank").to_pyarrow().to_pylist()


def test_from_events_to_scores_and_again_without_any_change(lake: Lake, tmp_path: Path) -> None:
    rows = timeline_rows(a_year())
    timeline = ibis.memtable(rows)
    people = timeline.select("person_id").distinct()
    first = run(lake, timeline, people, tmp_path / "models", datetime(2024, 1, 1, tzinfo=UTC))
    assert [row["rank"] for row in first] == list(range(1, people.count().execute() + 1))
    assert {row["basis"] for row in first} == {"model", "prior"}
    before = lake.latest()
    again = run(lake, timeline, people, tmp_path / "models", datetime(2024, 1, 2, tzinfo=UTC))
    assert again == first
    assert lake.latest() == before
    assert len(list((tmp_path / "models" / "buys").iterdir())) == 1

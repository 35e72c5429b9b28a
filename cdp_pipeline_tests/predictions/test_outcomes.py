"""Scores are judged by what then happened, once it can be known, and only those a model truly foresaw."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from cdp_pipeline.predictions import metrics
from cdp_pipeline.predictions.charts import learning_charts, realised_chart
from cdp_pipeline.predictions.outcomes import (
    OUTCOMES,
    REALISED,
    due,
    joined,
    labelled_to,
    realised,
    scored_days,
)
from cdp_pipeline.predictions.targets import labels
from cdp_pipeline_tests.predictions.people import prediction
from cdp_pipeline_tests.traits.shop import event, timeline_rows

BUYS = prediction(horizon="10 days")
DAY, LATER = date(2026, 3, 1), date(2026, 3, 5)


def scores(*rows: tuple[str, date, float]) -> pa.Table:
    return pa.table({
        "person_id": [row[0] for row in rows], "day": pa.array([row[1] for row in rows], pa.date32()),
        "score": [row[2] for row in rows], "basis": ["model"] * len(rows), "model_version": ["v1"] * len(rows),
    })  # fmt: skip


def outcome_rows(given: pa.Table, events: list[tuple[str, date]], days: list[date]) -> pa.Table:
    told = [event(event_id=f"e{n}", person_id=person, _day=day) for n, (person, day) in enumerate(events)]
    happened = labels(ibis.memtable(timeline_rows(told)), BUYS, days)
    rows = joined(ibis.memtable(given), happened, BUYS, days).to_pyarrow()
    assert set(rows.column_names) == set(OUTCOMES.columns)
    return rows.select(list(OUTCOMES.columns)).cast(OUTCOMES.schema.to_pyarrow())


def test_a_score_is_joined_to_what_happened_in_its_own_horizon() -> None:
    given = scores(("ann", DAY, 0.9), ("bob", DAY, 0.2), ("ann", LATER, 0.4), ("gone", DAY, 0.5))
    events = [(person, date(2026, 1, 1)) for person in ("ann", "bob")]
    events += [("ann", DAY + timedelta(days=10)), ("bob", DAY + timedelta(days=11)), ("ann", DAY)]
    rows = outcome_rows(given, events, [DAY, LATER]).to_pylist()
    found = {(row["person_id"], row["day"]): (row["score"], row["label"]) for row in rows}
    assert found == {("ann", DAY): (0.9, 1.0), ("bob", DAY): (0.2, 0.0), ("ann", LATER): (0.4, 1.0)}


def test_a_day_is_due_when_its_horizon_ends_or_when_it_was_missed_or_scored_anew() -> None:
    days = [DAY + timedelta(days=step) for step in range(5)]
    scored = dict.fromkeys(days, (100, 0.25))
    ten = timedelta(days=10)
    known = [
        {"day": day, "metric": metric, "value": value}
        for day in days[:3]
        for metric, value in (("scored", 100.0), ("mean_score", 0.25), ("auc", 0.7))
    ]
    assert due(scored, [], ten, [DAY + timedelta(days=9)]) == []
    assert due(scored, [], ten, [days[1] + ten]) == days[:2], "the first was missed"
    assert due(scored, known, ten, [days[2] + ten]) == [days[2]], "asked for again, computed again"
    assert due(scored, known, ten, [days[4] + ten]) == days[3:]
    assert due(scored | {days[0]: (100, 0.26)}, known, ten, [days[3] + ten]) == [days[0], days[3]], "scored anew"


def test_realised_figures_are_those_of_the_day_and_say_whether_the_model_had_seen_it() -> None:
    random = np.random.default_rng(5)
    people = [f"p{number:03}" for number in range(300)]
    chance = {day: random.random(300).round(6) for day in (DAY, LATER)}
    given = scores(*((person, day, chance[day][n]) for day in chance for n, person in enumerate(people)))
    given = given.set_column(4, "model_version", pa.array(["v1"] * 300 + ["v2"] * 300))
    happened = {day: (random.random(300) < chance[day]).astype(float) for day in chance}
    rows = outcome_rows(given, [(person, date(2026, 1, 1)) for person in people], [DAY, LATER])
    told = {(p, day): happened[day][n] for day in chance for n, p in enumerate(people)}
    keys = zip(rows["person_id"].to_pylist(), rows["day"].to_pylist(), strict=True)
    rows = rows.set_column(5, "label", pa.array([told[key] for key in keys]))
    known_to = {"v1": DAY, "v2": LATER + timedelta(days=1)}
    table = realised(rows, scored_days(ibis.memtable(given)), BUYS, known_to, metrics.realised)
    assert table.schema.equals(REALISED.schema.to_pyarrow())
    found = {(row["day"], row["metric"]): row for row in table.to_pylist()}
    for day in chance:
        assert found[day, "auc"]["value"] == pytest.approx(roc_auc_score(happened[day], chance[day]))
        assert found[day, "mean_score"]["value"] == pytest.approx(chance[day].mean())
        assert found[day, "rate"]["value"] == happened[day].mean()
        assert found[day, "ece"]["value"] < 0.1 and found[day, "lift_10"]["value"] > 1.3
        assert found[day, "scored"]["value"] == found[day, "with_outcome"]["value"] == 300
        assert found[day, "auc"]["known_on"] == day + timedelta(days=10)
    assert found[DAY, "auc"]["foreseen"] is True
    assert found[LATER, "auc"]["foreseen"] is False, "its model was trained on days after"


def test_where_everybody_or_nobody_did_it_there_is_a_rate_and_no_ranking() -> None:
    figures = metrics.realised(np.zeros(10), np.full(10, 0.1))
    assert figures == {"rate": 0.0, "ece": pytest.approx(0.1), "brier": pytest.approx(0.01)}


def test_a_model_knows_what_happened_until_its_test_window_ended() -> None:
    card = json.dumps({"test_cutoff": "2026-01-31", "horizon_days": 10})
    none = json.dumps({"test_cutoff": None, "horizon_days": 10})
    rows = [
        {"name": "buys", "version": "v1", "card": card},
        {"name": "buys", "version": "v0", "card": none},
        {"name": "others", "version": "v9", "card": card},
    ]
    assert labelled_to(rows, BUYS) == {"v1": date(2026, 2, 10)}


def test_charts_over_time_are_drawn_of_versions_and_of_realised_figures() -> None:
    def row(status: str, month: int, **metrics: float) -> dict[str, Any]:
        card = json.dumps({"test_cutoff": f"2026-{month:02}-01"})
        return {"status": status, "metrics": json.dumps(metrics), "card": card}

    versions = [row("retired", 1, auc=0.7, ece=0.1), row("rejected", 2, auc=0.5), row("champion", 3, auc=0.8)]
    drawn = learning_charts([*versions, row("insufficient", 4)])
    assert list(drawn) == ["learning over time"]
    assert learning_charts([row("insufficient", 4)]) == {}
    told = [{"day": DAY, "metric": "auc", "value": 0.7}, {"day": LATER, "metric": "auc", "value": 0.6}]
    for image in (drawn["learning over time"], realised_chart(told, ["auc"])):
        assert "data:image/png;base64,iVBOR" in image

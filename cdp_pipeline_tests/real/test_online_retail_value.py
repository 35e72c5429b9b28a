"""value_90d of the Online Retail II project, learned and proven on the real shop's own events."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from cdp_pipeline.predictions import value
from cdp_pipeline.predictions.clock import CLOCK
from cdp_pipeline.predictions.windows import cutoffs
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.prediction import Value
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.real.test_online_retail_prediction import RAW, Shop

pytestmark = pytest.mark.skipif(not RAW.exists(), reason=f"Online Retail II is not at {RAW} (set CDP_SHARED_DATA)")


@pytest.fixture(scope="module")
def project() -> Project:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CDP_DATA", os.fspath(RAW.parent))
        return load_project(Path(__file__).parent / "online_retail")


def test_amounts_are_ranked_better_than_by_rhythm_alone_and_the_missing_season_is_told(project: Project) -> None:
    """As of 2010-11-12, after the busiest weeks of the only year that is known: the ranking holds, the total cannot."""
    prediction = project.predictions["value_90d"]
    assert isinstance(prediction, Value)
    windows = cutoffs(prediction, date(2011, 2, 10), project.settings.first_day)
    rows = value.training_set(Shop(project).known, prediction, project, windows).to_pyarrow()
    trained = value.train(rows, prediction)
    m = trained.metrics
    assert m["people"] > 4000
    assert m["gain_over_rhythm"] > 0
    assert m["gain_over_rate"] > 0.05
    assert 0.78 < m["coverage"] < 0.9
    assert trained.card["season"] == 1
    failed = {gate.name: gate.words for gate in value.judge(trained, prediction) if not gate.passed}
    assert list(failed) == ["total"]
    assert failed["total"].startswith("foresaw 1.2")


def test_the_clock_of_the_season_is_the_same_without_what_came_later(project: Project) -> None:
    """With a year behind, so that the clock is at work: rebuilt from a file that ends on that day."""
    prediction = project.predictions["value_90d"]
    assert isinstance(prediction, Value)
    day = date(2011, 1, 31)
    whole, before = (
        value.inputs(Shop(project, rows).known, prediction, project, day).to_pyarrow().sort_by("person_id")
        for rows in ("true", f"invoice_date < DATE '{day}' + 1")
    )
    assert whole.equals(before)
    assert set(whole["_ahead"].to_pylist()) != {90.0}
    assert (whole["_recency_clock"].to_numpy() != whole["_recency"].to_numpy()).mean() > 0.9
    assert set(CLOCK) <= set(whole.column_names)

"""What the checks of models tell whoever is alerted: why, and who scores now."""

from __future__ import annotations

from typing import Any

from cdp_pipeline.orchestration.checks import gates_result, gates_spec
from cdp_pipeline.predictions.charts import drift_chart

KEY = ["predictions", "buys_model"]


def found(**gates: bool) -> dict[str, Any]:
    told = [{"name": name, "passed": passed, "words": f"{name} is {passed}"} for name, passed in gates.items()]
    return {"version": "v2", "card": {"gates": told}}


def test_a_failed_gate_says_why_and_that_the_champion_goes_on_scoring() -> None:
    rows = [{"version": "v1", "status": "champion"}, {"version": "v2", "status": "rejected"}]
    checked = gates_result(KEY, found(auc=False, ece=True), rows)
    assert not checked.passed
    assert checked.description == "v2: auc is False. v1 goes on scoring"
    assert checked.severity.value == "WARN", "it blocks the promotion; the run goes on with the champion"


def test_without_a_champion_it_says_what_everybody_gets() -> None:
    checked = gates_result(KEY, found(minimum_data=False), [{"version": "v2", "status": "insufficient"}])
    assert checked.description == "v2: minimum_data is False. Everybody gets the known rate until a model passes"


def test_a_model_that_passes_says_every_gate_and_alerts_nobody() -> None:
    checked = gates_result(KEY, found(auc=True), [{"version": "v2", "status": "champion"}])
    assert checked.passed and checked.description is None
    assert {name: value.value for name, value in checked.metadata.items()} == {"champion": "v2", "auc": "auc is True"}
    assert gates_spec(KEY).blocking


def test_drift_is_drawn_with_the_limit() -> None:
    assert "data:image/png;base64,iVBOR" in drift_chart({"score": 0.2, "orders_90d": 0.01}, 0.1, {})

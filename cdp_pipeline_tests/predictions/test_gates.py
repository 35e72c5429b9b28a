"""Each gate closes on its own, and says why."""

from __future__ import annotations

import pytest

from cdp_pipeline.predictions.gates import judge
from cdp_pipeline.predictions.kind import Trained
from cdp_pipeline_tests.predictions.people import prediction

SOUND = {
    "auc": 0.75, "baseline_auc": 0.72, "rhythm_auc": 0.74, "gain_over_rhythm_high": 0.02, "ece": 0.03, "lift_10": 2.0,
    "champion_auc": 0.75, "gain_over_champion_high": 0.0,
}  # fmt: skip


def failed(**metrics: float) -> dict[str, str]:
    trained = Trained(None, SOUND | metrics, None, {"train_people": 500})
    return {gate.name: gate.words for gate in judge(trained, prediction()) if not gate.passed}


@pytest.mark.parametrize(
    ("gate", "metrics", "words"),
    [
        ("auc", {"auc": 0.59, "baseline_auc": 0.5}, "AUC 0.590, at least 0.6 is needed"),
        ("better_than_baseline", {"baseline_auc": 0.75}, "recency, frequency and amount alone reach 0.750"),
        ("calibration", {"ece": 0.101}, "off by 0.101 on average, at most 0.1 is allowed"),
        ("lift", {"lift_10": 1.19}, "the best 10 % reach 1.19 times the average rate, at least 1.2 is needed"),
        ("not_worse_than_rhythm", {"gain_over_rhythm_high": -0.01}, "the own rhythm alone (BG/NBD) reaches 0.740"),
        ("not_worse_than_champion", {"gain_over_champion_high": -0.01}, "the champion reaches 0.750"),
    ],
)
def test_a_gate_closes_alone(gate: str, metrics: dict[str, float], words: str) -> None:
    found = failed(**metrics)
    assert list(found) == [gate]
    assert words in found[gate]


def test_a_sound_model_passes_and_the_edges_are_open() -> None:
    assert failed() == {}
    assert failed(auc=0.7201, ece=0.1, lift_10=1.2) == {}

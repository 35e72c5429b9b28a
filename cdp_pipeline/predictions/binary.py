"""`type: binary`: the probability that something happens to a person within the horizon.

Its parts are elsewhere: what is learned from in training.py, the estimator in model.py, its gates in gates.py.
"""

from __future__ import annotations

from typing import Any

from cdp_pipeline.predictions.charts import binary_charts
from cdp_pipeline.predictions.gates import judge
from cdp_pipeline.predictions.metrics import realised
from cdp_pipeline.predictions.model import RECIPE, train
from cdp_pipeline.predictions.scores import score, scores_table
from cdp_pipeline.predictions.targets import labels as outcomes
from cdp_pipeline.predictions.training import binary_inputs as inputs
from cdp_pipeline.predictions.training import binary_table as training_table
from cdp_pipeline.predictions.training import training_set, words
from cdp_pipeline.spec.prediction import Binary
from cdp_pipeline.spec.project import Project

__all__ = [
    "RECIPE", "charts", "inputs", "judge", "outcomes", "realised", "score", "scores_table", "train", "training_set",
    "training_table",
]  # fmt: skip


def charts(card: dict[str, Any], prediction: Binary, project: Project) -> dict[str, str]:
    return binary_charts(card, words(prediction, project))

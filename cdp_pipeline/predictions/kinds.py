"""The types of predictions there are. No other module tells them apart."""

from __future__ import annotations

from cdp_pipeline.predictions import affinity, binary, ranking, response, timing, topics, uplift, value
from cdp_pipeline.predictions.kind import Kind
from cdp_pipeline.spec.prediction import Prediction

KINDS: dict[str, Kind] = {
    "affinity": affinity,
    "binary": binary,
    "ranking": ranking,
    "response": response,
    "timing": timing,
    "topics": topics,
    "uplift": uplift,
    "value": value,
}
INHERITING = ("topics",)
"""Types whose new model takes names over from the champion, and is not measured beside it: they always get it."""


def kind_of(prediction: Prediction) -> Kind:
    return KINDS[prediction.type]

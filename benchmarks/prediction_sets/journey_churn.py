"""Churn within 28 days: Complete Journey

Households of a grocer's sample (its package says it is simulated on real patterns), seven months of 2017 behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prediction_sets import windows
from prediction_sets.binary_rivals import calibrated, compared, window
from prediction_sets.row import Row
from prediction_sets.shops import complete_journey


def rows(data: Path) -> Iterator[Row]:
    shop = complete_journey(data)
    prediction = shop.project.predictions["churn_28d"]
    tests = [window(shop.training_set(prediction, day), prediction, day) for day in windows.JOURNEY_CHURN_28D]
    yield from compared("churn_28d", tests, ("BG/NBD", "RFM logistic"))
    yield from calibrated("churn_28d", tests, "blend of logistic and HistGB")

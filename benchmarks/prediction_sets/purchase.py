"""Purchase within 60 days: Online Retail II

Real customers of a British gift retailer. The seasonal windows have less than a year behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prediction_sets import windows
from prediction_sets.binary_rivals import calibrated, compared, told_apart, window
from prediction_sets.row import Row
from prediction_sets.shops import online_retail

BARS = ("BG/NBD", "RFM logistic", "RFM logistic on logarithms")


def rows(data: Path) -> Iterator[Row]:
    shop = online_retail(data)
    prediction = shop.project.predictions["purchase_60d"]
    tests = [window(shop.training_set(prediction, day), prediction, day) for day in windows.PURCHASE_60D]
    season = [window(shop.training_set(prediction, day), prediction, day) for day in windows.PURCHASE_60D_SEASON]
    yield from compared("purchase_60d", tests, BARS)
    yield from told_apart("purchase_60d", tests, BARS)
    yield from told_apart("purchase_60d", [*season, *tests], BARS)
    yield from calibrated("purchase_60d", [*season, *tests], "blend of logistic and HistGB")

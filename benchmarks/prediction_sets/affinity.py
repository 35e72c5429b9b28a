"""Category affinity, next 28 days: Complete Journey

Households of a grocer's sample that shopped within 56 days × the categories most of them bought.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np

from cdp_pipeline.predictions.affinity import train
from cdp_pipeline.predictions.items import KNOWN
from prediction_sets import windows
from prediction_sets.item_rivals import LOGISTIC, Pairs, calibrated, compared, halves, plain_estimators
from prediction_sets.row import Row
from prediction_sets.shops import complete_journey

OWN = ("_times", "_recency", "_recent", "_person_times", "_person_recency", "_item_share", "_item_share_recent")
"""What a plain estimator is given: own rate, popularity, activity."""


def rows(data: Path, days: tuple[date, ...] = windows.JOURNEY_CATEGORY_28D) -> Iterator[Row]:
    shop = complete_journey(data)
    prediction = shop.project.predictions["category_28d"]
    for day in days:
        training = shop.training_set(prediction, day)
        trained = train(training, prediction)
        past, test = halves(training)
        rivals = {
            "popularity": test["_item_share_recent"].to_numpy(),
            "own rate": test["_times"].to_numpy() / np.maximum(test["_person_times"].to_numpy(), 1),
            "logistic of own rate, popularity, activity": plain_estimators(past, test, OWN, trees=False)[LOGISTIC],
            **plain_estimators(past, test, tuple(KNOWN)),
        }  # fmt: skip
        assert trained.scorer is not None, trained.missing
        pairs = Pairs(f"{day} ({test.num_rows:,} pairs)", test, trained.scorer.contributions(test)[0], rivals)
        yield from compared("category affinity", pairs)
        yield from calibrated("category affinity", pairs)

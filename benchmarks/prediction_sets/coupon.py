"""Coupon response: who redeems a coupon of a campaign they are sent. Complete Journey

Two windows: the campaigns of 12 July within seven weeks, and that of 8 August within the 23 days there are of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from cdp_pipeline.predictions.contacts import CONTACTS
from cdp_pipeline.predictions.response import train
from cdp_pipeline.spec.prediction import Response
from prediction_sets import windows
from prediction_sets.item_rivals import LOGISTIC, Pairs, calibrated, compared, halves, plain_estimators
from prediction_sets.row import Row
from prediction_sets.shops import complete_journey_campaigns

TESTS = ((date(2017, 7, 11), 49), (date(2017, 8, 1), 23))
"""Cut-offs, with the days there are to redeem."""
RFM = ("days_since_basket", "baskets_lifetime", "spend_lifetime")


def rows(data: Path, tests: tuple[tuple[date, int], ...] = TESTS) -> Iterator[Row]:
    shop = complete_journey_campaigns(data)
    declared = shop.project.predictions["coupon_response"]
    assert isinstance(declared, Response)
    for day, within in tests:
        assert tests is not TESTS or day + timedelta(days=7) >= windows.JOURNEY_COUPON_CAMPAIGNS_FROM
        target = declared.target.model_copy(update={"within": timedelta(days=within)})
        prediction = declared.model_copy(update={"target": target, "horizon": timedelta(days=within + 7)})
        training = shop.training_set(prediction, day)
        trained = train(training, prediction)
        past, test = halves(training)
        assert trained.scorer is not None, trained.missing
        names = (*prediction.features, *CONTACTS)
        own = (test["_answered_all"].to_numpy() + 1) / (test["_contacted_all"].to_numpy() + 10)
        rfm = plain_estimators(past, test, RFM, trees=False)[LOGISTIC]
        rivals = {"past rate": own, "logistic of RFM": rfm, **plain_estimators(past, test, names)}
        window = f"{day}, {within} days ({test.num_rows:,} sent, {sum(test['label'].to_pylist())} redeemed)"
        pairs = Pairs(window, test, trained.scorer.contributions(test)[0], rivals)
        yield from compared("coupon response", pairs)
        yield from calibrated("coupon response", pairs)

"""The cut-offs on which predictions are judged, written down on 2026-11-22, before any of the methods was tuned.

A cut-off is the last day that is known. These are looked at when a method is fixed; it is chosen on earlier ones.
"""

from __future__ import annotations

from datetime import date

PURCHASE_60D = (date(2011, 4, 12), date(2011, 6, 11))
PURCHASE_60D_SEASON = (date(2010, 10, 1), date(2010, 11, 1), date(2010, 12, 1))
"""Calibration has to hold here too, with less than a year of history."""
VALUE_90D = (date(2011, 2, 11), date(2011, 5, 12))
RECOMMENDED_30D = (date(2011, 6, 12), date(2011, 7, 12))
"""Online Retail II, which ends on 2011-08-11."""

JOURNEY_CHURN_28D = (date(2017, 7, 6), date(2017, 8, 3))
JOURNEY_CATEGORY_28D = (date(2017, 8, 3),)
JOURNEY_COUPON_CAMPAIGNS_FROM = date(2017, 7, 1)
JOURNEY_RECOMMENDED_30D = (date(2017, 7, 2), date(2017, 8, 1))
JOURNEY_HOURS_FROM = date(2017, 7, 2)
"""Complete Journey, which ends on 2017-08-31."""

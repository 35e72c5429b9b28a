"""The 120 traits of the benchmark as a project would declare them, and the rivals that compute the same numbers."""

from __future__ import annotations

from typing import Any

ORDER, VIEW = {"event": "order_completed"}, {"event": ["page_viewed", "product_viewed"]}
PRODUCT, OPEN = {"event": "product_viewed"}, {"event": "email_opened"}
CHANNELS = {f"{channel}_": {**ORDER, "when": f"channel = '{channel}'"} for channel in ("app", "web", "store")}


def _over(name: str, evaluation: str, asked: dict[str, Any], *days: int | None) -> dict[str, dict[str, Any]]:
    """One trait per window: `orders_90d` for the last 90 days, `orders` for a lifetime."""
    return {
        name if window is None else f"{name}_{window}d": {
            "evaluation": evaluation, **asked, **({} if window is None else {"window": f"last {window} days"}),
        }
        for window in days
    }  # fmt: skip


def _of(what: dict[str, Any], value: str, **more: Any) -> dict[str, Any]:
    return {**what, "value": value, **more}


def _by(numerator: str, denominator: str) -> dict[str, Any]:
    return {"evaluation": "ratio", "numerator": numerator, "denominator": denominator}


AMOUNT = _of(ORDER, "amount")
TRAITS: dict[str, dict[str, Any]] = {
    **_over("orders", "count", ORDER, None, 365, 180, 90, 30, 7),
    **_over("views", "count", VIEW, None, 365, 90, 30, 7),
    **_over("product_views", "count", PRODUCT, 365, 90, 30),
    **_over("opens", "count", OPEN, None, 365, 90, 30),
    **_over("app_orders", "count", CHANNELS["app_"], None, 365, 90),
    **_over("web_orders", "count", CHANNELS["web_"], None, 365, 90),
    **_over("store_orders", "count", CHANNELS["store_"], None, 365, 90),
    **_over("big_orders", "count", {**ORDER, "when": "amount >= 100"}, None, 365, 90),
    **_over("revenue", "sum", AMOUNT, None, 365, 180, 90, 30, 7),
    **_over("app_revenue", "sum", _of(CHANNELS["app_"], "amount"), None, 365, 90),
    **_over("web_revenue", "sum", _of(CHANNELS["web_"], "amount"), None, 365, 90),
    **_over("store_revenue", "sum", _of(CHANNELS["store_"], "amount"), None, 365, 90),
    **_over("order_value", "average", AMOUNT, None, 365, 180, 90, 30),
    **_over("app_order_value", "average", _of(CHANNELS["app_"], "amount"), 365),
    **_over("web_order_value", "average", _of(CHANNELS["web_"], "amount"), 365),
    **_over("store_order_value", "average", _of(CHANNELS["store_"], "amount"), 365),
    **_over("order_spread", "stddev", AMOUNT, None, 365),
    **_over("biggest_order", "max", AMOUNT, None, 365, 180, 90),
    **_over("smallest_order", "min", AMOUNT, None, 365, 90),
    **_over("first_category", "first", _of(ORDER, "category"), None),
    **_over("first_product", "first", _of(ORDER, "product_id"), None),
    **_over("first_channel", "first", _of(ORDER, "channel"), None),
    **_over("first_amount", "first", AMOUNT, None),
    **_over("last_category", "last", _of(ORDER, "category"), None),
    **_over("last_product", "last", _of(ORDER, "product_id"), None),
    **_over("last_channel", "last", _of(ORDER, "channel"), None, 90),
    **_over("last_amount", "last", AMOUNT, None),
    **_over("last_viewed_product", "last", _of(PRODUCT, "product_id"), None),
    **_over("last_viewed_category", "last", _of(PRODUCT, "category"), None),
    **_over("last_view_channel", "last", _of(VIEW, "channel"), 90),
    **_over("days_since_order", "days_since", ORDER, None),
    **_over("days_since_app_order", "days_since", CHANNELS["app_"], None),
    **_over("days_since_store_order", "days_since", CHANNELS["store_"], None),
    **_over("days_since_view", "days_since", VIEW, None),
    **_over("days_since_product_view", "days_since", PRODUCT, None),
    **_over("days_since_open", "days_since", OPEN, None),
    **_over("days_since_first_order", "days_since_first", ORDER, None),
    **_over("days_since_first_view", "days_since_first", VIEW, None),
    **_over("days_between_orders", "days_between", ORDER, None, 365),
    **_over("categories", "unique_count", _of(ORDER, "category"), None, 365, 90),
    **_over("products", "unique_count", _of(ORDER, "product_id"), 365),
    **_over("viewed_products", "unique_count", _of(PRODUCT, "product_id"), 90, 30),
    **_over("viewed_categories", "unique_count", _of(PRODUCT, "category"), 365, 90),
    **_over("channels", "unique_count", _of(ORDER, "channel"), None, 365),
    **_over("top_category", "most_frequent", _of(ORDER, "category"), None, 365),
    **_over("top_channel", "most_frequent", _of(ORDER, "channel"), 365),
    **_over("top_viewed_product", "most_frequent", _of(PRODUCT, "product_id"), 90),
    **_over("top_viewed_category", "most_frequent", _of(PRODUCT, "category"), 365, 90),
    **_over("top_categories", "top", _of(ORDER, "category", n=3), 365),
    **_over("top_viewed_products", "top", _of(PRODUCT, "product_id", n=3), 90),
    **_over("median_order", "median", AMOUNT, 365),
    **_over("high_order", "quantile", {**AMOUNT, "quantile": 0.9}, 365),
    **_over("revenue_trend", "trend", {**AMOUNT, "period": "month"}, 360),
    **_over("order_trend", "trend", {**ORDER, "period": "month"}, 360),
    **_over("view_trend", "trend", {**VIEW, "period": "week"}, 84),
    **_over("order_warmth", "decayed", {**ORDER, "half_life": "30 days"}, None),
    **_over("view_warmth", "decayed", {**VIEW, "half_life": "14 days"}, None),
    **_over("spend_warmth", "decayed", {**AMOUNT, "half_life": "90 days"}, None),
    **_over("ordered", "happened", ORDER, 7),
    **_over("opened", "happened", OPEN, 30),
    "orders_per_view_90d": _by("orders_90d", "views_90d"),
    "orders_per_view_365d": _by("orders_365d", "views_365d"),
    "app_share_365d": _by("app_orders_365d", "orders_365d"),
    "store_share_365d": _by("store_orders_365d", "orders_365d"),
    "big_share_365d": _by("big_orders_365d", "orders_365d"),
    "revenue_per_view_365d": _by("revenue_365d", "views_365d"),
    "earlier_revenue": {"evaluation": "expression", "expression": "revenue_365d - revenue_180d"},
    "orders_a_year": {"evaluation": "expression", "expression": "orders_30d * 12"},
}
LISTS = ("top_categories_365d", "top_viewed_products_90d")
WORDS = tuple(name for name, trait in TRAITS.items() if trait.get("value") in ("category", "product_id", "channel")
              and trait["evaluation"] != "unique_count" and name not in LISTS)  # fmt: skip
ZERO = ("count", "sum", "unique_count", "decayed", "trend")
"""Evaluations that are 0 where nothing was seen; the others are NULL (and `happened` is false)."""

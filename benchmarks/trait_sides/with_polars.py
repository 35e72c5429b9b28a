"""The same traits in lazy polars, staged as the handwritten SQL is: one pass per set of events, two per dimension."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl

from trait_sides import LISTS, TRAITS, ZERO

age = pl.col("age")
WINDOWS = {"": age >= 0, **{f"_{days}d": age < days for days in (365, 180, 90, 30, 7)}}
COLUMNS = ["event_id", "person_id", "occurred_at", "event", "channel", "amount", "product_id", "category", "age"]


def compute(folder: Path, day: date) -> None:
    people = pl.scan_parquet(folder / "people.parquet")
    events = (
        pl.scan_parquet(folder / "events.parquet")
        .filter(pl.col("_day") <= day)
        .with_columns(age=(pl.lit(day) - pl.col("_day")).dt.total_days().cast(pl.Int32))
        .select(COLUMNS)
    )
    orders = events.filter(pl.col("event") == "order_completed")
    orders = orders.with_columns(money=pl.col("amount").cast(pl.Float64)).sort("occurred_at", "event_id")
    views = events.filter(pl.col("event").is_in(["page_viewed", "product_viewed"])).sort("occurred_at", "event_id")
    products = views.filter(pl.col("event") == "product_viewed")
    opens = events.filter(pl.col("event") == "email_opened")
    parts = [
        orders.group_by("person_id").agg(_of_orders()),
        views.group_by("person_id").agg(_of_views()),
        products.group_by("person_id").agg(
            *_counts("product_views", pl.lit(True)),
            last_viewed_product=pl.col("product_id").last(),
            last_viewed_category=pl.col("category").last(),
            days_since_product_view=age.min(),
        ),
        opens.group_by("person_id").agg(*_counts("opens", pl.lit(True)), days_since_open=age.min()),
        orders.select("person_id", "age")
        .unique()
        .group_by("person_id")
        .agg(*(_gap(WINDOWS[window]).alias(f"days_between_orders{window}") for window in ("", "_365d"))),
        *_dimension(orders, "category", "categories", "top_category", ["", "_365d", "_90d"], "top_categories"),
        *_dimension(orders, "channel", "channels", "top_channel", ["", "_365d"]),
        *_dimension(orders, "product_id", "products", "", ["_365d"]),
        *_dimension(
            products, "product_id", "viewed_products", "top_viewed_product", ["_90d", "_30d"], "top_viewed_products"
        ),
        *_dimension(products, "category", "viewed_categories", "top_viewed_category", ["_365d", "_90d"]),
    ]
    table = people
    for part in parts:
        table = table.join(part, on="person_id", how="left")
    # Those that others are made of come first in the list.
    for name in TRAITS:
        table = table.with_columns(_value(name).alias(name))
    table.select("person_id", pl.lit(day).alias("day"), *TRAITS).sink_parquet(folder / "polars.parquet")


def _counts(name: str, counted: pl.Expr) -> list[pl.Expr]:
    return [
        (counted & seen).sum().alias(f"{name}{window}")
        for window, seen in WINDOWS.items() if f"{name}{window}" in TRAITS
    ]  # fmt: skip


def _of_orders() -> list[pl.Expr]:
    money, found = pl.col("money"), []
    for prefix in ("", "app_", "web_", "store_"):
        counted = pl.col("channel") == prefix[:-1] if prefix else pl.lit(True)
        found += _counts(f"{prefix}orders", counted)
        for name, aggregate in {"revenue": "sum", "order_value": "mean", "order_spread": "std", "biggest_order": "max",
                                "smallest_order": "min"}.items():  # fmt: skip
            for window, seen in WINDOWS.items():
                if f"{prefix}{name}{window}" in TRAITS and (name in ("revenue", "order_value") or not prefix):
                    kept = pl.when(counted & seen).then(money)
                    found.append(getattr(kept, aggregate)().alias(f"{prefix}{name}{window}"))
    found += _counts("big_orders", money >= 100)
    for end in ("first", "last"):
        for name, column in {
            "category": "category",
            "product": "product_id",
            "channel": "channel",
            "amount": "money",
        }.items():
            found.append(getattr(pl.col(column), end)().alias(f"{end}_{name}"))
    year = money.filter(WINDOWS["_365d"])
    return [
        *found,
        pl.col("channel").filter(WINDOWS["_90d"]).last().alias("last_channel_90d"),
        age.min().alias("days_since_order"),
        age.max().alias("days_since_first_order"),
        *(age.filter(pl.col("channel") == c).min().alias(f"days_since_{c}_order") for c in ("app", "store")),
        year.median().alias("median_order_365d"),
        year.quantile(0.9, "linear").alias("high_order_365d"),
        _trend(30, money).alias("revenue_trend_360d"),
        _trend(30, pl.lit(1.0)).alias("order_trend_360d"),
        _decayed(30).sum().alias("order_warmth"),
        (_decayed(90) * money).sum().alias("spend_warmth"),
    ]


def _of_views() -> list[pl.Expr]:
    return [
        *_counts("views", pl.lit(True)),
        pl.col("channel").filter(WINDOWS["_90d"]).last().alias("last_view_channel_90d"),
        age.min().alias("days_since_view"),
        age.max().alias("days_since_first_view"),
        _trend(7, pl.lit(1.0)).alias("view_trend_84d"),
        _decayed(14).sum().alias("view_warmth"),
    ]


def _trend(days: int, value: pl.Expr) -> pl.Expr:
    """The least-squares slope over twelve periods is one weighted sum: (2x - 11) / 2 / 143 for x = 0 … 11."""
    weight = (11 - 2 * (age // days)) / 286
    return pl.when(age < 12 * days).then(weight * value).sum()


def _decayed(half_life: int) -> pl.Expr:
    return pl.lit(0.5).pow(age / half_life)


def _gap(seen: pl.Expr) -> pl.Expr:
    days = pl.when(seen).then(age)
    gaps = days.count() - 1
    return (days.max() - days.min()) / pl.when(gaps > 0).then(gaps)


def _dimension(
    rows: pl.LazyFrame, column: str, unique: str, top: str, asked: list[str], several: str = ""
) -> list[pl.LazyFrame]:
    """How many different values, which is the most frequent, and which three are, per window."""
    longest = WINDOWS[asked[0]]
    counts = (
        rows.filter(longest)
        .group_by("person_id", column)
        .agg(*((WINDOWS[window]).sum().alias(f"n{window}") for window in asked), last=pl.col("occurred_at").max())
    )
    names = [f"{unique}{window}" for window in asked if f"{unique}{window}" in TRAITS]
    found = [
        counts.group_by("person_id").agg(
            *((pl.col(f"n{name.removeprefix(unique)}") > 0).sum().alias(name) for name in names)
        )
    ]
    for window in asked:
        if top and f"{top}{window}" in TRAITS:
            ordered = counts.filter(pl.col(f"n{window}") > 0).sort(
                f"n{window}", "last", column, descending=[True, True, False]
            )
            three = [pl.col(column).head(3).alias(f"{several}{window}")] if f"{several}{window}" in TRAITS else []
            found.append(ordered.group_by("person_id").agg(pl.col(column).first().alias(f"{top}{window}"), *three))
    return found


def _value(name: str) -> pl.Expr:
    trait = TRAITS[name]
    match trait["evaluation"]:
        case "ratio":
            below = pl.col(trait["denominator"])
            return pl.col(trait["numerator"]) / pl.when(below > 0).then(below)
        case "happened":
            return pl.col(name.replace("ordered", "orders").replace("opened", "opens")) > 0
        case "expression" if name == "earlier_revenue":
            return pl.col("revenue_365d") - pl.col("revenue_180d")
        case "expression":
            return pl.col("orders_30d") * 12
    if name in LISTS:
        return pl.col(name).fill_null(pl.lit([], dtype=pl.List(pl.String)))
    return pl.col(name).fill_null(0) if trait["evaluation"] in ZERO else pl.col(name)

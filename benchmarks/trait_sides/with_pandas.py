"""The same traits in pandas 3: people as numbers, words as categories, and each subset of the events taken once."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from trait_sides import TRAITS, ZERO

COLUMNS = ["event_id", "person_id", "occurred_at", "event", "channel", "amount", "product_id", "category", "_day"]
WORDS = ["event", "channel", "product_id", "category"]


def compute(folder: Path, day: date) -> None:
    events = pd.read_parquet(folder / "events.parquet", columns=COLUMNS)
    events["amount"] = events["amount"].astype("float64")
    for column in WORDS:
        codes = events[column].astype("category")
        # In the order of their letters, so that the smaller word is the smaller number.
        events[column] = codes.cat.reorder_categories(sorted(codes.cat.categories), ordered=True)
    people = pd.read_parquet(folder / "people.parquet")["person_id"]
    # People as numbers: grouping by text costs pandas several times more.
    events["person_id"] = pd.Index(people).get_indexer(events["person_id"]).astype("int32")
    events["age"] = (pd.Timestamp(day) - pd.to_datetime(events["_day"])).dt.days.astype("int32")
    events = events[events["age"] >= 0].sort_values(["occurred_at", "event_id"], kind="stable")
    events = events.drop(columns=["event_id", "_day"])
    orders = events[events["event"] == "order_completed"]
    products = events[events["event"] == "product_viewed"]
    views = events[events["event"].isin(["page_viewed", "product_viewed"])]
    opens = events[events["event"] == "email_opened"]
    found = {}
    sets = {
        "orders": orders, "views": views, "product_views": products, "opens": opens,
        **{f"{channel}_orders": orders[orders["channel"] == channel] for channel in ("app", "web", "store")},
        "big_orders": orders[orders["amount"] >= 100],
    }  # fmt: skip
    windows = {"": None, "_365d": 365, "_180d": 180, "_90d": 90, "_30d": 30, "_7d": 7}
    within = {
        name + window: rows if days is None else rows[rows["age"] < days]
        for name, rows in sets.items()
        for window, days in windows.items()
    }
    for name, rows in within.items():
        if name in TRAITS:
            found[name] = rows.groupby("person_id").size()
    for prefix in ("", "app_", "web_", "store_"):
        for window in windows:
            amounts = within[f"{prefix}orders{window}"].groupby("person_id")["amount"]
            for name, aggregate in {
                "revenue": "sum", "order_value": "mean", "order_spread": "std", "biggest_order": "max",
                "smallest_order": "min",
            }.items():  # fmt: skip
                if f"{prefix}{name}{window}" in TRAITS and (name in ("revenue", "order_value") or not prefix):
                    found[f"{prefix}{name}{window}"] = amounts.agg(aggregate)
    for end in ("first", "last"):
        # Sorted by time above, so that the first of a person's rows is the oldest.
        ends = getattr(orders.groupby("person_id")[["category", "product_id", "channel", "amount"]], end)()
        for name, column in {"category": "category", "product": "product_id", "channel": "channel"}.items():
            found[f"{end}_{name}"] = ends[column].astype("object")
        found[f"{end}_amount"] = ends["amount"]
    found["last_channel_90d"] = within["orders_90d"].groupby("person_id")["channel"].last().astype("object")
    seen = products.groupby("person_id")[["product_id", "category"]].last()
    found["last_viewed_product"] = seen["product_id"].astype("object")
    found["last_viewed_category"] = seen["category"].astype("object")
    found["last_view_channel_90d"] = within["views_90d"].groupby("person_id")["channel"].last().astype("object")
    for name in ("order", "app_order", "store_order", "view", "product_view", "open"):
        found[f"days_since_{name}"] = sets[f"{name}s"].groupby("person_id")["age"].min()
    for name in ("order", "view"):
        found[f"days_since_first_{name}"] = sets[f"{name}s"].groupby("person_id")["age"].max()
    for window in ("", "_365d"):
        days = within[f"orders{window}"][["person_id", "age"]].drop_duplicates().groupby("person_id")["age"]
        gaps = days.size() - 1
        found[f"days_between_orders{window}"] = (days.max() - days.min()) / gaps.where(gaps > 0)

    def counted(rows: pd.DataFrame, column: str) -> pd.DataFrame:
        """Person and value with how often and when last, the most frequent first."""
        counts = rows.groupby(["person_id", column], observed=True).agg(
            n=("age", "size"), last=("occurred_at", "max")
        ).reset_index()  # fmt: skip
        return counts.sort_values(["person_id", "n", "last", column], ascending=[True, False, False, True])

    dimensions = {
        ("orders", "category"): ("categories", "top_category", ["", "_365d", "_90d"]),
        ("orders", "product_id"): ("products", None, ["_365d"]),
        ("orders", "channel"): ("channels", "top_channel", ["", "_365d"]),
        ("product_views", "product_id"): ("viewed_products", "top_viewed_product", ["_90d", "_30d"]),
        ("product_views", "category"): ("viewed_categories", "top_viewed_category", ["_365d", "_90d"]),
    }
    for (what, column), (unique, top, asked) in dimensions.items():
        for window in asked:
            rows = within[what + window]
            if f"{top}{window}" not in TRAITS:
                distinct = rows[["person_id", column]].drop_duplicates()
                found[unique + window] = distinct.groupby("person_id").size()
                continue
            counts = counted(rows, column)
            by_person = counts.groupby("person_id")
            if unique + window in TRAITS:
                found[unique + window] = by_person.size()
            found[f"{top}{window}"] = by_person[column].first().astype("object")
            plural = {"top_category": "top_categories", "top_viewed_product": "top_viewed_products"}.get(str(top))
            if f"{plural}{window}" in TRAITS:
                three = counts[by_person.cumcount() < 3]
                found[f"{plural}{window}"] = three.groupby("person_id")[column].agg(list)
    year = within["orders_365d"].groupby("person_id")["amount"]
    found["median_order_365d"], found["high_order_365d"] = year.median(), year.quantile(0.9)

    def trend(rows: pd.DataFrame, days: int, value: str | None) -> pd.Series:
        """The least-squares slope over twelve periods is one weighted sum: (2x - 11) / 2 / 143 for x = 0 … 11."""
        rows = rows[rows["age"] < 12 * days]
        weight = (11 - 2 * (rows["age"] // days)) / 286
        weight = weight if value is None else weight * rows[value]
        return weight.groupby(rows["person_id"]).sum()

    def decayed(rows: pd.DataFrame, half_life: int, value: str | None = None) -> pd.Series:
        weight = np.power(0.5, rows["age"] / half_life)
        return (weight if value is None else weight * rows[value]).groupby(rows["person_id"]).sum()

    found["revenue_trend_360d"] = trend(orders, 30, "amount")
    found["order_trend_360d"] = trend(orders, 30, None)
    found["view_trend_84d"] = trend(views, 7, None)
    found["order_warmth"] = decayed(orders, 30)
    found["view_warmth"] = decayed(views, 14)
    found["spend_warmth"] = decayed(orders, 90, "amount")
    everybody = pd.RangeIndex(len(people))
    table = {}
    for name, trait in TRAITS.items():
        match trait["evaluation"]:
            case "ratio":
                below = table[trait["denominator"]]
                table[name] = table[trait["numerator"]] / below.where(below > 0)
            case "happened":
                table[name] = table[name.replace("ordered", "orders").replace("opened", "opens")] > 0
            case "expression" if name == "earlier_revenue":
                table[name] = table["revenue_365d"] - table["revenue_180d"]
            case "expression":
                table[name] = table["orders_30d"] * 12
            case evaluation if evaluation in ZERO:
                table[name] = found[name].reindex(everybody, fill_value=0)
            case "top":
                lists = found[name].reindex(everybody)
                table[name] = lists.where(lists.notna(), pd.Series([[]] * len(lists)))
            case _:
                table[name] = found[name].reindex(everybody)
    result = pd.DataFrame(table)
    result.insert(0, "person_id", people.to_numpy())
    result.insert(1, "day", day)
    result.to_parquet(folder / "pandas.parquet")

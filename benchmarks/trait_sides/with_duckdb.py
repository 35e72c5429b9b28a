"""handwritten.sql, from one Parquet file to another."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb

from trait_sides import LISTS, TRAITS, ZERO


def compute(connection: duckdb.DuckDBPyConnection, folder: Path, day: date) -> None:
    for name in ("events", "people"):
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM '{folder}/{name}.parquet'")
    query = Path(__file__).with_name("handwritten.sql").read_text()
    query = query.replace("$columns", ", ".join(f"{_value(name)} AS {name}" for name in TRAITS))
    query = query.replace("$day", f"DATE '{day}'")
    connection.execute(f"COPY ({query}) TO '{folder}/handwritten.parquet'")


def _value(name: str) -> str:
    trait = TRAITS[name]
    match trait["evaluation"]:
        case "ratio":
            return f"coalesce({trait['numerator']}, 0) / nullif({trait['denominator']}, 0)"
        case "happened":
            return f"coalesce({name.replace('ordered', 'orders').replace('opened', 'opens')} > 0, false)"
    if name == "earlier_revenue":
        return "coalesce(revenue_365d, 0) - coalesce(revenue_180d, 0)"
    if name == "orders_a_year":
        return "coalesce(orders_30d, 0) * 12"
    if name in LISTS:
        return f"coalesce({name}, [])"
    return f"coalesce({name}, 0)" if trait["evaluation"] in ZERO else name

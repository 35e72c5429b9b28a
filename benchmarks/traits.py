# ruff: noqa: T201
"""20 traits of everybody on one day: ours against handwritten DuckDB SQL and pandas, each in a process of its own.

    python benchmarks/traits.py --rows 10000000 [--rounds 3] [--backfill 30]

The answers of all three are compared, person by person. CPU seconds are quoted, because wall time on a shared machine
is noise; the sides take turns, and the best round of each counts. `--backfill N` adds our own N days in one query.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb

DAY = date(2025, 12, 1)
THREADS = 2
BUYING = {"event": "order_completed"}
SEEING = {"event": ["page_viewed", "product_viewed"]}
TRAITS: dict[str, dict[str, Any]] = {
    "orders": {"evaluation": "count", **BUYING},
    "orders_365d": {"evaluation": "count", **BUYING, "window": "last 365 days"},
    "orders_90d": {"evaluation": "count", **BUYING, "window": "last 90 days"},
    "orders_30d": {"evaluation": "count", **BUYING, "window": "last 30 days"},
    "views_90d": {"evaluation": "count", **SEEING, "window": "last 90 days"},
    "views_30d": {"evaluation": "count", **SEEING, "window": "last 30 days"},
    "opens_90d": {"evaluation": "count", "event": "email_opened", "window": "last 90 days"},
    "app_orders_365d": {"evaluation": "count", **BUYING, "when": "channel = 'app'", "window": "last 365 days"},
    "revenue": {"evaluation": "sum", **BUYING, "value": "amount"},
    "revenue_365d": {"evaluation": "sum", **BUYING, "value": "amount", "window": "last 365 days"},
    "revenue_90d": {"evaluation": "sum", **BUYING, "value": "amount", "window": "last 90 days"},
    "order_value_365d": {"evaluation": "average", **BUYING, "value": "amount", "window": "last 365 days"},
    "order_spread_365d": {"evaluation": "stddev", **BUYING, "value": "amount", "window": "last 365 days"},
    "biggest_order_365d": {"evaluation": "max", **BUYING, "value": "amount", "window": "last 365 days"},
    "first_category": {"evaluation": "first", **BUYING, "value": "category"},
    "last_category": {"evaluation": "last", **BUYING, "value": "category"},
    "days_since_order": {"evaluation": "days_since", **BUYING},
    "categories_365d": {"evaluation": "unique_count", **BUYING, "value": "category", "window": "last 365 days"},
    "products_90d": {
        "evaluation": "unique_count", "event": "product_viewed", "value": "product_id", "window": "last 90 days",
    },
    "orders_per_view_90d": {"evaluation": "ratio", "numerator": "orders_90d", "denominator": "views_90d"},
}  # fmt: skip

HANDWRITTEN = """
WITH plain AS (
    SELECT person_id,
        count(*) FILTER (o) AS orders,
        count(*) FILTER (o AND y) AS orders_365d,
        count(*) FILTER (o AND q) AS orders_90d,
        count(*) FILTER (o AND m) AS orders_30d,
        count(*) FILTER (s AND q) AS views_90d,
        count(*) FILTER (s AND m) AS views_30d,
        count(*) FILTER (event = 'email_opened' AND q) AS opens_90d,
        count(*) FILTER (o AND y AND channel = 'app') AS app_orders_365d,
        sum(amount) FILTER (o) AS revenue,
        sum(amount) FILTER (o AND y) AS revenue_365d,
        sum(amount) FILTER (o AND q) AS revenue_90d,
        avg(amount) FILTER (o AND y) AS order_value_365d,
        stddev_samp(amount) FILTER (o AND y) AS order_spread_365d,
        max(amount) FILTER (o AND y) AS biggest_order_365d,
        arg_min(category, {'at': occurred_at, 'id': event_id}) FILTER (o) AS first_category,
        arg_max(category, {'at': occurred_at, 'id': event_id}) FILTER (o) AS last_category,
        max(_day) FILTER (o) AS last_order
    FROM (
        SELECT *, event = 'order_completed' AS o, event IN ('page_viewed', 'product_viewed') AS s,
            _day > $day - 365 AS y, _day > $day - 90 AS q, _day > $day - 30 AS m
        FROM events WHERE _day <= $day
    ) GROUP BY person_id
), categories AS (
    SELECT person_id, count(*) AS categories_365d FROM (
        SELECT DISTINCT person_id, category FROM events
        WHERE event = 'order_completed' AND category IS NOT NULL AND _day <= $day AND _day > $day - 365
    ) GROUP BY person_id
), products AS (
    SELECT person_id, count(*) AS products_90d FROM (
        SELECT DISTINCT person_id, product_id FROM events
        WHERE event = 'product_viewed' AND product_id IS NOT NULL AND _day <= $day AND _day > $day - 90
    ) GROUP BY person_id
)
SELECT person_id, $day AS day,
    coalesce(orders, 0) AS orders, coalesce(orders_365d, 0) AS orders_365d, coalesce(orders_90d, 0) AS orders_90d,
    coalesce(orders_30d, 0) AS orders_30d, coalesce(views_90d, 0) AS views_90d, coalesce(views_30d, 0) AS views_30d,
    coalesce(opens_90d, 0) AS opens_90d, coalesce(app_orders_365d, 0) AS app_orders_365d,
    coalesce(revenue, 0) AS revenue, coalesce(revenue_365d, 0) AS revenue_365d, coalesce(revenue_90d, 0) AS revenue_90d,
    order_value_365d, order_spread_365d, biggest_order_365d, first_category, last_category,
    $day - last_order AS days_since_order, coalesce(categories_365d, 0) AS categories_365d,
    coalesce(products_90d, 0) AS products_90d, orders_90d / nullif(views_90d, 0) AS orders_per_view_90d
FROM people LEFT JOIN plain USING (person_id)
LEFT JOIN categories USING (person_id) LEFT JOIN products USING (person_id)
"""


def generate(folder: Path, rows: int) -> None:
    """Two years of events of rows / 10 people, some of whom do a great deal and many very little."""
    connection = _connection()
    share = "hash(i, {}) / 18446744073709551616.0::DOUBLE"
    connection.execute(f"""
        COPY (
            SELECT left(md5(i::VARCHAR), 24) || ':' || event AS event_id,
                'p_' || left(md5((pow({share.format(1)}, 3) * {rows // 10})::BIGINT::VARCHAR), 20) AS person_id,
                TIMESTAMP '2024-01-01' + to_microseconds(micros) AS occurred_at, 'shop' AS source, event,
                ['web', 'app', 'store'][1 + (hash(i, 2) % 3)::INTEGER] AS channel,
                CASE WHEN event = 'order_completed' THEN ((hash(i, 3) % 20000) / 100.0)::DECIMAL(18, 4) END AS amount,
                'GBP' AS currency, 'a' || hash(i, 4) % 5000 AS product_id, 'c' || hash(i, 4) % 40 AS category,
                {{'record_id': left(md5(i::VARCHAR), 24)}} AS properties,
                (TIMESTAMP '2024-01-01' + to_microseconds(micros))::DATE AS _day, TIMESTAMP '2026-01-01' AS _loaded_at
            FROM (
                SELECT i, i * {731 * 86400 * 1_000_000 // rows} + (hash(i, 5) % 1000000)::BIGINT AS micros,
                    ['order_completed', 'order_completed', 'product_viewed', 'product_viewed', 'product_viewed',
                     'page_viewed', 'page_viewed', 'page_viewed', 'page_viewed', 'email_opened'
                    ][1 + (hash(i, 6) % 10)::INTEGER] AS event
                FROM range({rows}) r(i)
            )
        ) TO '{folder}/events.parquet' (COMPRESSION zstd)""")
    connection.execute(f"COPY (SELECT DISTINCT person_id FROM '{folder}/events.parquet') TO '{folder}/people.parquet'")


def ours(folder: Path, days: int = 1) -> None:
    import ibis

    from cdp_pipeline.spec.trait import Trait
    from cdp_pipeline.traits.as_of import as_of

    connection = ibis.duckdb.from_connection(_connection())
    traits = {name: Trait(kind="trait", name=name, description="A trait.", **fields) for name, fields in TRAITS.items()}
    timeline = connection.read_parquet(folder / "events.parquet")
    people = connection.read_parquet(folder / "people.parquet")
    wanted = [DAY - timedelta(days=back) for back in range(days)]
    query = as_of(timeline, people, wanted, SimpleNamespace(traits=traits))  # type: ignore[arg-type]
    connection.con.execute(f"COPY ({ibis.to_sql(query, dialect='duckdb')}) TO '{folder}/ours_{days}.parquet'")


def handwritten(folder: Path) -> None:
    connection = _connection()
    for name in ("events", "people"):
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM '{folder}/{name}.parquet'")
    query = HANDWRITTEN.replace("$day", f"DATE '{DAY}'")
    connection.execute(f"COPY ({query}) TO '{folder}/handwritten.parquet'")


def pandas(folder: Path) -> None:
    import pandas as pd

    columns = ["event_id", "person_id", "occurred_at", "event", "channel", "amount", "product_id", "category", "_day"]
    events = pd.read_parquet(folder / "events.parquet", columns=columns)
    events["amount"] = events["amount"].astype("float64")
    for column in ("event", "channel", "product_id", "category"):
        events[column] = events[column].astype("category")
    people = pd.read_parquet(folder / "people.parquet")["person_id"]
    # People as numbers: grouping by text costs pandas several times more.
    index = pd.Index(people)
    events["person_id"] = index.get_indexer(events["person_id"])
    age = (pd.Timestamp(DAY) - pd.to_datetime(events["_day"])).dt.days
    events = events.assign(age=age)[age >= 0]
    orders = events[events["event"] == "order_completed"]
    views = events[events["event"].isin(["page_viewed", "product_viewed"])]
    opens = events[events["event"] == "email_opened"]

    def within(rows: pd.DataFrame, days: int) -> pd.DataFrame:
        return rows[rows["age"] < days]

    def count(rows: pd.DataFrame) -> pd.Series:
        return rows.groupby("person_id").size()

    year = within(orders, 365)
    values = year.groupby("person_id")["amount"]
    ordered = orders[["person_id", "occurred_at", "event_id", "category"]].sort_values(["occurred_at", "event_id"])
    seen = within(events[events["event"] == "product_viewed"], 90)
    zero = {
        "orders": count(orders), "orders_365d": count(year), "orders_90d": count(within(orders, 90)),
        "orders_30d": count(within(orders, 30)), "views_90d": count(within(views, 90)),
        "views_30d": count(within(views, 30)), "opens_90d": count(within(opens, 90)),
        "app_orders_365d": count(year[year["channel"] == "app"]),
        "revenue": orders.groupby("person_id")["amount"].sum(), "revenue_365d": values.sum(),
        "revenue_90d": within(orders, 90).groupby("person_id")["amount"].sum(),
        "categories_365d": count(year[["person_id", "category"]].drop_duplicates()),
        "products_90d": count(seen[["person_id", "product_id"]].drop_duplicates()),
    }  # fmt: skip
    unknown = {
        "order_value_365d": values.mean(), "order_spread_365d": values.std(), "biggest_order_365d": values.max(),
        "first_category": ordered.groupby("person_id")["category"].first(),
        "last_category": ordered.groupby("person_id")["category"].last(),
        "days_since_order": orders.groupby("person_id")["age"].min(),
    }  # fmt: skip
    found = pd.DataFrame(index=range(len(people)))
    for name, column in {**zero, **unknown}.items():
        found[name] = column.reindex(found.index, fill_value=0) if name in zero else column.reindex(found.index)
    found["orders_per_view_90d"] = found["orders_90d"] / found["views_90d"].where(found["views_90d"] > 0)
    found.assign(person_id=people.to_numpy(), day=DAY)[["person_id", "day", *TRAITS]].to_parquet(
        folder / "pandas.parquet"
    )


def differing(folder: Path, one: str, other: str) -> int:
    """How many people one side says something else of. Money as pandas has it, and averages, to a millionth."""
    same = []
    for name in TRAITS:
        apart = (
            f"abs(a.{name}::DOUBLE - b.{name}::DOUBLE)" if "category" not in name else f"(a.{name} != b.{name})::INT"
        )
        same.append(f"(a.{name} IS NULL AND b.{name} IS NULL OR coalesce({apart} < 1e-6, false))")
    rows = f"""SELECT count(*) FILTER (NOT coalesce({" AND ".join(same)}, false))
        FROM '{folder}/{one}.parquet' a FULL JOIN '{folder}/{other}.parquet' b USING (person_id)"""
    return int(_connection().execute(rows).fetchall()[0][0])


def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(
        f"SET enable_progress_bar = false; SET threads = {THREADS}; SET preserve_insertion_order = false"
    )
    return connection


IMPORTS = {"ours": ["ibis.backends.duckdb", "cdp_pipeline.traits.as_of"], "handwritten": [], "pandas": ["pandas"]}


def _measured(work: Callable[..., None], arguments: tuple[Any, ...], told: Any) -> None:
    for module in IMPORTS[work.__name__]:
        importlib.import_module(module)
    wall, cpu = time.perf_counter(), time.process_time()
    work(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    told.send((time.process_time() - cpu, time.perf_counter() - wall, peak))


def measured(work: Callable[..., None], *arguments: Any) -> tuple[float, float, float]:
    """CPU seconds, wall seconds (imports aside) and peak memory in GB of a process that does this and nothing else."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(work, arguments, there))
    process.start()
    there.close()
    process.join()
    if process.exitcode:
        sys.exit(f"{work.__name__} failed")
    found: tuple[float, float, float] = here.recv()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backfill", type=int, default=0, help="also measure our own N days in one query")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder, given.rows)
        sides: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
            "ours": (ours, (folder,)),
            "handwritten": (handwritten, (folder,)),
            "pandas": (pandas, (folder,)),
        }
        if given.backfill:
            sides[f"ours, {given.backfill} days"] = (ours, (folder, given.backfill))
        best: dict[str, tuple[float, ...]] = {}
        for _ in range(given.rounds):
            for side, (work, arguments) in sides.items():
                found = measured(work, *arguments)
                best[side] = tuple(map(min, best.get(side, found), found))
        for other in ("handwritten", "pandas"):
            if wrong := differing(folder, "ours_1", other):
                sys.exit(f"{wrong} people differ between ours and {other}")
        print(f"{given.rows:,} events, {len(TRAITS)} traits; all sides agree on everybody")
        print("side              CPU s   wall s  peak GB   ours/side: CPU  wall  memory")
        for side, figures in best.items():
            ratios = "  ".join(f"{mine / other:5.2f}" for mine, other in zip(best["ours"], figures, strict=True))
            print(f"{side:16}{figures[0]:7.1f}{figures[1]:9.1f}{figures[2]:9.2f}          {ratios}")


if __name__ == "__main__":
    main()

# ruff: noqa: T201
"""Load of events through lake.publish() against bare DuckDB from the same Parquet, each in a process of its own.

    python benchmarks/load.py --rows 10000000 [--rounds 3]

CPU seconds are compared, because wall time on a shared machine is noise; the sides take turns, and the best round
of each counts. A lake job's time includes opening the lake in a fresh process (0.4 CPU-s for the extensions).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb

from cdp_pipeline.lake import Column, Mirror, Table, Upsert, open_lake
from cdp_pipeline.spec.project import LakeLocation

EVENTS = Table(
    "sources.events",
    "Generated shop events.",
    {
        "record_id": Column("string"),
        "customer_id": Column("int64"),
        "event": Column("string"),
        "occurred_at": Column("timestamp(6)"),
        "day": Column("date"),
        "channel": Column("string"),
        "product_id": Column("string"),
        "category": Column("string"),
        "quantity": Column("int16"),
        "amount": Column("decimal(18, 4)"),
        "session_id": Column("string"),
        "device": Column("string"),
    },
    key=("record_id",),
    month_of="day",
)
COLUMNS = """record_id VARCHAR, customer_id BIGINT, event VARCHAR, occurred_at TIMESTAMP, day DATE, channel VARCHAR,
  product_id VARCHAR, category VARCHAR, quantity SMALLINT, amount DECIMAL(18, 4), session_id VARCHAR, device VARCHAR"""
DAYS = 365
LAST_DAY = date(2025, 12, 31)


def generate(folder: Path, rows: int) -> None:
    """A year of events of rows / 10 customers, skewed; one more day; and 1 % of the year with another amount."""
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false; SET preserve_insertion_order = false")
    event = f"""
        left(md5(i::VARCHAR), 24) AS record_id,
        (pow(hash(i) / 18446744073709551615, 3) * {rows // 10})::BIGINT AS customer_id,
        ['view', 'view', 'view', 'add', 'order'][1 + (hash(i, 1) % 5)::INTEGER] AS event,
        day + to_seconds((hash(i, 2) % 86400)::BIGINT) AS occurred_at,
        day,
        ['web', 'app', 'shop'][1 + (hash(i, 3) % 3)::INTEGER] AS channel,
        'p' || hash(i, 4) % 5000 AS product_id,
        'c' || hash(i, 4) % 40 AS category,
        (1 + hash(i, 5) % 5)::SMALLINT AS quantity,
        ((hash(i, 6) % 1000000) / 100)::DECIMAL(18, 4) AS amount,
        left(md5((i // 5)::VARCHAR), 16) AS session_id,
        ['ios', 'android', 'desktop'][1 + (hash(i, 7) % 3)::INTEGER] AS device"""
    of_year = f"SELECT i, (DATE '2025-01-01' + (i * {DAYS - 1} // {rows})::INTEGER) AS day FROM range({rows}) r(i)"
    of_day = f"SELECT i, DATE '{LAST_DAY}' AS day FROM range({rows}, {rows + rows // DAYS}) r(i)"
    for name, source in {"year": of_year, "day": of_day}.items():
        connection.execute(f"COPY (SELECT {event} FROM ({source})) TO '{folder}/{name}.parquet' (COMPRESSION zstd)")
    connection.execute(
        f"""COPY (SELECT * REPLACE (amount + 1 AS amount) FROM '{folder}/year.parquet'
            WHERE hash(record_id) % 100 = 0) TO '{folder}/changed.parquet' (COMPRESSION zstd)"""
    )


def bare(place: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(place / "bare.duckdb")
    connection.execute("SET enable_progress_bar = false")
    return connection


def duckdb_create(folder: Path, place: Path) -> None:
    with bare(place) as connection:
        connection.execute(f"CREATE TABLE events AS FROM '{folder}/year.parquet'")


def duckdb_insert(folder: Path, place: Path) -> None:
    with bare(place) as connection:
        connection.execute(f"CREATE TABLE events ({COLUMNS})")
        connection.execute(f"INSERT INTO events FROM '{folder}/year.parquet'")


def duckdb_key(folder: Path, place: Path) -> None:
    with bare(place) as connection:
        connection.execute(f"CREATE TABLE events ({COLUMNS}, PRIMARY KEY (record_id))")
        connection.execute(f"INSERT INTO events FROM '{folder}/year.parquet'")


def duckdb_day(folder: Path, place: Path) -> None:
    with bare(place) as connection:
        connection.execute(f"INSERT INTO events FROM '{folder}/day.parquet'")


def duckdb_upsert(folder: Path, place: Path) -> None:
    with bare(place) as connection:
        connection.execute(
            f"""MERGE INTO events USING '{folder}/changed.parquet' USING (record_id)
                WHEN MATCHED THEN UPDATE WHEN NOT MATCHED THEN INSERT"""
        )


def duckdb_rewrite(folder: Path, place: Path) -> None:
    with bare(place) as connection:
        connection.execute(
            f"""CREATE TABLE rewritten AS FROM '{folder}/changed.parquet'
                UNION ALL BY NAME SELECT * FROM events ANTI JOIN '{folder}/changed.parquet' USING (record_id)"""
        )
        connection.execute("DROP TABLE rewritten")


def _publish(folder: Path, place: Path, write: Callable[..., Mirror | Upsert], file: str) -> None:
    with open_lake(LakeLocation(path=str(place / "lake"))) as lake:
        lake.publish(write(lake.ibis.read_parquet(folder / file)))


def lake_load(folder: Path, place: Path) -> None:
    _publish(folder, place, lambda rows: Mirror(EVENTS, rows), "year.parquet")


def lake_same(folder: Path, place: Path) -> None:
    _publish(folder, place, lambda rows: Mirror(EVENTS, rows), "year.parquet")


def lake_day(folder: Path, place: Path) -> None:
    _publish(folder, place, lambda rows: Mirror(EVENTS, rows, within={"day": [LAST_DAY]}), "day.parquet")


def lake_upsert(folder: Path, place: Path) -> None:
    _publish(folder, place, lambda rows: Upsert(EVENTS, rows), "changed.parquet")


# Jobs of one line run one after the other on one place; the lines take turns.
LINES = [
    [lake_load, lake_same, lake_day, lake_upsert],
    [duckdb_insert, duckdb_day, duckdb_upsert, duckdb_rewrite],
    [duckdb_create],
    [duckdb_key],
]
COMPARISONS = [
    ("first load", "lake_load", "duckdb_insert"),
    ("first load", "lake_load", "duckdb_create"),
    ("first load, keys proven unique on both sides", "lake_load", "duckdb_key"),
    ("the same again, compared row by row, no snapshot", "lake_same", "duckdb_insert"),
    ("one more day", "lake_day", "duckdb_day"),
    ("upsert of 1 %, in place", "lake_upsert", "duckdb_upsert"),
    ("upsert of 1 %, by rewriting", "lake_upsert", "duckdb_rewrite"),
]


def _child(job: Callable[[Path, Path], None], folder: Path, place: Path, pipe: Connection) -> None:
    cpu, wall = time.process_time(), time.monotonic()
    job(folder, place)
    pipe.send(
        (
            time.process_time() - cpu,
            time.monotonic() - wall,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )
    )


def measured(job: Callable[[Path, Path], None], folder: Path, place: Path) -> tuple[float, float, float]:
    """CPU seconds, seconds on the wall and peak MB of a job in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe()
    process = context.Process(target=_child, args=(job, folder, place, sending))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{job.__name__} failed")
    return receiving.recv()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        generate(folder, given.rows)
        print(f"{given.rows:,} rows, {(folder / 'year.parquet').stat().st_size / 1e6:.0f} MB of Parquet")
        best: dict[str, tuple[float, float, float]] = {}
        for _ in range(given.rounds):
            for line in LINES:
                place = folder / "place"
                place.mkdir()
                for job in line:
                    result = measured(job, folder, place)
                    best[job.__name__] = min(best.get(job.__name__, result), result)
                shutil.rmtree(place)
        for name, (cpu, wall, memory) in best.items():
            print(f"{name:16} {cpu:7.2f} CPU-s {wall:7.2f} s {memory:7.0f} MB")
        for title, ours, rival in COMPARISONS:
            print(f"{title:50} {ours} / {rival} = {best[ours][0] / best[rival][0]:.2f}")


if __name__ == "__main__":
    main()

# ruff: noqa: T201
"""Loading a CSV of events under a contract (normalise, check, ids, time zones, ledger) against bare DuckDB.

    python benchmarks/sources.py --rows 10000000

Bare is `CREATE TABLE AS FROM read_csv` with types given, into a DuckDB file: no check, no id, no history. CPU seconds
are compared, each side in a process of its own; a load's time includes opening the lake.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb

from cdp_pipeline.lake import open_lake
from cdp_pipeline.sources.load import load
from cdp_pipeline.spec.project import LakeLocation, Project, ProjectSettings
from cdp_pipeline.spec.source import Source

TYPES = {
    "event_id": "integer", "at": "timestamp", "email": "string", "customer_id": "string", "event": "string",
    "channel": "string", "product_id": "string", "quantity": "integer", "amount": "money", "page": "string",
}  # fmt: skip
DUCKDB = {"integer": "BIGINT", "timestamp": "TIMESTAMP", "string": "VARCHAR", "money": "DECIMAL(18, 4)"}


def generate(file: Path, rows: int) -> None:
    duckdb.execute(
        f"""COPY (SELECT i AS event_id, TIMESTAMP '2025-01-01' + to_seconds(i * 31536000 // {rows}) AS at,
              'Person' || hash(i) % {rows // 10} || '@Example.com' AS email,
              'c' || hash(i) % {rows // 10} AS customer_id,
              ['view', 'add', 'order'][1 + (hash(i, 1) % 3)::INTEGER] AS event,
              ['web', 'app', 'shop'][1 + (hash(i, 2) % 3)::INTEGER] AS channel, 'p' || hash(i, 3) % 5000 AS product_id,
              1 + hash(i, 4) % 5 AS quantity, ((hash(i, 5) % 1000000) / 100)::DECIMAL(18, 2) AS amount,
              CASE WHEN i % 3 = 0 THEN '' ELSE '/page/' || hash(i, 6) % 1000 END AS page
            FROM range({rows}) r(i)) TO '{file}' (HEADER)"""
    )


def bare(folder: Path) -> int:
    columns = ", ".join(f"'{name}': '{DUCKDB[type]}'" for name, type in TYPES.items())
    connection = duckdb.connect(str(folder / "bare.duckdb"))
    connection.execute(f"CREATE TABLE t AS FROM read_csv('{folder}/events.csv', header=true, columns={{{columns}}})")
    return connection.execute("SELECT count(*) FROM t").fetchall()[0][0]


def contract(folder: Path) -> int:
    columns: dict[str, Any] = {name: {"type": type} for name, type in TYPES.items()}
    columns["email"]["normalise"] = "email"
    columns["channel"]["checks"] = [{"accepted": ["web", "app", "shop"]}]
    columns["quantity"]["checks"] = [{"range": [0, None]}]
    said = {"kind": "source", "name": "events", "description": "Events.", "files": str(folder / "events.csv")}
    said |= {"grain": ["event_id"], "occurred_at": "at", "timezone": "Europe/London", "columns": columns}
    source = Source.model_validate(said)
    location = LakeLocation(path=str(folder / "lake"))
    settings = ProjectSettings(
        kind="project", name="shop", description="A shop.", first_day=date(2025, 1, 1), lake=location
    )
    nothing: dict[str, Any] = {}
    project = Project(folder, settings, {"events": source}, *[nothing] * 9)
    with open_lake(location) as lake:
        return load(lake, source, project, None, datetime.now(UTC), "benchmark").inserted


def measured(side: Callable[[Path], int], folder: Path) -> tuple[int, float, float, float]:
    """Rows, CPU seconds, wall seconds and GB at most, of a side in its own process."""

    def child(answer: Connection) -> None:
        started = time.perf_counter()
        rows = side(folder)
        used = resource.getrusage(resource.RUSAGE_SELF)
        answer.send((rows, used.ru_utime + used.ru_stime, time.perf_counter() - started, used.ru_maxrss / 1e6))

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(there,))
    process.start()
    answer = here.recv()
    process.join()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "events.csv", rows)
        seconds = []
        for side in (bare, contract):
            loaded, cpu, wall, memory = measured(side, folder)
            assert loaded == rows
            seconds.append(cpu)
            print(f"{side.__name__:10} {cpu:7.1f} CPU-s  {wall:7.1f} s  {memory:5.1f} GB")
        print(f"ratio      {seconds[1] / seconds[0]:7.1f}")


if __name__ == "__main__":
    main()

# ruff: noqa: T201
"""120 traits of everybody on one day: ours against handwritten DuckDB SQL, pandas and polars, each in its own process.

    python benchmarks/traits.py --rows 10000000 [--rounds 3] [--backfill 30] [--only ours handwritten]

The answers of all sides are compared, person by person and trait by trait. CPU seconds are quoted, because wall time on
a shared machine is noise; the sides take turns, and the best round of each counts. `--backfill N` adds our own N days
in one query. What is computed is in trait_sides/.
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
from zoneinfo import ZoneInfo

import duckdb
from trait_sides import LISTS, TRAITS, WORDS

DAY = date(2025, 12, 1)
THREADS = 2
RIVALS = ("handwritten", "pandas", "polars")


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


def provide(folder: Path, rows: int, given: Path | None) -> None:
    """Events and people in the folder: those of another folder (see `--folder`), or new ones."""
    if given is None:
        generate(folder, rows)
    else:
        for file in ("events.parquet", "people.parquet"):
            (folder / file).symlink_to((given / file).resolve())


def traits() -> dict[str, Any]:
    from cdp_pipeline.spec.trait import Trait

    return {name: Trait(kind="trait", name=name, description="A trait.", **said) for name, said in TRAITS.items()}


def ours(folder: Path, days: int = 1) -> None:
    import ibis

    from cdp_pipeline.traits.as_of import as_of

    connection = ibis.duckdb.from_connection(_connection())
    timeline = connection.read_parquet(folder / "events.parquet")
    people = connection.read_parquet(folder / "people.parquet")
    wanted = [DAY - timedelta(days=back) for back in range(days)]
    query = as_of(timeline, people, wanted, SimpleNamespace(traits=traits(), zone=ZoneInfo("UTC")))  # type: ignore[arg-type]
    connection.con.execute(f"COPY ({ibis.to_sql(query, dialect='duckdb')}) TO '{folder}/ours_{days}.parquet'")


def handwritten(folder: Path) -> None:
    from trait_sides.with_duckdb import compute

    compute(_connection(), folder, DAY)


def pandas(folder: Path) -> None:
    from trait_sides.with_pandas import compute

    compute(folder, DAY)


def polars(folder: Path) -> None:
    from trait_sides.with_polars import compute

    compute(folder, DAY)


def differing(folder: Path, one: str, other: str) -> dict[str, int]:
    """Per trait, how many people one side says something else of. Numbers to a millionth, or to 1e-9 of their size."""
    said = {}
    for name in TRAITS:
        a, b = f"a.{name}", f"b.{name}"
        if name in WORDS or name in LISTS:
            same = f"{a} = {b}"
        else:
            apart = f"abs({a}::DOUBLE - {b}::DOUBLE)"
            same = f"({apart} < 1e-6 OR {apart} < 1e-9 * abs({a}::DOUBLE))"
        said[name] = f"count(*) FILTER (NOT coalesce({a} IS NULL AND {b} IS NULL OR coalesce({same}, false), false))"
    counts = f"""SELECT {", ".join(f"{count} AS {name}" for name, count in said.items())},
            count(*) FILTER (a.person_id IS NULL OR b.person_id IS NULL) AS people
        FROM '{folder}/{one}.parquet' a FULL JOIN '{folder}/{other}.parquet' b USING (person_id)"""
    found = _connection().execute(counts)
    columns = [column[0] for column in found.description or []]
    [row] = found.fetchall()
    return {name: count for name, count in zip(columns, row, strict=True) if count}


def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(
        f"SET enable_progress_bar = false; SET threads = {THREADS}; SET preserve_insertion_order = false"
    )
    return connection


IMPORTS = {
    "ours": ["ibis.backends.duckdb", "cdp_pipeline.traits.as_of"],
    "handwritten": [],
    "pandas": ["trait_sides.with_pandas"],
    "polars": ["trait_sides.with_polars"],
}


def _measured(work: Callable[..., None], arguments: tuple[Any, ...], told: Any) -> None:
    for module in IMPORTS.get(work.__name__, []):
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
    parser.add_argument(
        "--only", nargs="*", choices=["ours", *RIVALS], default=["ours", *RIVALS], help="the first is compared"
    )
    parser.add_argument("--folder", type=Path, help="where the events are, or are put, and stay")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder or Path(name)
        folder.mkdir(exist_ok=True)
        if not (folder / "events.parquet").exists():
            generate(folder, given.rows)
        compare(folder, given)


def compare(folder: Path, given: argparse.Namespace) -> None:
    sides: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
        side: (globals()[side], (folder,)) for side in given.only
    }
    if given.backfill:
        sides[f"ours, {given.backfill} days"] = (ours, (folder, given.backfill))
    best: dict[str, tuple[float, ...]] = {}
    for _ in range(given.rounds):
        for side, (work, arguments) in sides.items():
            found = measured(work, *arguments)
            best[side] = tuple(map(min, best.get(side, found), found))
    first = given.only[0]
    agree = {side: differing(folder, {"ours": "ours_1"}.get(first, first), side) for side in given.only[1:]}
    print(f"{given.rows:,} events, {len(TRAITS)} traits")
    for side, wrong in agree.items():
        print(f"{first} and {side}: " + (f"differ in {wrong}" if wrong else "equal in all traits of everybody"))
    print(f"side              CPU s   wall s  peak GB   {first}/side: CPU  wall  memory")
    for side, figures in best.items():
        ratios = "  ".join(f"{mine / other:5.2f}" for mine, other in zip(best[first], figures, strict=True))
        print(f"{side:16}{figures[0]:7.1f}{figures[1]:9.1f}{figures[2]:9.2f}          {ratios}")
    if any(agree.values()):
        sys.exit("the sides differ")


if __name__ == "__main__":
    main()

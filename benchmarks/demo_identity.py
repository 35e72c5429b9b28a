# ruff: noqa: T201
"""The people of the demo company against its truth: generate it, load it, resolve who is who, and judge every pair.

    python benchmarks/demo_identity.py --customers 20000 --days 120
    python benchmarks/demo_identity.py --customers 1000000 --days 20 --folder million

Each step runs in a process of its own: CPU seconds, wall seconds, peak memory. The identity step is what its asset
does (read the evidence off the sources, decide, judge, publish); the second time only a day is new.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.history import read_truth
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.identity.quality import quality
from cdp_pipeline.identity.step import decide_who_is_who
from cdp_pipeline.lake import open_lake
from cdp_pipeline.sources.demo import generate
from cdp_pipeline.sources.demo.feeds import FEEDS
from cdp_pipeline.sources.load import load
from cdp_pipeline.spec.load import DEMO, load_project
from cdp_pipeline.spec.project import Project

NOW = datetime(2026, 11, 1, 8, tzinfo=UTC)

# Every pair of identifiers of one person that truth judges: found together, missed, or out of the reach of any row.
PAIRS = """
    WITH judged AS (
        SELECT truth.type, truth.value, truth.person, truth.reachable = 'true' AS reachable, truth.why, found.person_id
        FROM truth JOIN found USING (type, value) WHERE truth.person IS NOT NULL AND truth.shared = 'false'
    )
    SELECT
        CASE
            WHEN a.person_id = b.person_id THEN 'found'
            WHEN a.reachable AND b.reachable THEN 'missed though rows tie them'
            WHEN (a.type = 'anonymous_id' AND NOT a.reachable) OR (b.type = 'anonymous_id' AND NOT b.reachable)
                THEN 'a browser nobody ever signed in on'
            WHEN a.why LIKE 'second account%' OR b.why LIKE 'second account%'
                THEN 'a second account: one person may have one customer number'
            ELSE 'an address, number or contact on no row with another identifier'
        END AS what,
        count(*) AS pairs
    FROM judged AS a JOIN judged AS b ON a.person = b.person AND (a.type, a.value) < (b.type, b.value)
    GROUP BY ALL ORDER BY pairs DESC
"""
NOBODYS = """
    SELECT CASE WHEN truth.person IS NULL THEN truth.why ELSE 'of several people: ' || truth.type END AS what,
        found.status, count(*) AS seen
    FROM truth JOIN found USING (type, value) WHERE truth.shared = 'true' GROUP BY ALL ORDER BY ALL
"""


def project_of(folder: Path) -> Project:
    os.environ["CDP_DATA"], os.environ["CDP_LAKE"] = str(folder / "data"), str(folder / "lake")
    return load_project(DEMO)


def lake_of(folder: Path, project: Project) -> Any:
    return open_lake(project.settings.lake, base=folder)


def made(folder: Path, customers: int, days: int) -> dict[str, Any]:
    summary = generate(folder / "data", customers, days, seed=7)
    return {"rows": summary.total, "people": summary.people}


def loaded(folder: Path, last: bool) -> dict[str, Any]:
    """All but the last day of what is filed by day, a week at a time; or that last day."""
    project, rows = project_of(folder), 0
    summary = json.loads((folder / "data" / "truth" / "summary.json").read_text())
    first, until = (date.fromisoformat(summary[day]) for day in ("first_day", "last_day"))
    days = [first + timedelta(days=number) for number in range((until - first).days)]
    weeks = [[until]] if last else [days[start : start + 7] for start in range(0, len(days), 7)]
    with lake_of(folder, project) as lake:
        for name, source in project.sources.items():
            if source.identifier_columns and name in FEEDS:
                by_day = source.files is not None and "{day}" in source.files.path
                parts: list[list[date] | None] = [*weeks] if by_day else [None]
                rows += sum(load(lake, source, project, part, NOW, "benchmark").inserted for part in parts)
    return {"rows": rows}


def resolved(folder: Path, now: datetime) -> dict[str, Any]:
    project = project_of(folder)
    with lake_of(folder, project) as lake:
        decided = decide_who_is_who(lake, project, now)
        withheld = decided.verdict.withheld(None, now.date())
        if withheld is not None:
            raise withheld
        counts = lake.publish(*decided.writes).counts
        size = {"identifiers": lake.read(IDENTIFIERS).count(), "links": lake.read(EDGES).count()}
        return {what: rows.to_pyarrow().as_py() for what, rows in size.items()} | {
            "identifiers written": counts[IDENTIFIERS.name].inserted + counts[IDENTIFIERS.name].updated
        }


def judged(folder: Path) -> dict[str, Any]:
    project = project_of(folder)
    with lake_of(folder, project) as lake:
        truth = read_truth(project, lake.ibis)
        identifiers = lake.read(IDENTIFIERS)
        figures = quality(identifiers, lake.read(PEOPLE), lake.read(EDGES), truth)
        connection = lake.connection.cursor()
        connection.register("found", identifiers.select("type", "value", "person_id", "status").to_pyarrow())
        path = str(folder / "data" / "truth" / "identifiers.csv").replace("'", "''")
        connection.execute(f"CREATE TEMP TABLE truth AS FROM read_csv('{path}', all_varchar = true)")
        figures["pairs"] = dict(connection.execute(PAIRS).fetchall())
        figures["nobodys"] = connection.execute(NOBODYS).fetchall()
    return figures


def measured(name: str, step: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What the step says, run in its own process; its cost is printed."""

    def child(answer: Connection) -> None:
        started = time.perf_counter()
        found = step(*arguments)
        used = resource.getrusage(resource.RUSAGE_SELF)
        answer.send((found, used.ru_utime + used.ru_stime, time.perf_counter() - started, used.ru_maxrss / 1e6))

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(there,))
    process.start()
    there.close()
    found, cpu, wall, memory = here.recv()
    process.join()
    said = ", ".join(f"{count:,} {what}" for what, count in found.items()) if "pairs" not in found else ""
    print(f"{name:10} {cpu:8.1f} CPU-s {wall:8.1f} s {memory:6.2f} GB  {said}", flush=True)
    return found


def report(figures: dict[str, Any]) -> None:
    every = sum(figures["pairs"].values())
    print("\npairs of identifiers of one person, by truth")
    for what, count in figures.pop("pairs").items():
        print(f"  {count:12,} {count / every:7.2%}  {what}")
    print("values of nobody or of several people")
    for what, status, count in figures.pop("nobodys"):
        print(f"  {count:12,} {status:8} {what}")
    for name, figure in figures.items():
        print(f"{name:24} {figure:.5f}" if isinstance(figure, float) else f"{name:24} {figure}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--folder", type=Path, help="keep data and lake here; what is there is taken as it is")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (asked.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "data").exists():
            measured("generate", made, folder, asked.customers, asked.days)
        measured("load", loaded, folder, False)
        measured("identity", resolved, folder, NOW)
        measured("a day more", loaded, folder, True)
        measured("identity", resolved, folder, NOW + timedelta(days=1))
        report(measured("judge", judged, folder))


if __name__ == "__main__":
    main()

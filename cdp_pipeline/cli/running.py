"""Commands that start, check and run a project, say how it fares and look at its tables."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cdp_pipeline.cli.terminal import (
    DAY,
    Day,
    Folder,
    Json,
    RefusedError,
    day_of,
    empty_grid,
    err,
    out,
    print_json,
    said,
    tell,
    the_lake,
    the_project,
)
from cdp_pipeline.spec.base import counted
from cdp_pipeline.spec.load import ProjectError, load_project, project_folder

if TYPE_CHECKING:
    from cdp_pipeline.orchestration.run import RunReport
    from cdp_pipeline.orchestration.status import Finding
    from cdp_pipeline.spec.project import Project

app = typer.Typer()


MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where the project is written; it must not exist or be empty.")],
    source: Annotated[str, typer.Option("--from", help="What to start from: starter, or the whole demo.")] = "starter",
) -> None:
    """Write a project to start from."""
    packaged = Path(__file__).parent.parent / source
    if source not in ("starter", "demo"):
        raise RefusedError(f"--from {source}: there are starter and demo")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RefusedError(f"{folder} is not an empty folder; a project is written into a new one")
    shutil.copytree(packaged, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    out.print(f"Wrote {folder}. Next: cdp check --project {folder}")


@app.command("demo-data")
def demo_data(
    folder: Path,
    customers: Annotated[int, typer.Option(min=1)] = 2_000,
    days: Annotated[int, typer.Option(min=1)] = 365,
    seed: int = 7,
    until: Annotated[
        datetime | None, typer.Option("--until", help="The last day; default: always the same.", **DAY)
    ] = None,
    as_json: Json = False,
) -> None:
    """Generate the demo company with its ground truth (truth/)."""
    from rich.progress import Progress

    from cdp_pipeline.sources.demo import generate
    from cdp_pipeline.sources.demo.generate import LAST_DAY

    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("Generating", total=days)
        summary = generate(
            folder, customers, days, seed, until.date() if until is not None else LAST_DAY,
            progress=lambda done, _days, _rows: bar.update(task, completed=done),
        )  # fmt: skip
    if as_json:
        print_json(vars(summary))
    else:
        out.print(
            f"{folder}: {summary.people:,} people, {sum(summary.rows.values()):,} rows, "
            f"{days} days until {summary.last_day}",
            highlight=False,
        )


@app.command()
def check(
    project: Folder = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema for editors instead.")] = False,
    drift: Annotated[
        bool, typer.Option("--drift", help="Also compare the files that lie there with the columns.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Name every problem of a project, one line each. Exit 0 when sound, 1 when not."""
    if schema:
        from cdp_pipeline.spec.schema import json_schema

        print_json(json_schema())
        return
    folder = project or project_folder()
    try:
        sound = load_project(folder)
    except ProjectError as error:
        if as_json:
            print_json([vars(problem) for problem in error.problems])
        else:
            for problem in error.problems:
                out.print(str(problem), markup=False, highlight=False)
            err.print(f"{counted(len(error.problems), 'problem')} in {folder}", style="red", highlight=False)
        raise typer.Exit(1) from None
    if drift:
        from cdp_pipeline.sources.drift import drift_of

        tell([row for source in sound.sources.values() for row in drift_of(source, sound)], as_json)
    elif as_json:
        print_json([])
    else:
        out.print(
            f"{sound.settings.name}: sound. {counted(len(sound.sources), 'source')}, "
            f"{counted(len(sound.traits), 'trait')}, {counted(len(sound.audiences), 'audience')}, "
            f"{counted(len(sound.triggers), 'trigger')}.",
            highlight=False,
        )


@app.command()
def run(
    selection: Annotated[str | None, typer.Argument(help="Dagster's asset selection, such as 'group:traits'.")] = None,
    day: Day = None,
    first: Annotated[datetime | None, typer.Option("--from", help="Compute each day from this one …", **DAY)] = None,
    last: Annotated[datetime | None, typer.Option("--to", help="… to this one.", **DAY)] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """Materialize through Dagster in this process; ends with what was made and every check."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from cdp_pipeline.orchestration.run import run_project

    if day is not None and (first is not None or last is not None):
        raise typer.BadParameter("give --day, or --from and --to", param_hint="--day")
    if (first is None) != (last is None):
        raise typer.BadParameter("--from and --to go together", param_hint="--from")
    declared = the_project(project)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("Starting", total=None)
        made = 0

        def progress(step: str, state: str) -> None:
            nonlocal made
            made += state == "success"
            bar.update(task, description=f"{step.replace('__', '/')} ({made} done)")

        report = run_project(declared, selection, day_of(day or first), day_of(day or last), progress=progress)
    if as_json:
        print_json(vars(report) | {"held": report.held, "success": report.success})
    else:
        _tell_run(report, declared)
    if not report.success:
        raise typer.Exit(1)


def _tell_run(report: RunReport, project: Project) -> None:
    from cdp_pipeline.orchestration.headline import headline

    tell([{"asset": name, "rows": rows} for name, rows in sorted(report.assets.items())], False, "Made")
    passed = sum(each["passed"] for each in report.checks)
    out.print(f"\n{passed} of {len(report.checks)} checks passed", highlight=False)
    tell_failed = [
        {
            "check": f"{each['asset']}: {each['check']}",
            "severity": each["severity"],
            "found": each["says"] or "; ".join(f"{name}: {said(value)}" for name, value in each["metadata"].items()),
        }
        for each in report.checks
        if not each["passed"]
    ]
    if tell_failed:
        tell(tell_failed, False)
    for step, cause in report.failures.items():
        err.print(f"\n{step.replace('__', '/')} failed: {cause}", style="red", markup=False, highlight=False)
    for name, why in report.held.items():
        text = f"audience {name} is held: {why}. It stays as it was, and so do its syncs: cdp audience waterfall {name}"
        err.print(f"\n{text}", style="red", markup=False, highlight=False)
    if not report.failures:
        out.print()
        for line in headline(project):
            out.print(line, markup=False, highlight=False)


@app.command()
def dev(project: Folder = None, port: int = 3000) -> None:
    """Dagster's UI and daemon on the project, on 127.0.0.1; Ctrl-C ends both."""
    from cdp_pipeline.orchestration.dev import dev as serve

    folder = (project or project_folder()).resolve()
    declared = the_project(folder)
    out.print(f"Dagster: http://127.0.0.1:{port}  (ready in about 20 seconds)", highlight=False)
    out.print(
        "Where to click: Lineage shows every table from source to delivery; Assets › audiences shows who is where;"
    )
    out.print("Automation turns schedules on; Ctrl-C ends everything.")
    raise typer.Exit(serve(declared, folder, port))


@app.command()
def worker(project: Folder = None) -> None:
    """Act on events as they come and deliver within a second, until Ctrl-C; may run beside `cdp dev`, and be killed."""
    import logging

    from cdp_pipeline.activation.live import followed, telling
    from cdp_pipeline.orchestration.worker import work
    from cdp_pipeline.sources.tail import why_not

    declared = the_project(project)
    read = followed(declared)
    for name, source in telling(declared).items():
        said = "read as it comes" if name in read else f"left to its loads: {why_not(source)}"
        out.print(f"source {name}: {said}", highlight=False)
    if not read:
        out.print("No trigger waits for an event (`on: {seen: …}`) that can be read as it comes: only deliveries.")
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    if not work(declared):
        raise typer.Exit(1)


def _tell_findings(findings: Sequence[Finding], as_json: bool) -> None:
    if as_json:
        print_json([vars(finding) for finding in findings])
        return
    grid = empty_grid(["", "what", "state"])
    for finding in findings:
        grid.add_row(MARKS[finding.state], Text(f"{finding.area} {finding.name}"), Text(finding.said))
        if finding.do:
            grid.add_row("", Text(f"→ {finding.do}", style="bold"))
    out.print(grid)


@app.command("status")
def status_(project: Folder = None, as_json: Json = False) -> None:
    """Freshness, failed checks, sensors that stopped, what waits, and what to do."""
    from cdp_pipeline.orchestration.status import status

    _tell_findings(status(the_project(project), datetime.now(UTC)), as_json)


@app.command()
def doctor(project: Folder = None, as_json: Json = False) -> None:
    """Is this installation healthy: versions, project, lake, ledger, Dagster's home, disk?"""
    from cdp_pipeline.orchestration.doctor import examine

    findings = list(examine(project or project_folder()))
    _tell_findings(findings, as_json)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


@app.command("diff")
def diff_(
    other: Annotated[Path, typer.Argument(help="Folder of the project as it would be.")],
    day: Day = None,
    sample: Annotated[int, typer.Option(help="How many people to name, by id, of each change.")] = 5,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write it to this file, for a review.")] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """What a change of YAML does to people: traits, audiences, merges, syncs, triggers; nothing is published."""
    from cdp_pipeline.activation.sync import holds
    from cdp_pipeline.orchestration.installation import ledger_of
    from cdp_pipeline.review.difference import difference
    from cdp_pipeline.review.words import as_json as plain
    from cdp_pipeline.review.words import markdown as written

    changed = the_project(other)
    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        found = difference(
            lake, declared, changed, datetime.now(UTC), lambda sync: holds(ledger, sync), day_of(day), sample
        )
    if markdown is not None:
        markdown.write_text(written(found), encoding="utf-8")
        err.print(f"Wrote {markdown}", markup=False, highlight=False)
    if as_json:
        print_json(plain(found))
    elif markdown is None:
        out.print(written(found), markup=False, highlight=False)


@app.command()
def sql(
    query: str,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_of: Annotated[
        datetime | None, typer.Option("--as-of", help="The lake as it was when this day (UTC) ended.", **DAY)
    ] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """Read-only DuckDB SQL over the lake: schema.table, information_schema included."""
    from cdp_pipeline.lake.query import query_lake

    moment = None if as_of is None else as_of.replace(hour=23, minute=59, second=59, microsecond=999_999)
    with the_lake(project) as (_, lake):
        names, rows = query_lake(lake, query, None if moment is None else moment.replace(tzinfo=UTC))
        if as_csv:
            writer = csv.writer(sys.stdout)
            writer.writerow(names)
            writer.writerows(rows)
        else:
            tell([dict(zip(names, row, strict=True)) for row in rows], as_json)

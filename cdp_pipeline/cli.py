"""`cdp`: one function per command, each a few lines over a domain function that says what the command means."""

from __future__ import annotations

import csv
import getpass
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from cdp_pipeline.spec.base import counted, unknown
from cdp_pipeline.spec.load import ProjectError, load_project, project_folder

if TYPE_CHECKING:
    from cdp_pipeline.lake import Lake, LakeView
    from cdp_pipeline.orchestration.run import RunReport
    from cdp_pipeline.orchestration.status import Finding
    from cdp_pipeline.spec.prediction import Prediction
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.source import Source

app = typer.Typer(
    help="An open Customer Data Platform, declared in YAML.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
explain = typer.Typer(help="Why things are as they are.", no_args_is_help=True)
identity = typer.Typer(help="Who is who: link, unlink, try other rules.", no_args_is_help=True)
trait = typer.Typer(help="Traits: what there is to know of everybody.", no_args_is_help=True)
audience = typer.Typer(help="Audiences: how large, who, why, and what sets them apart.", no_args_is_help=True)
quarantine = typer.Typer(help="Rows that broke a contract: look, mend, replay.", no_args_is_help=True)
sync = typer.Typer(help="What syncs send: plan, approve, apply, retry.", no_args_is_help=True)
consent = typer.Typer(help="What people permit: look, and write down what they say.", no_args_is_help=True)
model = typer.Typer(
    help="Models: how good each version is, which one scores, and why it says so.", no_args_is_help=True
)
app.add_typer(explain, name="explain")
app.add_typer(identity, name="identity")
app.add_typer(trait, name="trait")
app.add_typer(audience, name="audience")
app.add_typer(model, name="model")
app.add_typer(quarantine, name="quarantine")
app.add_typer(sync, name="sync")
app.add_typer(consent, name="consent")

out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}

Folder = Annotated[Path | None, typer.Option("--project", help="Project folder; default: CDP_PROJECT, else the demo.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DAY = {"formats": ["%Y-%m-%d"], "metavar": "YYYY-MM-DD"}
Day = Annotated[datetime | None, typer.Option("--day", help="As of the end of this day.", **DAY)]


class Definition(StrEnum):
    """Whose definition of an audience is asked."""

    HEAD = "HEAD"
    THEN = "then"


class RefusedError(Exception):
    """A command that cannot be done as asked; the message says why."""


def main() -> None:
    """Run a command; problems a user can act on are told in one line each, without a traceback."""
    warnings.filterwarnings("ignore", module=r"dagster\.")  # what Dagster calls beta is for developers to weigh
    if not out.is_terminal:
        # What is piped into a file or a program is not clipped to anybody's terminal.
        out.width = int(os.environ.get("COLUMNS", 1_000_000))
    try:
        app()
    except SystemExit:  # how commands end: nothing to look up
        raise
    except refusals() as problem:
        complain(str(problem))
    except BrokenPipeError:
        sys.exit(141)
    except OSError as problem:
        complain(f"{problem.filename or ''}: {problem.strerror or problem}".removeprefix(": "))
    except database_errors() as problem:
        complain(f"the ledger's or Dagster's database does not answer ({type(problem).__name__}): cdp doctor")


def refusals() -> tuple[type[Exception], ...]:
    """Errors whose message is for the user; imported only when there is one, since Dagster takes a second to import."""
    from cdp_pipeline.activation.ledger import LedgerError
    from cdp_pipeline.audiences.look import NothingComputedError
    from cdp_pipeline.audiences.scope import ScopeError
    from cdp_pipeline.consent.ledger import ConsentError
    from cdp_pipeline.identity.explain import UnknownIdentifier
    from cdp_pipeline.identity.verdicts import VerdictError
    from cdp_pipeline.lake.errors import LakeError
    from cdp_pipeline.orchestration.run import SelectionError
    from cdp_pipeline.predictions.champions import PromotionError
    from cdp_pipeline.predictions.registry import ModelTamperedError
    from cdp_pipeline.sources.errors import SourceError
    from cdp_pipeline.traits.recall import UnknownTraitError

    return (ConsentError, LakeError, LedgerError, UnknownIdentifier, UnknownTraitError, VerdictError,
            NothingComputedError, ScopeError, SelectionError, SourceError, ProjectError, PromotionError,
            ModelTamperedError, RefusedError)  # fmt: skip


def database_errors() -> type[Exception]:
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError


def complain(text: str) -> None:
    """What went wrong, on stderr; exit 1."""
    err.print(text, style="red", markup=False, highlight=False)
    sys.exit(1)


def the_project(folder: Path | None) -> Project:
    return load_project(folder or project_folder())


@contextmanager
def the_lake(folder: Path | None) -> Iterator[tuple[Project, Lake]]:
    """The project and its lake, read-only."""
    from cdp_pipeline.orchestration.resources import lake_of

    project = the_project(folder)
    with lake_of(project, read_only=True) as lake:
        yield project, lake


def tell(rows: Sequence[dict[str, Any]], as_json: bool, title: str = "") -> None:
    """Print rows as JSON or as a table; one under the other where they are too wide for the terminal."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print("nothing to show")
        return
    grid = _grid(list(rows[0]), title)
    for column, name in zip(grid.columns, rows[0], strict=True):
        if all(isinstance(row[name], int | float | Decimal | None) for row in rows):
            column.justify = "right"
        column.no_wrap = name.endswith("_id")  # what is copied into the next command stays in one piece
    for row in rows:
        grid.add_row(*(Text(said(value)) for value in row.values()))
    if len(rows[0]) > 6 and out.measure(grid, options=out.options.update(width=1_000_000)).maximum > out.width:
        for number, row in enumerate(rows, 1):
            record = _grid(["", ""], f"{title} {number} of {len(rows)}".strip())
            record.show_header = False
            for name, value in row.items():
                record.add_row(name, Text(said(value)))
            out.print(record)
    else:
        out.print(grid)


def _grid(names: Sequence[str], title: str = "") -> Grid:
    grid = Grid(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in names:
        grid.add_column(Text(name), overflow="fold")
    return grid


def said(value: Any) -> str:
    """A value as a person reads it; JSON and CSV have every digit."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, Decimal):
        cents = round(value, 2)
        return str(cents if cents == value else value.normalize())
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}".removesuffix(".00")
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where the project is written; it must not exist or be empty.")],
    source: Annotated[str, typer.Option("--from", help="What to start from: starter, or the whole demo.")] = "starter",
) -> None:
    """Write a project to start from."""
    packaged = Path(__file__).parent / source
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
    as_json: Json = False,
) -> None:
    """Generate the demo company with its ground truth (truth/)."""
    from rich.progress import Progress

    from cdp_pipeline.sources.demo import generate

    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("Generating", total=days)
        summary = generate(
            folder, customers, days, seed, progress=lambda done, _days, _rows: bar.update(task, completed=done)
        )
    if as_json:
        print_json(vars(summary))
    else:
        out.print(
            f"{folder}: {summary.people:,} people, {sum(summary.rows.values()):,} rows, {days} days", highlight=False
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

        report = run_project(declared, selection, _date(day or first), _date(day or last), progress=progress)
    if as_json:
        print_json(vars(report) | {"held": report.held, "success": report.success})
    else:
        _tell_run(report, declared)
    if not report.success:
        raise typer.Exit(1)


def _date(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def _tell_run(report: RunReport, project: Project) -> None:
    from cdp_pipeline.orchestration.headline import headline

    tell([{"asset": name, "rows": rows} for name, rows in sorted(report.assets.items())], False, "Made")
    passed = sum(each["passed"] for each in report.checks)
    out.print(f"\n{passed} of {len(report.checks)} checks passed", highlight=False)
    tell_failed = [
        {
            "check": f"{each['asset']}: {each['check']}",
            "severity": each["severity"],
            "found": "; ".join(f"{name}: {said(value)}" for name, value in each["metadata"].items()),
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
    grid = _grid(["", "what", "state"])
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


def _person(lake: LakeView, project: Project, identifier: str) -> str:
    from cdp_pipeline.identity.explain import resolve_identifier
    from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE

    return resolve_identifier(identifier, lake.read(IDENTIFIERS), lake.read(PEOPLE), project)


@app.command()
def person(
    identifier: Annotated[str, typer.Argument(help="email:ann@example.com, customer_id:17, … or a person id.")],
    as_of: Annotated[
        datetime | None, typer.Option("--as-of", help="Traits, scores and audiences of this day.", **DAY)
    ] = None,
    graph: Annotated[
        Path | None,
        typer.Option("--graph", metavar="FILE.svg", help="Also draw their identifiers and what joins them."),
    ] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """The 360° profile of a person, by any identifier."""
    from cdp_pipeline.profile.graph import graph_of
    from cdp_pipeline.profile.person import flat, profile_of

    with the_lake(project) as (declared, lake):
        person_id = _person(lake, declared, identifier)
        page = profile_of(lake, declared, person_id, _date(as_of))
        if graph is not None:
            graph.write_text(graph_of(lake, declared, person_id), encoding="utf-8")
            err.print(f"Wrote {graph}", markup=False, highlight=False)
    if as_json:
        print_json(page)
    else:
        tell(
            [{"": section, "name": name, "value": value, "note": note} for section, name, value, note in flat(page)],
            False,
            page["person_id"],
        )


@app.command()
def recommend(
    identifier: Annotated[str, typer.Argument(help="email:ann@example.com, anonymous_id:…, … or a person id.")],
    name: Annotated[str | None, typer.Option("--list", help="Only this ranking; default: all.")] = None,
    top: Annotated[int, typer.Option(min=1, help="At most so many items of each.")] = 10,
    as_of: Annotated[datetime | None, typer.Option("--as-of", help="The lists of this day.", **DAY)] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """What to recommend to a person: their newest lists, where each item comes from, and why."""
    from cdp_pipeline.profile.person import best_items

    with the_lake(project) as (declared, lake):
        known = [each for each, prediction in declared.predictions.items() if prediction.a_list]
        if name is not None and name not in known:
            raise RefusedError(unknown("ranking", name, known))
        person_id = _person(lake, declared, identifier)
        rows = [
            {"list": each, **row}
            for each in known
            if name in (None, each)
            for row in best_items(lake, f"predictions.{each}", person_id, _date(as_of), top)
        ]
    shown = ("list", "day", "rank", "item", "score", "way", "reasons")
    tell([{column: row[column] for column in shown} for row in rows], as_json)


@app.command()
def timeline(identifier: str, limit: int = 50, project: Folder = None, as_json: Json = False) -> None:
    """Everything a person did, on all channels, newest first."""
    from cdp_pipeline.profile.person import timeline_of

    with the_lake(project) as (declared, lake):
        rows = timeline_of(lake, _person(lake, declared, identifier), limit)
    if not as_json:
        shown = ("occurred_at", "event", "channel", "amount", "currency", "product_id", "source")
        rows = [{name: row[name] for name in shown} for row in rows]
    tell(rows, as_json)


@explain.command("link")
def explain_link_(a: str, b: str, project: Folder = None, as_json: Json = False) -> None:
    """Why two identifiers are, or are not, one person."""
    from cdp_pipeline.identity.edges import EDGES
    from cdp_pipeline.identity.explain import explain_link, waterfall_of
    from cdp_pipeline.identity.matching.matches import MATCHES
    from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE

    with the_lake(project) as (declared, lake):
        tables = [lake.read(table) for table in (EDGES, IDENTIFIERS, PEOPLE, MATCHES)]
        found = explain_link(tables[0], tables[1], a, b, declared, tables[2], waterfall_of(tables[3]))
    if as_json:
        print_json(found.as_json())
    else:
        out.print(str(found), markup=False, highlight=False)


@explain.command("audience")
def explain_audience(name: str, person: str, day: Day = None, project: Folder = None, as_json: Json = False) -> None:
    """Why a person is, or is not, in an audience: every condition with what was found."""
    from dataclasses import asdict

    from cdp_pipeline.audiences.look import explain_now

    with the_lake(project) as (declared, lake):
        person_id = _person(lake, declared, person)
        answer = explain_now(lake, declared, _audience(declared, name), person_id, _date(day))
    if as_json:
        print_json(asdict(answer))
    else:
        out.print(str(answer), markup=False, highlight=False)


@explain.command("contact")
def explain_contact(person: str, project: Folder = None, as_json: Json = False) -> None:
    """Why somebody was, or was not, contacted: everything that was decided about them, and what stands now."""
    from cdp_pipeline.activation.contacts import explain_contacts
    from cdp_pipeline.consent.subjects import subjects
    from cdp_pipeline.orchestration.resources import gates_of, ledger_of, system_clock

    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        person_id = _person(lake, declared, person)
        subject = subjects(lake, declared, [person_id])[person_id]
        with gates_of(declared, ledger, system_clock, lake) as gates:
            found = explain_contacts(ledger, declared, subject, gates, system_clock())
    if as_json:
        print_json(found.as_json())
    else:
        out.print(str(found), markup=False, highlight=False)


@app.command()
def receipts(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Mails of the return path (.eml, a Maildir), or .jsonl of op_id (or link), event and at."),
    ] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """Write down what became of messages: bounces, complaints, opens, clicks; and what we sent since the last time."""
    from cdp_pipeline.activation.receipts import note, note_sent, reports_of_lines
    from cdp_pipeline.destinations.bounces import reports_of_mail
    from cdp_pipeline.destinations.unsubscribe import unsubscribed
    from cdp_pipeline.orchestration.resources import consents_of, ledger_of

    declared, now = load_project(project or project_folder()), datetime.now(UTC)
    secrets = [getattr(one, "unsubscribe_secret", None) for one in declared.destinations.values()]

    def linked(link: str) -> str | None:
        return next((op_id for secret in secrets if secret and (op_id := unsubscribed(link, secret))), None)

    with ledger_of(declared) as ledger:
        counts = {"message_sent": note_sent(ledger, declared, now)}
        for path in files or ():
            if path.suffix == ".jsonl":
                reports = reports_of_lines(path.read_text(encoding="utf-8").splitlines(), linked)
            else:
                mails = [one for one in sorted(path.rglob("*")) if one.is_file()] if path.is_dir() else [path]
                reports = [report for mail in mails for report in reports_of_mail(mail.read_bytes(), now)]
            for event, count in note(ledger, consents_of(ledger), declared, reports, now).items():
                counts[event] = counts.get(event, 0) + count
    tell([{"event": event, "new": count} for event, count in sorted(counts.items())], as_json, "Receipts")


Why = Annotated[str, typer.Option("--why", help="What it was decided on.")]
By = Annotated[str | None, typer.Option("--by", help="Who decided; default: you.")]
Yes = Annotated[bool, typer.Option("--yes", help="Write it without asking.")]


@identity.command("unlink")
def identity_unlink(a: str, b: str, why: Why, by: By = None, yes: Yes = False,
                    project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """Two identifiers are never one person's: shows what that changes, then writes it into the project."""
    _decide(a, b, True, why, by, yes, project, as_json)


@identity.command("link")
def identity_link(a: str, b: str, why: Why, by: By = None, yes: Yes = False,
                  project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """Two identifiers are one person's: shows what that changes, then writes it into the project."""
    _decide(a, b, False, why, by, yes, project, as_json)


def _decide(
    a: str, b: str, apart: bool, why: str, by: str | None, yes: bool, folder: Path | None, as_json: bool
) -> None:
    from cdp_pipeline.activation.sync import holds
    from cdp_pipeline.activation.what_if import what_if
    from cdp_pipeline.identity.explain import explain_link, find_identifier
    from cdp_pipeline.identity.people import IDENTIFIERS
    from cdp_pipeline.identity.verdicts import new_verdict, with_verdict, write_verdict
    from cdp_pipeline.orchestration.resources import ledger_of
    from cdp_pipeline.spec.load import DEMO

    now = datetime.now(UTC)
    with the_lake(folder) as (declared, lake), ledger_of(declared) as ledger:
        if declared.folder.resolve() == DEMO.resolve():
            raise RefusedError("the packaged demo is not yours to change: cdp init DIR --from demo")
        known = lake.read(IDENTIFIERS)
        one, other = (find_identifier(text, known, declared) for text in (a, b))
        today = now.astimezone(declared.zone).date()
        verdict = new_verdict(declared, one, other, apart=apart, by=by or getpass.getuser(), on=today, why=why)
        decided = with_verdict(declared, verdict)
        then = what_if(lake, declared, decided, now, lambda sync: holds(ledger, sync))
        answer = explain_link(then.edges, then.identifiers, str(one), str(other), decided)
    if not as_json:
        out.print("With this verdict:", highlight=False)
        for line in [str(answer), *then.lines()]:
            out.print(line, markup=False, highlight=False)
    if not yes and sys.stdin.isatty() and not as_json:
        yes = typer.confirm("Write it?")
    path = write_verdict(declared.folder, verdict) if yes else None
    if as_json:
        print_json({"verdict": verdict.name, "same_person": answer.same_person, **then.as_json(), "written": path})
    elif path is not None:
        out.print(f"Wrote verdict {verdict.name} to {path}. Next: cdp run", highlight=False)
    if path is None:
        if not as_json:
            err.print("Nothing was written; --yes writes it.", highlight=False)
        raise typer.Exit(1)


@identity.command("simulate")
def identity_simulate(
    other: Annotated[
        Path | None, typer.Argument(help="Folder of a project with other rules; default: the rules as they are now.")
    ] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """What other rules would make of the same rows: who merges and splits, and what that moves."""
    from cdp_pipeline.activation.what_if import what_if

    with the_lake(project) as (declared, lake):
        then = what_if(lake, declared, the_project(other) if other else declared, datetime.now(UTC))
    if as_json:
        print_json(then.as_json())
    else:
        for line in then.lines():
            out.print(line, markup=False, highlight=False)


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
    from cdp_pipeline.orchestration.resources import ledger_of
    from cdp_pipeline.review.difference import difference
    from cdp_pipeline.review.words import as_json as plain
    from cdp_pipeline.review.words import markdown as written

    changed = the_project(other)
    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        found = difference(
            lake, declared, changed, datetime.now(UTC), lambda sync: holds(ledger, sync), _date(day), sample
        )
    if markdown is not None:
        markdown.write_text(written(found), encoding="utf-8")
        err.print(f"Wrote {markdown}", markup=False, highlight=False)
    if as_json:
        print_json(plain(found))
    elif markdown is None:
        out.print(written(found), markup=False, highlight=False)


@trait.command("list")
def trait_list(
    missing: Annotated[bool, typer.Option("--missing", help="Those your sources cannot tell yet, and why.")] = False,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """Every trait: what it says, its unit and where it is declared; as JSON also its type and what it is made of."""
    from cdp_pipeline.traits import listing

    declared = the_project(project)
    rows = listing.missing(declared) if missing else listing.listed(declared)
    if not (missing or as_json):
        rows = [{column: row[column] for column in ("name", "description", "unit", "declared")} for row in rows]
    tell(rows, as_json)


@trait.command("history")
def trait_history(
    name: str,
    person: Annotated[str | None, typer.Argument(help="Also the values of this person, by any identifier.")] = None,
    version: Annotated[str | None, typer.Option(help="Only the values of this version of the definition.")] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """The definitions a trait has had, what each restated, and with a person their values under each of them."""
    from cdp_pipeline.traits.recall import definitions_of, values_of

    with the_lake(project) as (declared, lake):
        if person is None:
            tell(definitions_of(lake, declared, name), as_json)
        else:
            tell(values_of(lake, declared, name, _person(lake, declared, person), version), as_json)


@audience.command("list")
def audience_list(project: Folder = None, as_json: Json = False) -> None:
    """Every audience with its newest size."""
    from cdp_pipeline.audiences.look import listed

    with the_lake(project) as (declared, lake):
        tell(listed(lake, declared), as_json)


@audience.command("size")
def audience_size(name: str, day: Day = None, project: Folder = None,
                  as_json: Json = False) -> None:  # fmt: skip
    """How many people an audience has, and how many each channel reaches: under today's definition, computed now."""
    from cdp_pipeline.audiences.look import size_now

    with the_lake(project) as (declared, lake):
        tell([size_now(lake, declared, _audience(declared, name), _date(day))], as_json)


@audience.command("preview")
def audience_preview(name: str, limit: int = 10, day: Day = None,
                     project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """A sample of an audience's people, with what it asks about them and their profile."""
    from cdp_pipeline.audiences.look import preview

    with the_lake(project) as (declared, lake):
        tell(preview(lake, declared, _audience(declared, name), _date(day), limit), as_json)


@audience.command("waterfall")
def audience_waterfall(
    name: str,
    misses: Annotated[int, typer.Option(min=0, help="Show so many of those who fail only one condition.")] = 0,
    day: Day = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """How many people each condition leaves, and how many would be in but for that one condition."""
    from cdp_pipeline.audiences.look import misses_now, waterfall_now

    with the_lake(project) as (declared, lake):
        found = waterfall_now(lake, declared, _audience(declared, name), _date(day))
        missed = misses_now(lake, declared, name, _date(day), misses) if misses else []
    if as_json:
        print_json(found.as_json() | ({"misses": missed} if misses else {}))
        return
    tell(found.rows(), False, f"{name}, {found.day}: {found.members:,} of {counted_people(found.everybody)}")
    if found.closest is not None:
        out.print(f"\nClosest: {counted_people(found.closest.fail_only_this)} would be in, were it not for: "
                  f"{found.closest.says}", markup=False, highlight=False)  # fmt: skip
    if missed:
        out.print()
        tell(missed, False)


@audience.command("overlap")
def audience_overlap(
    names: Annotated[list[str] | None, typer.Argument(help="One: against all others; more or none: each pair.")] = None,
    day: Day = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """How many people audiences share, and how alike they are (Jaccard: in both / in either)."""
    from cdp_pipeline.audiences.look import overlap_now

    with the_lake(project) as (declared, lake):
        asked = [_audience(declared, name) for name in names or []]
        every = asked if len(asked) > 1 else list(declared.audiences)
        found = overlap_now(lake, declared, every, _date(day))
    tell(found.rows(asked[0], every) if len(asked) == 1 else found.matrix(every), as_json)


@audience.command("breakdown")
def audience_breakdown(name: str, limit: int = 15, day: Day = None,
                       project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """What sets an audience apart from everybody (index 100: as common as among everybody); all of it with --json."""
    from cdp_pipeline.audiences.breakdown import clearest
    from cdp_pipeline.audiences.look import breakdown_now

    with the_lake(project) as (declared, lake):
        found = breakdown_now(lake, declared, _audience(declared, name), _date(day))
    tell([one.row() for one in (found if as_json else clearest(found, limit))], as_json)


@audience.command("members")
def audience_members(
    name: str,
    as_of: Annotated[datetime | None, typer.Option("--as-of", help="At the end of this day.", **DAY)] = None,
    definition: Annotated[
        Definition, typer.Option(help="HEAD: by today's definition. then: as it was found on that day.")
    ] = Definition.HEAD,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """The people in an audience on any day, one id a line."""
    from cdp_pipeline.audiences.look import members_on

    with the_lake(project) as (declared, lake):
        found = members_on(lake, declared, _audience(declared, name), _date(as_of), definition.value)
    if as_json:
        print_json(found)
    else:
        sys.stdout.writelines(f"{person_id}\n" for person_id in found)


@audience.command("diff")
def audience_diff(
    name: str,
    other: Annotated[Path | None, typer.Argument(help="Folder of a project that defines it otherwise.")] = None,
    first: Annotated[datetime | None, typer.Option("--from", help="Compare this day …", **DAY)] = None,
    last: Annotated[datetime | None, typer.Option("--to", help="… with this one; default: the newest.", **DAY)] = None,
    sample: int = 5,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """Who enters and leaves, and because of which condition: under another definition, or between two days."""
    from cdp_pipeline.audiences.look import diff_of_days, diff_of_projects, newest_day

    if (other is None) == (first is None):
        raise typer.BadParameter("give the folder of another project, or --from a day", param_hint="OTHER or --from")
    with the_lake(project) as (declared, lake):
        day = _date(last) or newest_day(lake, declared)
        _audience(declared, name)
        if other is not None:
            found = diff_of_projects(lake, declared, the_project(other), name, day, sample)
        else:
            found = diff_of_days(lake, declared, name, _date(first) or day, day, sample)
    if as_json:
        print_json(found.as_json())
    else:
        for line in found.lines():
            out.print(line, markup=False, highlight=False)


@audience.command("sql")
def audience_sql(name: str, day: Day = None, project: Folder = None, as_json: Json = False) -> None:
    """The SQL of an audience: what `cdp sql` would have to be given."""
    from cdp_pipeline.audiences.look import sql_now

    with the_lake(project) as (declared, lake):
        text = sql_now(lake, declared, _audience(declared, name), _date(day))
    if as_json:
        print_json({"audience": name, "sql": text})
    else:
        sys.stdout.write(f"{text}\n")


@model.command("list")
def model_list(
    name: Annotated[str | None, typer.Argument(help="Only the versions of this prediction.")] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """Every version of every model, how it did on days it had not seen, and which one scores."""
    from cdp_pipeline.predictions.champions import listed
    from cdp_pipeline.predictions.registry import MODELS

    with the_lake(project) as (declared, lake):
        if name is not None:
            _prediction(declared, name)
        tell(listed(lake.read(MODELS).to_pyarrow().to_pylist(), name), as_json)


@model.command("show")
def model_show(
    name: str,
    version: Annotated[str | None, typer.Argument(help="Default: the champion, else the newest.")] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """The card of a version: what it learned from, what it was tested on, and every gate."""
    from cdp_pipeline.predictions.champions import card_of, flat_card
    from cdp_pipeline.predictions.registry import MODELS

    with the_lake(project) as (declared, lake):
        found = card_of(lake.read(MODELS).to_pyarrow().to_pylist(), _prediction(declared, name).name, version)
    if as_json:
        print_json(found)
    else:
        tell(
            [{"": section, "name": what, "value": value} for section, what, value in flat_card(found)],
            False,
            f"{name} {found['version']}: {found['status']}",
        )


@model.command("promote")
def model_promote(name: str, version: str, project: Folder = None, as_json: Json = False) -> None:
    """Let a version score that has passed its gates."""
    from cdp_pipeline.orchestration.resources import lake_of, models_folder
    from cdp_pipeline.predictions.champions import promote

    declared = the_project(project)
    with lake_of(declared) as lake:
        changed = promote(lake, models_folder(declared), _prediction(declared, name), version, datetime.now(UTC))
    _tell_champion(changed, name, as_json)


@model.command("rollback")
def model_rollback(name: str, project: Folder = None, as_json: Json = False) -> None:
    """Let the champion score again that was promoted before the present one."""
    from cdp_pipeline.orchestration.resources import lake_of, models_folder
    from cdp_pipeline.predictions.champions import roll_back

    declared = the_project(project)
    with lake_of(declared) as lake:
        changed = roll_back(lake, models_folder(declared), _prediction(declared, name))
    _tell_champion(changed, name, as_json)


@model.command("explain")
def model_explain(
    person: Annotated[str, typer.Argument(help="email:ann@example.com, customer_id:17, … or a person id.")],
    prediction: Annotated[str | None, typer.Option(help="Only this prediction, with everything that counts.")] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """Why a person's newest scores are what they are: in words, and in points of probability."""
    from cdp_pipeline.orchestration.reasons import reasons

    with the_lake(project) as (declared, lake):
        if prediction is not None:
            _prediction(declared, prediction)
        person_id = _person(lake, declared, person)
        found = reasons(lake, declared, person_id, prediction)
    if as_json:
        print_json(found)
        return
    shown = ("prediction", "item", "score", "average", "rank", "of", "band", "reasons")
    tell([{name: row.get(name) for name in shown} for row in found], False, person_id)
    for row in found if prediction is not None else []:
        of_item = f"{row['item']}: " if "item" in row else ""
        adds = [each for each in row["adds"] if each["points"]]
        tell(adds, False, f"{of_item}points of probability, against the average")


def _tell_champion(changed: list[dict[str, Any]], name: str, as_json: bool) -> None:
    tell([{column: row[column] for column in ("name", "version", "status")} for row in changed], as_json)
    if changed and not as_json:
        out.print(f"\nNext: cdp run 'key:\"predictions/{name}\"+'", markup=False, highlight=False)


def _prediction(project: Project, name: str) -> Prediction:
    from cdp_pipeline.spec.base import unknown

    if name not in project.predictions:
        raise RefusedError(unknown("prediction", name, project.predictions))
    return project.predictions[name]


def counted_people(number: int) -> str:
    """`1 person`, `2 people`."""
    return "1 person" if number == 1 else f"{number:,} people"


def _audience(project: Project, name: str) -> str:
    from cdp_pipeline.spec.base import unknown

    if name not in project.audiences:
        raise RefusedError(unknown("audience", name, project.audiences))
    return name


def _source(project: Project, name: str) -> Source:
    from cdp_pipeline.spec.base import unknown

    if name not in project.sources:
        raise RefusedError(unknown("source", name, project.sources))
    return project.sources[name]


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


Syncs = Annotated[list[str] | None, typer.Argument(metavar="[SYNC]...", help="Which syncs; default: all.")]


def _syncs(declared: Project, names: list[str] | None) -> list[str]:
    for name in names or ():
        if name not in declared.syncs:
            raise RefusedError(unknown("sync", name, declared.syncs))
    return list(names or declared.syncs)


@sync.command("list")
def sync_list(project: Folder = None, as_json: Json = False) -> None:
    """Every sync: how many people are over there, what waits or failed, and what its last plan was."""
    from cdp_pipeline.activation.sync import standing
    from cdp_pipeline.orchestration.resources import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        tell(standing(ledger, declared), as_json)


@sync.command("plan")
def sync_plan(names: Syncs = None, project: Folder = None, as_json: Json = False) -> None:
    """What each sync would send now, and why it would wait if it does. Nothing is sent."""
    _planned(names, project, as_json, only_hold=True)


@sync.command("apply")
def sync_apply(names: Syncs = None, project: Folder = None, as_json: Json = False) -> None:
    """Plan, enqueue what nothing holds and deliver it: the same as a run of group:activation does."""
    _planned(names, project, as_json, only_hold=False)


def _planned(names: list[str] | None, project: Path | None, as_json: bool, *, only_hold: bool) -> None:
    from cdp_pipeline.activation.deliver import deliver
    from cdp_pipeline.activation.refresh import plan_all
    from cdp_pipeline.destinations import destination_for
    from cdp_pipeline.orchestration.resources import gates_of, ledger_of, system_clock
    from cdp_pipeline.orchestration.run import upstream_now

    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        wanted, now = _syncs(declared, names), datetime.now(UTC)
        with gates_of(declared, ledger, system_clock, lake) as gates:
            wrong = upstream_now(declared, now)
            planned = plan_all(ledger, lake, declared, now=now, only=wanted, only_hold=only_hold, upstream=wrong,
                               gates=gates)  # fmt: skip
            tell(planned.lines(), as_json)
            if not only_hold:
                there = {declared.syncs[name].destination for name in wanted}
                summary = deliver(ledger, declared, now=now, connect=destination_for, worker="apply", only=there,
                                  gates=gates)  # fmt: skip
                for name, counts in summary.by_destination.items():
                    said = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in sorted(counts.items()))
                    err.print(f"{name}: {said}", highlight=False)


@sync.command("approve")
def sync_approve(plan_id: str, by: Annotated[str | None, typer.Option(help="Who looked at it; default: you.")] = None,
                 project: Folder = None) -> None:  # fmt: skip
    """Let a held plan be applied, as long as it is still exactly that plan."""
    from cdp_pipeline.activation.sync import approve
    from cdp_pipeline.orchestration.resources import ledger_of

    with ledger_of(the_project(project)) as ledger:
        approve(ledger, plan_id, by=by or getpass.getuser(), now=datetime.now(UTC))
    out.print("Approved. Next: cdp sync apply", highlight=False)


@sync.command("runs")
def sync_runs(name: Annotated[str | None, typer.Argument(metavar="[SYNC]")] = None, limit: int = 20,
              project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """Past plans, newest first: what became of each, why it was held, who approved it."""
    from cdp_pipeline.activation.sync import history
    from cdp_pipeline.orchestration.resources import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        tell(history(ledger, None if name is None else _syncs(declared, [name])[0], limit), as_json)


@sync.command("status")
def sync_status(names: Syncs = None, project: Folder = None, as_json: Json = False) -> None:
    """Where everybody in each audience stands: delivered, suppressed, failed, waiting; and whether all add up."""
    from cdp_pipeline.activation.fire import merged_people
    from cdp_pipeline.activation.refresh import members_now
    from cdp_pipeline.activation.sync import conservation
    from cdp_pipeline.orchestration.resources import ledger_of

    states = ("delivered", "suppressed", "failed", "unknown", "pending", "dry_run")
    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        rows, elder = [], merged_people(lake)
        for name in _syncs(declared, names):
            found = conservation(ledger, name, members_now(lake, declared.syncs[name].audience), elder)
            counts = {state: found.states.get(state, 0) for state in states}
            rows.append({"sync": name, "audience": found.audience, **counts, "held": found.missing if found.held else 0,
                         "adds_up": found.holds})  # fmt: skip
        tell(rows, as_json)


Reason = Annotated[str, typer.Argument(help="Why nobody needs to ask about them any more.")]
OfSync = Annotated[str | None, typer.Option("--sync", help="Only those of this sync.")]
OfDestination = Annotated[str | None, typer.Option("--destination", help="Only those for this destination.")]
Operation = Annotated[list[str] | None, typer.Option("--op", help="Only this operation; may be given again.")]


@sync.command("failed")
def sync_failed(name: Annotated[str | None, typer.Argument(metavar="[SYNC]")] = None, project: Folder = None,
                as_json: Json = False) -> None:  # fmt: skip
    """What failed, or may have arrived, by reason; it stays until it is retried or dismissed."""
    from cdp_pipeline.activation.sync import open_cases
    from cdp_pipeline.orchestration.resources import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        tell(open_cases(ledger, None if name is None else _syncs(declared, [name])[0]), as_json)


@sync.command("retry")
def sync_retry(of: OfSync = None, destination: OfDestination = None, op: Operation = None, project: Folder = None,
               as_json: Json = False) -> None:  # fmt: skip
    """Try what failed, or may have arrived, again; all of it unless told otherwise."""
    from cdp_pipeline.orchestration.resources import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        origin = None if of is None else f"sync:{_syncs(declared, [of])[0]}"
        count = ledger.retry(datetime.now(UTC), op_ids=op, destination=destination, origin=origin)
    tell([{"due_again": count}], as_json)


@sync.command("dismiss")
def sync_dismiss(reason: Reason, of: OfSync = None, destination: OfDestination = None, op: Operation = None,
                 project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """Stop asking about what failed, or may have arrived: it stays, as suppressed, with the reason."""
    from cdp_pipeline.orchestration.resources import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        origin = None if of is None else f"sync:{_syncs(declared, [of])[0]}"
        count = ledger.dismiss(datetime.now(UTC), reason, op_ids=op, destination=destination, origin=origin)
    tell([{"dismissed": count}], as_json)


@sync.command("resume")
def sync_resume(subject: Annotated[str, typer.Argument(help="A destination, or what cdp status says is paused.")],
                project: Folder = None) -> None:  # fmt: skip
    """End a pause: what waits is due at once."""
    from cdp_pipeline.activation.pauses import paused, resume
    from cdp_pipeline.orchestration.resources import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        names = [subject, f"sync:{subject}", f"trigger:{subject}"]
        if not any(resume(ledger, name, datetime.now(UTC)) for name in names):
            raise RefusedError(f"'{subject}' is not paused; paused: {', '.join(paused(ledger)) or 'nothing'}")
    out.print(f"{subject} goes on.", highlight=False)


@sync.command("forget")
def sync_forget(name: Annotated[str, typer.Argument(metavar="SYNC")], project: Folder = None) -> None:
    """The destination lost what this sync put there: send everybody again, after approval."""
    from cdp_pipeline.activation.sync import forget
    from cdp_pipeline.orchestration.resources import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        count = forget(ledger, _syncs(declared, [name])[0])
    out.print(f"{counted(count, 'key')} forgotten. Next: cdp sync plan {name}", highlight=False)


Someone = Annotated[
    str, typer.Argument(metavar="PERSON", help="email:ann@example.com, customer_id:17, … or a person id.")
]
About = Annotated[str, typer.Argument(help="A purpose, or a channel such as email.")]
WrittenBy = Annotated[str | None, typer.Option(help="Who writes it down; default: you.")]
Proof = Annotated[str | None, typer.Option(help="What shows it: a letter's number, the version of a text.")]


@consent.command("show")
def consent_show(person: Someone, project: Folder = None, as_json: Json = False) -> None:
    """What somebody permits and why, who must not use their addresses, and every word they gave."""
    from cdp_pipeline.consent.person import permitted, suppressions_of, whom
    from cdp_pipeline.consent.statements import catch_up
    from cdp_pipeline.orchestration.resources import consents_of, ledger_of

    now = datetime.now(UTC)
    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        consents, who = consents_of(ledger), whom(lake, declared, person)
        catch_up(consents, lake, declared, now)
        may, out_of_use = permitted(consents, declared, who, now), suppressions_of(consents, who, now)
        history = list(consents.history(who.identifiers))
    if as_json:
        person_id = None if who.subject is None else who.subject.person_id
        print_json({"person_id": person_id, "may": may, "suppressed": out_of_use, "history": history})
        return
    tell(may, False, person if who.subject is None else who.subject.person_id)
    for rows, title in ((out_of_use, "suppressed"), (history, "said")):
        if rows:
            tell(rows, False, title)


@consent.command("grant")
def consent_grant(person: Someone, about: About,
                  proof: Proof = None, by: WrittenBy = None, project: Folder = None) -> None:  # fmt: skip
    """Write down that somebody agreed to a purpose, or to being contacted by a channel."""
    _write_down(person, about, "granted", proof, by, project)


@consent.command("revoke")
def consent_revoke(person: Someone, about: About,
                   proof: Proof = None, by: WrittenBy = None, project: Folder = None) -> None:  # fmt: skip
    """Write down that somebody said no; it holds for everything that is sent from now on."""
    _write_down(person, about, "denied", proof, by, project)


def _write_down(
    person: str, about: str, decision: Literal["granted", "denied"], proof: str | None, by: str | None,
    folder: Path | None,
) -> None:  # fmt: skip
    from cdp_pipeline.consent.person import decide, whom
    from cdp_pipeline.orchestration.resources import consents_of, ledger_of

    with the_lake(folder) as (declared, lake), ledger_of(declared) as ledger:
        if declared.consent is None:
            raise RefusedError("the project declares no consent: add a document of kind 'consent'")
        known = {name: f"purpose:{name}" for name in declared.consent.purposes}
        known |= {name: f"channel:{name}" for name in declared.consent.channels if name not in known}
        if about not in known:
            raise RefusedError(unknown("purpose or channel", about, known))
        who, now = whom(lake, declared, person), datetime.now(UTC)
        count = decide(consents_of(ledger), declared, who, known[about], decision, by or getpass.getuser(), proof, now)
    out.print(f"{known[about]} {decision} for {counted(count, 'identifier')}", highlight=False)


class Suppressed(StrEnum):
    """Why somebody must not be contacted."""

    MANUAL = "manual"
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    ERASURE = "erasure"


@app.command("suppress")
def suppress(
    person: Someone,
    channel: Annotated[str | None, typer.Option(help="Only by this channel; default: by none.")] = None,
    reason: Annotated[Suppressed, typer.Option(help="Why.")] = Suppressed.MANUAL,
    lift: Annotated[bool, typer.Option("--lift", help="Let them be contacted again; an erasure is for good.")] = False,
    proof: Proof = None,
    by: WrittenBy = None,
    project: Folder = None,
) -> None:
    """Let nothing reach somebody any more, whatever they are merged with and whatever is loaded again."""
    from cdp_pipeline.consent.person import exclude, whom
    from cdp_pipeline.orchestration.resources import consents_of, ledger_of
    from cdp_pipeline.spec.reach import WAYS

    if channel is not None and channel not in WAYS:
        raise RefusedError(unknown("channel", channel, WAYS))
    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        consents, who, now = consents_of(ledger), whom(lake, declared, person), datetime.now(UTC)
        if lift:
            count = consents.lift(who.identifiers, reason.value, now)
        else:
            count = exclude(consents, who, reason.value, channel, by or getpass.getuser(), proof, now)
    out.print(f"{counted(count, 'identifier')} {'free again' if lift else 'suppressed'}", highlight=False)


@quarantine.command("list")
def quarantine_list(project: Folder = None, as_json: Json = False) -> None:
    """How many rows wait, by source, reason and column."""
    from cdp_pipeline.sources.quarantine import waiting

    with the_lake(project) as (_, lake):
        tell(waiting(lake), as_json)


@quarantine.command("show")
def quarantine_show(source: str, limit: int = 20, project: Folder = None, as_json: Json = False) -> None:
    """The rows that wait, as they were received."""
    from cdp_pipeline.sources.quarantine import show

    with the_lake(project) as (declared, lake):
        tell(show(lake, _source(declared, source).name, limit), as_json)


@quarantine.command("replay")
def quarantine_replay(
    source: str,
    patch: Annotated[Path | None, typer.Option(help="YAML: column to value or expression that mends the rows.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")] = False,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """Try the rows that wait again, under the contract as it is now; what passes keeps its record id."""
    import yaml

    from cdp_pipeline.orchestration.resources import lake_of
    from cdp_pipeline.sources.quarantine import replay

    declared = the_project(project)
    wanted = _source(declared, source)
    try:
        mended = yaml.safe_load(patch.read_text()) if patch is not None else None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise RefusedError(f"{patch} cannot be read as YAML: {' '.join(str(problem).split())}") from None
    if mended is not None and not isinstance(mended, dict):
        raise RefusedError(f"{patch}: a patch is names of columns, or ids of rows, with what they should hold")
    with lake_of(declared) as lake:
        report = replay(lake, wanted, declared, datetime.now(UTC), patch=mended, dry_run=dry_run)
    tell([vars(report)], as_json)


if __name__ == "__main__":
    main()

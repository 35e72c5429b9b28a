"""`cdp identity`: deciding who is who, and trying other rules."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cdp_pipeline.cli.terminal import Folder, Json, RefusedError, err, out, print_json, the_lake, the_project

app = typer.Typer(help="Who is who: link, unlink, try other rules.", no_args_is_help=True)


Why = Annotated[str, typer.Option("--why", help="What it was decided on.")]
By = Annotated[str | None, typer.Option("--by", help="Who decided; default: you.")]
Yes = Annotated[bool, typer.Option("--yes", help="Write it without asking.")]


@app.command("unlink")
def identity_unlink(a: str, b: str, why: Why, by: By = None, yes: Yes = False,
                    project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """Two identifiers are never one person's: shows what that changes, then writes it into the project."""
    _decide(a, b, True, why, by, yes, project, as_json)


@app.command("link")
def identity_link(a: str, b: str, why: Why, by: By = None, yes: Yes = False,
                  project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """Two identifiers are one person's: shows what that changes, then writes it into the project."""
    _decide(a, b, False, why, by, yes, project, as_json)


def _decide(
    a: str, b: str, apart: bool, why: str, by: str | None, yes: bool, folder: Path | None, as_json: bool
) -> None:
    from cdp_pipeline.activation.sync import holds
    from cdp_pipeline.activation.what_if import what_if
    from cdp_pipeline.identity.explain import explain_link
    from cdp_pipeline.identity.named import find_identifier
    from cdp_pipeline.identity.people import IDENTIFIERS
    from cdp_pipeline.identity.verdicts import new_verdict, with_verdict, write_verdict
    from cdp_pipeline.orchestration.installation import ledger_of
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


@app.command("simulate")
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

"""`cdp quarantine`: rows that broke a contract: look, mend, replay."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cdp_pipeline.cli.terminal import Folder, Json, RefusedError, known, tell, the_lake, the_project

app = typer.Typer(help="Rows that broke a contract: look, mend, replay.", no_args_is_help=True)


@app.command("list")
def quarantine_list(project: Folder = None, as_json: Json = False) -> None:
    """How many rows wait, by source, reason and column."""
    from cdp_pipeline.sources.quarantine import waiting

    with the_lake(project) as (_, lake):
        tell(waiting(lake), as_json)


@app.command("show")
def quarantine_show(source: str, limit: int = 20, project: Folder = None, as_json: Json = False) -> None:
    """The rows that wait, as they were received."""
    from cdp_pipeline.sources.quarantine import show

    with the_lake(project) as (declared, lake):
        tell(show(lake, known("source", source, declared.sources).name, limit), as_json)


@app.command("replay")
def quarantine_replay(
    source: str,
    patch: Annotated[Path | None, typer.Option(help="YAML: column to value or expression that mends the rows.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")] = False,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """Try the rows that wait again, under the contract as it is now; what passes keeps its record id."""
    import yaml

    from cdp_pipeline.orchestration.installation import lake_of
    from cdp_pipeline.sources.quarantine import replay

    declared = the_project(project)
    wanted = known("source", source, declared.sources)
    try:
        mended = yaml.safe_load(patch.read_text()) if patch is not None else None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise RefusedError(f"{patch} cannot be read as YAML: {' '.join(str(problem).split())}") from None
    if mended is not None and not isinstance(mended, dict):
        raise RefusedError(f"{patch}: a patch is names of columns, or ids of rows, with what they should hold")
    with lake_of(declared) as lake:
        report = replay(lake, wanted, declared, datetime.now(UTC), patch=mended, dry_run=dry_run)
    tell([vars(report)], as_json)

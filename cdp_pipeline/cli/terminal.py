"""What all commands share: options alike, opening project and lake, finding what is named, telling rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.load import load_project, project_folder

if TYPE_CHECKING:
    from cdp_pipeline.lake import Lake, LakeView
    from cdp_pipeline.spec.project import Project


Declared = TypeVar("Declared")
out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
Folder = Annotated[Path | None, typer.Option("--project", help="Project folder; default: CDP_PROJECT, else the demo.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DAY = {"formats": ["%Y-%m-%d"], "metavar": "YYYY-MM-DD"}
Day = Annotated[datetime | None, typer.Option("--day", help="As of the end of this day.", **DAY)]


class RefusedError(Exception):
    """A command that cannot be done as asked; the message says why."""


def the_project(folder: Path | None) -> Project:
    return load_project(folder or project_folder())


@contextmanager
def the_lake(folder: Path | None) -> Iterator[tuple[Project, Lake]]:
    """The project and its lake, read-only."""
    from cdp_pipeline.orchestration.installation import lake_of

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
    grid = empty_grid(list(rows[0]), title)
    for column, name in zip(grid.columns, rows[0], strict=True):
        if all(isinstance(row[name], int | float | Decimal | None) for row in rows):
            column.justify = "right"
        column.no_wrap = name.endswith("_id")  # what is copied into the next command stays in one piece
    for row in rows:
        grid.add_row(*(Text(said(value)) for value in row.values()))
    if len(rows[0]) > 6 and out.measure(grid, options=out.options.update(width=1_000_000)).maximum > out.width:
        for number, row in enumerate(rows, 1):
            record = empty_grid(["", ""], f"{title} {number} of {len(rows)}".strip())
            record.show_header = False
            for name, value in row.items():
                record.add_row(name, Text(said(value)))
            out.print(record)
    else:
        out.print(grid)


def empty_grid(names: Sequence[str], title: str = "") -> Grid:
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


def counted_people(number: int) -> str:
    """`1 person`, `2 people`."""
    return "1 person" if number == 1 else f"{number:,} people"


def day_of(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def person_id_of(lake: LakeView, project: Project, identifier: str) -> str:
    from cdp_pipeline.identity.named import resolve_identifier
    from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE

    return resolve_identifier(identifier, lake.read(IDENTIFIERS), lake.read(PEOPLE), project)


def known(kind: str, name: str, declared: Mapping[str, Declared]) -> Declared:
    """What is declared under this name, or a refusal that names the nearest."""
    if name not in declared:
        raise RefusedError(unknown(kind, name, declared))
    return declared[name]

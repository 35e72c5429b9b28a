"""`cdp audience`: how large, who, why, and what sets them apart."""

from __future__ import annotations

import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cdp_pipeline.cli.terminal import (
    DAY,
    Day,
    Folder,
    Json,
    counted_people,
    day_of,
    known,
    out,
    print_json,
    tell,
    the_lake,
    the_project,
)

app = typer.Typer(help="Audiences: how large, who, why, and what sets them apart.", no_args_is_help=True)


class Definition(StrEnum):
    """Whose definition of an audience is asked."""

    HEAD = "HEAD"
    THEN = "then"


@app.command("list")
def audience_list(project: Folder = None, as_json: Json = False) -> None:
    """Every audience with its newest size."""
    from cdp_pipeline.audiences.look import listed

    with the_lake(project) as (declared, lake):
        tell(listed(lake, declared), as_json)


@app.command("size")
def audience_size(name: str, day: Day = None, project: Folder = None,
                  as_json: Json = False) -> None:  # fmt: skip
    """How many people an audience has, and how many each channel reaches: under today's definition, computed now."""
    from cdp_pipeline.audiences.look import size_now

    with the_lake(project) as (declared, lake):
        tell([size_now(lake, declared, known("audience", name, declared.audiences).name, day_of(day))], as_json)


@app.command("preview")
def audience_preview(name: str, limit: int = 10, day: Day = None,
                     project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """A sample of an audience's people, with what it asks about them and their profile."""
    from cdp_pipeline.audiences.look import preview

    with the_lake(project) as (declared, lake):
        tell(preview(lake, declared, known("audience", name, declared.audiences).name, day_of(day), limit), as_json)


@app.command("waterfall")
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
        found = waterfall_now(lake, declared, known("audience", name, declared.audiences).name, day_of(day))
        missed = misses_now(lake, declared, name, day_of(day), misses) if misses else []
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


@app.command("overlap")
def audience_overlap(
    names: Annotated[list[str] | None, typer.Argument(help="One: against all others; more or none: each pair.")] = None,
    day: Day = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """How many people audiences share, and how alike they are (Jaccard: in both / in either)."""
    from cdp_pipeline.audiences.look import overlap_now

    with the_lake(project) as (declared, lake):
        asked = [known("audience", name, declared.audiences).name for name in names or []]
        every = asked if len(asked) > 1 else list(declared.audiences)
        found = overlap_now(lake, declared, every, day_of(day))
    tell(found.rows(asked[0], every) if len(asked) == 1 else found.matrix(every), as_json)


@app.command("breakdown")
def audience_breakdown(name: str, limit: int = 15, day: Day = None,
                       project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """What sets an audience apart from everybody (index 100: as common as among everybody); all of it with --json."""
    from cdp_pipeline.audiences.breakdown import clearest
    from cdp_pipeline.audiences.look import breakdown_now

    with the_lake(project) as (declared, lake):
        found = breakdown_now(lake, declared, known("audience", name, declared.audiences).name, day_of(day))
    tell([one.row() for one in (found if as_json else clearest(found, limit))], as_json)


@app.command("members")
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
        found = members_on(
            lake, declared, known("audience", name, declared.audiences).name, day_of(as_of), definition.value
        )
    if as_json:
        print_json(found)
    else:
        sys.stdout.writelines(f"{person_id}\n" for person_id in found)


@app.command("diff")
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
        day = day_of(last) or newest_day(lake, declared)
        known("audience", name, declared.audiences)
        if other is not None:
            found = diff_of_projects(lake, declared, the_project(other), name, day, sample)
        else:
            found = diff_of_days(lake, declared, name, day_of(first) or day, day, sample)
    if as_json:
        print_json(found.as_json())
    else:
        for line in found.lines():
            out.print(line, markup=False, highlight=False)


@app.command("sql")
def audience_sql(name: str, day: Day = None, project: Folder = None, as_json: Json = False) -> None:
    """The SQL of an audience: what `cdp sql` would have to be given."""
    from cdp_pipeline.audiences.look import sql_now

    with the_lake(project) as (declared, lake):
        text = sql_now(lake, declared, known("audience", name, declared.audiences).name, day_of(day))
    if as_json:
        print_json({"audience": name, "sql": text})
    else:
        sys.stdout.write(f"{text}\n")

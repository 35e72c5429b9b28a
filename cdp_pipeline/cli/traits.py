"""`cdp trait`: what there is to know of everybody."""

from __future__ import annotations

from typing import Annotated

import typer

from cdp_pipeline.cli.terminal import Folder, Json, person_id_of, tell, the_lake, the_project

app = typer.Typer(help="Traits: what there is to know of everybody.", no_args_is_help=True)


@app.command("list")
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


@app.command("history")
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
            tell(values_of(lake, declared, name, person_id_of(lake, declared, person), version), as_json)

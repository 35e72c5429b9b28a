"""`cdp model`: how good each version is, which one scores, and why it says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cdp_pipeline.cli.terminal import Folder, Json, known, out, person_id_of, print_json, tell, the_lake, the_project

app = typer.Typer(help="Models: how good each version is, which one scores, and why it says so.", no_args_is_help=True)


@app.command("list")
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
            known("prediction", name, declared.predictions)
        tell(listed(lake.read(MODELS).to_pyarrow().to_pylist(), name), as_json)


@app.command("show")
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
        found = card_of(
            lake.read(MODELS).to_pyarrow().to_pylist(), known("prediction", name, declared.predictions).name, version
        )
    if as_json:
        print_json(found)
    else:
        tell(
            [{"": section, "name": what, "value": value} for section, what, value in flat_card(found)],
            False,
            f"{name} {found['version']}: {found['status']}",
        )


@app.command("promote")
def model_promote(name: str, version: str, project: Folder = None, as_json: Json = False) -> None:
    """Let a version score that has passed its gates."""
    from cdp_pipeline.orchestration.installation import lake_of, models_folder
    from cdp_pipeline.predictions.champions import promote

    declared = the_project(project)
    with lake_of(declared) as lake:
        changed = promote(
            lake, models_folder(declared), known("prediction", name, declared.predictions), version, datetime.now(UTC)
        )
    _tell_champion(changed, name, as_json)


@app.command("rollback")
def model_rollback(name: str, project: Folder = None, as_json: Json = False) -> None:
    """Let the champion score again that was promoted before the present one."""
    from cdp_pipeline.orchestration.installation import lake_of, models_folder
    from cdp_pipeline.predictions.champions import roll_back

    declared = the_project(project)
    with lake_of(declared) as lake:
        changed = roll_back(lake, models_folder(declared), known("prediction", name, declared.predictions))
    _tell_champion(changed, name, as_json)


@app.command("explain")
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
            known("prediction", prediction, declared.predictions)
        person_id = person_id_of(lake, declared, person)
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

"""Commands about one person: who they are, what they did, what to recommend, and why things are as they are."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cdp_pipeline.cli.terminal import (
    DAY,
    Day,
    Folder,
    Json,
    RefusedError,
    day_of,
    err,
    known,
    out,
    person_id_of,
    print_json,
    tell,
    the_lake,
)
from cdp_pipeline.spec.base import unknown

app = typer.Typer()
explain = typer.Typer(help="Why things are as they are.", no_args_is_help=True)
app.add_typer(explain, name="explain")


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
        person_id = person_id_of(lake, declared, identifier)
        page = profile_of(lake, declared, person_id, day_of(as_of))
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
        if not known:
            raise RefusedError(
                "no ranking is declared: `kind: prediction` with `type: ranking`, see docs/predictions.md"
            )
        person_id = person_id_of(lake, declared, identifier)
        rows = [
            {"list": each, **row}
            for each in known
            if name in (None, each)
            for row in best_items(lake, f"predictions.{each}", person_id, day_of(as_of), top)
        ]
    shown = ("list", "day", "rank", "item", "score", "way", "reasons")
    tell([{column: row[column] for column in shown} for row in rows], as_json)


@app.command()
def timeline(identifier: str, limit: int = 50, project: Folder = None, as_json: Json = False) -> None:
    """Everything a person did, on all channels, newest first."""
    from cdp_pipeline.profile.person import timeline_of

    with the_lake(project) as (declared, lake):
        rows = timeline_of(lake, person_id_of(lake, declared, identifier), limit)
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
        person_id = person_id_of(lake, declared, person)
        answer = explain_now(lake, declared, known("audience", name, declared.audiences).name, person_id, day_of(day))
    if as_json:
        print_json(asdict(answer))
    else:
        out.print(str(answer), markup=False, highlight=False)


@explain.command("contact")
def explain_contact(person: str, project: Folder = None, as_json: Json = False) -> None:
    """Why somebody was, or was not, contacted: everything that was decided about them, and what stands now."""
    from cdp_pipeline.activation.contacts import explain_contacts
    from cdp_pipeline.consent.subjects import everybody, subjects
    from cdp_pipeline.orchestration.installation import gates_of, ledger_of, system_clock

    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        person_id = person_id_of(lake, declared, person)
        subject = subjects(everybody(lake, declared), [person_id])[person_id]
        with gates_of(declared, ledger, system_clock, lambda: lake) as gates:
            found = explain_contacts(ledger, lake, declared, subject, gates, system_clock())
    if as_json:
        print_json(found.as_json())
    else:
        out.print(str(found), markup=False, highlight=False)

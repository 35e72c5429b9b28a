"""`cdp sync`: plan, approve, apply, retry."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdp_pipeline.cli.terminal import Folder, Json, RefusedError, err, known, out, tell, the_lake, the_project
from cdp_pipeline.spec.base import counted, unknown

if TYPE_CHECKING:
    from cdp_pipeline.activation.ledger import Ledger
    from cdp_pipeline.lake import Lake
    from cdp_pipeline.spec.project import Project

app = typer.Typer(help="What syncs send: plan, approve, apply, retry.", no_args_is_help=True)


BECAME = {
    "retry": "to be tried again", "dry_run": "shown (dry run)", "waits": "wait", "pending": "not tried yet",
    "unknown": "may have arrived", "paused": "paused: cdp status says why", "unusable": "declared wrongly",
}  # fmt: skip
Syncs = Annotated[list[str] | None, typer.Argument(metavar="[SYNC]...", help="Which syncs; default: all.")]


def _syncs(declared: Project, names: list[str] | None) -> list[str]:
    for name in names or ():
        if name not in declared.syncs:
            raise RefusedError(unknown("sync", name, declared.syncs))
    return list(names or declared.syncs)


@app.command("list")
def sync_list(project: Folder = None, as_json: Json = False) -> None:
    """Every sync: how many people are over there, what waits or failed, and what its last plan was."""
    from cdp_pipeline.activation.sync import standing
    from cdp_pipeline.orchestration.installation import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        tell(standing(ledger, declared), as_json)


@app.command("plan")
def sync_plan(names: Syncs = None, project: Folder = None, as_json: Json = False) -> None:
    """What each sync would send now, and why it would wait if it does. Nothing is sent."""
    _planned(names, project, as_json, only_hold=True)


@app.command("apply")
def sync_apply(names: Syncs = None, project: Folder = None, as_json: Json = False) -> None:
    """Plan, enqueue what nothing holds and deliver it: the same as a run of group:activation does."""
    _planned(names, project, as_json, only_hold=False)


def _planned(names: list[str] | None, project: Path | None, as_json: bool, *, only_hold: bool) -> None:
    from cdp_pipeline.activation.refresh import plan_all
    from cdp_pipeline.orchestration.installation import gates_of, ledger_of, system_clock
    from cdp_pipeline.orchestration.run import upstream_now

    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        wanted, now = _syncs(declared, names), datetime.now(UTC)
        with gates_of(declared, ledger, system_clock, lambda: lake) as gates:
            wrong = upstream_now(declared, now)
            planned = plan_all(ledger, lake, declared, now=now, only=wanted, only_hold=only_hold, upstream=wrong,
                               gates=gates)  # fmt: skip
        tell(planned.lines(), as_json)
        if not only_hold:
            _deliver(ledger, declared, wanted, lambda: lake)
    for name, one in planned.syncs.items():
        if one.state == "held" and one.plan is not None:
            err.print(f"{name} is held: {one.because}. To send just this: cdp sync approve {one.plan.plan_id}",
                      highlight=False, soft_wrap=True)  # fmt: skip


def _deliver(ledger: Ledger, declared: Project, syncs: list[str], lake: Callable[[], Lake] | None = None) -> None:
    """Deliver what is due to the destinations of some syncs, and say on the error stream what became of it."""
    from cdp_pipeline.activation.sync import put_off
    from cdp_pipeline.activation.words import in_words
    from cdp_pipeline.orchestration.deliveries import deliver_due
    from cdp_pipeline.orchestration.installation import system_clock

    there = {declared.syncs[name].destination for name in syncs}
    summary = deliver_due(declared, ledger, system_clock, worker="apply", only=there, lake=lake)
    for name, counts in sorted(summary.by_destination.items()):
        said = ", ".join(f"{count:,} {BECAME.get(state, state)}" for state, count in sorted(counts.items()))
        err.print(f"{name}: {said}", highlight=False)
    if not summary.by_destination:
        err.print("nothing is due", highlight=False)
    for late in put_off(ledger, system_clock()):
        if late["destination"] in there:
            err.print(f"{late['origin']} to {late['destination']}: {late['operations']:,} wait until "
                      f"{late['next_at']:%H:%M:%S} UTC: {in_words(late['reason'])}",
                      highlight=False, soft_wrap=True)  # fmt: skip


@app.command("deliver")
def sync_deliver(names: Syncs = None, project: Folder = None) -> None:
    """Send what is due to the destinations of these syncs, for up to 45 seconds. Nothing is planned."""
    from cdp_pipeline.orchestration.installation import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        _deliver(ledger, declared, _syncs(declared, names))


By = Annotated[str | None, typer.Option(help="Who looked at it; default: you.")]
PlanId = Annotated[str, typer.Argument(metavar="PLAN_ID", help="What cdp sync plan says.")]


@app.command("approve")
def sync_approve(plan_id: PlanId, by: By = None, project: Folder = None, as_json: Json = False) -> None:
    """Release a held plan: exactly what was shown is sent, whatever the audience has become since."""
    from cdp_pipeline.activation.sync import approve
    from cdp_pipeline.orchestration.installation import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        count = approve(ledger, plan_id, by=by or getpass.getuser(), now=datetime.now(UTC), syncs=declared.syncs)
    if as_json:
        tell([{"plan_id": plan_id, "released": count}], as_json)
    else:
        out.print(f"Released: {counted(count, 'operation')}, sent within seconds where cdp dev or cdp worker runs. "
                  "At once: cdp sync deliver", highlight=False, soft_wrap=True)  # fmt: skip


Each = Annotated[int, typer.Option(help="How many of each kind.")]


@app.command("show")
def sync_show(name: Annotated[str, typer.Argument(metavar="SYNC")], each: Each = 1, project: Folder = None,
              as_json: Json = False) -> None:  # fmt: skip
    """Examples, with exactly what is sent of whom: of the plan that is held, and of what was decided last."""
    from cdp_pipeline.activation.sync import examples
    from cdp_pipeline.orchestration.installation import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        tell(examples(ledger, _syncs(declared, [name])[0], each), as_json)


@app.command("runs")
def sync_runs(name: Annotated[str | None, typer.Argument(metavar="[SYNC]")] = None, limit: int = 20,
              project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """Past plans, newest first: what became of each, why it was held, who approved it."""
    from cdp_pipeline.activation.sync import history
    from cdp_pipeline.orchestration.installation import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        tell(history(ledger, None if name is None else _syncs(declared, [name])[0], limit), as_json)


@app.command("status")
def sync_status(names: Syncs = None, project: Folder = None, as_json: Json = False) -> None:
    """Where everybody in each audience stands: delivered, suppressed, failed, waiting; and whether all add up."""
    from cdp_pipeline.activation.fire import merged_people
    from cdp_pipeline.activation.refresh import members_now
    from cdp_pipeline.activation.sync import conservation
    from cdp_pipeline.orchestration.installation import ledger_of

    states = ("delivered", "suppressed", "failed", "unknown", "pending", "dry_run", "held")
    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        rows, elder = [], merged_people(lake)
        for name in _syncs(declared, names):
            sync = declared.syncs[name]
            found = conservation(ledger, sync, members_now(lake, sync.audience), elder)
            counts = {state: found.states.get(state, 0) for state in states}
            rows.append({"sync": name, "audience": found.audience, **counts, "missing": found.missing,
                         "adds_up": found.holds})  # fmt: skip
        tell(rows, as_json)
        for row in rows:
            if not row["adds_up"]:
                err.print(f"{row['sync']}: {row['missing']:,} people are in no state at all: not planned since they "
                          f"came (cdp sync plan {row['sync']}), or lost", highlight=False, soft_wrap=True)  # fmt: skip


Reason = Annotated[str, typer.Argument(help="Why nobody needs to ask about them any more.")]
OfSync = Annotated[str | None, typer.Option("--sync", help="Only those of this sync.")]
OfDestination = Annotated[str | None, typer.Option("--destination", help="Only those for this destination.")]
Operation = Annotated[list[str] | None, typer.Option("--op", help="Only this operation; may be given again.")]


NotArrived = Annotated[bool, typer.Option("--not-arrived", help="It is known that they did not arrive.")]


@app.command("failed")
def sync_failed(name: Annotated[str | None, typer.Argument(metavar="[SYNC]")] = None, project: Folder = None,
                as_json: Json = False) -> None:  # fmt: skip
    """What failed, or may have arrived, by reason; it stays until it is retried or dismissed."""
    from cdp_pipeline.activation.sync import open_cases
    from cdp_pipeline.orchestration.installation import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        tell(open_cases(ledger, None if name is None else _syncs(declared, [name])[0]), as_json)


@app.command("retry")
def sync_retry(of: OfSync = None, destination: OfDestination = None, op: Operation = None, project: Folder = None,
               as_json: Json = False) -> None:  # fmt: skip
    """Try what failed, or may have arrived, again; all of it unless told otherwise."""
    from cdp_pipeline.orchestration.installation import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        origin = _meant(declared, of, destination)
        count = ledger.retry(datetime.now(UTC), op_ids=op, destination=destination, origin=origin)
    _counted_cases("due_again", count, "Due again: {}. At once: cdp sync deliver", as_json)


@app.command("dismiss")
def sync_dismiss(reason: Reason, of: OfSync = None, destination: OfDestination = None, op: Operation = None,
                 not_arrived: NotArrived = False, project: Folder = None, as_json: Json = False) -> None:  # fmt: skip
    """Stop asking about what failed, or may have arrived: it stays, with the reason.

    What may have arrived counts towards frequency caps as if it had, unless you know that it did not.
    """
    from cdp_pipeline.orchestration.installation import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        origin = _meant(declared, of, destination)
        count = ledger.dismiss(datetime.now(UTC), reason, op_ids=op, destination=destination, origin=origin,
                               not_arrived=not_arrived)  # fmt: skip
    _counted_cases("dismissed", count, "Dismissed: {}.", as_json)


def _meant(declared: Project, sync: str | None, destination: str | None) -> str | None:
    """The origin of what a sync sends; refuses what is not declared."""
    if destination is not None:
        known("destination", destination, declared.destinations)
    return None if sync is None else f"sync:{_syncs(declared, [sync])[0]}"


def _counted_cases(name: str, count: int, words: str, as_json: bool) -> None:
    if as_json:
        tell([{name: count}], as_json)
    elif count:
        out.print(words.format(counted(count, "operation")), highlight=False, soft_wrap=True)
    else:
        out.print("Of these nothing has failed, and nothing may have arrived: cdp sync failed", highlight=False)


@app.command("resume")
def sync_resume(subject: Annotated[str, typer.Argument(help="A destination, or what cdp status says is paused.")],
                project: Folder = None) -> None:  # fmt: skip
    """End a pause: what waits is due at once."""
    from cdp_pipeline.activation.pauses import paused, resume
    from cdp_pipeline.orchestration.installation import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        names = [subject, f"sync:{subject}", f"trigger:{subject}"]
        if not any(resume(ledger, name, datetime.now(UTC)) for name in names):
            raise RefusedError(f"'{subject}' is not paused; paused: {', '.join(paused(ledger)) or 'nothing'}")
    out.print(f"{subject} goes on.", highlight=False)


@app.command("forget")
def sync_forget(name: Annotated[str, typer.Argument(metavar="SYNC")], project: Folder = None) -> None:
    """The destination lost what this sync put there: send everybody again, after approval."""
    from cdp_pipeline.activation.sync import forget
    from cdp_pipeline.orchestration.installation import ledger_of

    declared = the_project(project)
    with ledger_of(declared) as ledger:
        count = forget(ledger, declared.syncs[_syncs(declared, [name])[0]])
    out.print(f"{counted(count, 'key')} forgotten. Next: cdp sync plan {name}", highlight=False)

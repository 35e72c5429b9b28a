"""Commands about what people permit, what became of messages to them, and an end to all contact."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cdp_pipeline.cli.terminal import Folder, Json, RefusedError, out, print_json, tell, the_lake
from cdp_pipeline.spec.base import counted, unknown
from cdp_pipeline.spec.load import load_project, project_folder

if TYPE_CHECKING:
    from cdp_pipeline.consent.person import Whom

app = typer.Typer()
consent = typer.Typer(help="What people permit: look, and write down what they say.", no_args_is_help=True)
app.add_typer(consent, name="consent")


@app.command()
def receipts(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Mail of the return path (.eml, .mbox, a Maildir), or .jsonl of op_id (or link), event, at."
        ),
    ] = None,
    project: Folder = None,
    as_json: Json = False,
) -> None:
    """Write down what became of messages: bounces, complaints, opens, clicks; and what we sent since the last time."""
    from cdp_pipeline.activation.receipts import note, reports_of_lines
    from cdp_pipeline.destinations.bounces import reports_of_mail
    from cdp_pipeline.destinations.returned import mails_in
    from cdp_pipeline.destinations.unsubscribe import unsubscribed
    from cdp_pipeline.orchestration.installation import consents_of, ledger_of
    from cdp_pipeline.orchestration.receive import take_in_all

    declared, now = load_project(project or project_folder()), datetime.now(UTC)
    secrets = [getattr(one, "unsubscribe_secret", None) for one in declared.destinations.values()]

    def linked(link: str) -> str | None:
        return next((op_id for secret in secrets if secret and (op_id := unsubscribed(link, secret))), None)

    counts = take_in_all(declared, now)
    with ledger_of(declared) as ledger:
        for path in files or ():
            if path.suffix == ".jsonl":
                reports = reports_of_lines(path.read_text(encoding="utf-8").splitlines(), linked)
            else:
                reports = [report for mail in mails_in(path) for report in reports_of_mail(mail, now)]
            counts.update(note(ledger, consents_of(ledger), declared, reports, now))
    tell([{"event": event, "new": count} for event, count in sorted(counts.items())], as_json, "Receipts")


@app.command()
def receive(
    host: Annotated[str, typer.Option(help="The address to listen at; what is reached from outside needs TLS.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8788,
    project: Folder = None,
) -> None:
    """Be told by providers what became of messages, and by people that they want no more; until Ctrl-C."""
    from cdp_pipeline.orchestration.receive import receive as serve

    serve(load_project(project or project_folder()), host, port)


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
    from cdp_pipeline.orchestration.installation import consents_of, ledger_of

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
    from cdp_pipeline.orchestration.installation import consents_of, ledger_of

    with the_lake(folder) as (declared, lake), ledger_of(declared) as ledger:
        if declared.consent is None:
            raise RefusedError("the project declares no consent: add a document of kind 'consent'")
        known = {name: f"purpose:{name}" for name in declared.consent.purposes}
        known |= {name: f"channel:{name}" for name in declared.consent.channels if name not in known}
        if about not in known:
            raise RefusedError(unknown("purpose or channel", about, known))
        who, now = whom(lake, declared, person), datetime.now(UTC)
        count = decide(consents_of(ledger), declared, who, known[about], decision, by or getpass.getuser(), proof, now)
    out.print(f"{known[about]} {decision} for {counted(count, 'identifier')} {_whose(who)}", highlight=False)


def _whose(who: Whom) -> str:
    """Whom the identifiers belong to: what is said of an address nobody was seen with counts for whoever comes."""
    return "that nobody has yet" if who.subject is None else f"of {who.subject.person_id}"


class Suppressed(StrEnum):
    """Why somebody must not be contacted."""

    MANUAL = "manual"
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    ERASURE = "erasure"


@app.command("suppress")
def suppress(
    person: Someone,
    channel: Annotated[str | None, typer.Option(help="Only this channel; default: every channel.")] = None,
    reason: Annotated[Suppressed, typer.Option(help="Why.")] = Suppressed.MANUAL,
    lift: Annotated[bool, typer.Option("--lift", help="Let them be contacted again; an erasure is for good.")] = False,
    proof: Proof = None,
    by: WrittenBy = None,
    project: Folder = None,
) -> None:
    """Let nothing reach somebody any more, whatever they are merged with and whatever is loaded again."""
    from cdp_pipeline.consent.person import exclude, whom
    from cdp_pipeline.orchestration.installation import consents_of, ledger_of
    from cdp_pipeline.spec.reach import WAYS

    if channel is not None and channel not in WAYS:
        raise RefusedError(unknown("channel", channel, WAYS))
    with the_lake(project) as (declared, lake), ledger_of(declared) as ledger:
        consents, who, now = consents_of(ledger), whom(lake, declared, person), datetime.now(UTC)
        if lift:
            count = consents.lift(who.identifiers, reason.value, now, channel)
        else:
            count = exclude(consents, who, reason.value, channel, by or getpass.getuser(), proof, now)
    theirs = f"{counted(count or len(who.identifiers), 'identifier')} {_whose(who)}"
    what = f"{channel or 'all contact'} {'no longer ' if lift else ''}suppressed ({reason.value})"
    out.print(
        f"{what} for {theirs}" if count or not lift else f"nothing to lift ({reason.value}) for {theirs}",
        highlight=False,
    )

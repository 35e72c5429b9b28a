"""`cdp`: one function per command, each a few lines over a domain function that says what the command means.

Here is the whole of them and what becomes of a refusal; the commands themselves are one module a subject.
"""

from __future__ import annotations

import os
import sys
import warnings

import typer

from cdp_pipeline.cli import audiences, consent, identity, models, people, quarantine, running, syncs, traits
from cdp_pipeline.cli.terminal import RefusedError, err, out
from cdp_pipeline.spec.load import ProjectError

app = typer.Typer(
    help="An open Customer Data Platform, declared in YAML.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (running, people, consent):
    app.add_typer(commands.app)
app.add_typer(identity.app, name="identity")
app.add_typer(traits.app, name="trait")
app.add_typer(audiences.app, name="audience")
app.add_typer(models.app, name="model")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(syncs.app, name="sync")


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
    from cdp_pipeline.identity.named import UnknownIdentifier
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

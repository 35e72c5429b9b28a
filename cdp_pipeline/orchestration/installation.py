"""What a command opens of an installation: its lake, its ledger, its gates, its folders. Nothing of Dagster.

Each is imported when it is opened: a command that only asks the lake waits neither for Dagster nor for SQLAlchemy.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cdp_pipeline.lake import Lake, open_lake
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    from cdp_pipeline.activation.gates import ContactGates
    from cdp_pipeline.activation.ledger import Ledger
    from cdp_pipeline.consent.ledger import ConsentLedger
    from cdp_pipeline.consent.subjects import Everybody

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def lake_of(project: Project, *, read_only: bool = False) -> AbstractContextManager[Lake]:
    """The project's lake. Relative paths are relative to the current directory."""
    return open_lake(project.settings.lake, base=Path.cwd(), engine=project.settings.engine, read_only=read_only)


@contextmanager
def ledger_of(project: Project) -> Iterator[Ledger]:
    """The project's delivery ledger, for the length of a tick or an asset."""
    from cdp_pipeline.activation.ledger import ledger_url, open_ledger

    with open_ledger(ledger_url(project, Path.cwd())) as ledger:
        yield ledger


def consents_of(ledger: Ledger) -> ConsentLedger:
    """Who permitted what, kept in the same database as what was sent."""
    from cdp_pipeline.consent.ledger import open_consents

    return open_consents(ledger, os.environ.get("CDP_CONSENT_SALT"))


@contextmanager
def gates_of(
    project: Project, ledger: Ledger, clock: Clock = system_clock, lake: Callable[[], Lake] | None = None
) -> Iterator[ContactGates | None]:
    """What everything that is sent has to pass; None where nothing is declared and nobody is suppressed.

    The lake is opened (unless `lake` has one that is open) when the first message is judged, and what its sources say
    is written down before.
    """
    from cdp_pipeline.activation.gates import ContactGates
    from cdp_pipeline.consent.ledger import anything_suppressed
    from cdp_pipeline.consent.statements import catch_up
    from cdp_pipeline.consent.subjects import LakeSubjects, everybody

    if project.consent is None and project.contact_policy is None and not anything_suppressed(ledger):
        yield None
        return
    consents = consents_of(ledger)
    with ExitStack() as stack:

        def found() -> Everybody | None:
            if lake is None:
                # DuckDB in this process, whatever the engine: a cluster takes longer to start than a message to send.
                here = stack.enter_context(open_lake(project.settings.lake, base=Path.cwd(), read_only=True))
            else:
                here = lake()
            catch_up(consents, here, project, clock())
            return everybody(here, project)

        yield ContactGates(ledger, project, consents, LakeSubjects(found))


def local_folder(project: Project) -> Path:
    """Where what belongs to the lake but is no table lies: model files and, unless set otherwise, Dagster's history."""
    place = project.settings.lake.path or project.settings.lake.data or ""
    return Path.cwd() / (place if "://" not in place else ".cdp")


def models_folder(project: Project) -> Path:
    return local_folder(project) / "models"


def prepare_dagster_home(project: Project) -> Path:
    """Make sure Dagster has a home that lasts: DAGSTER_HOME if set, else a folder beside the lake's tables."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str((local_folder(project) / "dagster").resolve())))
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copyfile(Path(__file__).with_name("dagster.yaml"), home / "dagster.yaml")
    return home

"""`cdp receive`: the HTTP server for what becomes of messages, and the thread that writes down what it has kept."""

import asyncio
import logging
import threading
from collections import Counter
from datetime import datetime
from pathlib import Path

from aiohttp import web

from cdp_pipeline.activation.receipts import note_sent
from cdp_pipeline.destinations.callbacks import take_in, take_in_mail
from cdp_pipeline.destinations.receiver import application
from cdp_pipeline.orchestration.installation import consents_of, ledger_of, local_folder, system_clock
from cdp_pipeline.spec.project import Project

log = logging.getLogger(__name__)
LOOK_AGAIN = 60.0
"""Mail does not call: it is looked for so often."""


def callbacks_folder(project: Project) -> Path:
    return local_folder(project) / "callbacks"


def take_in_all(project: Project, now: datetime) -> Counter[str]:
    """Write down what we sent, what callers told and what mail came back, since the last time; how many, by event."""
    with ledger_of(project) as ledger:
        consents = consents_of(ledger)
        counts = Counter(message_sent=note_sent(ledger, project, now))
        counts.update(take_in(ledger, consents, project, callbacks_folder(project), now))
        counts.update(take_in_mail(ledger, consents, project, now))
        return counts


def receive(project: Project, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM (port 0: any that is free). What is kept waits until it is written down."""
    from sqlalchemy.exc import SQLAlchemyError

    folder = callbacks_folder(project)
    folder.mkdir(parents=True, exist_ok=True)
    wake, stop = threading.Event(), threading.Event()

    def write_down() -> None:
        while not stop.is_set():
            wake.clear()
            try:
                take_in_all(project, system_clock())
            except (SQLAlchemyError, OSError) as problem:
                log.warning("writing down receipts: %s; trying again", type(problem).__name__)
            wake.wait(LOOK_AGAIN)

    writer = threading.Thread(target=write_down, name="receipts")
    writer.start()
    try:
        web.run_app(
            application(project, folder, system_clock, wake.set), host=host, port=port, access_log=None,
            loop=asyncio.new_event_loop(),
        )  # fmt: skip
    finally:
        stop.set()
        wake.set()
        writer.join()

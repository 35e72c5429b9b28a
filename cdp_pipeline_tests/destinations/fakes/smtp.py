"""A mail server: refuses at RCPT, asks to come back with 421, or hangs up after it has taken a message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdp_pipeline_tests.activation.projects import mail
from cdp_pipeline_tests.destinations.kit import Bench
from cdp_pipeline_tests.destinations.servers import Mailbox
from cdp_pipeline_tests.waiting import free_port


def _script(step: str, recipient: str) -> str | None:
    match recipient.partition("@")[0], step:
        case "refuse", "RCPT":
            return f"550 5.1.1 <{recipient}> unknown"
        case "wait", "RCPT":
            return "421 4.3.2 come back later"
        case "silent", "DATA":
            return "HANG UP AFTER TAKING IT"
    return None


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    with (
        Mailbox(_script) as mailbox,
        Mailbox(auth_require_tls=False, authenticator=lambda *_: False) as closed,
    ):
        yield Bench(
            mail(mailbox.port),
            arrived=lambda: [str(message["Message-ID"]).strip("<>").partition("@")[0] for message in mailbox.messages],
            absent=mail(free_port()),
            locked=mail(closed.port, username="shop", password="wrong-password"),
        )

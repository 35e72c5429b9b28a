"""Mail that came back to the return path of letters: one file, an mbox, a Maildir, or a mailbox on an IMAP server.

What a mail reports is bounces.py's.
"""

from __future__ import annotations

import imaplib
import mailbox
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cdp_pipeline.activation.protocol import DestinationError

TIMEOUT = 30.0


def unread(place: str) -> Iterator[bytes]:
    """The unread mails of a Maildir or of imaps://user:password@host/folder; each is read once the next is asked for.

    Raises DestinationError, without the password, where that is not there or does not let us in.
    """
    if place.startswith(("imap://", "imaps://")):
        yield from _on_server(place)
        return
    try:
        maildir = mailbox.Maildir(place, create=False)
    except mailbox.NoSuchMailboxError:
        raise DestinationError(f"there is no Maildir at {place}") from None
    for key in sorted(maildir.keys()):
        # Somebody else may read it at the same time, and move it away.
        with suppress(KeyError, FileNotFoundError):
            mail = maildir.get_message(key)
            if "S" in mail.get_flags():
                continue
            yield maildir.get_bytes(key)
            mail.set_subdir("cur")
            mail.add_flag("S")
            maildir[key] = mail


def mails_in(path: Path) -> Iterator[bytes]:
    """Every mail in a file (.mbox: many), a Maildir or a folder of files, read or not; nothing is marked."""
    if path.suffix == ".mbox":
        box = mailbox.mbox(path, create=False)
        yield from (box.get_bytes(key) for key in box.keys())  # noqa: SIM118
    elif (path / "cur").is_dir() and (path / "new").is_dir():
        maildir = mailbox.Maildir(path, create=False)
        yield from (maildir.get_bytes(key) for key in sorted(maildir.keys()))
    else:
        for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if one.is_file():
                yield one.read_bytes()


def _on_server(place: str) -> Iterator[bytes]:
    said = urlsplit(place)
    host, folder = said.hostname or "", unquote(said.path.strip("/")) or "INBOX"
    try:
        with _session(host, said.port, said.scheme == "imaps") as server:
            server.login(unquote(said.username or ""), unquote(said.password or ""))
            _ok(server.select(f'"{folder}"'))
            for uid in _ok(server.uid("SEARCH", "UNSEEN"))[0].split():
                [found, *_] = _ok(server.uid("FETCH", uid, "(BODY.PEEK[])"))
                if isinstance(found, tuple):
                    yield found[1]
                    _ok(server.uid("STORE", uid, "+FLAGS", r"(\Seen)"))
    except (imaplib.IMAP4.error, OSError) as error:
        raise DestinationError(f"the mailbox at {host} cannot be read ({type(error).__name__})") from None


def _session(host: str, port: int | None, encrypted: bool) -> imaplib.IMAP4:
    if not encrypted:
        return imaplib.IMAP4(host, port or 143, timeout=TIMEOUT)
    # Of itself imaplib takes any certificate, whoever it is of, and the password is sent next.
    return imaplib.IMAP4_SSL(host, port or 993, timeout=TIMEOUT, ssl_context=ssl.create_default_context())


def _ok(answer: tuple[str, list[Any]]) -> list[Any]:
    state, found = answer
    if state != "OK":
        raise imaplib.IMAP4.error(state)
    return found

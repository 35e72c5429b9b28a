"""Mail that came back, from wherever it lies: a file, an mbox, a Maildir, a real IMAP server."""

from __future__ import annotations

import imaplib
import mailbox
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cdp_pipeline.activation.claims import claim
from cdp_pipeline.activation.ledger import Op, open_ledger
from cdp_pipeline.activation.protocol import DestinationError
from cdp_pipeline.activation.receipts import of_operations
from cdp_pipeline.consent.ledger import open_consents
from cdp_pipeline.destinations.callbacks import take_in_mail
from cdp_pipeline.destinations.returned import mails_in, unread
from cdp_pipeline_tests.activation.projects import NOW, mail, project, trigger
from cdp_pipeline_tests.consent.people import EMAIL
from cdp_pipeline_tests.destinations.servers import Encrypted, certificate
from cdp_pipeline_tests.destinations.test_bounces import report
from cdp_pipeline_tests.waiting import PATIENCE, eventually, free_port

FIELDS = """
    Reporting-MTA: dns; mx.example.net

    Final-Recipient: rfc822; ann@example.com
    Action: failed
    Status: 5.1.1
"""


def bounce(op_id: str) -> bytes:
    return report(FIELDS, f"Message-ID: <{op_id}@example.com>")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a mailbox on an IMAP server of this module's own."""
    port = free_port()
    start = "from pymap.main import main; main()"
    command = [sys.executable, "-c", start, "--host", "127.0.0.1", "--port", str(port), "--no-tls", "dict",
               "--demo-data", "--demo-user", "letters@shop", "--demo-password", "a/secret:"]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_up() -> bool:
        assert running.poll() is None
        try:
            with imaplib.IMAP4("127.0.0.1", port) as session:
                session.login("letters@shop", "a/secret:")
                session.create('"Came back"')
        except OSError:
            return False
        return True

    try:
        eventually(is_up, every=0.2)
        yield f"imap://letters%40shop:a%2Fsecret%3A@127.0.0.1:{port}/Came%20back"
    finally:
        running.terminate()
        running.wait(PATIENCE)


def put_on(place: str, *mails: bytes) -> None:
    with imaplib.IMAP4("127.0.0.1", int(place.rpartition(":")[2].partition("/")[0])) as session:
        session.login("letters@shop", "a/secret:")
        for one in mails:
            assert session.append('"Came back"', "", None, one)[0] == "OK"


def put_into(folder: Path, *mails: bytes) -> None:
    maildir = mailbox.Maildir(folder)
    for one in mails:
        maildir.add(one)


@pytest.mark.parametrize("kind", ["maildir", "imap"])
def test_what_came_back_is_written_down_once_and_marked_as_read(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = str(tmp_path / "mail") if kind == "maildir" else str(request.getfixturevalue("server"))

    def comes(*mails: bytes) -> None:
        if kind == "maildir":
            put_into(tmp_path / "mail", *mails)
        else:
            put_on(place, *mails)

    comes(bounce("op1"), b"Subject: Hello\r\n\r\nAn ordinary letter.\r\n")
    if kind == "maildir":
        (tmp_path / "mail" / "tmp" / "half").write_bytes(bounce("op2")[:200])
    with open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        for number in (1, 2):
            payload = {"to": "ann@example.com"}
            ledger.send_once([Op(f"op{number}", "trigger:offer", "mail", str(number), "act", payload, "x", "0")], NOW)
        claim(ledger, "mail", limit=9, now=NOW, lease=timedelta(1), worker="w", repeatable=True, max_attempts=5, rate=9)
        whole, consents = project(mail(25, returned=place), trigger(name="offer"), EMAIL), open_consents(ledger)
        assert take_in_mail(ledger, consents, whole, NOW) == {"message_bounced": 1}
        assert list(unread(place)) == []
        comes(bounce("op2"))
        assert take_in_mail(ledger, consents, whole, NOW) == {"message_bounced": 1}
        assert set(of_operations(ledger, ["op1", "op2"])) == {"op1", "op2"}
        heard = consents.heard([("email", "ann@example.com")], [], datetime(2030, 1, 1, tzinfo=UTC))
        assert heard["email", "ann@example.com"].suppressed[0] == ("bounce", "email")


@pytest.mark.parametrize("kind", ["maildir", "imap"])
def test_mail_that_was_not_written_down_is_read_again(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = str(tmp_path / "mail") if kind == "maildir" else str(request.getfixturevalue("server"))
    if kind == "maildir":
        put_into(tmp_path / "mail", bounce("op3"))
    else:
        put_on(place, bounce("op3"))
    for _ in range(2):
        reading = unread(place)
        assert b"op3" in next(reading)
        reading.close()  # As somebody who died does.
    assert len(list(unread(place))) == 1
    assert list(unread(place)) == []


def test_a_mailbox_that_cannot_be_read_is_told_of_without_its_password(
    server: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    nobody = f"imap://shop:a-secret@127.0.0.1:{free_port()}/INBOX"
    for place in (nobody, server.replace("Came", "Never"), server.replace("secret", "wrong")):
        with pytest.raises(DestinationError, match=r"the mailbox at 127\.0\.0\.1 cannot be read") as told:
            list(unread(place))
        assert "secret" not in str(told.value) and told.value.__cause__ is None
    with open_ledger("sqlite://") as ledger:
        assert take_in_mail(ledger, open_consents(ledger), project(mail(25, returned=nobody)), NOW) == {}
        gone = project(mail(25, returned=str(tmp_path / "nowhere")))
        assert take_in_mail(ledger, open_consents(ledger), gone, NOW) == {}
    assert caplog.text.count("mail that came back") == 2 and "secret" not in caplog.text


def test_an_encrypted_mailbox_is_read_if_its_server_proves_who_it_is(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on(server, bounce("op7"))
    plain, own = server.removeprefix("imap").rpartition(":")[0], certificate(tmp_path)
    with Encrypted(int(server.rpartition(":")[2].partition("/")[0]), own) as encrypted:
        place = f"imaps{plain}:{encrypted.port}/Came%20back"
        # Nobody vouches for it: not even the password is sent.
        with pytest.raises(DestinationError, match=r"cannot be read \(SSLCertVerificationError\)"):
            list(unread(place))
        monkeypatch.setenv("SSL_CERT_FILE", str(own))
        assert [b"op7" in one for one in unread(place)] == [True]
        assert list(unread(place)) == []
        with pytest.raises(DestinationError, match="SSLCertVerificationError"):
            list(unread(place.replace("127.0.0.1", "localhost")))


def test_files_are_read_as_what_they_are_and_not_marked(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "returned.mbox")
    for number in (1, 2):
        box.add(bounce(f"op{number}"))
    box.close()
    put_into(tmp_path / "mail", bounce("op3"))
    (tmp_path / "mail" / "tmp" / "half").write_bytes(b"Subject")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one.eml").write_bytes(bounce("op4"))
    for place, found in (("returned.mbox", 2), ("mail", 1), ("files", 1), ("files/one.eml", 1)):
        for _ in range(2):
            assert len(list(mails_in(tmp_path / place))) == found

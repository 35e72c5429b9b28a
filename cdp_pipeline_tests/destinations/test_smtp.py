"""What is particular to mail: what may stand in a message, when a refusal is final, and encrypted sessions."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline.destinations.smtp import MessageRefusedError, SmtpConnection, message
from cdp_pipeline.destinations.unsubscribe import unsubscribed
from cdp_pipeline_tests.activation.projects import NOW, mail
from cdp_pipeline_tests.destinations import servers
from cdp_pipeline_tests.destinations.servers import Mailbox

MINUTE = timedelta(minutes=1)


LINKS = {"unsubscribe_url": "https://shop.example.com/unsubscribe", "unsubscribe_secret": "sixteen letters!"}


def letter(to: str = "ann@example.com", subject: str = "Hello", body: str = "Words", **more: str) -> Delivery:
    return Delivery("op-1", "act", {"to": to, "subject": subject, "body": body, **more})


def send(delivery: Delivery, mailbox: Mailbox, tls: ssl.SSLContext | None = None, **fields: Any) -> Outcome:
    with SmtpConnection(mail(mailbox.port, **fields), tls=tls) as connection:
        [outcome] = connection.deliver([delivery], now=NOW, within=MINUTE)
    return outcome


def test_a_message_carries_an_id_made_of_the_operation() -> None:
    with Mailbox() as mailbox:
        assert send(letter(subject="Grüße", body="Schön, £5\n.\n..dots\n"), mailbox).state == "delivered"
    [arrived] = mailbox.messages
    assert arrived["Message-ID"] == "<op-1@example.com>"
    assert arrived["Subject"] == "Grüße"
    assert arrived["From"] == "Shop <shop@example.com>"
    assert arrived.get_content().replace("\r\n", "\n") == "Schön, £5\n.\n..dots\n"


@pytest.mark.parametrize(
    "address",
    ["", "ann", "ann@", "@example.com", "a@b@c", "ann@example.com, bob@example.com", "ann@example.com\r\nBcc: x@y.z",
     "Ann <ann@example.com>", "ann@example.com;bob@example.com", "ann@example.com>\r\nRCPT TO:<x@y.z",
     "a b@example.com", "jürgen@example.com\nBcc: x@y.z", "ann@exa\u2028mple.com"],
)  # fmt: skip
def test_what_is_not_exactly_one_plain_address_is_refused(address: str) -> None:
    with pytest.raises(MessageRefusedError):
        message(mail(25), letter(to=address), NOW)


@given(subject=st.text(max_size=80), body=st.text(max_size=300), html=st.none() | st.text(min_size=1, max_size=300))
def test_nothing_written_adds_a_header_or_ends_the_message_early(subject: str, body: str, html: str | None) -> None:
    made = message(mail(25, **LINKS), letter(subject=subject, body=body, **({"html": html} if html else {})), NOW)
    head, _, rest = made.as_bytes().partition(b"\r\n\r\n")
    headers = {line.partition(b":")[0].lower() for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))}
    assert headers - {b"content-transfer-encoding"} == {
        b"message-id", b"date", b"from", b"to", b"subject", b"mime-version", b"content-type",
        b"list-unsubscribe", b"list-unsubscribe-post",
    }  # fmt: skip
    # Every line end is CRLF: a bare CR or LF is how a message is smuggled past servers that disagree about it.
    assert b"\n" not in rest.replace(b"\r\n", b"") and b"\r" not in rest.replace(b"\r\n", b"")


def test_a_body_with_smtp_commands_stays_a_body() -> None:
    smuggled = "Hello\n.\nMAIL FROM:<x@example.com>\r\n.\r\nRCPT TO:<y@example.com>\r.\rDATA"
    with Mailbox() as mailbox:
        assert send(letter(body=smuggled), mailbox).state == "delivered"
    assert len(mailbox.messages) == 1
    assert mailbox.messages[0].get_content().splitlines() == smuggled.splitlines()


@pytest.mark.parametrize(
    ("step", "words", "state"),
    [("RCPT", "550 5.1.1 unknown", "failed"), ("RCPT", "451 4.7.1 greylisted", "retry"),
     ("DATA", "554 5.7.1 spam", "failed"), ("DATA", "452 4.3.1 full", "retry")],
)  # fmt: skip
def test_five_hundreds_are_final_and_four_hundreds_are_not(step: str, words: str, state: str) -> None:
    with Mailbox(lambda at, _: words if at == step else None) as mailbox:
        outcome = send(letter(), mailbox)
    assert (outcome.state, outcome.reason) == (state, f"SMTP {words[:9]}")


def test_an_international_address_is_sent_as_it_is() -> None:
    with Mailbox(enable_SMTPUTF8=True) as mailbox:
        assert send(letter(to="jürgen@example.com"), mailbox).state == "delivered"
    assert mailbox.messages[0]["X-Envelope-To"] == "jürgen@example.com"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return servers.certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_an_encrypted_session_delivers_and_proves_the_server(security: str, certificate: Path) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    with Mailbox(**({"tls_context": server} if security == "starttls" else {"ssl_context": server})) as mailbox:
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert send(letter(), mailbox, trusting, security=security).state == "delivered"
        # A certificate nobody vouches for: nothing is sent.
        assert send(letter(), mailbox, security=security).state == "retry"
    assert len(mailbox.messages) == 1


def test_a_refused_login_rests_the_destination() -> None:
    with (
        Mailbox(auth_require_tls=False, authenticator=lambda *_: False) as mailbox,
        SmtpConnection(mail(mailbox.port, username="shop", password="wrong")) as connection,
    ):
        outcomes = connection.deliver([letter(), letter()], now=NOW, within=MINUTE)
    assert [outcome.state for outcome in outcomes] == ["retry", "untried"]
    assert all(outcome.after == timedelta(minutes=15) for outcome in outcomes)


def test_a_session_the_server_closed_is_opened_again() -> None:
    with Mailbox() as mailbox, SmtpConnection(mail(mailbox.port)) as connection:
        for _ in range(2):
            [outcome] = connection.deliver([letter()], now=NOW, within=MINUTE)
            assert outcome.state == "delivered"
            connection._session.sock.shutdown(2)  # type: ignore[union-attr]
    assert mailbox.sessions == 2


# HTML, unsubscribing, bounces


def test_a_letter_in_html_can_be_read_as_text_as_well() -> None:
    with Mailbox() as mailbox:
        assert send(letter(body="Grüße", html="<p>Grüße</p>\n.\n"), mailbox).state == "delivered"
    [arrived] = mailbox.messages
    assert arrived.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in arrived.iter_parts()] == ["text/plain", "text/html"]
    assert arrived.get_body(("plain",)).get_content().strip() == "Grüße"  # type: ignore[union-attr]
    assert arrived.get_body(("html",)).get_content().split() == ["<p>Grüße</p>", "."]  # type: ignore[union-attr]


@pytest.mark.parametrize("page", ["https://shop.example.com/u", "https://shop.example.com/u?list=" + "news" * 40])
def test_a_letter_is_unsubscribed_from_in_one_click_that_only_its_reader_can_make(page: str) -> None:
    fields = {**LINKS, "unsubscribe_url": page}
    words = "Leave: %unsubscribe_url%"
    with Mailbox() as mailbox:
        assert send(letter(body=words, html=f'<a href="%unsubscribe_url%">{words}</a>'), mailbox, **fields)
    [arrived] = mailbox.messages
    assert arrived["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = arrived["List-Unsubscribe"].strip("<>")
    assert link.startswith(page) and "ann" not in link
    assert arrived.get_body(("plain",)).get_content().split()[-1] == link  # type: ignore[union-attr]
    assert f'href="{link.replace("&", "&amp;")}"' in arrived.get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert unsubscribed(link, fields["unsubscribe_secret"]) == "op-1"
    assert unsubscribed(link.replace("op=op-1", "op=op-2"), fields["unsubscribe_secret"]) is None
    assert unsubscribed(link, "another secret text") is None
    assert unsubscribed("https://shop.example.com/u", fields["unsubscribe_secret"]) is None


def test_the_projects_own_alerts_are_nothing_to_unsubscribe_from() -> None:
    alert = Delivery("op-1", "alert", letter().payload)
    assert "List-Unsubscribe" not in message(mail(25, **LINKS), alert, NOW)


def test_links_without_a_secret_to_sign_them_are_a_mistake() -> None:
    with pytest.raises(ValidationError, match="together"):
        mail(25, unsubscribe_url="https://shop.example.com/u")


def test_bounces_are_asked_for_by_operation_and_go_to_the_return_path() -> None:
    operation = Delivery("0f3a9c", "act", letter().payload)
    with Mailbox(dsn=True) as mailbox:
        assert send(operation, mailbox, return_path="bounces@example.com").state == "delivered"
    assert mailbox.messages[0]["X-Envelope-From"] == "bounces@example.com"
    assert mailbox.messages[0]["From"] == "Shop <shop@example.com>"
    assert mailbox.asked == ["RET=HDRS", "ENVID=0f3a9c", "NOTIFY=FAILURE"]

"""A mail server: one message per operation, text and HTML, its Message-ID made of the operation's id.

Mail cannot be taken back or recognised as sent before, so a message whose fate is unknown is never repeated.
"""

from __future__ import annotations

import re
import smtplib
import ssl
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from email.errors import HeaderParseError
from email.headerregistry import Address, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.policy import SMTPUTF8, Policy
from email.utils import format_datetime, parseaddr
from html import escape
from importlib import import_module
from types import ModuleType

from cdp_pipeline.activation.protocol import Closing, Delivery, Outcome
from cdp_pipeline.activation.receipts import Report
from cdp_pipeline.destinations.bounces import DEAD
from cdp_pipeline.destinations.callbacks import Callback
from cdp_pipeline.destinations.unsubscribe import unsubscribe_link, unsubscribed
from cdp_pipeline.spec.destination import UNSUBSCRIBE_PLACEHOLDER, Smtp

WAIT_AFTER_REFUSED_LOGIN = timedelta(minutes=15)
SHORTEST_TRY = timedelta(seconds=1)


class _InOneLine(UnstructuredHeader):
    """A link is not folded: Python would cut a long one into encoded words that no mail program reads as a link."""

    def fold(self, *, policy: Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"  # type: ignore[attr-defined]


_HEADERS = HeaderRegistry()
_HEADERS.map_to_type("list-unsubscribe", _InOneLine)  # type: ignore[arg-type]


class MessageRefusedError(ValueError):
    """A message that must not be sent as it is."""


def message(spec: Smtp, delivery: Delivery, now: datetime) -> EmailMessage:
    """The mail of one operation; MessageRefusedError if the address is not exactly one plain address."""
    if missing := [name for name in ("to", "subject", "body") if name not in delivery.payload]:
        raise MessageRefusedError(f"a mail needs {' and '.join(missing)}")
    to = str(delivery.payload["to"]).strip()
    local, _, domain = to.rpartition("@")
    try:
        # What is not ASCII is nothing this parser knows; it has no syntax of its own to hide in.
        Address(addr_spec=to.encode("ascii", "replace").decode().replace("?", "x"))
    except (ValueError, IndexError, HeaderParseError):
        raise MessageRefusedError("the address is not one plain address") from None
    if any(ord(letter) <= 32 or letter in '",;:<>()[]\\\x7f\x85\xa0\u2028\u2029' for letter in to) or "@" in local:
        raise MessageRefusedError("the address is not one plain address")
    recipient = Address(username=local, domain=domain)
    # Seven bits travel through every server; only an address that needs more asks for more.
    mail = EmailMessage(
        policy=(SMTP_POLICY if to.isascii() else SMTPUTF8).clone(cte_type="7bit", header_factory=_HEADERS)
    )
    mail["Message-ID"] = f"<{delivery.op_id}@{parseaddr(spec.sender)[1].rpartition('@')[2] or 'localhost'}>"
    mail["Date"] = format_datetime(now)
    mail["From"] = spec.sender
    mail["To"] = recipient
    # A line break in a subject would start a new header.
    mail["Subject"] = " ".join(
        re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", str(delivery.payload["subject"])).split()
    )
    if spec.provider is not None:
        for name, value in _provider(spec.provider).headers(delivery.op_id).items():
            mail[name] = value
    body, html = str(delivery.payload["body"]), delivery.payload.get("html")
    # What goes to the project's own people is nothing to unsubscribe from.
    if spec.unsubscribe_url and spec.unsubscribe_secret and delivery.kind != "alert":
        link = unsubscribe_link(spec.unsubscribe_url, spec.unsubscribe_secret, delivery.op_id)
        mail["List-Unsubscribe"] = f"<{link}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        body = body.replace(UNSUBSCRIBE_PLACEHOLDER, link)
        html = str(html).replace(UNSUBSCRIBE_PLACEHOLDER, escape(link)) if html else None
    mail.set_content(body)
    if html:
        mail.add_alternative(str(html), subtype="html")
    return mail


def genuine(spec: Smtp, callback: Callback, now: datetime) -> bool:
    """Whether it is a wish to unsubscribe (RFC 8058) by a link of ours, or the mail provider that calls.

    DestinationError where that cannot be told for now.
    """
    if _clicked(spec, callback):
        return True
    return bool(spec.provider and _provider(spec.provider).genuine(spec.provider_key, callback))


def told(spec: Smtp, callback: Callback) -> list[Report]:
    if op_id := _clicked(spec, callback):
        return [Report(op_id, "message_unsubscribed", callback.at)]
    reports: list[Report] = _provider(spec.provider).told(callback) if spec.provider else []
    return reports


def _clicked(spec: Smtp, callback: Callback) -> str | None:
    return unsubscribed(f"?{callback.query}", spec.unsubscribe_secret) if spec.unsubscribe_secret else None


def _provider(name: str) -> ModuleType:
    return import_module(f"cdp_pipeline.destinations.providers.{name}")


def connect(spec: Smtp) -> SmtpConnection:
    return SmtpConnection(spec)


class SmtpConnection(Closing):
    """Keeps one session open over several deliveries and reopens it when the server has closed it."""

    # One at a time: a worker that dies leaves at most one message in doubt.
    batch_size = 1
    repeatable = False

    def __init__(self, spec: Smtp, *, tls: ssl.SSLContext | None = None) -> None:
        self._spec = spec
        self._tls = tls
        self._session: smtplib.SMTP | None = None

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        started = time.monotonic()
        outcomes: list[Outcome] = []
        for position, delivery in enumerate(batch):
            passed = timedelta(seconds=time.monotonic() - started)
            wait: timedelta | None = None
            if within - passed >= SHORTEST_TRY:
                outcome, goes_on = self._send(delivery, now + passed, min(self._spec.timeout, within - passed))
                outcomes.append(outcome)
                if goes_on:
                    continue
                wait, position = outcome.after, position + 1
            rest = batch[position:]
            return outcomes + [Outcome(left.op_id, "untried", "the mail server takes no more", wait) for left in rest]
        return outcomes

    def _send(self, delivery: Delivery, now: datetime, timeout: timedelta) -> tuple[Outcome, bool]:
        """The outcome, and whether the next message is worth trying."""
        try:
            mail = message(self._spec, delivery, now)
        except MessageRefusedError as refused:
            return Outcome(delivery.op_id, "failed", str(refused)), True
        try:
            session = self._open(timeout)
        except smtplib.SMTPAuthenticationError as refused:
            reason = f"SMTP {refused.smtp_code}: the login is refused"
            code, wait = refused.smtp_code, WAIT_AFTER_REFUSED_LOGIN
            outcome = Outcome(delivery.op_id, "retry", reason, wait, code, refused_us=500 <= code < 600)
            return outcome, False
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Outcome(
                delivery.op_id, "retry", f"the mail server cannot be reached ({type(error).__name__})"
            ), False
        return self._transfer(session, delivery.op_id, mail)

    def _transfer(self, session: smtplib.SMTP, op_id: str, mail: EmailMessage) -> tuple[Outcome, bool]:
        recipient = mail["To"].addresses[0].addr_spec
        utf8 = not recipient.isascii()
        if utf8 and not session.has_extn("smtputf8"):
            return Outcome(op_id, "failed", "the mail server knows no international addresses"), True
        options = ["SMTPUTF8", "BODY=8BITMIME"] if utf8 else []
        wishes: list[str] = []
        if session.has_extn("dsn"):
            # A bounce then names the operation, whatever it leaves of the letter.
            options += ["RET=HDRS", f"ENVID={op_id}"] if op_id.isalnum() else ["RET=HDRS"]
            wishes = ["NOTIFY=FAILURE"]
        try:
            for step, of_address in (
                (lambda: session.mail(self._spec.return_path or parseaddr(self._spec.sender)[1], options), False),
                (lambda: session.rcpt(recipient, wishes), True),
                (lambda: session.docmd("DATA"), True),
            ):
                code, words = step()
                if code not in (250, 251, 354):
                    return self._refused(op_id, code, words, of_address)
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Outcome(op_id, "retry", f"the mail server hung up ({type(error).__name__})"), False
        try:
            # From here on the server may have taken the message, whatever we hear.
            session.send(re.sub(rb"(?m)^\.", b"..", mail.as_bytes()).rstrip(b"\r\n") + b"\r\n.\r\n")
            code, words = session.getreply()
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            return Outcome(op_id, "unknown", f"no answer after the message was sent ({type(error).__name__})"), False
        if code != 250:
            return self._refused(op_id, code, words, True)
        return Outcome(op_id, "delivered", f"SMTP {code}", code=code), True

    def _refused(self, op_id: str, code: int, words: bytes, of_address: bool) -> tuple[Outcome, bool]:
        # Only the enhanced code is kept: the words may repeat the address.
        found = re.match(rb"\d\.\d{1,3}\.\d{1,3}", words)
        enhanced = found[0].decode() if found else ""
        refused = 500 <= code < 600
        outcome = Outcome(
            op_id, "failed" if refused else "retry", f"SMTP {code} {enhanced}".rstrip(), code=code,
            address="dead" if refused and of_address and enhanced in DEAD else None,
        )  # fmt: skip
        if code == 421 or not self._reset():
            self.close()
        return outcome, code != 421

    def _open(self, timeout: timedelta) -> smtplib.SMTP:
        seconds = timeout.total_seconds()
        if self._session is not None and self._session.sock is not None:
            self._session.sock.settimeout(seconds)
            if self._reset():
                return self._session
        self.close()
        spec, tls = self._spec, self._tls or ssl.create_default_context()
        if spec.security == "tls":
            session: smtplib.SMTP = smtplib.SMTP_SSL(spec.host, spec.port, timeout=seconds, context=tls)
        else:
            session = smtplib.SMTP(spec.host, spec.port, timeout=seconds)
        self._session = session
        if spec.security == "starttls":
            session.starttls(context=tls)
        session.ehlo_or_helo_if_needed()
        if spec.username is not None:
            session.login(spec.username, spec.password or "")
        return session

    def _reset(self) -> bool:
        """Whether the open session still answers, ready for a new message."""
        try:
            return self._session is not None and self._session.rset()[0] == 250
        except (OSError, smtplib.SMTPException):
            return False

    def close(self) -> None:
        if self._session is not None:
            try:
                self._session.quit()
            except (OSError, smtplib.SMTPException):
                self._session.close()
            self._session = None

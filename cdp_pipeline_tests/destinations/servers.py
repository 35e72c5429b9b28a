"""Real servers on loopback that a destination delivers to: an HTTP receiver and a mailbox, both able to misbehave."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import socketserver
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from cdp_pipeline_tests.waiting import PATIENCE, free_port

SECRET = "whsec_" + base64.b64encode(b"a key that only tests know").decode()


@dataclass
class Received:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))

    def is_signed_with(self, key: bytes) -> bool:
        """Verified as the Standard Webhooks text says, without the project's code."""
        content = b".".join(
            [self.headers["webhook-id"].encode(), self.headers["webhook-timestamp"].encode(), self.body]
        )
        wanted = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        return any(
            hmac.compare_digest(given.partition(",")[2], wanted)
            for given in self.headers["webhook-signature"].split(" ")
            if given.startswith("v1,")
        )


@dataclass
class Answer:
    """How the receiver answers: a code with headers and a JSON body, or a hang-up, before or after it took effect."""

    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    applied: bool = True
    hang_up: bool = False
    body: Any = b""
    closes: bool = False
    """The line is closed after the answer, unannounced."""


class Receiver:
    """An HTTP endpoint that keeps every request, and of signed webhooks every effect by its idempotency key.

    `answer` is called one request at a time; the fake of an API keeps its own state in there.
    """

    def __init__(self, answer: Callable[[Received], Answer] | None = None) -> None:
        self.requests: list[Received] = []
        self.effects: dict[str, Any] = {}
        self.order: list[str] = []
        self.arrivals: Counter[str] = Counter()
        self.lines = self.lines_closed = 0
        self.answer = answer or (lambda _: Answer())
        receiver, self._lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                receiver.lines += 1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                received = Received(self.path, headers, body, self.command)
                with receiver._lock:
                    answer = receiver.answer(received)
                    receiver.note(received, answer)
                if answer.hang_up:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(answer.code)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                said = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                if said:
                    self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)
                self.close_connection = self.close_connection or answer.closes

            do_GET = do_PUT = do_PATCH = do_DELETE = do_POST

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        class Server(ThreadingHTTPServer):
            def shutdown_request(self, request: Any) -> None:
                super().shutdown_request(request)
                receiver.lines_closed += 1

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"

    def note(self, received: Received, answer: Answer) -> None:
        self.requests.append(received)
        key = received.headers.get("webhook-id")
        if key is None:
            return
        self.arrivals[key] += 1
        if answer.applied and (200 <= answer.code < 300 or answer.hang_up) and key not in self.effects:
            self.effects[key] = received.json
            self.order.append(key)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class Mailbox:
    """A mail server that keeps every message; `script` may refuse, or hang up, by recipient."""

    def __init__(
        self, script: Callable[[str, str], str | None] | None = None, *, dsn: bool = False, **controller: Any
    ) -> None:
        self.messages: list[EmailMessage] = []
        self.asked: list[str] = []
        self.sessions = 0
        mailbox, script = self, script or (lambda step, recipient: None)

        class Handler:
            async def handle_EHLO(
                self, server: Any, session: Any, envelope: Any, name: str, responses: list[str]
            ) -> Any:
                session.host_name = name
                mailbox.sessions += 1
                return [responses[0], *(["250-DSN"] if dsn else []), *responses[1:]]

            async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
                refusal = script("RCPT", address)
                if refusal:
                    return refusal
                envelope.rcpt_tos.append(address)
                return "250 OK"

            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                verdict = script("DATA", envelope.rcpt_tos[0])
                if verdict is not None and verdict != "HANG UP AFTER TAKING IT":
                    return verdict
                parsed = message_from_bytes(envelope.content, policy=policy.default)
                parsed["X-Envelope-To"] = envelope.rcpt_tos[0]
                parsed["X-Envelope-From"] = envelope.mail_from
                mailbox.messages.append(parsed)  # type: ignore[arg-type]
                if verdict is not None:
                    server.transport.abort()
                return "250 OK"

        class Dsn(SMTP):
            """Offers DSN (RFC 3461) and keeps what was asked for; aiosmtpd knows none of its parameters."""

            async def smtp_MAIL(self, arg: str | None) -> None:
                await super().smtp_MAIL(self._kept(arg))

            async def smtp_RCPT(self, arg: str | None) -> None:
                await super().smtp_RCPT(self._kept(arg))

            def _kept(self, arg: str | None) -> str:
                address, *parameters = str(arg).split(" ")
                mailbox.asked += [each for each in parameters if each.startswith(("ENVID", "RET", "NOTIFY"))]
                return " ".join([address, *(each for each in parameters if each not in mailbox.asked)])

        class Server(Controller):
            def factory(self) -> SMTP:
                return (Dsn if dsn else SMTP)(self.handler, **self.SMTP_kwargs)

        self._controller = Server(Handler(), hostname="127.0.0.1", port=free_port(),
                                  ready_timeout=PATIENCE, **controller)  # fmt: skip
        self.port = self._controller.port

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()


def certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key, today = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, today - timedelta(1), today + timedelta(2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    both = folder / "both.pem"
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both.write_bytes(made.public_bytes(Encoding.PEM) + own)
    return both


class Encrypted(socketserver.ThreadingTCPServer):
    """What listens on a port of this machine, by TLS on another one."""

    daemon_threads = True

    def __init__(self, port: int, certificate: Path) -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)

        class Line(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    outside = tls.wrap_socket(self.request, server_side=True)
                except OSError:
                    return  # Whoever called does not trust us.
                with outside, socket.create_connection(("127.0.0.1", port)) as inside:
                    threading.Thread(target=pass_on, args=(inside, outside), daemon=True).start()
                    pass_on(outside, inside)

        def pass_on(read: socket.socket, written: socket.socket) -> None:
            with suppress(OSError):
                while some := read.recv(65536):
                    written.sendall(some)
                written.shutdown(socket.SHUT_RDWR)

        super().__init__(("127.0.0.1", 0), Line)
        self.port = int(self.server_address[1])
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self.shutdown()
        self.server_close()

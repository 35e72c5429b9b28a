"""What providers call back, over real HTTP: only what is genuine counts, only what is on disk is answered well."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from aiohttp import web

from cdp_pipeline.activation.claims import claim
from cdp_pipeline.activation.ledger import Ledger, Op, open_ledger
from cdp_pipeline.activation.receipts import of_operations
from cdp_pipeline.consent.ledger import open_consents
from cdp_pipeline.destinations.callbacks import Callback, take_in
from cdp_pipeline.destinations.receiver import application
from cdp_pipeline.destinations.twilio import genuine as by_twilios_token
from cdp_pipeline.destinations.unsubscribe import unsubscribe_link
from cdp_pipeline.destinations.webhook import signature
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.activation.projects import mail, project, trigger, webhook
from cdp_pipeline_tests.consent.people import EMAIL, PHONE, consent
from cdp_pipeline_tests.destinations.fakes.twilio import twilio
from cdp_pipeline_tests.waiting import PATIENCE

NOW = datetime(2026, 3, 10, 9, 0, tzinfo=UTC)
ONE_CLICK = {"Content-Type": "application/x-www-form-urlencoded"}
LINKS = {"unsubscribe_url": "https://shop.example.com/out/of/it?lang=en", "unsubscribe_secret": "sixteen letters!"}
TOKEN, CALLBACK = "the account's auth token", "https://cdp.example.com/receipts/sms"


def house() -> Project:
    given = consent(
        purposes={"marketing": {"default": "yes"}},
        channels={"email": {"purposes": ["marketing"], "default": "yes"}},
    )
    return project(
        mail(25, **LINKS), webhook("https://mailer.example.com/", channel="email"),
        twilio("http://127.0.0.1:9", callback_url=CALLBACK, callback_token=TOKEN),
        trigger(name="offer", purpose="marketing"), EMAIL, PHONE, given,
    )  # fmt: skip


@dataclass
class Running:
    """The server, and a ledger in which one message went out by each destination."""

    project: Project
    folder: Path
    port: int
    ledger: Ledger
    arrived: list[list[str]] = field(default_factory=list)

    def call(self, method: str, path: str, body: bytes | str = b"", headers: dict[str, str] | None = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        self.page = response.read().decode()
        connection.close()
        return response.status

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def told(self, op_id: str) -> list[tuple[str, datetime]]:
        """What is written down of a message, once all that is kept is taken in."""
        take_in(self.ledger, open_consents(self.ledger), self.project, self.folder, NOW)
        return of_operations(self.ledger, [op_id]).get(op_id, [])


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with receiving(house(), tmp_path) as found:
        yield found


@contextmanager
def receiving(whole: Project, tmp_path: Path) -> Iterator[Running]:
    loop, started = asyncio.new_event_loop(), threading.Event()
    folder = tmp_path / "callbacks"
    folder.mkdir()
    with open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        for name, to in (("mail", "ann@example.com"), ("hook", "ben@example.com"), ("sms", "+4915112345601")):
            ledger.send_once([Op(f"op-{name}", "trigger:offer", name, name, "act", {"to": to}, name, "0")], NOW)
            claim(ledger, name, limit=1, now=NOW, lease=timedelta(1), worker="w", repeatable=True, max_attempts=5,
                         rate=9)  # fmt: skip
        found = Running(whole, folder, 0, ledger)

        async def serve() -> web.AppRunner:
            app = application(whole, folder, lambda: NOW, lambda: found.arrived.append(found.kept()))
            runner = web.AppRunner(app, access_log=None, lingering_time=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            found.port = runner.addresses[0][1]
            started.set()
            return runner

        def run() -> None:
            runner = loop.run_until_complete(serve())
            loop.run_forever()
            loop.run_until_complete(runner.cleanup())
            loop.close()

        thread = threading.Thread(target=run)
        thread.start()
        assert started.wait(PATIENCE)
        try:
            yield found
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def signed(body: bytes, at: datetime = NOW, key: bytes = b"a key that only tests know") -> dict[str, str]:
    """Headers as Standard Webhooks wants them, without the project's code."""
    timestamp = str(int(at.timestamp()))
    digest = hmac.digest(key, b".".join([b"msg_1", timestamp.encode(), body]), hashlib.sha256)
    words = f"v1,bm90aGluZw== v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": "msg_1", "webhook-timestamp": timestamp, "webhook-signature": words}


OPENED = {"op_id": "op-hook", "event": "message_opened", "at": "2026-03-10T08:00:00+00:00"}


def test_a_genuine_report_is_on_disk_before_it_is_answered_and_counts_once(receiver: Running) -> None:
    body = json.dumps([OPENED, {**OPENED, "event": "message_clicked"}]).encode()
    for _ in range(2):
        assert receiver.call("POST", "/receipts/hook", body, signed(body)) == 200
    assert [len(names) for names in receiver.arrived] == [1, 2], "there when it was answered"
    at = datetime(2026, 3, 10, 8)
    assert receiver.told("op-hook") == [("message_clicked", at), ("message_opened", at)]
    assert receiver.kept() == []


@pytest.mark.parametrize("minutes", [-6, 6])
def test_what_is_not_signed_or_is_old_is_refused_and_not_kept(receiver: Running, minutes: int) -> None:
    body = json.dumps(OPENED).encode()
    wrong: list[dict[str, str]] = [
        {}, signed(body + b" "), signed(body, key=b"another key"), signed(body, NOW + timedelta(minutes=minutes)),
        {**signed(body), "webhook-timestamp": "soon"}, {**signed(body), "webhook-signature": "v1,Ä"},
    ]  # fmt: skip
    for headers in wrong:
        assert receiver.call("POST", "/receipts/hook", body, headers) == 403
    assert receiver.call("POST", "/receipts/nobody", body, signed(body)) == 404
    assert receiver.call("POST", "/receipts/mail", body, signed(body)) == 404
    assert receiver.call("GET", "/receipts/hook") == 405
    assert receiver.call("POST", "/receipts/hook", b"x" * (2 << 20), signed(body)) == 413
    assert receiver.kept() == [] and receiver.arrived == []


@pytest.mark.parametrize("said", [b"nonsense", b"\xff", b"[1]", b'{"op_id": "a"}', b'{"op_id": "a", "at": "x"}'])
def test_what_cannot_be_understood_is_said_so_and_not_kept(receiver: Running, said: bytes) -> None:
    assert receiver.call("POST", "/receipts/hook", said, signed(said)) == 400
    assert receiver.page and receiver.kept() == []


def test_a_disk_that_is_full_is_no_good_answer(receiver: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    body = json.dumps(OPENED).encode()
    monkeypatch.setattr("cdp_pipeline.destinations.callbacks.put_whole", full)
    assert receiver.call("POST", "/receipts/hook", body, signed(body)) == 500
    assert receiver.kept() == [] and receiver.arrived == []


def test_the_signature_is_that_of_the_published_example() -> None:
    # The test vector of the Standard Webhooks libraries.
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    given = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert given == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def in_the_link(op_id: str, secret: str = LINKS["unsubscribe_secret"]) -> str:
    link = urlsplit(unsubscribe_link(LINKS["unsubscribe_url"], secret, op_id))
    return f"{link.path}?{link.query}"


def test_one_click_takes_back_the_permission_and_a_look_at_the_page_does_not(receiver: Running) -> None:
    path = in_the_link("op-mail")
    assert receiver.call("GET", path) == 200, "mail scanners follow links"
    assert '<form method="post"' in receiver.page and "op=op-mail&amp;proof=" in receiver.page
    assert receiver.call("POST", path) == 400 and receiver.kept() == []
    assert receiver.call("POST", path, "List-Unsubscribe=One-Click", ONE_CLICK) == 200
    assert receiver.told("op-mail") == [("message_unsubscribed", NOW.replace(tzinfo=None))]
    heard = open_consents(receiver.ledger).heard([("email", "ann@example.com")], ["channel:email"], NOW)
    assert heard["email", "ann@example.com"].decisions == {"channel:email": "denied"}


def test_one_click_may_come_as_a_form_of_parts(receiver: Running) -> None:
    body = '--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert receiver.call("POST", in_the_link("op-mail"), body, headers) == 200
    assert [event for event, _ in receiver.told("op-mail")] == ["message_unsubscribed"]


def test_nobody_unsubscribes_anybody_by_a_link_that_is_not_ours(receiver: Running) -> None:
    ours = in_the_link("op-mail")
    others = [in_the_link("op-mail", "another secret !"), ours.replace("op-mail", "op-hook")]
    for path in [*others, "/out/of/it", "/out/of/it?op=%FF"]:
        assert receiver.call("POST", path, "List-Unsubscribe=One-Click", ONE_CLICK) == 403
    assert receiver.kept() == []


def by_twilio(form: dict[str, str], query: str = "op=op-sms", token: str = TOKEN) -> dict[str, str]:
    """The header Twilio sends: HMAC-SHA1 over the address and the sorted fields, without the project's code."""
    text = f"{CALLBACK}?{query}" + "".join(f"{name}{form[name]}" for name in sorted(form))
    digest = base64.b64encode(hmac.new(token.encode(), text.encode(), "sha1").digest()).decode()
    return {"X-Twilio-Signature": digest, "Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("fields", "event", "dead"),
    [
        ({"MessageStatus": "delivered"}, "message_delivered", False),
        ({"MessageStatus": "read"}, "message_opened", False),
        ({"MessageStatus": "undelivered", "ErrorCode": "30003"}, "message_bounced", False),
        ({"MessageStatus": "undelivered", "ErrorCode": "30005"}, "message_bounced", True),
        ({"MessageStatus": "failed", "ErrorCode": "21610"}, "message_unsubscribed", False),
        ({"MessageStatus": "sent"}, None, False),
    ],
)
def test_twilio_tells_what_became_of_a_text(
    receiver: Running, fields: dict[str, str], event: str | None, dead: bool
) -> None:
    form = {**fields, "To": "+4915112345601", "MessageSid": "SM1", "Body": ""}
    path = "/receipts/sms?op=op-sms"
    assert receiver.call("POST", path, urlencode(form), by_twilio(form)) == 200
    assert [name for name, _ in receiver.told("op-sms")] == ([] if event is None else [event])
    heard: Any = open_consents(receiver.ledger).heard([("phone", "+4915112345601")], ["purpose:marketing"], NOW)
    said = heard.get(("phone", "+4915112345601"))
    assert (said is not None and said.suppressed == [("bounce", "sms")]) == dead
    assert (said is not None and said.decisions == {"purpose:marketing": "denied"}) == (event == "message_unsubscribed")


def test_twilios_signature_is_that_of_its_published_example() -> None:
    # tests/unit/test_request_validator.py of twilio-python.
    form = {"CallSid": "CA1234567890ABCDE", "Caller": "+14158675309", "Digits": "1234", "From": "+14158675309",
            "To": "+18005551212"}  # fmt: skip
    spec = twilio("http://127.0.0.1:9", callback_url="https://mycompany.com/myapp.php", callback_token="12345")
    for signed, genuine in (("RSOYDt4T1cUTdK1PDd93/VVr8B8=", True), ("RSOYDt4T1cUTdK1PDd93/VVr8B9=", False)):
        headers = {"x-twilio-signature": signed}
        callback = Callback("sms", NOW, urlencode(form).encode(), "foo=1&bar=2", headers)
        assert by_twilios_token(spec, callback, NOW) is genuine


def test_what_twilio_did_not_sign_is_refused(receiver: Running) -> None:
    form = {"MessageStatus": "undelivered", "ErrorCode": "30005"}
    other = {**form, "ErrorCode": "30003"}
    for headers in ({}, by_twilio(other), by_twilio(form, "op=op-other"), by_twilio(form, token="another")):
        assert receiver.call("POST", "/receipts/sms?op=op-sms", urlencode(form), headers) == 403
    assert receiver.kept() == []


def test_whoever_dies_between_writing_down_and_forgetting_writes_nothing_twice(
    receiver: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({**OPENED, "event": "message_bounced", "dead": True}).encode()
    assert receiver.call("POST", "/receipts/hook", body, signed(body)) == 200
    with monkeypatch.context() as dying:
        dying.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            receiver.told("op-hook")
    consents = open_consents(receiver.ledger)
    assert take_in(receiver.ledger, consents, receiver.project, receiver.folder, NOW) == {}
    assert [event for event, _ in receiver.told("op-hook")] == ["message_bounced"]
    heard = consents.heard([("email", "ben@example.com")], [], NOW)
    assert heard["email", "ben@example.com"].suppressed == [("bounce", "email")]

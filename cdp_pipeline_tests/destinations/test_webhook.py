"""What is particular to a signed webhook: its signature, the addresses it refuses, how it reads an answer."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from standardwebhooks import Webhook as Library
from standardwebhooks import WebhookVerificationError

from cdp_pipeline.activation.protocol import Delivery, DestinationError, Outcome
from cdp_pipeline.destinations.addresses import AddressRefusedError, allowed_address
from cdp_pipeline.destinations.callbacks import Callback
from cdp_pipeline.destinations.http import retry_after
from cdp_pipeline.destinations.webhook import WebhookConnection, genuine, signature, signing_key
from cdp_pipeline_tests.activation.projects import NOW, webhook
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import eventually

MINUTE = timedelta(minutes=1)
DELIVERY = Delivery("op-1", "act", {"name": "Zoë", "amount": "12.5000"})


def post(answer: Answer, **fields: object) -> tuple[Outcome, Receiver]:
    with Receiver(lambda _: answer) as receiver, WebhookConnection(webhook(receiver.url, **fields)) as connection:
        [outcome] = connection.deliver([DELIVERY], now=NOW, within=MINUTE)
    return outcome, receiver


def test_the_signature_is_the_one_of_the_published_example() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    wanted = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == wanted


def test_what_arrives_is_signed_and_says_the_same_as_the_stored_payload() -> None:
    outcome, receiver = post(Answer(204))
    [request] = receiver.requests
    assert outcome == Outcome("op-1", "delivered", "HTTP 204", code=204)
    assert request.is_signed_with(b"a key that only tests know") and not request.is_signed_with(b"another key")
    assert request.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert request.body.decode() == '{"amount":"12.5000","name":"Zoë"}'


PUBLISHED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# The library takes a secret without its padding as well.
SECRETS = [PUBLISHED, "whsec_" + base64.b64encode(b"a secret of 22 bytes..").decode().rstrip("=")]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("batch", [1, 10])
def test_the_standards_own_library_verifies_what_we_send(secret: str, batch: int) -> None:
    now = datetime.now(UTC)  # It asks the clock itself.
    with Receiver() as receiver, WebhookConnection(webhook(receiver.url, secret=secret, batch=batch)) as connection:
        connection.deliver([DELIVERY, DELIVERY._replace(op_id="op-2")], now=now, within=MINUTE)
    assert len(receiver.requests) == (2 if batch == 1 else 1)
    for request in receiver.requests:
        said = Library(secret).verify(request.body, request.headers)
        assert said == DELIVERY.payload if batch == 1 else [one["id"] for one in said["items"]] == ["op-1", "op-2"]
        with pytest.raises(WebhookVerificationError):
            Library(secret).verify(request.body + b" ", request.headers)


@pytest.mark.parametrize("secret", SECRETS)
def test_we_verify_what_the_standards_own_library_signs(secret: str) -> None:
    body = '{"op_id": "op-1", "event": "message_opened"}'
    signed = Library(secret).sign("msg_1", NOW, body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(NOW.timestamp())), "webhook-signature": signed}
    spec = webhook("https://mailer.example.com/", secret=secret)
    assert genuine(spec, Callback("hook", NOW, body.encode(), headers=headers), NOW)
    assert not genuine(spec, Callback("hook", NOW, body.encode() + b" ", headers=headers), NOW)


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("whsec_" + base64.b64encode(b"secret key").decode(), b"secret key"),
        (base64.b64encode(b"secret key").decode(), b"secret key"),
        ("words, not base64", b"words, not base64"),
    ],
)
def test_a_secret_may_be_written_in_three_ways(secret: str, key: bytes) -> None:
    assert signing_key(secret) == key


def test_a_marked_secret_that_is_no_base64_is_named_as_a_mistake() -> None:
    with pytest.raises(DestinationError, match="whsec_"):
        signing_key("whsec_this is not base64")


@pytest.mark.parametrize(
    ("code", "state"),
    [(200, "delivered"), (202, "delivered"), (400, "failed"), (404, "failed"), (410, "failed"), (422, "failed"),
     (401, "retry"), (403, "retry"), (408, "retry"), (425, "retry"), (429, "retry"), (500, "retry"), (503, "retry")],
)  # fmt: skip
def test_every_answer_means_done_refused_or_try_again(code: int, state: str) -> None:
    outcome, _ = post(Answer(code))
    assert (outcome.state, outcome.code) == (state, code)


def test_a_redirect_is_not_followed() -> None:
    with Receiver() as elsewhere:
        outcome, _ = post(Answer(307, {"Location": elsewhere.url}))
        assert outcome.state == "failed" and "redirect" in outcome.reason
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("120", timedelta(minutes=2)),
        ("Tue, 10 Mar 2026 09:10:00 GMT", timedelta(minutes=10)),
        ("Tue, 10 Mar 2020 09:10:00 GMT", timedelta(0)),
        ("999999999", timedelta(days=1)),
        ("soon", None),
        ("-5", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, wait: timedelta | None) -> None:
    assert retry_after(header, NOW) == wait


PRIVATE = ["10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1",
           "64:ff9b::a00:1", "2002:a00:1::", "0.0.0.0", "240.0.0.1"]  # fmt: skip
NEVER = [
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "224.0.0.1",
    "::",
]


@pytest.mark.parametrize("address", PRIVATE + NEVER)
def test_an_address_inside_is_refused_even_behind_a_harmless_one(address: str) -> None:
    with pytest.raises(AddressRefusedError):
        allowed_address("hooks.example.com", 443, allow_private=False, resolve=lambda *_: ["93.184.215.14", address])


@pytest.mark.parametrize("address", NEVER)
def test_metadata_addresses_are_refused_even_where_private_ones_are_allowed(address: str) -> None:
    with pytest.raises(AddressRefusedError):
        allowed_address("hooks.example.com", 443, allow_private=True, resolve=lambda *_: [address])


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_a_public_address_is_dialled_as_it_was_checked(address: str) -> None:
    assert allowed_address("hooks.example.com", 443, allow_private=False, resolve=lambda *_: [address]) == address


def test_a_refused_address_is_never_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    def dial(*_: object, **__: object) -> None:
        raise AssertionError("dialled")

    monkeypatch.setattr(aiohttp.ClientSession, "request", dial)
    for url in (
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://127.0.0.1:8080/",
        "http://2130706433/",
    ):
        # Numbers and brackets are names like any other to the resolver; here it answers what it would answer.
        with WebhookConnection(webhook(url, allow_private=False), resolve=lambda *_: ["127.0.0.1"]) as connection:
            [outcome] = connection.deliver([DELIVERY], now=NOW, within=MINUTE)
        assert outcome.state == "failed"


def test_the_name_is_asked_for_once_and_the_answer_is_dialled() -> None:
    """A name server that answers differently the second time (rebinding) gains nothing."""
    answers = iter([["127.0.0.1"]])
    with Receiver() as receiver:
        spec = webhook(f"http://hooks.example.test:{receiver.port}/x?y=1")
        with WebhookConnection(spec, resolve=lambda *_: next(answers)) as connection:
            [outcome] = connection.deliver([DELIVERY], now=NOW, within=MINUTE)
        assert outcome.state == "delivered"
        [request] = receiver.requests
    assert (request.headers["host"], request.path) == (f"hooks.example.test:{receiver.port}", "/x?y=1")


def test_a_name_that_does_not_resolve_is_tried_again() -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with WebhookConnection(webhook("https://hooks.example.test/"), resolve=resolve) as connection:
        [outcome] = connection.deliver([DELIVERY], now=NOW, within=MINUTE)
    assert outcome.state == "retry"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "localhost"])
def test_an_address_written_out_is_refused_like_a_name_that_leads_there(host: str) -> None:
    with Receiver() as receiver:
        spec = webhook(f"http://{host}:{receiver.port}/", allow_private=False)
        with WebhookConnection(spec) as connection:
            [outcome] = connection.deliver([DELIVERY], now=NOW, within=MINUTE)
        assert receiver.requests == []
    assert outcome.state == "failed" and "private network" in outcome.reason


def many(number: int) -> list[Delivery]:
    return [Delivery(f"op-{n}", "act", {"n": n}) for n in range(number)]


def test_who_has_proven_to_take_them_is_given_several_at_once() -> None:
    with Receiver() as receiver, WebhookConnection(webhook(receiver.url)) as connection:
        outcomes = connection.deliver(many(300), now=NOW, within=MINUTE)
        assert [outcome.op_id for outcome in outcomes] == [each.op_id for each in many(300)]
        assert {outcome.state for outcome in outcomes} == {"delivered"}
    assert 1 < receiver.lines <= 16


def test_a_line_that_was_closed_meanwhile_is_not_written_to() -> None:
    """Where repeating is not safe, such a request would be in doubt though nobody ever saw it."""
    closing = Receiver(lambda _: Answer(closes=True))
    with closing as receiver, WebhookConnection(webhook(receiver.url)) as connection:
        for number, each in enumerate(many(5), 1):
            assert connection.deliver([each], now=NOW, within=MINUTE)[0].state == "delivered"
            eventually(lambda closed=number: receiver.lines_closed == closed, every=0.01)


def refusing(*numbers: int, code: int = 422) -> Receiver:
    """A receiver of batches that takes none in which one of these is."""

    def answer(received: Received) -> Answer:
        items = [item["payload"]["n"] for item in received.json["items"]]
        return Answer(code, applied=False) if set(numbers) & set(items) else Answer()

    return Receiver(answer)


def test_a_batch_is_one_signed_request_whose_items_have_their_own_ids() -> None:
    with Receiver() as receiver, WebhookConnection(webhook(receiver.url, batch=4)) as connection:
        outcomes = connection.deliver(many(10), now=NOW, within=MINUTE)
    assert [(outcome.op_id, outcome.state) for outcome in outcomes] == [(each.op_id, "delivered") for each in many(10)]
    assert [len(request.json["items"]) for request in receiver.requests] == [4, 4, 2]
    assert receiver.requests[0].json["items"][1] == {"id": "op-1", "kind": "act", "payload": {"n": 1}}
    assert all(request.is_signed_with(b"a key that only tests know") for request in receiver.requests)


def test_one_bad_item_fails_alone_however_the_batch_is_refused() -> None:
    with refusing(3) as receiver, WebhookConnection(webhook(receiver.url, batch=8)) as connection:
        outcomes = connection.deliver(many(8), now=NOW, within=MINUTE)
    taken = [item["payload"]["n"] for effect in receiver.effects.values() for item in effect["items"]]
    assert sorted(taken) == [0, 1, 2, 4, 5, 6, 7]
    assert [outcome.op_id for outcome in outcomes if outcome.state == "failed"] == ["op-3"]
    results = {"results": [{"id": "op-1", "status": 422}, {"id": "op-2", "status": 503}]}
    naming = Receiver(lambda _: Answer(body=results))
    with naming as receiver, WebhookConnection(webhook(receiver.url, batch=8)) as connection:
        outcomes = connection.deliver(many(4), now=NOW, within=MINUTE)
    assert [outcome.state for outcome in outcomes] == ["delivered", "failed", "retry", "delivered"]


def test_a_batch_that_nobody_is_there_for_is_not_cut_up() -> None:
    with refusing(3, code=404) as receiver, WebhookConnection(webhook(receiver.url, batch=8)) as connection:
        outcomes = connection.deliver(many(8), now=NOW, within=MINUTE)
    assert len(receiver.requests) == 1 and {outcome.state for outcome in outcomes} == {"failed"}

"""Mail providers tell what became of letters, in payloads and signatures as they publish them."""

from __future__ import annotations

import base64
import hmac
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline.activation.ledger import operation_id
from cdp_pipeline.activation.protocol import Delivery, DestinationError
from cdp_pipeline.activation.receipts import Report
from cdp_pipeline.consent.ledger import open_consents
from cdp_pipeline.destinations.callbacks import Callback
from cdp_pipeline.destinations.providers import mailgun, postmark, sendgrid, ses
from cdp_pipeline.destinations.smtp import SmtpConnection, message
from cdp_pipeline.spec.destination import Smtp
from cdp_pipeline_tests.activation.projects import mail, project, trigger
from cdp_pipeline_tests.consent.people import EMAIL
from cdp_pipeline_tests.destinations.servers import Mailbox, Receiver
from cdp_pipeline_tests.destinations.test_receiver import LINKS, NOW, ONE_CLICK, in_the_link, receiving

TOPIC = "arn:aws:sns:eu-central-1:123456789012:letters"
CERTIFICATE = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-9c6465fa7f48f5cacd23014631ec1136.pem"
SUBSCRIBE = (
    f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37fb687f5d51e6"
)


@lru_cache
def curve() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


@lru_cache
def rsa_key() -> tuple[Any, bytes]:
    """A key, and a certificate in PEM with it."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = x509.CertificateBuilder(
        name, name, key.public_key(), 1, datetime(2026, 1, 1), datetime(2027, 1, 1)
    ).sign(key, SHA256())  # fmt: skip
    return key, made.public_bytes(Encoding.PEM)


def public_key() -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return base64.b64encode(curve().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def by_sendgrid(said: Any) -> tuple[bytes, dict[str, str]]:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    body = json.dumps(said).encode() + b"\r\n"
    signed = base64.b64encode(curve().sign(b"1773133200" + body, ECDSA(SHA256()))).decode()
    name = "X-Twilio-Email-Event-Webhook-"
    return body, {f"{name}Signature": signed, f"{name}Timestamp": "1773133200"}


def by_mailgun(said: Any, key: str = "a signing key") -> tuple[bytes, dict[str, str]]:
    made = hmac.new(key.encode(), b"1773133200" + b"t" * 50, "sha256").hexdigest()
    signature = {"timestamp": "1773133200", "token": "t" * 50, "signature": made}
    return json.dumps({"signature": signature, "event-data": said}).encode(), {}


def by_postmark(said: Any, login: str = "shop:a word") -> tuple[bytes, dict[str, str]]:
    return json.dumps(said).encode(), {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


def by_amazon(said: Any, version: str = "2", **fields: str) -> tuple[bytes, dict[str, str]]:
    """Signed as "Verifying the signatures of Amazon SNS messages" says, by code of the tests' own."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256

    envelope = {
        "Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "TopicArn": TOPIC,
        "Message": said if isinstance(said, str) else json.dumps(said), "Timestamp": "2026-03-10T08:59:00.000Z",
        **fields,
    }  # fmt: skip
    text = "".join(f"{name}\n{envelope[name]}\n" for name in sorted(envelope))
    signed = rsa_key()[0].sign(text.encode(), PKCS1v15(), SHA1() if version == "1" else SHA256())
    envelope |= {"SignatureVersion": version, "Signature": base64.b64encode(signed).decode()}
    envelope |= {"SigningCertURL": CERTIFICATE, "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/"}
    return json.dumps(envelope).encode(), {"x-amz-sns-message-type": envelope["Type"]}


KEYS: dict[str, Callable[[], str]] = {
    "sendgrid": public_key, "mailgun": lambda: "a signing key", "postmark": lambda: "shop:a word", "ses": lambda: TOPIC,
}  # fmt: skip
BY: dict[str, Callable[[Any], tuple[bytes, dict[str, str]]]] = {
    "sendgrid": by_sendgrid, "mailgun": by_mailgun, "postmark": by_postmark, "ses": by_amazon,
}  # fmt: skip


def letters(provider: str) -> Smtp:
    return mail(25, provider=provider, provider_key=KEYS[provider](), **LINKS)


# As the providers' pages show them, cut to what counts, with our id where a letter of ours would have put it.
ID = {"cdp_op_id": "op-mail"}
TO = "ann@example.com"
SENDGRID = {"email": TO, "timestamp": 1773129600, "sg_event_id": "e", "sg_message_id": "m", **ID}
MAILGUN = {"id": "G9Bn5sl1TC6nu79C8C0bwg", "timestamp": 1773129600.375624, "recipient": TO, "user-variables": ID}
POSTMARK = {"MessageID": "883953f4-6105-42a2-a16a-77a8eac79483", "ServerID": 23, "Metadata": ID, "Tag": "offer"}
SES = {"mail": {"messageId": "0100", "timestamp": "2026-03-10T07:00:00.000Z", "destination": [TO],
                "tags": {"ses:configuration-set": ["letters"], "cdp_op_id": ["op-mail"]}}}  # fmt: skip
AT = "2026-03-10T08:00:00.0000000Z"
TOLD: list[tuple[str, Any, str | None, bool]] = [
    ("sendgrid", [{**SENDGRID, "event": "processed"}], None, False),
    ("sendgrid", [{**SENDGRID, "event": "deferred", "response": "400 try again later", "attempt": "5"}], None, False),
    ("sendgrid", [{**SENDGRID, "event": "delivered", "response": "250 OK"}], "delivered", False),
    ("sendgrid", [{**SENDGRID, "event": "open", "sg_machine_open": False}], "opened", False),
    ("sendgrid", [{**SENDGRID, "event": "open", "sg_machine_open": True}], None, False),
    ("sendgrid", [{**SENDGRID, "event": "click", "url": "http://www.sendgrid.com/"}], "clicked", False),
    ("sendgrid", [{**SENDGRID, "event": "bounce", "type": "bounce", "status": "5.1.1"}], "bounced", True),
    ("sendgrid", [{**SENDGRID, "event": "bounce", "type": "blocked", "status": "5.2.2"}], "bounced", False),
    ("sendgrid", [{**SENDGRID, "event": "dropped", "reason": "Bounced Address"}], "bounced", True),
    ("sendgrid", [{**SENDGRID, "event": "dropped", "reason": "Unsubscribed Address"}], "unsubscribed", False),
    ("sendgrid", [{**SENDGRID, "event": "spamreport"}], "complained", False),
    ("sendgrid", [{**SENDGRID, "event": "group_unsubscribe", "asm_group_id": 10}], "unsubscribed", False),
    ("mailgun", {**MAILGUN, "event": "accepted"}, None, False),
    ("mailgun", {**MAILGUN, "event": "delivered", "delivery-status": {"code": 250}}, "delivered", False),
    ("mailgun", {**MAILGUN, "event": "opened", "client-info": {"bot": ""}}, "opened", False),
    ("mailgun", {**MAILGUN, "event": "opened", "client-info": {"bot": "apple"}}, None, False),
    ("mailgun", {**MAILGUN, "event": "clicked", "client-info": {"bot": "generic"}}, None, False),
    ("mailgun", {**MAILGUN, "event": "clicked", "url": "http://mailgun.com"}, "clicked", False),
    ("mailgun", {**MAILGUN, "event": "failed", "severity": "temporary", "reason": "generic"}, None, False),
    ("mailgun", {**MAILGUN, "event": "failed", "severity": "permanent", "reason": "bounce",
                 "delivery-status": {"code": 550}}, "bounced", True),
    ("mailgun", {**MAILGUN, "event": "failed", "severity": "permanent", "reason": "suppress-bounce",
                 "delivery-status": {"code": 605}}, "bounced", True),
    ("mailgun", {**MAILGUN, "event": "failed", "severity": "permanent", "reason": "old"}, "bounced", False),
    ("mailgun", {**MAILGUN, "event": "complained"}, "complained", False),
    ("mailgun", {**MAILGUN, "event": "unsubscribed"}, "unsubscribed", False),
    ("postmark", {**POSTMARK, "RecordType": "Delivery", "Recipient": TO, "DeliveredAt": AT}, "delivered", False),
    ("postmark", {**POSTMARK, "RecordType": "Open", "Recipient": TO, "ReceivedAt": AT}, "opened", False),
    ("postmark", {**POSTMARK, "RecordType": "Click", "Recipient": TO, "ReceivedAt": AT}, "clicked", False),
    ("postmark", {**POSTMARK, "RecordType": "Bounce", "Type": "HardBounce", "Email": TO, "BouncedAt": AT},
     "bounced", True),
    ("postmark", {**POSTMARK, "RecordType": "Bounce", "Type": "SoftBounce", "Email": TO, "BouncedAt": AT},
     "bounced", False),
    ("postmark", {**POSTMARK, "RecordType": "Bounce", "Type": "Transient", "Email": TO, "BouncedAt": AT}, None, False),
    ("postmark", {**POSTMARK, "RecordType": "Bounce", "Type": "AutoResponder", "Email": TO, "BouncedAt": AT},
     None, False),
    ("postmark", {**POSTMARK, "RecordType": "SpamComplaint", "Type": "SpamComplaint", "Email": TO, "BouncedAt": AT},
     "complained", False),
    ("postmark", {**POSTMARK, "RecordType": "SubscriptionChange", "Recipient": TO, "ChangedAt": AT,
                  "SuppressSending": True, "SuppressionReason": "ManualSuppression", "Origin": "Recipient"},
     "unsubscribed", False),
    ("postmark", {**POSTMARK, "RecordType": "SubscriptionChange", "Recipient": TO, "ChangedAt": AT,
                  "SuppressSending": True, "SuppressionReason": "HardBounce", "Origin": "Recipient"}, None, False),
    ("ses", {**SES, "eventType": "Send", "send": {}}, None, False),
    ("ses", {**SES, "eventType": "DeliveryDelay", "deliveryDelay": {"delayType": "MailboxFull"}}, None, False),
    ("ses", {**SES, "eventType": "Delivery", "delivery": {"timestamp": AT, "recipients": [TO]}}, "delivered", False),
    ("ses", {**SES, "eventType": "Open", "open": {"timestamp": AT, "ipAddress": "192.0.2.1"}}, "opened", False),
    ("ses", {**SES, "eventType": "Click", "click": {"timestamp": AT, "link": "http://example.com"}}, "clicked", False),
    ("ses", {**SES, "eventType": "Bounce", "bounce": {
        "bounceType": "Permanent", "bounceSubType": "General", "timestamp": AT,
        "bouncedRecipients": [{"emailAddress": TO, "action": "failed", "status": "5.1.1"}]}}, "bounced", True),
    ("ses", {**SES, "notificationType": "Bounce", "bounce": {
        "bounceType": "Transient", "bounceSubType": "MailboxFull", "timestamp": AT,
        "bouncedRecipients": [{"emailAddress": TO}]}}, "bounced", False),
    ("ses", {**SES, "eventType": "Complaint", "complaint": {
        "complainedRecipients": [{"emailAddress": TO}], "complaintFeedbackType": "abuse", "timestamp": AT}},
     "complained", False),
    ("ses", {**SES, "eventType": "Complaint", "complaint": {
        "complainedRecipients": [{"emailAddress": TO}], "complaintFeedbackType": "not-spam", "timestamp": AT}},
     None, False),
    ("ses", {**SES, "eventType": "Subscription", "subscription": {
        "timestamp": AT, "newTopicPreferences": {"unsubscribeAll": True}}}, "unsubscribed", False),
    ("ses", "Successfully validated SNS topic for Amazon SES event publishing.", None, False),
]  # fmt: skip
TELLS = {"sendgrid": sendgrid.told, "mailgun": mailgun.told, "postmark": postmark.told, "ses": ses.told}


def heard(provider: str, said: Any) -> list[Report]:
    body, _ = BY[provider](said)
    return TELLS[provider](Callback("mail", NOW, body))


@pytest.mark.parametrize(("provider", "said", "event", "dead"), TOLD)
def test_what_a_provider_says_is_told_in_our_words(provider: str, said: Any, event: str | None, dead: bool) -> None:
    reports = heard(provider, said)
    assert [(one.op_id, one.event, one.dead) for one in reports] == (
        [] if event is None else [("op-mail", f"message_{event}", dead)]
    )
    for one in reports:
        assert one.address in (TO, None) and abs(one.at - datetime(2026, 3, 10, 8, tzinfo=UTC)) < timedelta(seconds=1)
        assert "@" not in (one.detail or "")


@pytest.mark.parametrize("provider", KEYS)
def test_a_letter_of_somebody_else_in_the_same_account_is_nothing_to_us(provider: str) -> None:
    foreign: dict[str, Any] = {
        "sendgrid": [{"email": TO, "timestamp": 1, "event": "delivered"}],
        "mailgun": {"event": "delivered", "timestamp": 1.0, "user-variables": {}},
        "postmark": {"RecordType": "Delivery", "DeliveredAt": AT, "Metadata": {}},
        "ses": {"eventType": "Delivery", "delivery": {"timestamp": AT}, "mail": {"tags": {}}},
    }
    assert heard(provider, foreign[provider]) == []


def test_where_the_id_is_not_told_the_letters_own_message_id_serves() -> None:
    own = "<op-mail@example.com>"
    assert [one.op_id for one in heard("sendgrid", [
        {"email": TO, "timestamp": 1773129600, "smtp-id": own, "event": "delivered"}])] == ["op-mail"]  # fmt: skip
    said = {"event": "delivered", "timestamp": 1.5, "message": {"headers": {"message-id": own.strip("<>")}}}
    assert [one.op_id for one in heard("mailgun", said)] == ["op-mail"]
    told = {"notificationType": "Delivery", "delivery": {"timestamp": AT}, "mail": {
        "headers": [{"name": "From", "value": "x"}, {"name": "Message-ID", "value": own}]}}  # fmt: skip
    assert [one.op_id for one in heard("ses", told)] == ["op-mail"]


@pytest.mark.parametrize("said", [b"nonsense", b"\xff", b"[1]", b"7"])
@pytest.mark.parametrize("provider", KEYS)
def test_what_is_no_event_is_said_so(provider: str, said: bytes) -> None:
    with pytest.raises(ValueError):
        TELLS[provider](Callback("mail", NOW, said))
    assert (
        mailgun.genuine("key", Callback("mail", NOW, said)) is ses.genuine(TOPIC, Callback("mail", NOW, said)) is False
    )


def changed(said: Any) -> Iterator[Any]:
    """The same with one value, somewhere in it, that nobody expects there: once for each place and each such value."""
    yield from (None, True, 7, -1.5, "Ä", [], {}, [[]], [7])
    for place in said if isinstance(said, dict) else range(len(said)) if isinstance(said, list) else ():
        for new in changed(said[place]):
            yield {**said, place: new} if isinstance(said, dict) else [*said[:place], new, *said[place + 1 :]]


def envelope_of(said: Any) -> dict[str, Any]:
    return {"Type": "Notification", "MessageId": "1", "TopicArn": TOPIC, "Message": json.dumps(said), "Signature": "AA",
            "Timestamp": AT, "SignatureVersion": "1", "SigningCertURL": CERTIFICATE}  # fmt: skip


@pytest.mark.parametrize("provider", KEYS)
def test_whatever_a_call_holds_it_is_understood_or_said_to_be_none(provider: str, amazon: list[str]) -> None:
    for said in [said for name, said, _, _ in TOLD if name == provider]:
        calls: list[Iterable[Any]] = [changed(said)]
        if provider == "ses":
            calls = [map(envelope_of, changed(said)), changed(envelope_of(said))]
        elif provider == "mailgun":
            calls = [changed({"signature": {"timestamp": "1", "token": "t", "signature": "s"}, "event-data": said})]
        for body in (json.dumps(each).encode() for call in calls for each in call):
            callback = Callback("mail", NOW, body)
            with suppress(ValueError):
                assert all(isinstance(one.op_id, str) and one.at <= NOW for one in TELLS[provider](callback))
            if provider in ("mailgun", "ses"):
                assert not {"mailgun": mailgun, "ses": ses}[provider].genuine(TOPIC, callback)


@pytest.mark.parametrize("at", ["soon", None, True, 1e30])
def test_a_time_that_is_none_is_said_so(at: Any) -> None:
    with pytest.raises(ValueError):
        heard("sendgrid", [{**SENDGRID, "event": "open", "timestamp": at}])


@pytest.mark.parametrize(
    ("provider", "header", "value"),
    [
        ("sendgrid", "X-SMTPAPI", '{"unique_args": {"cdp_op_id": "0f3a"}}'),
        ("mailgun", "X-Mailgun-Variables", '{"cdp_op_id": "0f3a"}'),
        ("postmark", "X-PM-Metadata-cdp_op_id", "0f3a"),
        ("ses", "X-SES-MESSAGE-TAGS", "cdp_op_id=0f3a"),
    ],
)
def test_a_letter_carries_what_its_provider_sends_back(provider: str, header: str, value: str) -> None:
    delivery = Delivery("0f3a", "act", {"to": TO, "subject": "Hello", "body": "Words"})
    assert message(letters(provider), delivery, NOW)[header] == value
    assert not [name for name in message(mail(25), delivery, NOW).keys() if name.startswith("X-")]  # noqa: SIM118


def echoed(provider: str, letter: Any) -> Any:
    """An opened letter as the provider tells of it, with what the letter carried where the provider puts it."""
    if provider == "sendgrid":
        unique = json.loads(letter["X-SMTPAPI"])["unique_args"]
        return [{"email": TO, "event": "open", "timestamp": 1773129600, **unique}]
    if provider == "mailgun":
        variables = json.loads(letter["X-Mailgun-Variables"])
        return {"event": "opened", "timestamp": 1773129600.5, "recipient": TO, "user-variables": variables}
    if provider == "postmark":
        prefix = "x-pm-metadata-"
        carried = {name[len(prefix) :]: value for name, value in letter.items() if name.lower().startswith(prefix)}
        return {"RecordType": "Open", "Recipient": TO, "ReceivedAt": AT, "Metadata": carried}
    tags = dict(tag.strip().split("=") for tag in letter["X-SES-MESSAGE-TAGS"].split(","))
    return {"eventType": "Open", "open": {"timestamp": AT}, "mail": {"tags": {name: [tags[name]] for name in tags}}}


@pytest.mark.parametrize("provider", KEYS)
def test_what_a_letter_carries_through_a_mail_server_comes_back_as_its_operation(provider: str) -> None:
    op_id = operation_id("a letter")
    with Mailbox() as mailbox:
        spec = letters(provider).model_copy(update={"port": mailbox.port})
        with SmtpConnection(spec) as connection:
            letter = Delivery(op_id, "act", {"to": TO, "subject": "Hello", "body": "Words", "html": "<p>Words</p>"})
            [outcome] = connection.deliver([letter], now=NOW, within=timedelta(minutes=1))
    assert outcome.state == "delivered"
    assert [(one.op_id, one.event) for one in heard(provider, echoed(provider, mailbox.messages[0]))] == [
        (op_id, "message_opened")
    ]


def test_sendgrids_signature_is_that_of_its_published_example() -> None:
    # test/unit/test_eventwebhook.py of sendgrid-python.
    key = (
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc"
        "6wEA3F+g=="
    )
    signed = "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM="
    said = [{
        "email": "hello@world.com", "event": "dropped", "reason": "Bounced Address",
        "sg_event_id": "ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",
        "sg_message_id": "LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",
        "smtp-id": "<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>", "timestamp": 1600112492,
    }]  # fmt: skip
    body = json.dumps(said, sort_keys=True, separators=(",", ":")).encode() + b"\r\n"
    name = "x-twilio-email-event-webhook-"

    def genuine(body: bytes, at: str = "1600112502", signed: str = signed) -> bool:
        headers = {f"{name}signature": signed, f"{name}timestamp": at}
        return sendgrid.genuine(key, Callback("mail", NOW, body, headers=headers))

    assert genuine(body)
    assert not genuine(body.strip()) and not genuine(body, "1600112503") and not genuine(body, signed="MEUC!")
    [report] = sendgrid.told(Callback("mail", NOW, body))
    assert report.dead and report.at == datetime(2020, 9, 14, 19, 41, 32, tzinfo=UTC)


def test_what_is_no_key_of_sendgrids_is_told_of_itself() -> None:
    with pytest.raises(DestinationError, match="verification key"):
        sendgrid.genuine("whatever", Callback("mail", NOW, b"[]"))


@pytest.mark.parametrize("provider", ["sendgrid", "ses"])
def test_signatures_that_need_a_package_say_how_to_get_it(
    provider: str, amazon: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (body, headers), key = BY[provider]({"eventType": "Send"}), KEYS[provider]()
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DestinationError, match=r"cdp-pipeline\[events\]"):
        {"sendgrid": sendgrid, "ses": ses}[provider].genuine(key, Callback("mail", NOW, body, headers=headers))


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which addresses of Amazon's were asked for, in order."""
    asked: list[str] = []

    def fetched(url: str) -> bytes:
        asked.append(url)
        return rsa_key()[1]

    ses.certificate.cache_clear()
    monkeypatch.setattr(ses, "fetched", fetched)
    return asked


@pytest.mark.parametrize("version", ["1", "2"])
def test_amazon_signs_by_a_certificate_that_is_fetched_once(version: str, amazon: list[str]) -> None:
    for subject in ({}, {"Subject": "Amazon SES Email Event Notification"}):
        body, _ = by_amazon({"eventType": "Send"}, version, **subject)
        assert ses.genuine(TOPIC, Callback("mail", NOW, body))
        said = json.loads(body)
        for changed in ({"Message": "{}"}, {"SignatureVersion": "3"}, {"Signature": "AAAA"}, {"Timestamp": "later"},
                        {"TopicArn": f"{TOPIC}2"}, {"Type": "UnsubscribeConfirmation"}):  # fmt: skip
            assert not ses.genuine(TOPIC, Callback("mail", NOW, json.dumps(said | changed).encode()))
    assert amazon == [CERTIFICATE]


@pytest.mark.parametrize(
    "where",
    [
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-1.pem",
        "https://evil.example/sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com@evil.example/SimpleNotificationService-1.pem",
        "https://sns.evil.example#.amazonaws.com/SimpleNotificationService-1.pem",
        "https://bucket.s3.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem\n",
        "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-1.pem",
    ],
)
def test_a_certificate_is_fetched_from_amazon_alone(where: str, amazon: list[str]) -> None:
    said = json.loads(by_amazon({"eventType": "Send"})[0]) | {"SigningCertURL": where}
    assert not ses.genuine(TOPIC, Callback("mail", NOW, json.dumps(said).encode()))
    assert amazon == []


def test_nothing_of_our_own_network_is_fetched_as_if_it_were_amazons() -> None:
    with Receiver() as receiver, pytest.raises(DestinationError, match="private network"):
        ses.fetched(receiver.url)
    assert receiver.requests == []


@pytest.mark.parametrize("provider", KEYS)
def test_a_genuine_event_counts_once_over_http_and_what_is_not_genuine_never(
    provider: str, tmp_path: Path, amazon: list[str]
) -> None:
    said = next(said for name, said, event, dead in TOLD if name == provider and event == "bounced" and dead)
    with receiving(project(letters(provider), trigger(name="offer"), EMAIL), tmp_path) as running:
        body, headers = BY[provider](said)
        for _ in range(2):
            # Mailgun and Postmark take nothing but 200 for an answer.
            assert running.call("POST", "/receipts/mail", body, headers) == 200
        assert [event for event, _ in running.told("op-mail")] == ["message_bounced"]
        known = open_consents(running.ledger).heard([("email", TO)], [], NOW)
        assert known["email", TO].suppressed == [("bounce", "email")]
        forged = {
            "sendgrid": by_sendgrid([])[1], "mailgun": {}, "postmark": by_postmark(said, "shop:guessed")[1], "ses": {},
        }[provider]  # fmt: skip
        altered = by_mailgun(said, "another key")[0] if provider == "mailgun" else body.replace(b"op-mail", b"op-hook")
        assert running.call("POST", "/receipts/mail", altered, forged) == 403
        assert running.kept() == []
        assert running.call("POST", in_the_link("op-mail"), "List-Unsubscribe=One-Click", ONE_CLICK) == 200
        assert "message_unsubscribed" in dict(running.told("op-mail"))


def test_a_subscription_of_our_own_topic_is_confirmed_and_nobody_elses(tmp_path: Path, amazon: list[str]) -> None:
    asks = {"Type": "SubscriptionConfirmation", "Token": "2336412f37fb687f5d51e6", "SubscribeURL": SUBSCRIBE}
    with receiving(project(letters("ses"), trigger(name="offer"), EMAIL), tmp_path) as running:
        for body, _ in (by_amazon("x", TopicArn=f"{TOPIC}-of-others", **asks), by_amazon("x", **asks | {"Type": "X"})):
            assert running.call("POST", "/receipts/mail", body) == 403
        elsewhere = by_amazon("x", **asks | {"SubscribeURL": "https://evil.example/?Action=ConfirmSubscription"})[0]
        assert running.call("POST", "/receipts/mail", elsewhere) == 200
        assert SUBSCRIBE not in amazon
        assert running.call("POST", "/receipts/mail", by_amazon("x", **asks)[0]) == 200
        assert amazon == [CERTIFICATE, SUBSCRIBE]


def test_a_certificate_that_cannot_be_had_is_our_fault_so_that_amazon_calls_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(url: str) -> bytes:
        raise DestinationError("Amazon SNS: no answer")

    ses.certificate.cache_clear()
    monkeypatch.setattr(ses, "fetched", silent)
    with receiving(project(letters("ses"), trigger(name="offer"), EMAIL), tmp_path) as running:
        # 4xx would be for good: "Amazon SNS message delivery retries".
        assert running.call("POST", "/receipts/mail", by_amazon({"eventType": "Send"})[0]) == 503
        assert running.kept() == []

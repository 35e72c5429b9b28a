"""What other mail servers report: which address is dead, which letter it was, and what is no bounce at all."""

from __future__ import annotations

from email.message import EmailMessage
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp_pipeline.destinations.bounces import Bounce, bounces


def report(fields: str, original: str = "", kind: str = "delivery-status", headers_only: bool = True) -> bytes:
    """A report in the shape of RFC 3462: words, fields, and what is left of the letter."""
    returned = "text/rfc822-headers" if headers_only else "message/rfc822"
    text = f"""\
From: MAILER-DAEMON@mx.example.net
To: bounces@example.com
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type={kind}; boundary="b1"

--b1
Content-Type: text/plain; charset=utf-8

I am sorry to have to inform you that 5.1.1 is only a number here.

--b1
Content-Type: message/{kind}

{dedent(fields).strip()}

--b1
Content-Type: {returned}

{dedent(original).strip()}

--b1--
"""
    return text.replace("\n", "\r\n").encode()


LETTER = """
    From: Shop <shop@example.com>
    To: ann@example.net
    Message-ID: <0f3a9c@example.com>
    Subject: Hello
"""


def failed(status: str, more: str = "") -> str:
    return f"""
        Reporting-MTA: dns; mx.example.net
        Arrival-Date: Tue, 10 Mar 2026 09:00:00 +0000

        Final-Recipient: rfc822; ann@example.net
        Action: failed
        Status: {status}
        {more}
    """


@pytest.mark.parametrize(
    ("status", "more", "kind", "said"),
    [
        ("5.1.1", "", "hard", "5.1.1"),
        ("5.1.10", "", "hard", "5.1.10"),
        ("5.2.1", "", "hard", "5.2.1"),
        ("5.2.2", "", "soft", "5.2.2"),
        ("5.7.1", "", "soft", "5.7.1"),
        ("4.4.7", "", "soft", "4.4.7"),
        ("5.0.0", "Diagnostic-Code: smtp; 550 5.1.1 <ann@example.net>: Recipient unknown", "hard", "5.1.1"),
        ("5.0.0", "Diagnostic-Code: smtp; 550 no such user", "soft", "5.0.0"),
        ("5.1.1 (bad destination mailbox address)", "", "hard", "5.1.1"),
    ],
)
def test_only_a_dead_address_is_a_hard_bounce(status: str, more: str, kind: str, said: str) -> None:
    [bounce] = bounces(report(failed(status, more), LETTER))
    assert bounce == Bounce(kind, "0f3a9c", said, "ann@example.net")  # type: ignore[arg-type]


@pytest.mark.parametrize("headers_only", [True, False])
def test_the_letter_is_known_by_its_message_id_wherever_that_stands(headers_only: bool) -> None:
    [bounce] = bounces(report(failed("5.1.1"), LETTER, headers_only=headers_only))
    assert bounce.op_id == "0f3a9c"


def test_the_envelope_id_we_gave_names_the_letter_where_nothing_is_left_of_it() -> None:
    fields = failed("5.1.1").replace("Reporting-MTA", "Original-Envelope-Id: 77ab\n        Reporting-MTA", 1)
    [bounce] = bounces(report(fields, ""))
    assert (bounce.op_id, bounce.kind) == ("77ab", "hard")


def test_a_forwarded_address_is_reported_as_the_one_that_we_wrote_to() -> None:
    [bounce] = bounces(report(failed("5.1.1", "Original-Recipient: rfc822;ann.smith@example.com"), LETTER))
    assert bounce.address == "ann.smith@example.com"


@pytest.mark.parametrize("action", ["delayed", "delivered", "relayed", "expanded"])
def test_what_is_delayed_or_has_arrived_is_no_bounce(action: str) -> None:
    assert bounces(report(failed("4.4.1").replace("failed", action), LETTER)) == []


def test_each_recipient_of_one_report_is_a_bounce() -> None:
    fields = (
        failed("5.1.1")
        + "\n\n        Final-Recipient: rfc822; bob@example.net\n        Action: failed\n        Status: 5.2.2\n"
    )
    assert [(each.address, each.kind) for each in bounces(report(fields, LETTER))] == [
        ("ann@example.net", "hard"),
        ("bob@example.net", "soft"),
    ]


@pytest.mark.parametrize(
    ("feedback", "kinds"), [("abuse", ["complaint"]), ("not-spam", []), ("opt-out", ["complaint"])]
)
def test_a_complaint_is_read_from_a_feedback_report(feedback: str, kinds: list[str]) -> None:
    fields = f"Feedback-Type: {feedback}\nUser-Agent: Mail/1.0\nVersion: 1\nOriginal-Rcpt-To: <ann@example.net>"
    found = bounces(report(fields, LETTER, "feedback-report", headers_only=False))
    assert [(each.kind, each.op_id, each.address) for each in found] == [
        (kind, "0f3a9c", "ann@example.net") for kind in kinds
    ]


def test_an_out_of_office_note_is_no_bounce() -> None:
    note = EmailMessage()
    note["Subject"], note["Auto-Submitted"] = "Out of office", "auto-replied"
    note.set_content("Status: 5.1.1\nAction: failed\n")
    assert bounces(note.as_bytes()) == []


def test_the_address_stays_out_of_logs() -> None:
    [bounce] = bounces(report(failed("5.1.1"), LETTER))
    assert "ann" not in repr(bounce)


@given(st.binary(max_size=400), st.integers(0, 600))
def test_whatever_comes_to_the_return_path_is_read_without_an_error(noise: bytes, at: int) -> None:
    sound = report(failed("5.1.1"), LETTER)
    bounces(sound[:at] + noise + sound[at:])
    bounces(noise)

"""What became of a letter: it left, it bounced, and both are on the timeline and in the answer to 'why'."""

from __future__ import annotations

import http.client
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cdp_pipeline.activation.ledger import Op, open_ledger
from cdp_pipeline.orchestration.deliveries import deliver_due
from cdp_pipeline.spec.load import load_project
from cdp_pipeline_tests.cli.conftest import Here
from cdp_pipeline_tests.destinations.servers import Mailbox
from cdp_pipeline_tests.destinations.test_bounces import report
from cdp_pipeline_tests.orchestration.commands import Cdp
from cdp_pipeline_tests.waiting import PATIENCE, eventually, free_port

NOW = datetime.now(UTC)
DECLARED = """
kind: destination
name: letters
description: The mail server.
type: smtp
host: 127.0.0.1
port: {port}
security: none
sender: shop@example.com
unsubscribe_url: https://shop.example.com/unsubscribe
unsubscribe_secret: ${{LETTERS_SECRET:-sixteen-letters-of-a-secret}}
dry_run: false
---
kind: trigger
name: thanks
description: Thanks for an order.
on: {{seen: {{event: order_completed}}}}
do:
  - {{destination: letters, to: email, subject: Thanks, body: Thanks.}}
---
kind: source
name: receipts
description: What became of the messages we sent.
sql: {{url: "sqlite:///${{CDP_LAKE}}/ledger.sqlite", table: receipts, cursor: recorded_at, overlap: 1 day}}
grain: [receipt_id]
occurred_at: at
columns:
  receipt_id: {{type: string, required: true, description: The receipt.}}
  event: {{type: string, required: true, description: What became of it.}}
  at: {{type: timestamp, required: true, description: When.}}
  recorded_at: {{type: timestamp, required: true, description: When it was told.}}
  channel: {{type: string, description: By which channel.}}
  origin: {{type: string, description: What called for the message.}}
  email: {{type: string, normalise: email, identifier: email, pii: true, description: Where it went.}}
events:
  - {{column: event, names: [message_sent, message_bounced], channel: channel, properties: [origin]}}
"""


POLICY = """
---
kind: guard
name: good_customer
description: Good customers are called.
purposes: [news]
when: [{audience: good_customers}]
---
kind: contact_policy
name: contacts
description: One letter a week.
caps: [{channel: email, most: 1, within: 7 days}]
"""


def letter(person: str, to: str, op_id: str) -> Op:
    payload = {"to": to, "subject": "Thanks", "body": "Thanks."}
    return Op(op_id, "trigger:thanks", "letters", person, "act", payload, f"seen:{op_id}", "0")


def sent(ledger_url: str, project: Path, ops: list[Op], now: datetime) -> None:
    declared = load_project(project)
    with open_ledger(ledger_url) as ledger:
        ledger.send_once(ops, now)
        deliver_due(declared, ledger, lambda: now, worker="test")


def test_a_letter_that_bounced_is_told_and_the_next_is_not_sent(copy: Cdp, cdp: Here, tmp_path: Path) -> None:
    with Mailbox() as mailbox:
        (copy.project / "letters.yaml").write_text(DECLARED.format(port=mailbox.port))
        person, hal = (cdp.json("person", f"email:{name}@example.com")["person_id"] for name in ("fay", "hal"))
        url = f"sqlite:///{copy.lake / 'ledger.sqlite'}"
        sent(url, copy.project, [letter(person, "fay@example.com", "a1")], NOW - timedelta(minutes=10))
        assert [mail["To"] for mail in mailbox.messages] == ["fay@example.com"]

        told = tmp_path / "bounced.eml"
        fields = """
            Reporting-MTA: dns; mx.example.net

            Final-Recipient: rfc822; Fay@example.com
            Action: failed
            Status: 5.1.1
        """
        told.write_bytes(report(fields, f"Message-ID: {mailbox.messages[0]['Message-ID']}"))
        strange = tmp_path / "opened.jsonl"
        lines = [
            {"op_id": "a1", "event": "message_opened", "at": NOW.isoformat(), "address": "somebody@else.example"},
            {"op_id": "nobody's", "event": "message_bounced", "at": NOW.isoformat()},
        ]
        strange.write_text("\n".join(map(json.dumps, lines)))
        assert cdp.json("receipts", str(told), str(strange)) == [
            {"event": "message_bounced", "new": 1}, {"event": "message_sent", "new": 1}, {"event": "unknown", "new": 2},
        ]  # fmt: skip
        again = {row["event"]: row["new"] for row in cdp.json("receipts", str(told))}
        assert again["message_sent"] == 0 and not again.get("message_bounced")

        sent(url, copy.project, [letter(person, "fay@example.com", "a2")], datetime.now(UTC))
        assert len(mailbox.messages) == 1, "the address is known to be dead"

        sent(url, copy.project, [letter(hal, "hal@example.com", "b1")], datetime.now(UTC))
        (link,) = mailbox.messages[-1]["List-Unsubscribe"].strip("<>").split(">, <")[:1]
        clicked = {"link": link, "event": "message_unsubscribed", "at": datetime.now(UTC).isoformat()}
        strange.write_text(json.dumps(clicked))
        assert {"event": "message_unsubscribed", "new": 1} in cdp.json("receipts", str(strange))

    found = cdp.json("explain", "contact", "email:fay@example.com")
    first, second = (one for one in found["contacts"] if one["destination"] == "letters")
    assert (first["became"], [event for event, _ in first["receipts"]]) == ("sent", ["message_sent", "message_bounced"])
    assert (second["became"], second["reason"]) == ("not sent", "gate: suppressed: bounce")
    assert [(one["origin"], one["refused"]) for one in found["standing"]] == [
        ("trigger:thanks", "gate: suppressed: bounce")
    ]
    spoken = cdp("explain", "contact", "email:fay@example.com").out
    assert "trigger:thanks by email: would not be sent: a message to this address came back" in spoken
    assert "fay@example.com" not in spoken

    copy.run("run", 'key:"sources/receipts" or key:"profile/timeline"')
    events = [row["event"] for row in cdp.json("timeline", "email:fay@example.com")]
    assert "message_sent" in events and "message_bounced" in events


def test_what_would_keep_a_letter_now_is_told_guards_caps_and_quiet_hours_included(copy: Cdp, cdp: Here) -> None:
    with Mailbox() as mailbox:
        declared = DECLARED.format(port=mailbox.port).replace("on: {", "purpose: news\non: {")
        (copy.project / "letters.yaml").write_text(declared + POLICY)
        fay, hal = (cdp.json("person", f"email:{name}@example.com")["person_id"] for name in ("fay", "hal"))
        url, now = f"sqlite:///{copy.lake / 'ledger.sqlite'}", datetime.now(UTC)
        assert "nothing was ever decided" in cdp("explain", "contact", "email:hal@example.com").out
        assert "thanks by email: may be sent" in cdp("explain", "contact", "email:hal@example.com").out

        sent(url, copy.project, [letter(hal, "hal@example.com", "d1")], now)
        waits = Op("d2", "trigger:thanks", "letters", fay, "act", {}, "seen:d2", "0", state="held",
                   reason="guard: good_customer")  # fmt: skip
        with open_ledger(url) as ledger:
            ledger.send_once([waits], now)

        said = cdp("explain", "contact", "email:hal@example.com").out
        assert ": 1 operation\n" in said and "would not be sent: has had 1 in 7 days" in said
        said = cdp("explain", "contact", "email:fay@example.com").out
        assert "waits until no guard holds: kept by guard good_customer" in said
        assert "thanks by email: would not be sent: kept by guard good_customer" in said
        assert len(mailbox.messages) == 1, "to ask takes nobody's turn and sends nothing"


def test_a_click_that_was_answered_counts_though_the_receiver_was_killed_at_once(copy: Cdp, cdp: Here) -> None:
    port, url = free_port(), f"sqlite:///{copy.lake / 'ledger.sqlite'}"
    with Mailbox() as mailbox:
        (copy.project / "letters.yaml").write_text(DECLARED.format(port=mailbox.port))
        person = cdp.json("person", "email:hal@example.com")["person_id"]
        sent(url, copy.project, [letter(person, "hal@example.com", "c1")], NOW)
        link = urlsplit(mailbox.messages[0]["List-Unsubscribe"].strip("<>"))
        receiver = copy.start("receive", "--port", str(port))

        def called() -> http.client.HTTPConnection | None:
            assert receiver.returncode is None
            calling = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            try:
                calling.request("POST", f"{link.path}?{link.query}", "List-Unsubscribe=One-Click",
                                {"Content-Type": "application/x-www-form-urlencoded"})  # fmt: skip
            except ConnectionRefusedError:
                return None
            return calling

        try:
            calling = eventually(called, every=0.2)
            assert calling.getresponse().status == 200
        finally:
            receiver.kill()
            receiver.communicate()
        cdp.json("receipts")
        found = cdp.json("explain", "contact", "email:hal@example.com")
        assert [event for event, _ in found["contacts"][-1]["receipts"]] == ["message_sent", "message_unsubscribed"]
        sent(url, copy.project, [letter(person, "hal@example.com", "c2")], datetime.now(UTC))
        assert len(mailbox.messages) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"op_id": "a", "event": "message_lost", "at": "2026-01-01T00:00:00Z"}', "line 1: event should be one of"),
        ('{"op_id": "a", "event": "message_sent", "at": "2026-01-01T00:00:00"}', "line 1: 'at' needs a time zone"),
        ('{"op_id": "a", "event": "message_sent"}', "line 1: 'at' is missing"),
        (
            '{"link": "https://x.example/?op=a&proof=x", "event": "message_unsubscribed", "at": "2026-01-01T00:00Z"}',
            "line 1: the link is none of ours",
        ),
    ],
)
def test_what_is_no_receipt_is_named_by_its_line(cdp: Here, tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "told.jsonl"
    file.write_text(line)
    assert reason in cdp.complaint("receipts", str(file))

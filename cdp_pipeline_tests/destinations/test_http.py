"""What all connectors over HTTP share: what is read of an answer, and what of it may be repeated."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cdp_pipeline.destinations import http
from cdp_pipeline.destinations.http import HttpClient, code_word
from cdp_pipeline_tests.activation.projects import NOW
from cdp_pipeline_tests.destinations.servers import Answer, Receiver
from cdp_pipeline_tests.waiting import free_port

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("code", ["INVALID_FIELD", "VALIDATION_ERROR", "190", "100", "duplicate_profile"])
def test_an_error_code_may_be_told(code: str) -> None:
    assert code_word(code) == code


@pytest.mark.parametrize("said", ["ann@example.com", "Email ann is invalid", "+4915112345678", "4915112345678", "ann",
                                  "ann.smith", None, {"to": "ann"}])  # fmt: skip
def test_what_may_name_a_person_is_no_error_code(said: object) -> None:
    assert code_word(said) == ""


def test_an_answer_is_read_only_if_asked_for_and_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver(lambda _: Answer(200, body=b'{"results": [1, 2, 3]}')) as receiver:
        client = HttpClient(allow_private=True)

        def ask(reads: bool) -> http.Answer:
            return client.send("POST", receiver.url, b"{}", headers={}, timeout=MINUTE, now=NOW, reads=reads)

        assert ask(False).body == b""
        assert ask(True).json == {"results": [1, 2, 3]}
        monkeypatch.setattr(http, "MOST_READ", 10)
        assert (ask(True).state, ask(True).json) == ("delivered", {})
        client.close()


def test_what_was_never_sent_is_told_from_what_may_have_arrived() -> None:
    client = HttpClient(allow_private=True)
    nobody = client.send("GET", f"http://127.0.0.1:{free_port()}/", headers={}, timeout=MINUTE, now=NOW)
    with Receiver(lambda _: Answer(hang_up=True)) as receiver:
        silent = client.send("POST", receiver.url, b"{}", headers={}, timeout=MINUTE, now=NOW)
    client.close()
    assert (nobody.state, nobody.sent) == ("retry", False)
    assert (silent.state, silent.sent) == ("retry", True)

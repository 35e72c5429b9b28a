"""Slack: one message per operation to a channel or member, by chat.postMessage with a bot's token.

Slack knows no idempotency key, so a message whose fate is unknown is never repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from cdp_pipeline.activation.protocol import Closing, Delivery, Outcome
from cdp_pipeline.destinations.http import (
    WAIT_AFTER_REFUSED_KEY,
    Answer,
    HttpClient,
    code_word,
    json_bytes,
    one_by_one,
)
from cdp_pipeline.spec.destination import Slack

# Slack answers 200 and says in words what others say in a code. Of a code of 500 it tells that part may have happened.
MEANS = {
    401: (
        "invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope",
        "no_permission", "not_allowed_token_type", "org_login_required", "ekm_access_denied", "access_denied",
        "team_access_not_granted", "accesslimited", "two_factor_setup_required", "enterprise_is_restricted",
    ),
    403: (
        "channel_not_found", "not_in_channel", "is_archived", "restricted_action", "user_not_found",
        "restricted_action_read_only_channel", "restricted_action_thread_only_channel", "cannot_dm_bot",
        "messages_tab_disabled",
    ),
    429: ("ratelimited", "rate_limited", "message_limit_exceeded"),
    503: ("service_unavailable", "team_added_to_org"),
    500: ("fatal_error", "internal_error", "request_timeout"),
}  # fmt: skip
CODES = {word: code for code, words in MEANS.items() for word in words}


def connect(spec: Slack) -> SlackConnection:
    return SlackConnection(spec)


def escaped(text: str) -> str:
    """Text in which nothing of a person's data becomes a link or calls the whole channel (`<!channel>`)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class SlackConnection(Closing):
    """POSTs messages one by one; the answer's `error` says what its HTTP code (200) does not."""

    batch_size = 10
    repeatable = False

    def __init__(self, spec: Slack) -> None:
        self._spec = spec
        self._http = HttpClient(allow_private=spec.allow_private)

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        return one_by_one(batch, self._post, now=now, within=within, timeout=self._spec.timeout, repeatable=False)

    def _post(self, delivery: Delivery, now: datetime, timeout: timedelta) -> Answer:
        title, body = (escaped(str(delivery.payload.get(word) or "")).strip() for word in ("title", "body"))
        message = {
            "channel": self._spec.to,
            "text": f"*{' '.join(title.split())}*\n{body}" if title else body,
            "unfurl_links": False,
            "unfurl_media": False,
        }
        headers = {"Content-Type": "application/json; charset=utf-8", "Authorization": f"Bearer {self._spec.token}"}
        url = self._spec.url.rstrip("/") + "/chat.postMessage"
        return _judged(
            self._http.send("POST", url, json_bytes(message), headers=headers, timeout=timeout, now=now, reads=True)
        )

    def close(self) -> None:
        self._http.close()


def _judged(answer: Answer) -> Answer:
    """The answer, with Slack's own word for what went wrong; its prose and the echoed message are never told."""
    if answer.state != "delivered":
        return answer
    said = answer.json if isinstance(answer.json, dict) else {}
    if said.get("ok") is True:
        return answer
    error = str(said.get("error"))
    if code := CODES.get(error):
        after = WAIT_AFTER_REFUSED_KEY if code in (401, 403) else None
        return replace(answer, state="retry", reason=f"Slack: {error}", after=after, code=code)
    return replace(answer, state="failed", reason=f"Slack: {code_word(error) or 'refused'}")

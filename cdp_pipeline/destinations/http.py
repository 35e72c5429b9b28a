"""The HTTP client all connectors share: checked addresses, answers judged by their code, nothing echoed.

What a request says, and what becomes of the deliveries in it, is the connector's business.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx

from cdp_pipeline.activation.protocol import Delivery, Outcome, canonical_json
from cdp_pipeline.destinations.addresses import AddressRefusedError, Resolve, allowed_address, resolve

WAIT_AFTER_REFUSED_KEY = timedelta(minutes=15)
LONGEST_WAIT = timedelta(days=1)
SHORTEST_TRY = timedelta(seconds=1)
MOST_READ = 8 * 1024 * 1024
_RESTING_CODES = {401, 403, 429, 503}
_RETRY_CODES = {408, 425, 429}


@dataclass(frozen=True)
class Answer:
    """What came of one request, in the words of an Outcome.

    `sent`: it may have had an effect, even where no answer was heard. `body` is empty unless it was asked for; it may
    name people, so no part of it goes into a reason but codes that `code_word` lets pass.
    """

    state: Literal["delivered", "retry", "failed"]
    reason: str
    after: timedelta | None = None
    code: int | None = None
    sent: bool = True
    body: bytes = b""

    @property
    def rests(self) -> bool:
        """Whoever asks to wait, or does not answer, would answer the next request alike."""
        return self.state == "retry" and (self.code is None or self.code in _RESTING_CODES)

    @property
    def json(self) -> Any:
        """The body as JSON; an empty object where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def in_doubt(self) -> bool:
        """It may have had its effect: sent with no answer, or an error in the middle. 'Come back later' is no doubt."""
        code = self.code
        failed_midway = code is None or code == 408 or (code >= 500 and code != 503)
        return self.state == "retry" and self.sent and failed_midway

    def outcome(self, op_id: str, *, repeatable: bool = True) -> Outcome:
        """What became of a delivery; one in doubt is tried again only where a second time has no second effect."""
        if self.in_doubt and not repeatable:
            return Outcome(op_id, "unknown", self.reason, code=self.code)
        return Outcome(op_id, self.state, self.reason, self.after, self.code)


class HttpClient:
    """Dials only addresses that were checked, follows no redirects, and takes no settings from the environment."""

    def __init__(self, *, allow_private: bool = False, resolve: Resolve = resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        # No proxies and settings from the environment: they would dial another address than the one checked.
        self._client = httpx.Client(follow_redirects=False, trust_env=False)

    def send(
        self,
        method: str,
        url: str,
        content: bytes = b"",
        *,
        headers: Mapping[str, str],
        timeout: timedelta,
        now: datetime,
        reads: bool = False,
    ) -> Answer:
        """Make one request. `reads`: keep the answer's body, at most MOST_READ bytes of it."""
        target = httpx.URL(url)
        port = target.port or (443 if target.scheme == "https" else 80)
        try:
            address = allowed_address(target.host, port, allow_private=self._allow_private, resolve=self._resolve)
        except AddressRefusedError as refused:
            return Answer("failed", str(refused), sent=False)
        except OSError:
            return Answer("retry", "the host name cannot be resolved", sent=False)
        try:
            # The checked address is dialled, so a second, different answer of the name server changes nothing; TLS
            # still proves the host name.
            with self._client.stream(
                method,
                target.copy_with(host=address),
                content=content,
                headers={"Host": target.netloc.decode(), "User-Agent": "cdp-pipeline", **headers},
                timeout=timeout.total_seconds(),
                extensions={"sni_hostname": target.host},
            ) as response:
                body = _read(response) if reads else b""
                return judged(response.status_code, response.headers.get("retry-after"), now, body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return Answer("retry", f"no answer ({type(error).__name__})", sent=False)
        except httpx.HTTPError as error:
            return Answer("retry", f"no answer ({type(error).__name__})")

    def close(self) -> None:
        self._client.close()


def _read(response: httpx.Response) -> bytes:
    body = b""
    for part in response.iter_bytes():
        body += part
        if len(body) > MOST_READ:
            return b""
    return body


def judged(code: int, wait: str | None, now: datetime, body: bytes = b"") -> Answer:
    """2xx is delivered, other 4xx and redirects are refused for good, the rest is worth another try."""
    reason = f"HTTP {code}"
    if 200 <= code < 300:
        return Answer("delivered", reason, code=code, body=body)
    if code in (401, 403):
        return Answer("retry", f"{reason}: the secret is refused", WAIT_AFTER_REFUSED_KEY, code, body=body)
    if code in _RETRY_CODES or code >= 500:
        return Answer("retry", reason, retry_after(wait, now), code, body=body)
    return Answer("failed", reason + (": redirects are not followed" if code < 400 else ""), code=code, body=body)


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """How long a Retry-After header (seconds or a date) asks to wait; None where it says nothing usable."""
    if not header:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", header):
        wait = timedelta(seconds=int(header))
    else:
        try:
            at = parsedate_to_datetime(header)
        except (ValueError, TypeError):
            return None
        wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(max(wait, timedelta(0)), LONGEST_WAIT)


def json_bytes(value: Mapping[str, object]) -> bytes:
    """The canonical JSON of a request: the same value is always the same bytes."""
    return canonical_json(value).encode()


def code_word(value: object) -> str:
    """An error code of the other side (`INVALID_FIELD`, `190`) if it is only that: prose may repeat what we sent."""
    text = str(value) if value is not None else ""
    return text if re.fullmatch(r"[A-Z]+(_[A-Z0-9]+)*|[a-z]+(_[a-z0-9]+)+|\d{1,7}", text) else ""


def one_by_one(
    batch: Sequence[Delivery],
    send: Callable[[Delivery, datetime, timedelta], Answer],
    *,
    now: datetime,
    within: timedelta,
    timeout: timedelta,
    repeatable: bool = True,
) -> list[Outcome]:
    """One request for each delivery, in order, until the time is up or the other side takes no more."""
    started = time.monotonic()
    outcomes: list[Outcome] = []
    for position, delivery in enumerate(batch):
        passed = timedelta(seconds=time.monotonic() - started)
        if within - passed < SHORTEST_TRY:
            return outcomes + untried(batch[position:], "no time left in this round")
        answer = send(delivery, now + passed, min(timeout, within - passed))
        outcomes.append(answer.outcome(delivery.op_id, repeatable=repeatable))
        if answer.rests:
            return outcomes + untried(batch[position + 1 :], "the destination is not taking any", answer.after)
    return outcomes


def untried(rest: Sequence[Delivery], reason: str, after: timedelta | None = None) -> list[Outcome]:
    """Deliveries that were not attempted, with why, and when the destination wants to be asked again."""
    return [Outcome(delivery.op_id, "untried", reason, after) for delivery in rest]

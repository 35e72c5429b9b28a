"""The HTTP client all connectors share: checked addresses, answers judged by their code, nothing echoed.

What a request says, and what becomes of the deliveries in it, is the connector's business.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar

import aiohttp
from yarl import URL

from cdp_pipeline.activation.protocol import AddressIs, Delivery, Outcome, canonical_json
from cdp_pipeline.destinations.addresses import AddressRefusedError, Resolve, allowed_address, resolve

WAIT_AFTER_REFUSED_KEY = timedelta(minutes=15)
LONGEST_WAIT = timedelta(days=1)
SHORTEST_TRY = timedelta(seconds=1)
MOST_READ = 8 * 1024 * 1024
Parcel = TypeVar("Parcel")
MOST_AT_ONCE = 16
PROVEN_FOR_EACH = 4
ADDRESS_LASTS = 30.0
_DISCARDED = 64 * 1024
_CONNECTS_WITHIN = 0.9
"""A request's share of time for the connection, so that nobody there differs from no answer."""
_RESTING_CODES = {401, 403, 429, 503}
_RETRY_CODES = {408, 425, 429}


@dataclass(frozen=True)
class Answer:
    """What came of one request, in the words of an Outcome.

    `sent`: it may have had an effect, even where no answer was heard. `body` and `headers` (names in lower case) are
    empty unless they were asked for; they may name people, so no part of them goes into a reason but codes that
    `code_word` lets pass.
    """

    state: Literal["delivered", "retry", "failed"]
    reason: str
    after: timedelta | None = None
    code: int | None = None
    sent: bool = True
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    address: AddressIs | None = None

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
        # A 403 that fails one delivery is about that one alone (a device of another app, say).
        refused_us = self.state == "retry" and self.code in (401, 403)
        return Outcome(
            op_id, self.state, self.reason, self.after, self.code, refused_us=refused_us, address=self.address
        )


@dataclass(frozen=True)
class Request:
    """A POST: what it says, under which headers."""

    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpClient:
    """Dials only addresses that were checked, follows no redirects, and takes no settings from the environment.

    One thread at a time, and none that runs an event loop of its own.
    """

    def __init__(self, *, allow_private: bool = False, resolve: Resolve = resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._addresses: dict[tuple[str, int], tuple[str, float]] = {}
        self._proven = 0

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
        """Make one request. `reads`: keep the answer's headers and body, if that is no longer than MOST_READ."""
        return self._running().run_until_complete(
            self._send(method, URL(url), Request(content, headers), timeout, now, reads)
        )

    def post_each(
        self,
        url: str,
        parcels: Sequence[Parcel],
        request: Callable[[Parcel, datetime], Request],
        *,
        now: datetime,
        within: timedelta,
        timeout: timedelta,
        reads: bool = False,
    ) -> list[Answer]:
        """One POST for each parcel; fewer answers than parcels where the time is up or the other side takes no more.

        They go out in order, one at a time until the other side has taken some, then more and more at once: who takes
        nothing is asked once, not sixteen times.
        """
        return self._running().run_until_complete(
            self._post_each(URL(url), parcels, request, now, within, timeout, reads)
        )

    async def _post_each(
        self,
        url: URL,
        parcels: Sequence[Parcel],
        request: Callable[[Parcel, datetime], Request],
        now: datetime,
        within: timedelta,
        timeout: timedelta,
        reads: bool,
    ) -> list[Answer]:
        started, answers, rests, lines = time.monotonic(), dict[int, Answer](), False, 0

        async def line() -> None:
            nonlocal rests, lines
            lines += 1
            while len(answers) < len(parcels) and not rests:
                passed = timedelta(seconds=time.monotonic() - started)
                left = within - passed
                if left < SHORTEST_TRY:
                    break
                position = len(answers)
                answers[position] = _NOT_YET
                at = now + passed
                given = request(parcels[position], at)
                answer = await self._send("POST", url, given, min(timeout, left), at, reads)
                answers[position] = answer
                if answer.rests:
                    rests, self._proven = True, 0
                elif answer.state == "delivered":
                    self._proven += 1
                    if lines < min(MOST_AT_ONCE, self._proven // PROVEN_FOR_EACH):
                        group.create_task(line())
            lines -= 1

        async with asyncio.TaskGroup() as group:
            group.create_task(line())
        return [answers[position] for position in range(len(answers))]

    async def _send(
        self, method: str, url: URL, request: Request, timeout: timedelta, now: datetime, reads: bool
    ) -> Answer:
        host, port = url.host or "", url.port or 0
        try:
            address = self._checked(host, port)
        except AddressRefusedError as refused:
            return Answer("failed", str(refused), sent=False)
        except OSError:
            return Answer("retry", "the host name cannot be resolved", sent=False)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MOST_AT_ONCE), cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False, auto_decompress=True,
            )  # fmt: skip
        seconds = timeout.total_seconds()
        try:
            # The checked address is dialled, so a second, different answer of the name server changes nothing; TLS
            # still proves the host name.
            async with self._session.request(
                method,
                url.with_host(address),
                data=request.content,
                headers={"Host": url.host_port_subcomponent or host, "User-Agent": "cdp-pipeline", **request.headers},
                timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=seconds * _CONNECTS_WITHIN),
                allow_redirects=False,
                server_hostname=host if url.scheme == "https" else None,
            ) as response:
                body = await _read(response, MOST_READ if reads else _DISCARDED)
                answer = judged(response.status, response.headers.get("retry-after"), now)
                if not reads:
                    return answer
                headers = {name.lower(): value for name, value in response.headers.items()}
                return replace(answer, body=body, headers=headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Answer("retry", f"no answer ({type(error).__name__})", sent=False)
        except (aiohttp.ClientError, OSError) as error:
            return Answer("retry", f"no answer ({type(error).__name__})")

    def _checked(self, host: str, port: int) -> str:
        """The address to dial: asked for and checked again when it is half a minute old."""
        address, until = self._addresses.get((host, port), ("", 0.0))
        if until < time.monotonic():
            address = allowed_address(host, port, allow_private=self._allow_private, resolve=self._resolve)
            self._addresses[host, port] = address, time.monotonic() + ADDRESS_LASTS
        return address

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        else:
            # Hear first who has hung up since: a request into a line that is dead would be in doubt.
            self._loop.run_until_complete(_hear())
        return self._loop

    def close(self) -> None:
        if self._loop is not None:
            if self._session is not None:
                self._loop.run_until_complete(self._session.close())
                self._session = None
            self._loop.close()
            self._loop = None


_NOT_YET = Answer("retry", "under way")


async def _hear() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    body = b""
    async for part in response.content.iter_any():
        body += part
        if len(body) > most:
            response.close()
            return b""
    return body


def judged(code: int, wait: str | None, now: datetime) -> Answer:
    """2xx is delivered, other 4xx and redirects are refused for good, the rest is worth another try."""
    reason = f"HTTP {code}"
    if 200 <= code < 300:
        return Answer("delivered", reason, code=code)
    if code in (401, 403):
        return Answer("retry", f"{reason}: the secret is refused", WAIT_AFTER_REFUSED_KEY, code)
    if code in _RETRY_CODES or code >= 500:
        return Answer("retry", reason, retry_after(wait, now), code)
    return Answer("failed", reason + (": redirects are not followed" if code < 400 else ""), code=code)


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

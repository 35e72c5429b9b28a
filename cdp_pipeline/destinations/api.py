"""What connectors of batch APIs share: calls in order until the time is up, and who in a refused call was to blame.

What is called, and what an answer says about whom, is the connector's business.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from cdp_pipeline.activation.protocol import Closing, Delivery, Outcome, may_repeat
from cdp_pipeline.destinations.http import (
    SHORTEST_TRY,
    WAIT_AFTER_REFUSED_KEY,
    Answer,
    HttpClient,
    json_bytes,
    untried,
)
from cdp_pipeline.spec.destination import Api, Crm

STATE_KINDS = frozenset({"add", "update", "remove"})
"""What a sync does to records: done twice it is done once, wherever records have keys."""
# 414 and 431: a look-up of many was too long for an address.
_BLAMES_ONE = {400, 409, 413, 414, 422, 431}
_OAUTH_LIFE, _RENEWED_BEFORE = timedelta(minutes=30), timedelta(minutes=1)


class Round:
    """The time there is for one round of calls; `now` moves on with it."""

    def __init__(self, now: datetime, within: timedelta, timeout: timedelta) -> None:
        self._began, self._now, self._within, self._timeout = time.monotonic(), now, within, timeout

    @property
    def passed(self) -> timedelta:
        return timedelta(seconds=time.monotonic() - self._began)

    @property
    def now(self) -> datetime:
        return self._now + self.passed

    @property
    def timeout(self) -> timedelta:
        """For the next request: never none at all, so that what was begun comes to its end."""
        return max(min(self._timeout, self._within - self.passed), SHORTEST_TRY)

    @property
    def over(self) -> bool:
        return self._within - self.passed < SHORTEST_TRY


Said = Answer | dict[str, Outcome]
Call = Callable[[Sequence[Delivery], Round], Said]
"""Carries some deliveries out: one Answer for all of them, or an outcome for each by op_id."""


Spec = TypeVar("Spec", bound=Api)
CrmSpec = TypeVar("CrmSpec", bound=Crm)


class ApiConnection(Closing, Generic[Spec]):
    """Makes the calls that `calls` arranges a batch in.

    A call that is refused as a whole without a word about whom is made again in halves, until it is clear who is
    refused. One that is asked to wait ends the round: one attempt is charged, the rest are untried.
    """

    batch_size = 100
    repeatable: bool | frozenset[str] = True

    def __init__(self, spec: Spec, bearer: str = "") -> None:
        self.spec, self.bearer = spec, bearer
        self.http = HttpClient(allow_private=spec.allow_private)
        self._url, self._timeout = spec.url.rstrip("/"), spec.timeout

    def calls(self, batch: Sequence[Delivery]) -> Iterable[tuple[Sequence[Delivery], Call]]:
        raise NotImplementedError

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.bearer}"}

    def request(self, method: str, path: str, value: Mapping[str, object] | None, at: Round) -> Answer:
        """One request with a JSON body (None: without a body), its answer read."""
        return self.http.send(
            method,
            self._url + path,
            b"" if value is None else json_bytes(value),
            headers={"Content-Type": "application/json", "Accept": "application/json", **self.headers()},
            timeout=at.timeout,
            now=at.now,
            reads=True,
        )

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        at, outcomes = Round(now, within, self._timeout), dict[str, Outcome]()
        waiting = deque(self.calls(batch))
        while waiting:
            part, call = waiting.popleft()
            if at.over:
                waiting.appendleft((part, call))
                outcomes |= _left(waiting, "no time left in this round", None)
                break
            said = call(part, at)
            if isinstance(said, dict):
                outcomes |= said
            elif said.state == "failed" and said.code in _BLAMES_ONE and len(part) > 1:
                middle = len(part) // 2
                waiting.extendleft([(part[middle:], call), (part[:middle], call)])
            else:
                outcomes |= self._heard(part, said)
                if said.rests:
                    outcomes |= _left(waiting, "the destination is not taking any", said.after)
                    break
        return [outcomes[delivery.op_id] for delivery in batch]

    def _heard(self, part: Sequence[Delivery], said: Answer) -> dict[str, Outcome]:
        # Of those in doubt any may have had its effect: all of them are attempts.
        if said.rests and not said.in_doubt:
            rest = untried(part[1:], "the destination is not taking any", said.after)
            return {each.op_id: each for each in [said.outcome(part[0].op_id), *rest]}
        return {
            each.op_id: said.outcome(each.op_id, repeatable=may_repeat(self.repeatable, each.kind)) for each in part
        }

    def close(self) -> None:
        self.http.close()


class CrmConnection(ApiConnection[CrmSpec]):
    """Of a tool that holds people: puts there who is to be there, takes out who is not, and makes tasks of acts.

    `knows_operations`: it keeps an operation's id with a task, so that one that is made again is the same one.
    `owner_field`: what a task calls its owner, who in a mapping may be an id or an e-mail address.
    """

    owner_field: str
    no_owner = "the owner is no user there"

    def __init__(self, spec: CrmSpec, bearer: str = "", *, knows_operations: bool) -> None:
        super().__init__(spec, bearer)
        self.repeatable = True if knows_operations else STATE_KINDS | {"entered", "left"}

    def calls(self, batch: Sequence[Delivery]) -> Iterable[tuple[Sequence[Delivery], Call]]:
        by_kind = dict.fromkeys(("add", "update", "entered"), self._upsert)
        by_kind |= dict.fromkeys(("remove", "left"), self._take_out)
        for part in groups(batch):
            for call in (self._upsert, self._take_out, self._tasks):
                if some := [each for each in part if by_kind.get(each.kind, self._tasks) == call]:
                    yield some, call

    def _upsert(self, part: Sequence[Delivery], at: Round) -> Said:
        raise NotImplementedError

    def _take_out(self, part: Sequence[Delivery], at: Round) -> Said:
        raise NotImplementedError

    def _tasks(self, part: Sequence[Delivery], at: Round) -> Said:
        """Tasks about whom the key in the mapping names; its other fields are the task's."""
        about = self._about({str(key) for each in part if (key := fields(each).get(self.spec.key))}, at)
        if isinstance(about, Answer):
            return about
        named = {str(fields(each).get(self.owner_field) or "").lower() for each in part}
        owners = self._owners({owner for owner in named if "@" in owner}, at)
        if isinstance(owners, Answer):
            return owners
        outcomes, ready, tasks = dict[str, Outcome](), list[Delivery](), list[dict[str, object]]()
        for each in part:
            data = fields(each)
            key, owner = (str(data.pop(name, "") or "") for name in (self.spec.key, self.owner_field))
            if not key:
                outcomes |= refused([each], f"no '{self.spec.key}' in its mapping")
            elif key.lower() not in about:
                outcomes |= refused([each], f"nobody there has this {self.spec.key}")
            elif "@" in owner and owner.lower() not in owners:
                outcomes |= refused([each], self.no_owner)
            else:
                ready.append(each)
                tasks.append(self._task(each, data, about[key.lower()], owners.get(owner.lower(), owner), at))
        if not ready:
            return outcomes
        said = self._make(ready, tasks, about, at)
        if isinstance(said, Answer) and said.state == "delivered":
            said = told(ready, {}, said)
        return outcomes | said if isinstance(said, dict) else said

    def _about(self, keys: set[str], at: Round) -> dict[str, str] | Answer:
        """The ids of whom tasks are about, by their keys in lower case."""
        raise NotImplementedError

    def _owners(self, addresses: set[str], at: Round) -> dict[str, str] | Answer:
        """The ids of those with these e-mail addresses who can own a task, by address in lower case."""
        raise NotImplementedError

    def _task(
        self, delivery: Delivery, data: dict[str, object], about: str, owner: str, at: Round
    ) -> dict[str, object]:
        raise NotImplementedError

    def _make(
        self, part: Sequence[Delivery], tasks: Sequence[Mapping[str, object]], about: Mapping[str, str], at: Round
    ) -> Said:
        raise NotImplementedError


def _left(waiting: Iterable[tuple[Sequence[Delivery], Call]], why: str, after: timedelta | None) -> dict[str, Outcome]:
    return {outcome.op_id: outcome for part, _ in waiting for outcome in untried(part, why, after)}


def refused(part: Iterable[Delivery], reason: str) -> dict[str, Outcome]:
    """Deliveries that nobody is asked about: they lack something."""
    return {each.op_id: Outcome(each.op_id, "failed", reason) for each in part}


def told(part: Sequence[Delivery], outcomes: Mapping[str, Outcome], answer: Answer) -> dict[str, Outcome]:
    """An outcome for each: what was said about it, and delivered where nothing was."""
    return {each.op_id: outcomes.get(each.op_id) or Outcome(each.op_id, "delivered", answer.reason, code=answer.code)
            for each in part}  # fmt: skip


def groups(batch: Sequence[Delivery], *, most: int | None = None) -> list[list[Delivery]]:
    """The deliveries in parts for one call each: in order, none over `most`, no key twice in one."""
    found: list[list[Delivery]] = []
    keys: list[set[str]] = []
    for delivery in batch:
        key = str(delivery.payload.get("key", delivery.op_id)).lower()
        # Behind whatever is decided for the same key, so that the last word about it is the last one said.
        place = max((i + 1 for i, taken in enumerate(keys) if key in taken), default=0)
        while place < len(found) and most is not None and len(found[place]) >= most:
            place += 1
        if place == len(found):
            found.append([])
            keys.append(set())
        found[place].append(delivery)
        keys[place].add(key)
    return found


def parted(batch: Iterable[Delivery], test: Callable[[Delivery], object]) -> tuple[list[Delivery], list[Delivery]]:
    """Those that pass a test, and those that do not."""
    found: tuple[list[Delivery], list[Delivery]] = ([], [])
    for each in batch:
        found[0 if test(each) else 1].append(each)
    return found


def told_in(answer: Answer) -> dict[str, Any]:
    """The object an answer's body is; empty where it is none."""
    return answer.json if isinstance(answer.json, dict) else {}


def strange(answer: Answer) -> Answer:
    """A success in words that are not the service's (a proxy's page, say): nobody knows what became of the call."""
    return replace(answer, state="retry", reason=f"{answer.reason} with an answer that is not the service's", code=502)


def listed(answer: Answer, name: str) -> list[dict[str, Any]]:
    """The objects in a list of an answer's body."""
    found = told_in(answer).get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def fields(delivery: Delivery) -> dict[str, object]:
    """What the mapping sends."""
    data = delivery.payload.get("data")
    return dict(data) if isinstance(data, Mapping) else {}


def source(delivery: Delivery) -> str:
    """The name of the sync or trigger it comes from."""
    return str(delivery.payload.get("type", "")).partition(".")[2]


class AccessToken:
    """An OAuth 2.0 access token, asked for when it is needed and again before it ends."""

    def __init__(self, http: HttpClient, url: str, form: Mapping[str, str]) -> None:
        self._http, self._url, self._form = http, url, form
        self._token, self._ends = "", datetime.min

    def get(self, at: Round) -> str | Answer:
        """The token, or the answer that tells why there is none."""
        now = at.now.replace(tzinfo=None)
        if self._token and now < self._ends - _RENEWED_BEFORE:
            return self._token
        answer = self._http.send(
            "POST",
            self._url,
            urlencode(self._form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            timeout=at.timeout,
            now=at.now,
            reads=True,
        )
        said = told_in(answer)
        if answer.state == "delivered" and isinstance(said.get("access_token"), str):
            seconds = said.get("expires_in")
            self._token = said["access_token"]
            self._ends = now + (timedelta(seconds=seconds) if isinstance(seconds, int | float) else _OAUTH_LIFE)
            return self._token
        if answer.state == "retry" or answer.code is None:
            return replace(answer, reason=f"no access token: {answer.reason}", sent=False)
        # 400 invalid_grant or invalid_client: the fault of the secret, not of anybody in the batch.
        reason = f"no access token: HTTP {answer.code}: the secret is refused"
        return Answer("retry", reason, WAIT_AFTER_REFUSED_KEY, 401, sent=False)

    def forget(self) -> None:
        self._token = ""

"""A Custom Audience of Meta: people added and removed by hashed identifiers. Advertising itself is none of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from cdp_pipeline.activation.protocol import Delivery
from cdp_pipeline.destinations.api import ApiConnection, Call, Round, Said, fields, groups, refused, strange, told_in
from cdp_pipeline.destinations.http import WAIT_AFTER_REFUSED_KEY, Answer, code_word
from cdp_pipeline.destinations.identifiers import meta_row
from cdp_pipeline.spec.destination import MetaAudience

RATE_CODES = {4, 17, 32, 613, *range(80000, 80015)}
TOKEN_CODES = {10, 102, 190, *range(200, 300)}
PASSING_CODES = {1, 2}
USUAL_WAIT = timedelta(minutes=5)


def connect(spec: MetaAudience) -> MetaAudienceConnection:
    return MetaAudienceConnection(spec, spec.token)


class MetaAudienceConnection(ApiConnection[MetaAudience]):
    """Adds and removes up to 10,000 people a call.

    An answer counts the entries it refused and does not say which: halves of the call find them, and adding or removing
    somebody twice is doing it once.
    """

    batch_size = 10_000
    repeatable = True

    def __init__(self, spec: MetaAudience, bearer: str) -> None:
        super().__init__(spec, bearer)
        self._path = f"/{spec.version}/{spec.audience_id}/users"

    def calls(self, batch: Sequence[Delivery]) -> Iterable[tuple[Sequence[Delivery], Call]]:
        for part in groups(batch, most=self.batch_size):
            known = {each.op_id: meta_row(fields(each)) for each in part}
            if nobody := [each for each in part if not known[each.op_id]]:
                yield nobody, lambda part, at: refused(part, "no identifier that Meta takes")
            for leaves in (False, True):
                some = [each for each in part if known[each.op_id] and (each.kind in ("remove", "left")) is leaves]
                if some:
                    yield some, self._remove if leaves else self._add

    def _add(self, part: Sequence[Delivery], at: Round) -> Said:
        return self._users("POST", part, at)

    def _remove(self, part: Sequence[Delivery], at: Round) -> Said:
        return self._users("DELETE", part, at)

    def _users(self, method: str, part: Sequence[Delivery], at: Round) -> Said:
        rows = [meta_row(fields(each)) for each in part]
        schema = sorted({column for row in rows for column in row})
        data: list[list[object]] = [[row.get(column, "") for column in schema] for row in rows]
        if self.spec.limited_data_use and method == "POST":
            schema, data = [*schema, "DATA_PROCESSING_OPTIONS"], [[*row, ["LDU"]] for row in data]
        answer = judged(self.request(method, self._path, {"payload": {"schema": schema, "data": data}}, at))
        if answer.state == "failed" and answer.code == 400:
            # An error of the Graph API is about the audience, the token or the terms; entries are only counted.
            return {each.op_id: answer.outcome(each.op_id) for each in part}
        if answer.state != "delivered":
            return answer
        invalid = told_in(answer).get("num_invalid_entries")
        if not isinstance(invalid, int):
            return strange(answer)
        if invalid <= 0:
            return answer
        # As a refusal of the whole call: it is made again in halves until each refused entry stands alone.
        verdict = replace(answer, state="failed", reason="an entry that Meta calls invalid", code=400)
        return verdict if invalid < len(part) else {each.op_id: verdict.outcome(each.op_id) for each in part}


def judged(answer: Answer) -> Answer:
    """The Graph API says nearly everything with HTTP 400: what it means is in the error's code."""
    error = told_in(answer).get("error")
    if answer.state == "delivered" or not isinstance(error, dict) or not isinstance(error.get("code"), int):
        return answer
    code, subcode = error["code"], code_word(error.get("error_subcode"))
    reason = f"HTTP {answer.code}, Meta {code}" + (f"/{subcode}" if subcode else "")
    if code in RATE_CODES:
        return replace(answer, state="retry", reason=reason, after=_regained(answer.headers) or USUAL_WAIT, code=429)
    if code in TOKEN_CODES:
        reason += ": the token is refused"
        return replace(answer, state="retry", reason=reason, after=WAIT_AFTER_REFUSED_KEY, code=401)
    if code in PASSING_CODES or error.get("is_transient") is True:
        return replace(answer, state="retry", reason=reason, code=503)
    return replace(answer, reason=reason)


def _regained(headers: Mapping[str, str]) -> timedelta | None:
    """How many minutes the business use case's header estimates until calls are let through again."""
    try:
        usage = json.loads(headers.get("x-business-use-case-usage", "{}"))
    except ValueError:
        return None
    uses = [use for each in usage.values() if isinstance(each, list) for use in each] if isinstance(usage, dict) else []
    minutes = [use.get("estimated_time_to_regain_access") for use in uses if isinstance(use, dict)]
    known = [minute for minute in minutes if isinstance(minute, int) and 0 < minute <= 1440]
    return timedelta(minutes=max(known)) if known else None

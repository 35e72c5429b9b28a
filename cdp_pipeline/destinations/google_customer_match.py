"""A Customer Match list of Google Ads through the Data Manager API: people added and removed by hashed identifiers.

Google takes a request and says hours later what became of it: the operations in it wait with its id until then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline.destinations.api import (
    AccessToken,
    ApiConnection,
    Call,
    Round,
    Said,
    fields,
    groups,
    listed,
    parted,
    refused,
    strange,
    told_in,
)
from cdp_pipeline.destinations.http import Answer, code_word
from cdp_pipeline.destinations.identifiers import google_identifiers
from cdp_pipeline.spec.destination import GoogleCustomerMatch

ASKED_AGAIN = timedelta(minutes=30)
GIVEN_UP = timedelta(days=2)
"""Google says a status may take a day."""


def connect(spec: GoogleCustomerMatch) -> GoogleCustomerMatchConnection:
    return GoogleCustomerMatchConnection(spec)


class GoogleCustomerMatchConnection(ApiConnection[GoogleCustomerMatch]):
    """Ingests and removes up to 10,000 people a request, and asks what became of requests made before.

    A request with a bad member is refused as a whole, with the positions of the bad ones: the others go again without
    them. What it cannot use later, Google counts by reason and does not say whom: the reason tells it of all.
    """

    batch_size = 10_000
    repeatable = True

    def __init__(self, spec: GoogleCustomerMatch) -> None:
        super().__init__(spec)
        form = {
            "grant_type": "refresh_token", "client_id": spec.client_id, "client_secret": spec.client_secret,
            "refresh_token": spec.refresh_token,
        }  # fmt: skip
        self._token = AccessToken(self.http, spec.token_url, form)

    def calls(self, batch: Sequence[Delivery]) -> Iterable[tuple[Sequence[Delivery], Call]]:
        asked = dict[str, list[Delivery]]()
        for each in batch:
            if each.reference:
                asked.setdefault(each.reference, []).append(each)
        for part in asked.values():
            yield part, self._ask_after
        for part in groups([each for each in batch if not each.reference], most=self.batch_size):
            known, nobody = parted(part, lambda each: google_identifiers(fields(each)))
            if nobody:
                yield nobody, lambda part, at: refused(part, "no identifier that Google takes")
            for leaves in (False, True):
                if some := [each for each in known if (each.kind in ("remove", "left")) is leaves]:
                    yield some, self._remove if leaves else self._ingest

    def _ingest(self, part: Sequence[Delivery], at: Round) -> Said:
        said = {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
        return self._send("ingest", part, {"termsOfService": said, **self._consent()}, at)

    def _remove(self, part: Sequence[Delivery], at: Round) -> Said:
        return self._send("remove", part, {}, at)

    def _consent(self) -> dict[str, object]:
        given = {"adUserData": self.spec.ad_user_data, "adPersonalization": self.spec.ad_personalization}
        consent = {name: f"CONSENT_{value.upper()}" for name, value in given.items() if value is not None}
        return {"consent": consent} if consent else {}

    def _send(self, verb: str, part: Sequence[Delivery], more: Mapping[str, object], at: Round) -> Said:
        account = {"accountType": "GOOGLE_ADS", "accountId": self.spec.account_id}
        destination: dict[str, object] = {"operatingAccount": account, "productDestinationId": self.spec.list_id}
        if self.spec.login_account_id is not None:
            destination["loginAccount"] = {"accountType": "GOOGLE_ADS", "accountId": self.spec.login_account_id}
        outcomes, waiting = dict[str, Outcome](), list(part)
        while waiting:
            members = [{"userData": {"userIdentifiers": google_identifiers(fields(each))}} for each in waiting]
            request = {"destinations": [destination], "audienceMembers": members, "encoding": "HEX", **more}
            answer = self._call("POST", f"/v1/audienceMembers:{verb}", request, at)
            places = _positions(answer) if answer.code == 400 else {}
            bad = {each.op_id: places[i] for i, each in enumerate(waiting) if i in places}
            if not bad or at.over:
                break
            outcomes |= {op_id: Outcome(op_id, "failed", f"HTTP 400, {why}", code=400) for op_id, why in bad.items()}
            waiting = [each for each in waiting if each.op_id not in bad]
        if not waiting:
            return outcomes
        if answer.state != "delivered":
            # A refusal that names no member is about the list, the account or the terms: halves would fare no better.
            if answer.state == "retry" and (not outcomes or answer.rests):
                return answer
            return outcomes | {each.op_id: answer.outcome(each.op_id) for each in waiting}
        if not told_in(answer).get("requestId"):
            return outcomes | {each.op_id: strange(answer).outcome(each.op_id) for each in waiting}
        reference = f"{told_in(answer)['requestId']}@{at.now.isoformat(timespec='seconds')}"
        said = self._ask_after([each._replace(reference=reference) for each in waiting], at)
        if isinstance(said, Answer):
            # Taken, whatever became of the question.
            said = {each.op_id: _accepted(each.op_id, reference) for each in waiting}
        return outcomes | said

    def _ask_after(self, part: Sequence[Delivery], at: Round) -> Said:
        """What became of the request all of these were in."""
        reference = part[0].reference
        request, _, since = reference.rpartition("@")
        answer = self._call("GET", f"/v1/requestStatus:retrieve?requestId={quote(request, safe='')}", None, at)
        if answer.state == "failed":
            # Nobody knows the request any more: done again, it has the same effect.
            return {each.op_id: Outcome(each.op_id, "retry", answer.reason, code=answer.code) for each in part}
        if answer.state == "retry":
            later = _accepted("", reference)._replace(reason=answer.reason, after=answer.after or ASKED_AGAIN)
            return {each.op_id: later._replace(op_id=each.op_id) for each in part}
        found = listed(answer, "requestStatusPerDestination")
        status = str(found[0].get("requestStatus")) if found else "PROCESSING"
        if status == "SUCCESS":
            return {each.op_id: Outcome(each.op_id, "delivered", "SUCCESS", code=200) for each in part}
        if status in ("FAILED", "PARTIAL_SUCCESS"):
            state = "delivered" if status == "PARTIAL_SUCCESS" else "retry"
            reason = f"{status}: {_counted(found[0])}"
            return {each.op_id: Outcome(each.op_id, state, reason, code=200) for each in part}  # type: ignore[arg-type]
        if at.now - datetime.fromisoformat(since) > GIVEN_UP:
            reason = "still in process after two days"
            return {each.op_id: Outcome(each.op_id, "retry", reason, code=200) for each in part}
        return {each.op_id: _accepted(each.op_id, reference) for each in part}

    def _call(self, method: str, path: str, value: Mapping[str, object] | None, at: Round) -> Answer:
        token = self._token.get(at)
        if isinstance(token, Answer):
            return token
        self.bearer = token
        answer = self.request(method, path, value, at)
        if answer.code == 401:
            self._token.forget()
        error = told_in(answer).get("error") or {}
        details = error.get("details")
        # ErrorInfo's reason says more (TERMS_AND_CONDITIONS_NOT_SIGNED) than the status (INVALID_ARGUMENT).
        reasons = [
            each.get("reason") for each in (details if isinstance(details, list) else []) if isinstance(each, dict)
        ]
        why = next((word for each in [*reasons, error.get("status")] if (word := code_word(each))), "")
        return replace(answer, reason=f"{answer.reason}, {why}") if why else answer


def _accepted(op_id: str, reference: str) -> Outcome:
    return Outcome(op_id, "accepted", "in process at Google", ASKED_AGAIN, 200, reference)


def _counted(status: Mapping[str, Any]) -> str:
    """How many records Google could not use, by reason."""
    counts = (status.get("errorInfo") or {}).get("errorCounts")
    said = [
        f"{count.get('recordCount') if str(count.get('recordCount')).isdigit() else 'some'} {word}"
        for count in (counts if isinstance(counts, list) else [])
        if isinstance(count, dict) and (word := code_word(count.get("reason")))
    ]
    return ", ".join(sorted(said)) or "no reason given"


def _positions(answer: Answer) -> dict[int, str]:
    """Which members a refusal names, and why: `audience_members[3].user_data…` in its field violations."""
    details = (told_in(answer).get("error") or {}).get("details")
    violations = [
        violation
        for detail in (details if isinstance(details, list) else [])
        if isinstance(detail, dict)
        for violation in detail.get("fieldViolations") or []
        if isinstance(violation, dict)
    ]
    found = dict[int, str]()
    for violation in violations:
        place = re.search(r"audience_?[mM]embers(?:\.audience_members)?\[(\d+)\]", str(violation.get("field")))
        if place is not None:
            found[int(place[1])] = code_word(violation.get("reason")) or "INVALID_ARGUMENT"
    return found

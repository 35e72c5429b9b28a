"""Klaviyo: profiles by bulk import, a list of members, and events that flows start from.

An import is a job: its operations wait with its id until it is complete and its errors say who was refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline.destinations.api import (
    ApiConnection,
    Call,
    Round,
    Said,
    fields,
    groups,
    listed,
    parted,
    refused,
    source,
    strange,
    told_in,
)
from cdp_pipeline.destinations.http import Answer, code_word
from cdp_pipeline.spec.destination import Klaviyo

FOUND_BY = ("email", "phone_number", "external_id")
PROFILE = (*FOUND_BY, "first_name", "last_name", "organization", "locale", "title", "image")
LOCATION = ("address1", "address2", "city", "country", "region", "zip", "timezone")
ASKED_AGAIN = timedelta(seconds=30)
MOST_LOOKED_UP = 100


def connect(spec: Klaviyo) -> KlaviyoConnection:
    return KlaviyoConnection(spec)


def profile(data: Mapping[str, object]) -> dict[str, object]:
    """A profile: Klaviyo's own fields, the parts of an address under `location`, all else as properties."""
    own: dict[str, object] = {name: data[name] for name in PROFILE if name in data}
    for found_by in FOUND_BY:
        if own.get(found_by) in (None, ""):
            own.pop(found_by, None)
    if location := {name: data[name] for name in LOCATION if name in data}:
        own["location"] = location
    if more := {name: value for name, value in data.items() if name not in PROFILE and name not in LOCATION}:
        own["properties"] = more
    return own


class KlaviyoConnection(ApiConnection[Klaviyo]):
    """Imports up to 1,000 profiles a job, takes members off the list, and creates events one by one."""

    # Klaviyo takes 10,000 profiles or five megabytes.
    batch_size = 1000
    repeatable = True

    def headers(self) -> Mapping[str, str]:
        kind = "application/vnd.api+json"
        key = f"Klaviyo-API-Key {self.spec.api_key}"
        return {"Authorization": key, "revision": self.spec.revision, "Content-Type": kind, "Accept": kind}

    def calls(self, batch: Sequence[Delivery]) -> Iterable[tuple[Sequence[Delivery], Call]]:
        asked, fresh = dict[str, list[Delivery]](), list[Delivery]()
        for each in batch:
            if each.reference:
                asked.setdefault(each.reference.rpartition(":")[0], []).append(each)
            else:
                fresh.append(each)
        for part in asked.values():
            yield part, self._ask_after
        known, nobody = parted(fresh, lambda each: any(fields(each).get(name) for name in FOUND_BY))
        if nobody:
            yield nobody, lambda part, at: refused(part, f"none of {', '.join(FOUND_BY)} in its mapping")
        for part in groups(known):
            if members := [each for each in part if each.kind in ("add", "update")]:
                yield members, self._import
            for kind in FOUND_BY:
                leavers = [each for each in part if each.kind == "remove" and _known_by(each) == kind]
                for start in range(0, len(leavers), MOST_LOOKED_UP):
                    yield leavers[start : start + MOST_LOOKED_UP], self._take_off
            for each in part:
                if each.kind not in ("add", "update", "remove"):
                    yield [each], self._event

    def _import(self, part: Sequence[Delivery], at: Round) -> Said:
        job: dict[str, object] = {
            "type": "profile-bulk-import-job",
            "attributes": {
                "profiles": {"data": [{"type": "profile", "attributes": profile(fields(each))} for each in part]}
            },
        }
        if self.spec.list_id is not None:
            job["relationships"] = {"lists": {"data": [{"type": "list", "id": self.spec.list_id}]}}
        answer = _named(self.request("POST", "/api/profile-bulk-import-jobs", {"data": job}, at))
        if answer.state != "delivered":
            return answer
        number = str((told_in(answer).get("data") or {}).get("id") or "")
        if not number:
            return strange(answer)
        taken = [each._replace(reference=f"{number}:{i}") for i, each in enumerate(part)]
        said = self._ask_after(taken, at)
        return said if isinstance(said, dict) else {each.op_id: _accepted(each) for each in taken}

    def _ask_after(self, part: Sequence[Delivery], at: Round) -> Said:
        """What became of an import all of these were in, each at its place."""
        job = quote(part[0].reference.rpartition(":")[0], safe="")
        answer = _named(self.request("GET", f"/api/profile-bulk-import-jobs/{job}", None, at))
        if answer.state == "failed":
            # The job is forgotten: done again, it has the same effect.
            return {each.op_id: Outcome(each.op_id, "retry", answer.reason, code=answer.code) for each in part}
        if answer.state == "retry":
            return {
                each.op_id: _accepted(each)._replace(reason=answer.reason, after=answer.after or ASKED_AGAIN)
                for each in part
            }
        told = (told_in(answer).get("data") or {}).get("attributes") or {}
        if told.get("status") in ("queued", "processing"):
            return {each.op_id: _accepted(each) for each in part}
        if told.get("status") != "complete":
            return {each.op_id: Outcome(each.op_id, "retry", "the import was cancelled", code=200) for each in part}
        errors = self._errors(job, at) if told.get("failed_count") else {}
        if isinstance(errors, Answer):
            return {each.op_id: _accepted(each)._replace(reason=errors.reason) for each in part}
        # An error that points at nobody: somebody was refused, and nobody says who.
        taken = "imported" if None not in errors else f"imported, but some in this import were refused: {errors[None]}"
        outcomes = dict[str, Outcome]()
        for each in part:
            bad = errors.get(int(each.reference.rpartition(":")[2])) or errors.get(_named_as(profile(fields(each))))
            outcomes[each.op_id] = (
                Outcome(each.op_id, "delivered", taken, code=200)
                if bad is None
                else Outcome(each.op_id, "failed", f"import error: {bad}", code=200)
            )
        return outcomes

    def _errors(self, job: str, at: Round) -> dict[int | str | None, str] | Answer:
        """Why profiles were refused: by their place in the import, else by who they are, else (None) by neither.

        The answers repeat the profiles, we do not. Klaviyo's reference promises a JSON pointer and the profile as it
        was sent, but not how deep the pointer leads.
        """
        found = dict[int | str | None, str]()
        path = f"/api/profile-bulk-import-jobs/{job}/import-errors?page%5Bsize%5D=100"
        while path:
            answer = self.request("GET", path, None, at)
            if answer.state != "delivered":
                return answer
            for each in listed(answer, "data"):
                said = each.get("attributes") or {}
                place = re.search(r"/profiles/data/(\d+)", str((said.get("source") or {}).get("pointer")))
                who = None if place else _named_as(said.get("original_payload") or {})
                found[int(place[1]) if place else who] = code_word(said.get("code")) or "refused"
            following = str((told_in(answer).get("links") or {}).get("next") or "")
            # Only the page is taken from what the other side says; where to ask stays ours.
            path = f"{path.partition('?')[0]}?{following.partition('?')[2]}" if "?" in following else ""
        return found

    def _take_off(self, part: Sequence[Delivery], at: Round) -> Said:
        if self.spec.list_id is None:
            return refused(part, "there is no list to take them off: 'list_id' is missing")
        kind = _known_by(part[0])
        values = ",".join(json.dumps(str(fields(each)[kind])) for each in part)
        query = f"filter={quote(f'any({kind},[{values}])', safe='')}&page%5Bsize%5D={MOST_LOOKED_UP}"
        answer = replace(_named(self.request("GET", f"/api/profiles?{query}", None, at)), sent=False)
        if answer.state != "delivered":
            return answer
        who = [{"type": "profile", "id": str(each["id"])} for each in listed(answer, "data") if each.get("id")]
        if not who:
            return {each.op_id: Outcome(each.op_id, "delivered", "not there", code=200) for each in part}
        path = f"/api/lists/{self.spec.list_id}/relationships/profiles"
        return _named(self.request("DELETE", path, {"data": who}, at))

    def _event(self, part: Sequence[Delivery], at: Round) -> Said:
        """One event; its unique_id makes a repeated one the same."""
        [delivery] = part
        data, name = fields(delivery), source(delivery)
        who = {key: value for key, value in profile(data).items() if key != "properties"}
        attributes: dict[str, object] = {
            "properties": {key: value for key, value in data.items() if key not in PROFILE and key not in LOCATION},
            "unique_id": delivery.op_id,
            "metric": {"data": {"type": "metric", "attributes": {"name": _metric(delivery, name)}}},
            "profile": {"data": {"type": "profile", "attributes": who}},
        }
        return _named(self.request("POST", "/api/events", {"data": {"type": "event", "attributes": attributes}}, at))


def _metric(delivery: Delivery, name: str) -> str:
    return f"{delivery.kind} {name}" if delivery.kind in ("entered", "left") else name


def _known_by(delivery: Delivery) -> str:
    return next(name for name in FOUND_BY if fields(delivery).get(name))


def _named_as(given: Mapping[str, object]) -> str | None:
    """What tells a profile from others, as it was sent or as an error repeats it."""
    own = given.get("attributes")
    said = own if isinstance(own, Mapping) else given
    return next((f"{name}:{str(said[name]).lower()}" for name in FOUND_BY if said.get(name)), None)


def _accepted(delivery: Delivery) -> Outcome:
    return Outcome(delivery.op_id, "accepted", "in process at Klaviyo", ASKED_AGAIN, 202, delivery.reference)


def _named(answer: Answer) -> Answer:
    code = next((code_word(each.get("code")) for each in listed(answer, "errors")), "")
    return replace(answer, reason=f"{answer.reason}, {code}") if code else answer

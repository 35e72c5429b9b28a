"""Klaviyo's JSON:API: bulk imports as jobs whose errors point at places, a list, and events known by unique_id.

`takes_until`: how many questions it answers with `processing` before an import is done.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cdp_pipeline.spec.destination import Klaviyo
from cdp_pipeline_tests.destinations.fakes import shapes
from cdp_pipeline_tests.destinations.fakes.people import ALLOWED, DESCRIPTION, Fake, PeopleBench, treated
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

KEY = "pk_that_only_tests_know"
PAGE = 2


def klaviyo(url: str, **fields: Any) -> Klaviyo:
    given = {"api_key": KEY, "list_id": "Y6nRLr"}
    return Klaviyo(kind="destination", type="klaviyo", description=DESCRIPTION, url=url,
                   **{**ALLOWED, **given, **fields})  # fmt: skip


class FakeKlaviyo(Fake):
    """`points`: what the errors of an import tell of whom: their place, only the profile as it was sent, or nothing."""

    def __init__(self, takes_until: int = 0, ends: str = "complete", points: str = "place") -> None:
        super().__init__()
        self.takes_until, self.ends, self.points = takes_until, ends, points
        self.questions: Counter[str] = Counter()
        self.profiles: dict[str, dict[str, Any]] = {}
        self.errors: dict[str, list[dict[str, Any]]] = {}
        self.events: dict[str, dict[str, Any]] = {}
        self.jobs = 0

    def answer(self, request: Received) -> Answer:
        parts = urlsplit(request.path)
        if request.headers["authorization"] != f"Klaviyo-API-Key {KEY}":
            return self._refused(401, "not_authenticated")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", request.headers.get("revision", "")):
            return self._refused(400, "invalid")
        wanted = {"profile-bulk-import-jobs": shapes.KLAVIYO_IMPORT, "events": shapes.KLAVIYO_EVENT,
                  "lists": shapes.KLAVIYO_LEAVERS}  # fmt: skip
        if request.body and shapes.unknown(request.json, wanted[parts.path.split("/")[2]]):
            return self._refused(400, "invalid")
        match request.method, parts.path.split("/")[2:]:
            case "POST", ["profile-bulk-import-jobs"]:
                return self._import(request.json["data"])
            case "GET", ["profile-bulk-import-jobs", job]:
                return self._status(job)
            case "GET", ["profile-bulk-import-jobs", job, "import-errors"]:
                return self._import_errors(job, parse_qs(parts.query))
            case "GET", ["profiles"]:
                return self._find(parse_qs(parts.query)["filter"][0])
            case "DELETE", ["lists", "Y6nRLr", "relationships", "profiles"]:
                gone = {each["id"] for each in request.json["data"]}
                self.members -= {email.partition("@")[0] for email, one in self.profiles.items() if one["id"] in gone}
                return Answer(204)
            case "POST", ["events"]:
                return self._event(request.json["data"]["attributes"])
        return self._refused(404, "not_found")

    def _import(self, job: dict[str, Any]) -> Answer:
        attributes = [each["attributes"] for each in job["attributes"]["profiles"]["data"]]
        labels = [str(each["email"]).partition("@")[0] for each in attributes]
        if any(treated(label) == "wait" for label in labels):
            answer = self._refused(429, "throttled")
            answer.headers["Retry-After"] = "20"
            return answer
        self.jobs += 1
        number, before = f"job-{self.jobs}", len(self.arrived)
        self.errors[number] = []
        for i, (each, label) in enumerate(zip(attributes, labels, strict=True)):
            if treated(label) == "refuse":
                place = f"/attributes/profiles/data/{i}/attributes/email" if self.points == "place" else ""
                error = {"code": "invalid", "title": "Invalid", "detail": f"{each['email']} is not valid",
                         "source": {"pointer": f"/data{place}"},
                         "original_payload": None if self.points == "nobody" else each}  # fmt: skip
                self.errors[number].append({"type": "import-error", "id": str(i), "attributes": error})
                continue
            one = self.profiles.setdefault(each["email"], {"id": f"01GD{len(self.profiles)}"})
            one["attributes"] = one.get("attributes", {}) | each
            if job.get("relationships", {}).get("lists", {}).get("data") == [{"type": "list", "id": "Y6nRLr"}]:
                self.take(label)
        if self.silent(before):
            return Answer(hang_up=True)
        return Answer(202, body={"data": {"type": "profile-bulk-import-job", "id": number}})

    def _status(self, job: str) -> Answer:
        if job not in self.errors:
            return self._refused(404, "not_found")
        self.questions[job] += 1
        done = self.questions[job] > self.takes_until
        attributes = {"status": self.ends if done else "processing", "failed_count": len(self.errors[job])}
        return Answer(body={"data": {"type": "profile-bulk-import-job", "id": job, "attributes": attributes}})

    def _import_errors(self, job: str, query: dict[str, list[str]]) -> Answer:
        start = int(query.get("page[cursor]", ["0"])[0])
        more = start + PAGE < len(self.errors[job])
        following = f"https://a.klaviyo.com/api/anything?page%5Bcursor%5D={start + PAGE}" if more else None
        return Answer(body={"data": self.errors[job][start : start + PAGE], "links": {"next": following}})

    def _find(self, wanted: str) -> Answer:
        found = re.fullmatch(r"any\((email|phone_number|external_id),(\[.*\])\)", wanted)
        if found is None:
            return self._refused(400, "invalid")
        rows = [{"type": "profile", "id": one["id"]} for one in self.profiles.values()
                if one["attributes"].get(found[1]) in json.loads(found[2])]  # fmt: skip
        return Answer(body={"data": rows})

    def _event(self, event: dict[str, Any]) -> Answer:
        if event["unique_id"] not in self.events:
            self.events[event["unique_id"]] = event
            self.arrived.append(event["profile"]["data"]["attributes"]["email"].partition("@")[0])
        return Answer(202)

    def _refused(self, code: int, error: str) -> Answer:
        return Answer(code, body={"errors": [{"id": "x", "status": code, "code": error, "title": "t", "detail": "d"}]})


@contextmanager
def bench(folder: Path) -> Iterator[PeopleBench]:
    fake = FakeKlaviyo()
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        yield PeopleBench(
            klaviyo(url),
            arrived=lambda: list(fake.arrived),
            absent=klaviyo(f"http://127.0.0.1:{free_port()}"),
            locked=klaviyo(url, api_key="pk_revoked"),
            held=fake.held,
            waits=timedelta(seconds=20),
        )

"""A running `cdp dev` and what a person does in its UI, by the same GraphQL the UI speaks."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cdp_pipeline_tests.waiting import PATIENCE, eventually, free_port

REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "cdp_pipeline"}


@dataclass
class Dev:
    """The running UI and daemon."""

    url: str
    log: Path

    def eventually(self, what: Callable[[], Any]) -> Any:
        """As above; giving up also says how every run ended and what the daemon wrote last."""
        try:
            return eventually(what)
        except AssertionError as error:
            error.add_note("\n".join(f"{run['jobName']}: {run['status']}" for run in self.runs()))
            error.add_note(self.log.read_text()[-6000:])
            raise

    def ask(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=PATIENCE
        ).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def runs(self) -> list[dict[str, Any]]:
        query = "{ runsOrError(limit: 100) { ... on Runs { results { id jobName status tags { key value } } } } }"
        return self.ask(query)["runsOrError"]["results"]

    def finished(self, job: str) -> list[dict[str, Any]]:
        return [run for run in self.runs() if run["jobName"] == job and run["status"] in ("SUCCESS", "FAILURE")]

    def idle(self) -> bool:
        return all(run["status"] in ("SUCCESS", "FAILURE", "CANCELED") for run in self.runs())

    def backfill(self, keys: list[list[str]], days: list[str]) -> str:
        """Launch a backfill as the UI's dialogue does; its id."""
        mutation = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
            __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
        params = {"assetSelection": [{"path": key} for key in keys], "partitionNames": days}
        answer = self.ask(mutation, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return answer["backfillId"]

    def backfill_status(self, backfill: str) -> str:
        query = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
            ... on PartitionBackfill { status } } }"""
        return self.ask(query, id=backfill)["partitionBackfillOrError"]["status"]

    def switch(self, schedule: str, on: bool) -> None:
        """Turn a schedule on or off."""
        if on:
            mutation = """mutation($s: ScheduleSelector!) { startSchedule(scheduleSelector: $s) { __typename } }"""
            self.ask(mutation, s=REPOSITORY | {"scheduleName": schedule})
            return
        query = """query($s: ScheduleSelector!) { scheduleOrError(scheduleSelector: $s) {
            ... on Schedule { scheduleState { id } } } }"""
        state = self.ask(query, s=REPOSITORY | {"scheduleName": schedule})["scheduleOrError"]["scheduleState"]["id"]
        self.ask("mutation($id: String!) { stopRunningSchedule(id: $id) { __typename } }", id=state)


@contextmanager
def dev(environment: dict[str, str], folder: Path) -> Iterator[Dev]:
    """`cdp dev` on a port of its own, up when its code location is loaded; ended as Ctrl-C would."""
    port, log = free_port(), folder / "dev.log"
    command = [sys.executable, "-m", "cdp_pipeline.cli", "dev", "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    running = Dev(f"http://127.0.0.1:{port}", log)

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            answer = running.ask("{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }")
        except (httpx.HTTPError, ValueError):
            return False
        entries = answer["workspaceOrError"]["locationEntries"]
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)

    try:
        eventually(is_up)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise

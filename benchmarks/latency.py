# ruff: noqa: T201
"""From an event written to its webhook received, on a running system: `cdp dev`, first alone, then with `cdp worker`.

    python benchmarks/latency.py [--people 20000] [--events 40] [--burst 500] [--only file|database]

A device appends a line to the day's file; the receiver, in this process, notes when the signed request for that person
comes in. One event every 0.3 to 2 seconds, so that they fall anywhere between two ticks; then a burst at once. Then the
same with rows that are inserted into a table of a database, which is read behind a cursor. All of it once without and
once with consent and a contact policy (latency_consent.yaml), by which 20,000 people have agreed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cdp_pipeline_tests.destinations.servers import SECRET, Answer, Received, Receiver
from cdp_pipeline_tests.orchestration.dagster_dev import dev

PROJECT = Path(__file__).parent / "latency_project"
CONSENT = PROJECT.with_name("latency_consent.yaml")
PATIENCE = 120
IDLE = 10


class Devices:
    """What reports, and when the service desk hears of it, by the name of the person."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: dict[str, float] = {}
        self.heard: dict[str, float] = {}
        self.number = 0

    def hear(self, request: Received) -> Answer:
        self.heard.setdefault(request.json["data"]["name"], time.monotonic())
        return Answer()

    def line(self, number: int, event: str, at: datetime, temperature: float) -> str:
        said = {"event_id": f"{event}{number}{at:%H%M%S%f}", "at": at.isoformat(), "event": event, "sku": "k-1",
                "customer_id": f"C{number}", "temperature": temperature}  # fmt: skip
        return json.dumps(said) + "\n"

    def append(self, day: str, lines: Iterable[str]) -> None:
        path = self.folder / "devices" / f"{day}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as out:
            out.write("".join(lines))

    def insert(self, rows: Iterable[tuple[str, str, str, str]]) -> None:
        """Rows of the call centre, in one commit."""
        with closing(sqlite3.connect(self.folder / "calls.sqlite")) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS calls (event_id TEXT, at TIMESTAMP, event TEXT, customer_id TEXT)"
            )
            database.executemany("INSERT INTO calls VALUES (?, ?, ?, ?)", rows)

    def alarms(self, where: str, count: int = 1) -> list[str]:
        """So many people's devices raise an alarm, in one write; the people's names."""
        at = datetime.now(UTC)
        numbers = range(self.number, self.number + count)
        self.number += count
        names = [f"Person {number}" for number in numbers]
        self.written |= dict.fromkeys(names, time.monotonic())
        if where == "file":
            self.append(str(at.date()), [self.line(number, "alarm_raised", at, 80) for number in numbers])
        else:
            moment = at.replace(tzinfo=None).isoformat(" ", "microseconds")
            self.insert([(f"told{number}", moment, "alarm_told", f"C{number}") for number in numbers])
        return names

    def wait(self, names: Iterable[str], patience: float = PATIENCE) -> list[float]:
        """Seconds from written to heard."""
        end = time.monotonic() + patience
        while (missing := [name for name in names if name not in self.heard]) and time.monotonic() < end:
            time.sleep(0.01)
        if missing:
            print(f"  {len(missing)} not heard within {patience} s", flush=True)
        return sorted(self.heard[name] - self.written[name] for name in names if name in self.heard)


def measure(devices: Devices, where: str, events: int, burst: int, said: str) -> None:
    while not devices.wait(devices.alarms(where), 10):
        pass
    dice, names = random.Random(7), []
    for _ in range(events):
        time.sleep(dice.uniform(0.3, 2))
        names += devices.alarms(where)
    took = devices.wait(names)
    cuts = statistics.quantiles(took, n=20)
    print(
        f"{said}: p50 {statistics.median(took):.2f} s, p95 {cuts[-1]:.2f} s, max {took[-1]:.2f} s ({len(took)} events)"
    )
    if burst:
        took = devices.wait(devices.alarms(where, burst))
        print(f"{said}: {len(took)} at once: first {took[0]:.2f} s, last {took[-1]:.2f} s", flush=True)


def cpu_seconds(pid: int) -> float:
    """What a process has had of processors (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=40)
    parser.add_argument("--burst", type=int, default=500)
    parser.add_argument("--only", choices=["file", "database"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cdp_latency_", ignore_cleanup_errors=True) as place, ExitStack() as stack:
        folder = Path(place)
        devices = Devices(folder / "data")
        receiver = stack.enter_context(Receiver(devices.hear))
        project = Path(shutil.copytree(PROJECT, folder / "project"))
        environment = {
            "CDP_PROJECT": str(project),
            "CDP_DATA": str(folder / "data"),
            "CDP_LAKE": str(folder / "lake"),
            "DAGSTER_HOME": str(folder / "dagster"),
            "LATENCY_FIRST_DAY": str((datetime.now(UTC) - timedelta(days=40)).date()),
            "LATENCY_CALLS": f"sqlite:///{folder / 'data' / 'calls.sqlite'}",
            "LATENCY_HOOK": receiver.url,
            "LATENCY_SECRET": SECRET,
        }
        past = datetime.now(UTC) - timedelta(days=2)
        devices.append(str(past.date()), (devices.line(number, "reading", past, 20) for number in range(given.people)))
        moment = past.replace(tzinfo=None).isoformat(" ", "microseconds")
        devices.insert([(f"past{number}", moment, "called", f"C{number}") for number in range(given.people)])
        signups = (f"C{n},p{n}@example.com,Person {n},yes,{past.date()}T08:00:00Z\n" for n in range(given.people))
        (folder / "data" / "signups.csv").write_text("customer_id,email,name,letters,at\n" + "".join(signups))
        cdp = [sys.executable, "-W", "ignore", "-m", "cdp_pipeline.cli"]
        environ = os.environ | environment
        done = subprocess.run([*cdp, "run"], env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        print(f"{given.people} people; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
        places = [given.only] if given.only else ["file", "database"]
        for said in ("without consent", "with consent"):
            if said == "with consent":
                shutil.copy(CONSENT, project)
            with dev(environment, folder):
                for where in places:
                    measure(devices, where, given.events, given.burst, f"{where}, {said}, sensor tick")
                worker = subprocess.Popen([*cdp, "worker"], env=environ, stdout=subprocess.DEVNULL)
                try:
                    time.sleep(10)
                    for where in places:
                        measure(devices, where, given.events, given.burst, f"{where}, {said}, worker")
                    time.sleep(1)
                    spent = cpu_seconds(worker.pid)
                    time.sleep(IDLE)
                    spent = cpu_seconds(worker.pid) - spent
                    print(f"{said}, worker idle: {100 * spent / IDLE:.1f} % of a processor", flush=True)
                finally:
                    worker.send_signal(signal.SIGTERM)
                    worker.wait(60)
        print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

"""`cdp worker`: acts on events and delivers within a second, without a run, and tells Dagster what it did.

One thread looks at the sources, one per destination delivers, so that a slow one holds nobody up. The truth is the
ledger's: the worker may be killed at any moment, and several may run.
"""

import gc
import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import dagster as dg
import duckdb
from sqlalchemy.exc import SQLAlchemyError

from cdp_pipeline.activation.ledger import Ledger, ledger_url, open_ledger
from cdp_pipeline.activation.live import LOOK_EVERY, Follower, followed
from cdp_pipeline.activation.positions import LEASE, may_read, stop_reading
from cdp_pipeline.lake import Lake, open_lake
from cdp_pipeline.lake.errors import LakeError, LakeMissingError
from cdp_pipeline.orchestration.deliveries import deliver_due
from cdp_pipeline.orchestration.installation import Clock, prepare_dagster_home, system_clock
from cdp_pipeline.spec.project import Project

log = logging.getLogger(__name__)
MOVE_ON_EVERY = 1.0
DELIVER_EVERY = 1.0
REPORT_EVERY = 10.0
AFTER_TROUBLE = 5.0
ROUND = timedelta(seconds=10)
TROUBLE = (LakeError, SQLAlchemyError, duckdb.Error, OSError)


class _Tally:
    """What was done since it was last told, by asset and by what is said of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}

    def add(self, asset: str, counts: Counter[str]) -> None:
        with self._lock:
            self._counts.setdefault(asset, Counter()).update(counts)

    def take(self) -> dict[str, Counter[str]]:
        with self._lock:
            taken, self._counts = self._counts, {}
        return {asset: counts for asset, counts in taken.items() if counts}


class Worker:
    """The resident process of a project; `run` returns when `stop` is set or one of its threads has failed."""

    def __init__(self, project: Project, instance: dg.DagsterInstance, clock: Clock = system_clock) -> None:
        self.project, self.instance, self.clock = project, instance, clock
        self.name = f"worker:{socket.gethostname()}:{os.getpid()}"
        self.stop = threading.Event()
        self.failed = False
        self._tally = _Tally()
        self._wake = {name: threading.Event() for name in project.destinations}

    def run(self) -> None:
        with open_ledger(ledger_url(self.project, Path.cwd())) as ledger:
            jobs: list[Callable[[], None]] = [lambda name=name: self._deliver(ledger, name) for name in self._wake]  # type: ignore[misc]
            if followed(self.project):
                jobs.append(lambda: self._follow(ledger))
            threads = [threading.Thread(target=self._guarded, args=(job,)) for job in jobs]
            for thread in threads:
                thread.start()
            while not self.stop.wait(REPORT_EVERY):
                self._report()
            for wake in self._wake.values():
                wake.set()
            for thread in threads:
                thread.join()
            self._report()
            stop_reading(ledger, self.name)

    def _guarded(self, job: Callable[[], None]) -> None:
        """A thread that ends before it is told to ends all: whoever looks after the process starts it anew."""
        try:
            job()
        finally:
            self.failed = self.failed or not self.stop.is_set()
            self.stop.set()

    def _follow(self, ledger: Ledger) -> None:
        turn = _Turn(ledger, self.name, self.clock)
        follower = Follower(ledger, self.project)
        while not self.stop.is_set():
            try:
                # In this process whatever the engine: a cluster would take longer to start than all else.
                with open_lake(self.project.settings.lake, base=Path.cwd(), read_only=True, threads=1) as lake:
                    self._prepare(follower, lake)
                    checked = time.monotonic()
                    while not self.stop.wait(LOOK_EVERY):
                        if time.monotonic() > checked + MOVE_ON_EVERY:
                            checked = time.monotonic()
                            lake.give_way()
                            # What comes to the sources is read as it comes.
                            if lake.touched_outside("sources", lake.snapshot):
                                lake.refresh()
                                self._prepare(follower, lake)
                        if not turn.mine():
                            follower.forget()
                        elif recorded := follower.look(lake, self.clock()):
                            self._tally.add("outbox", recorded)
                            for wake in self._wake.values():
                                wake.set()
            except LakeMissingError:
                self.stop.wait(AFTER_TROUBLE)  # Nothing was computed yet, so nobody is known.
            except TROUBLE as problem:
                # Only the kind: a message may quote a row.
                log.warning("reading events: %s; trying again", type(problem).__name__)
                self.stop.wait(AFTER_TROUBLE)

    def _prepare(self, follower: Follower, lake: Lake) -> None:
        follower.prepare(lake, self.clock())
        # What is there now stays: looking through all of it for garbage would hold up the next event.
        gc.collect()
        gc.freeze()

    def _deliver(self, ledger: Ledger, destination: str) -> None:
        wake, lake = self._wake[destination], _KeptLake(self.project)
        while not self.stop.is_set():
            wake.clear()
            try:
                summary = deliver_due(
                    self.project, ledger, self.clock, worker=self.name, budget=ROUND, only=[destination], lake=lake
                )
                self._tally.add("deliveries", summary.said)
            except TROUBLE as problem:
                log.warning("delivering to '%s': %s; trying again", destination, type(problem).__name__)
                lake.close()
                self.stop.wait(AFTER_TROUBLE)
            wake.wait(DELIVER_EVERY)
            lake.give_way()
        lake.close()

    def _report(self) -> None:
        """Tell Dagster what was done, as events that belong to no run."""
        for asset, counts in self._tally.take().items():
            try:
                self.instance.report_runless_asset_event(
                    dg.AssetMaterialization(["activation", asset], metadata=dict(counts))
                )
            except SQLAlchemyError as problem:
                log.warning("telling Dagster: %s; it will be told later", type(problem).__name__)
                self._tally.add(asset, counts)


class _KeptLake:
    """A lake opened when it is first asked for, and kept; each time it is asked for it is at its newest."""

    def __init__(self, project: Project) -> None:
        self._project, self._stack = project, ExitStack()
        self._lake: Lake | None = None

    def __call__(self) -> Lake:
        if self._lake is None:
            here = open_lake(self._project.settings.lake, base=Path.cwd(), read_only=True, threads=1)
            self._lake = self._stack.enter_context(here)
        else:
            self._lake.refresh()
        return self._lake

    def give_way(self) -> None:
        if self._lake is not None:
            self._lake.give_way()

    def close(self) -> None:
        self._lake = None
        self._stack.close()


class _Turn:
    """Whether it is this worker that reads events: at first whoever has begun last, then for as long as it renews."""

    def __init__(self, ledger: Ledger, reader: str, clock: Clock) -> None:
        self._ledger, self._reader, self._clock = ledger, reader, clock
        self._renew_at = 0.0
        self._mine = False

    def mine(self) -> bool:
        if time.monotonic() >= self._renew_at:
            first = self._renew_at == 0.0
            self._renew_at = time.monotonic() + LEASE.total_seconds() / 5
            self._mine = may_read(self._ledger, self._reader, self._clock(), rather=first)
        return self._mine


def work(project: Project) -> bool:
    """Work until interrupted (SIGINT, SIGTERM); False where it ended for another reason."""
    prepare_dagster_home(project)
    with dg.DagsterInstance.get() as instance:
        worker = Worker(project, instance)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: worker.stop.set())
        worker.run()
    return not worker.failed

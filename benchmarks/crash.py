"""Kill delivery workers 60 times, on SQLite and on Postgres, and let an independent oracle count what arrived.

A quarter of the requests fail, half of them refused and half applied with the answer lost; the workers die amid
deliveries, and the audience's people leave and come back meanwhile. `python benchmarks/crash.py [--kills 60]`
With `--every-commit` instead: before and after each commit of a sync's way from plan to settled, one after the other.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from cdp_pipeline_tests.activation.crash import crash
from cdp_pipeline_tests.activation.every_commit import every_commit
from cdp_pipeline_tests.conftest import postgres_server


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--kills", type=int, default=60)
    asked.add_argument("--every-commit", action="store_true")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        servers = postgres_server._get_wrapped_function()()
        for name, address in (("sqlite", f"sqlite:///{Path(folder) / 'ledger.sqlite'}"), ("postgres", next(servers))):
            started = time.monotonic()
            if given.every_commit:
                for line_is in ("hook", "once"):
                    points = every_commit(address, Path(folder), line_is)
                    print(f"{name}, {line_is}: {points} moments; {time.monotonic() - started:.0f} s")  # noqa: T201
                continue
            outcome = crash(address, given.kills)
            outcome.check()
            print(  # noqa: T201
                f"{name}: {outcome.kills} kills, {outcome.requests} requests, {len(outcome.effects)} effects, "
                f"one sent up to {outcome.most_often} times, people left and came back {outcome.returns} times; "
                f"0 missing, 0 extra, each once; {time.monotonic() - started:.0f} s"
            )
        next(servers, None)


if __name__ == "__main__":
    main()

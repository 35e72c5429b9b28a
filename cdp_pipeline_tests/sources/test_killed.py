"""A load that is killed (SIGKILL, a real process) leaves what was published before, and the next one goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cdp_pipeline.lake import open_lake
from cdp_pipeline.sources.load import conservation
from cdp_pipeline.sources.tables import LOADS
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.sources.projects import ledger, loaded, quarantine, rows, source

HEADER = "order_id,ordered_at,email,amount\n"

# Loads in a process of its own, which kills itself when it is about to run a statement that contains the given text.
CHILD = """
import os, signal, sys
from cdp_pipeline.lake import open_lake
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.sources.projects import loaded, source

class Deadly:
    def __init__(self, connection): self.connection = connection
    def __getattr__(self, name): return getattr(self.connection, name)
    def execute(self, query, *rest):
        if sys.argv[3] in query:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.connection.execute(query, *rest)

with open_lake(LakeLocation(path=sys.argv[1])) as lake:
    lake.connection = Deadly(lake.connection)
    loaded(lake, source(files=sys.argv[2]))
"""


@pytest.mark.parametrize("moment", ['INSERT INTO "lake"."sources"."loads"', "COMMIT"])
def test_a_load_killed_at_any_moment_is_made_good_by_the_next(tmp_path: Path, moment: str) -> None:
    path = str(tmp_path / "{day}.csv")
    lines = [
        f"{number},2024-05-0{day} 10:00:00,,{number}\n"
        for day in (1, 2)
        for number in range(day * 5000, (day + 1) * 5000)
    ]
    (tmp_path / "2024-05-01.csv").write_text(HEADER + "".join(lines[:5000]) + "x,never,,1\n")
    one = source(files=path)
    with open_lake(LakeLocation(path=str(tmp_path / "lake"))) as lake:
        loaded(lake, one)
        before = lake.latest()
    (tmp_path / "2024-05-02.csv").write_text(HEADER + "".join(lines[5000:]) + "y,never,,1\n")
    killed = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "lake"), path, moment], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with open_lake(LakeLocation(path=str(tmp_path / "lake"))) as lake:
        assert lake.latest() == before, "nothing half written"
        assert len(rows(lake, one, "order_id")) == 5000
        report = loaded(lake, one)
        assert (report.inserted, report.updated) == (5000, 0)
        assert rows(lake, one, "order_id") == sorted((str(number),) for number in range(5000, 15000))
        assert [row["raw"] for row in quarantine(lake)] == ["x,never,,1", "y,never,,1"]
        assert [(row["status"], row["read"]) for row in ledger(lake)] == [("loaded", 5001)] * 2
        assert conservation(lake.read(LOADS)).count().to_pyarrow().as_py() == 0
        assert not list((tmp_path / "lake" / "tmp").glob("*/*")), "no spill is left behind but empty folders"

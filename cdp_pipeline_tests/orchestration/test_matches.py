"""A project that compares people: they are joined within the run, explained by what agrees, and parted by a verdict."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from cdp_pipeline_tests.identity.test_matching import ROWS, TRUTH
from cdp_pipeline_tests.orchestration.commands import Cdp

pytestmark = pytest.mark.slow
COLUMNS = ["given_name", "family_name", "birth_date", "street", "postcode"]


def test_members_who_signed_up_twice_are_one_person_until_a_verdict_says_otherwise(tmp_path: Path) -> None:
    project = tmp_path / "club"
    shutil.copytree(Path(__file__).parent / "club", project)
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "sign_ups.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["number", *COLUMNS], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, "number": row["value"]} for row in ROWS)
    cdp = Cdp(project, tmp_path / "data", tmp_path / "lake")
    made = cdp.json("run", "group:sources or group:identity")
    [believed] = [check for check in made["checks"] if check["check"] == "same_member_believed"]
    assert believed["passed"]
    whose = {row["value"]: row["person_id"] for row in cdp.sql("select value, person_id from identity.identifiers")}
    together = [(a, b) for a in whose for b in whose if a < b and whose[a] == whose[b]]
    assert len(together) > 50
    assert all(TRUTH[a] == TRUTH[b] for a, b in together)
    a, b = together[0]
    told = cdp.run("explain", "link", f"number:{a}", f"number:{b}")
    assert "same_member" in told and "bits" in told

    before = cdp.sql("select count(*) as n, max(snapshot) as s from identity.runs")
    cdp.run("run", "group:sources or group:identity")
    assert cdp.sql("select count(*) as n, max(snapshot) as s from identity.runs") == before, "nothing was new"

    cdp.run("identity", "unlink", f"number:{a}", f"number:{b}", "--why", "twins", "--by", "tests", "--yes")
    cdp.run("run", "group:identity")
    parted = {row["value"]: row["person_id"] for row in cdp.sql("select value, person_id from identity.identifiers")}
    assert parted[a] != parted[b]

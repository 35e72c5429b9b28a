"""A collapse of identity reaches nobody: nothing is published or computed from it until it is mended or accepted."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import cdp_pipeline
from cdp_pipeline.orchestration.installation import lake_of
from cdp_pipeline.orchestration.run import RunReport, run_project
from cdp_pipeline.spec.load import load_project
from cdp_pipeline_tests.cli.starter import NEWEST, few_traits, write_orders

PEOPLE = 60
TABLES = ("identity.people", "identity.identifiers", "identity.edges", "identity.changes", "profile.customers")


def orders(phone: str = "") -> list[list[str]]:
    """One order of each person; with `phone`, one more that the till files under the shop's own number."""
    first = [
        [f"A{place}", f"{NEWEST} 12:00:00", f"p{place}@example.com", "", f"P{place}", "9.50"] for place in range(PEOPLE)
    ]
    again = [[f"B{line[0]}", f"{NEWEST} 15:00:00", line[2], phone, *line[4:]] for line in first]
    return [*first, *again] if phone else first


def run(folder: Path) -> RunReport:
    return run_project(load_project(folder), "group:sources or group:identity or group:profile")


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    with lake_of(load_project(folder), read_only=True) as lake:
        return {name: sorted(lake.table(name).to_pyarrow().to_pylist(), key=repr) for name in TABLES}


def failed(report: RunReport) -> dict[str, str]:
    return {check["check"]: check["severity"] for check in report.checks if not check["passed"]}


def test_a_collapse_is_withheld_until_the_rule_is_mended_or_it_is_accepted_for_the_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(Path(cdp_pipeline.__file__).parent / "starter", folder)
    few_traits(folder)
    for name, place in {"CDP_DATA": "data", "CDP_LAKE": "lake", "DAGSTER_HOME": "lake/dagster"}.items():
        monkeypatch.setenv(name, str(tmp_path / place))
    rules = folder / "orders.yaml"
    loose = re.sub(r"\n(limit|shared_above): .*", "", rules.read_text())
    mended = loose.replace("A phone number.\n", "A phone number.\nblocked: {values: ['+442079460000']}\n")
    rules.write_text(loose)
    write_orders(tmp_path / "data", orders())
    assert run(folder).success
    before = tables(folder)
    assert len(before["profile.customers"]) == PEOPLE

    write_orders(tmp_path / "data", orders(phone="020 7946 0000"))
    report = run(folder)
    assert failed(report) == {"no_collapse": "ERROR", "ids_stable": "ERROR"}
    [said] = report.failures.values()
    assert said.startswith("not published") and "60 people became 1" in said and "cdp identity simulate" in said
    assert "profile/customers" not in report.assets, "what comes after has not run"
    assert "example.com" not in str(report) and "7946" not in str(report), "no personal data in what is logged"
    assert tables(folder) == before

    rules.write_text(mended)
    assert run(folder).success
    now = tables(folder)
    assert now["identity.people"] == before["identity.people"] and len(now["identity.identifiers"]) == PEOPLE + 1

    rules.write_text(loose)
    [accept] = re.findall(r"CDP_ACCEPT_IDENTITY=(\d{4}-\d\d-\d\d)", said)
    monkeypatch.setenv("CDP_ACCEPT_IDENTITY", accept)
    accepted = run(folder)
    assert accepted.success and failed(accepted) == {"no_collapse": "WARN", "ids_stable": "WARN"}
    assert len(tables(folder)["profile.customers"]) == 1

"""An audience that fails its tests is held alone: what builds on it and its syncs wait, everything else goes on."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import cdp_pipeline
from cdp_pipeline.audiences.members import HELD, SIZES
from cdp_pipeline.identity.people import PEOPLE
from cdp_pipeline.lake import Lake, Mirror
from cdp_pipeline.orchestration.audiences import audience_assets
from cdp_pipeline.orchestration.installation import lake_of
from cdp_pipeline.orchestration.run import RunReport, run_project
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.traits.daily import daily_table
from cdp_pipeline_tests.audiences.test_decide import IDENTIFIERS, shop
from cdp_pipeline_tests.cli.starter import NEWEST, few_traits, write_orders
from cdp_pipeline_tests.traits.shop import DAYS, rows_table

AUDIENCES = """
kind: audience
name: everybody
description: All who ever ordered.
rules: [{trait: orders, op: ">=", value: 1}]
tests: {min_size: LEAST}
---
kind: audience
name: big
description: Those of everybody who spent much.
rules: [{audience: everybody}, {trait: revenue_365d, op: ">=", value: 100}]
tests: {subset_of: [everybody], must_include: ["email:fay@example.com"], share_with: {email: 0.5}}
---
kind: audience
name: quiet
description: Who has not ordered for two months.
rules: [{band: days_since_last_order, is: quiet}]
---
kind: sync
name: all_to_crm
description: Everybody.
audience: everybody
destination: crm
mode: mirror
mapping: {person_id: person_id}
---
kind: sync
name: big_to_crm
description: The big ones.
audience: big
destination: crm
mode: mirror
mapping: {person_id: person_id}
---
kind: sync
name: quiet_to_crm
description: The quiet ones.
audience: quiet
destination: crm
mode: mirror
mapping: {person_id: person_id}
"""
TABLES = ("audiences.members", "audiences.sizes", "audiences.held", "audiences.changes", "activation.plan")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    shutil.copytree(Path(cdp_pipeline.__file__).parent / "starter", folder)
    for name, place in {"CDP_DATA": "data", "CDP_LAKE": "lake", "DAGSTER_HOME": "lake/dagster"}.items():
        monkeypatch.setenv(name, str(tmp_path / place))
    few_traits(folder)
    write_orders(tmp_path / "data")
    return folder


def run(folder: Path, least: int, selection: str | None = None) -> RunReport:
    (folder / "more.yaml").write_text(AUDIENCES.replace("LEAST", str(least)))
    return run_project(load_project(folder), selection)


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    with lake_of(load_project(folder), read_only=True) as lake:
        return {name: sorted(lake.table(name).to_pyarrow().to_pylist(), key=repr) for name in TABLES}


def planned(found: dict[str, list[dict[str, Any]]]) -> set[str]:
    return {row["sync"] for row in found["activation.plan"]}


def test_a_held_audience_holds_its_syncs_and_what_builds_on_it_and_nothing_else(folder: Path) -> None:
    again = "group:audiences or key:activation/plan"
    report = run(folder, least=100)
    assert not report.success and not report.failures, "the run itself went through"
    assert report.held == {
        "everybody": "7 people, fewer than 100",
        "big": "it builds on 'everybody', which is held",
    }
    never = tables(folder)
    assert {row["audience"] for row in never["audiences.sizes"]} == {"good_customers", "quiet_good_customers", "quiet"}
    assert {(row["audience"], row["day"], row["people"]) for row in never["audiences.held"]} == {
        ("everybody", NEWEST, 7),
        ("big", NEWEST, 6),
    }
    assert not {"everybody", "big"} & {row["audience"] for row in never["audiences.changes"]}
    assert planned(never) == {"good_customers_to_crm", "quiet_to_crm"}

    assert run(folder, 1, again).success
    good = tables(folder)
    assert good["audiences.held"] == []
    assert planned(good) == {"good_customers_to_crm", "quiet_to_crm", "all_to_crm", "big_to_crm"}

    assert set(run(folder, 100, again).held) == {"everybody", "big"}
    held = tables(folder)
    assert planned(held) == planned(never) and held["audiences.held"] == never["audiences.held"]
    for name in ("audiences.members", "audiences.sizes", "audiences.changes"):
        assert held[name] == good[name], "they stay as they were on the last good day"
    assert "example.com" not in str(report), "no personal data in what is logged"


def test_a_change_that_is_meant_is_published_once_somebody_accepts_it_for_its_day(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shop(max_change=0.5)
    daily = daily_table(whole)
    counts = {DAYS[0]: [1, 0, 0], DAYS[1]: [1, 1, 1]}
    rows = [{"person_id": f"p{n}", "day": day, "orders": o} for day, of in counts.items() for n, o in enumerate(of)]
    lake.publish(
        Mirror(daily, rows_table(daily, rows)),
        Mirror(PEOPLE, PEOPLE.schema.to_pyarrow().empty_table()),
        Mirror(IDENTIFIERS, IDENTIFIERS.schema.to_pyarrow().empty_table()),
    )
    resources = {"lake": lake, "clock": lambda: datetime(2024, 3, 1, tzinfo=UTC)}

    def compute(day: date) -> tuple[dict[str, str], dict[date, int]]:
        """The failed checks with how severe they are, and the published sizes, after a run for a day."""
        assets = audience_assets(whole, "daily")
        found = dg.materialize([assets], partition_key=str(day), resources=resources, selection=["audiences/buyers"])
        failed = {check.check_name: check.severity.value for check in found.get_asset_check_evaluations()
                  if not check.passed}  # fmt: skip
        return failed, {row["day"]: row["people"] for row in lake.read(SIZES).to_pyarrow().to_pylist()}

    assert compute(DAYS[0]) == ({}, {DAYS[0]: 1})
    assert compute(DAYS[1]) == ({"size_as_expected": "ERROR"}, {DAYS[0]: 1})
    monkeypatch.setenv("CDP_ACCEPT_CHANGE", f"buyers@{DAYS[1]}")
    assert compute(DAYS[1]) == ({"size_as_expected": "WARN"}, {DAYS[0]: 1, DAYS[1]: 3})
    assert lake.read(HELD).count().to_pyarrow().as_py() == 0

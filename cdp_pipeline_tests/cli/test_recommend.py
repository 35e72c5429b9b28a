"""`cdp recommend`: a person's newest lists, from the lake alone."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake import Upsert, open_lake
from cdp_pipeline.lake.table import Table
from cdp_pipeline.predictions.ranking import scores_table
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.prediction import Ranking
from cdp_pipeline_tests.orchestration.commands import Cdp

PROJECT = """
kind: project
name: shop
description: A shop.
timezone: UTC
currency: GBP
first_day: 2026-01-01
lake: {path: "${CDP_LAKE}"}
---
kind: source
name: lines
description: Order lines.
files: lines.csv
grain: [id]
occurred_at: at
columns:
  id: {type: string}
  at: {type: timestamp}
  email: {type: string, identifier: email}
  sku: {type: string}
events:
  - {event: bought, product_id: sku}
---
kind: identifier
name: email
description: E-mail.
priority: 1
---
kind: prediction
name: discover
type: ranking
description: What they will like.
target: {event: [bought], item: product_id}
wants: discover
horizon: 30 days
"""


def rows(table: Table, *given: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(table.columns) | row for row in given], schema=table.schema.to_pyarrow())


@pytest.fixture
def cdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cdp:
    """A project whose ranking made lists for Ann on two days."""
    here = Cdp(tmp_path / "project", tmp_path, tmp_path / "lake")
    monkeypatch.setenv("CDP_LAKE", str(here.lake))
    here.project.mkdir()
    (here.project / "project.yaml").write_text(PROJECT)
    project = load_project(here.project)
    ranking = project.predictions["discover"]
    assert isinstance(ranking, Ranking)
    table = scores_table(ranking)
    lists = [
        {"person_id": "p_ann", "day": date(2026, 2, day), "item": item, "rank": rank, "score": 0.1 / rank,
         "way": "ease", "basis": "model", "reasons": "goes with tea", "model_version": "v"}
        for day, items in ((1, "xyz"), (2, "cab")) for rank, item in enumerate(items, 1)
    ]  # fmt: skip
    ann = {"type": "email", "value": "ann@x.com", "person_id": "p_ann", "status": "ok"}
    with open_lake(project.settings.lake) as lake:
        lake.publish(
            Upsert(PEOPLE, rows(PEOPLE, {"person_id": "p_ann", "kind": "known", "identifiers": 1})),
            Upsert(IDENTIFIERS, rows(IDENTIFIERS, ann)),
            Upsert(table, rows(table, *lists)),
        )
    return here


def test_the_newest_list_is_told_in_its_order_with_the_reasons(cdp: Cdp) -> None:
    found = cdp.json("recommend", "email:ann@x.com")
    assert [(row["list"], row["rank"], row["item"], row["way"]) for row in found] == [
        ("discover", 1, "c", "ease"), ("discover", 2, "a", "ease"), ("discover", 3, "b", "ease"),
    ]  # fmt: skip
    assert {row["reasons"] for row in found} == {"goes with tea"}
    earlier = cdp.json("recommend", "p_ann", "--as-of", "2026-02-01", "--top", "2")
    assert [row["item"] for row in earlier] == ["x", "y"]


def test_a_list_that_is_not_declared_is_answered_with_the_nearest(cdp: Cdp) -> None:
    assert "did you mean 'discover'?" in cdp.run("recommend", "p_ann", "--list", "discovery", code=1)

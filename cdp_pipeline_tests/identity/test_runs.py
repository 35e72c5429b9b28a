"""A run of identity on a real lake looks at what is new, and at everything where that would not give the same."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ibis

from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.identity.runs import RUNS
from cdp_pipeline.identity.step import decide_who_is_who
from cdp_pipeline.lake import Lake, Upsert
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.identity.shop import CRM, NOW, TILL, WEB, Row, identifier, project, resolved, tables
from cdp_pipeline_tests.identity.shop import IDENTIFIERS as RULES

ANN = Row("web", 1, 0, customer=1, mail="ann@shop.test")
BOB = Row("web", 2, 0, mail="bob@shop.test", cookie="k2")
CY = Row("crm", 3, 0, customer=3, mail="cy@shop.test")
MET = Row("till", 4, 1, customer=1, cookie="k2")


def profiles(*_: object) -> ibis.Table:
    raise AssertionError("only a match asks what is known of people")


def load(lake: Lake, *rows: Row) -> None:
    given = tables(rows)
    lake.publish(*(Upsert(source_table(spec), given[spec.name]) for spec in (WEB, TILL, CRM) if given[spec.name]))
    lake.refresh()


def run(lake: Lake, hour: int, of: Project | None = None) -> dict[str, Any] | None:
    """One run; the row of identity.runs it wrote, if any."""
    now = NOW + timedelta(hours=hour)
    lake.publish(*decide_who_is_who(lake, of or project(), now, profiles, Path("nowhere")).writes)
    lake.refresh()
    rows = lake.read(RUNS).filter(lambda row: row["at"] == now.replace(tzinfo=None)).to_pyarrow().to_pylist()
    return rows[0] if rows else None


def is_as_decided_at_once(lake: Lake, *rows: Row) -> bool:
    """Whether what is published is what all rows give when they are decided together; ids aside."""
    by_hand = resolved(rows)
    edges = lake.read(EDGES).order_by("id_a", "id_b", "source").to_pyarrow()
    ours = lake.read(IDENTIFIERS).order_by("id").to_pyarrow()
    columns = [name for name in ours.column_names if not name.endswith("person_id")]
    groups = [
        {frozenset(row["id"] for row in table if row["person_id"] == person)
         for person in {row["person_id"] for row in table} - {None}}
        for table in (ours.to_pylist(), by_hand.identifiers.to_pylist())
    ]  # fmt: skip
    return (
        edges == by_hand.edges
        and ours.select(columns) == by_hand.identifiers.select(columns)
        and groups[0] == groups[1]
    )


def test_the_first_run_looks_at_everything_and_the_next_at_what_is_new(lake: Lake) -> None:
    load(lake, ANN, BOB, CY)
    first = run(lake, 0)
    assert first is not None and (first["mode"], first["why"], first["created"]) == ("everything", "the first run", 3)
    load(lake, MET)
    second = run(lake, 1)
    assert second is not None
    assert (second["mode"], second["why"], second["identifiers"], second["merged"]) == ("what was new", None, 4, 1)
    assert is_as_decided_at_once(lake, ANN, BOB, CY, MET)
    before = lake.snapshot
    assert run(lake, 2) is None, "nothing was new"
    assert lake.snapshot == before
    load(lake, dataclasses.replace(MET, record=9, day=2))
    third = run(lake, 3)
    assert third is not None and third["mode"] == "what was new" and third["merged"] == 0
    assert is_as_decided_at_once(lake, ANN, BOB, CY, MET, dataclasses.replace(MET, record=9, day=2))


def test_rows_that_are_only_seen_again_or_closed_need_no_second_look_at_everything(lake: Lake) -> None:
    load(lake, ANN, CY)
    run(lake, 0)
    load(lake, dataclasses.replace(ANN, name="Ann"), dataclasses.replace(CY, until=30))
    again = run(lake, 1)
    assert again is not None and again["mode"] == "what was new"
    assert is_as_decided_at_once(lake, ANN, CY)


def test_a_corrected_row_a_new_rule_and_a_forgotten_past_each_mean_everything(lake: Lake) -> None:
    load(lake, ANN, BOB, CY, MET)
    run(lake, 0)
    load(lake, dataclasses.replace(MET, cookie="k3"))
    corrected = run(lake, 1)
    assert corrected is not None
    assert (corrected["why"], corrected["split"]) == ("rows of till were withdrawn or corrected", 1)
    assert is_as_decided_at_once(lake, ANN, BOB, CY, dataclasses.replace(MET, cookie="k3"))
    rules = {**RULES, "email": identifier("email", priority=500, limit=2, shared_above=2, blocked={"values": ["x"]})}
    changed = run(lake, 2, project(rules))
    assert changed is not None and changed["why"] == "the rules changed"
    load(lake, Row("web", 20, 3, customer=5, cookie="k5"))
    lake.maintain(datetime.now(UTC) + timedelta(days=1), timedelta(0))
    lake.refresh()
    forgotten = run(lake, 3, project(rules))
    assert forgotten is not None and forgotten["why"] == "the lake no longer remembers the last run"
    people = lake.read(PEOPLE).filter(lambda row: row["identifiers"] > 0).count().to_pyarrow().as_py()
    assert people == 4

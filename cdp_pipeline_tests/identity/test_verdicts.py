"""What people decide about identifiers: links and vetoes, spelled as the sources spell, written where they belong."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import ibis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp_pipeline.identity.named import Identified
from cdp_pipeline.identity.verdicts import (
    VerdictError,
    new_verdict,
    verdict_edges,
    vetoes,
    with_verdict,
    with_verdicts,
    write_verdict,
)
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.verdict import Verdict
from cdp_pipeline_tests.identity.shop import Row, edges_table, project, seen_table

ANN, BOB = ("email", "ann@example.com"), ("email", "bob@example.com")
PROJECT = """\
kind: project
name: shop
description: A shop.
first_day: 2026-01-01
lake: {path: lake}
---
kind: identifier
name: email
description: An address.
"""


def verdict(name: str = "they_called", **fields: Any) -> Verdict:
    told = {"kind": "verdict", "name": name, "description": "x", "by": "ann", "on": "2026-02-01", "why": "They called."}
    return Verdict.model_validate({**told, **fields})


def deciding(*verdicts: Verdict) -> Project:
    return project(verdicts={one.name: one for one in verdicts})


def asked(type_: str, value: str) -> Identified:
    return Identified(type_, value, None, "ok", None)


def test_a_link_is_evidence_of_its_day_and_an_unlink_a_veto_in_the_spelling_of_the_sources() -> None:
    shop = deciding(
        verdict(link=["email: Bob@Example.com", "customer_id:0017"]),
        verdict("apart", unlink=["email:BOB@example.com", "email:ann@example.com"]),
    )
    edges = verdict_edges(shop).to_pylist()
    (edge,) = [row for row in edges if row["value_a"] == "17" and row["value_b"] == "bob@example.com"]
    assert edge == {
        "type_a": "customer_id", "value_a": "17", "type_b": "email", "value_b": "bob@example.com",
        "source": "verdict", "record_id": "they_called", "rule": "verdict", "score": 1.0,
        "first_seen": datetime(2026, 2, 1), "last_seen": datetime(2026, 2, 1),
    }  # fmt: skip
    assert (ANN, BOB, "apart") in vetoes(shop)
    assert all((row["type_a"], row["value_a"]) < (row["type_b"], row["value_b"]) for row in edges)


def test_evidence_takes_the_verdicts_of_now_and_only_on_what_was_seen() -> None:
    rows = [Row("web", 1, 0, customer=1, mail=ANN[1]), Row("web", 2, 0, customer=2)]
    edges, seen = ibis.memtable(edges_table(rows)), ibis.memtable(seen_table(rows))
    shop = deciding(
        verdict("seen", link=["customer_id:1", "customer_id:2"]),
        verdict("never_seen", link=["customer_id:1", "customer_id:3"]),
    )
    once = with_verdicts(edges, seen, shop)
    twice = with_verdicts(once, seen, shop)
    without = with_verdicts(twice, seen, project())
    assert sorted(once.to_pyarrow()["record_id"].to_pylist()) == ["seen", "web0001"]
    assert twice.order_by("record_id").to_pyarrow().equals(once.order_by("record_id").to_pyarrow())
    assert without.to_pyarrow()["record_id"].to_pylist() == ["web0001"]


def test_a_new_verdict_names_nobody_and_is_not_said_twice() -> None:
    decided = new_verdict(project(), asked(*BOB), asked(*ANN), apart=True, by="ann", on=date(2026, 2, 1), why="Called.")
    assert decided.unlink == ["email:ann@example.com", "email:bob@example.com"] and decided.link is None
    assert "ann" not in decided.name and "example" not in decided.name + decided.description
    shop = with_verdict(project(), decided)
    for apart, words in ((True, "says so already"), (False, "keeps them apart: take it out first")):
        with pytest.raises(VerdictError, match=rf"^verdict '{decided.name}' \(ann, 2026-02-01\) {words}"):
            new_verdict(shop, asked(*ANN), asked(*BOB), apart=apart, by="x", on=date(2026, 2, 2), why="x")
    with pytest.raises(VerdictError, match="are the same identifier"):
        new_verdict(shop, asked(*ANN), asked(*ANN), apart=True, by="x", on=date(2026, 2, 2), why="x")


@pytest.mark.parametrize(
    "there",
    [
        None, "", "# Nothing was decided yet.\n", "# why\nkind: verdict\nname: old\ndescription: x\n"
        "unlink: ['email:x@example.com', \"email:y@example.com\"] # both called\nby: bob\non: 2026-01-02\nwhy: x",
        "---\nkind: identifier\nname: phone\ndescription: A phone.\n...\n",
    ],
    ids=["no file", "empty", "a comment", "no newline at the end", "ended document"],
)  # fmt: skip
def test_a_verdict_is_written_behind_what_stands_there(there: str | None, tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(PROJECT)
    path = tmp_path / "identity" / "verdicts.yaml"
    if there is not None:
        path.parent.mkdir()
        path.write_text(there)
        path.chmod(0o640)
    assert write_verdict(tmp_path, verdict(unlink=["email:ann@example.com", "email:bob@example.com"])) == path
    second = verdict("second", link=["email:ann@example.com", "email:cy@example.com"])
    write_verdict(tmp_path, second)
    assert path.read_text().startswith(there or "kind: verdict\n")
    loaded = load_project(tmp_path, {})
    assert loaded.verdicts["second"] == second
    assert set(loaded.verdicts) == {"they_called", "second"} | ({"old"} if there and "old" in there else set())
    assert [file.name for file in path.parent.iterdir()] == ["verdicts.yaml"]
    assert there is None or path.stat().st_mode & 0o777 == 0o640


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(by=TEXTS, why=TEXTS, value=TEXTS)
def test_whatever_is_said_is_read_back_as_it_was_said(tmp_path_factory, by: str, why: str, value: str) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("project")
    (folder / "project.yaml").write_text(PROJECT)
    said = verdict(by=by, why=why, link=[f"email:{value}", "email:${HOME}$${x}: {y}"])
    write_verdict(folder, said)
    if len({one[1].strip().casefold() for one in said.ends}) == 2:
        assert load_project(folder, {}).verdicts == {said.name: said}


def test_a_verdict_that_cannot_be_written_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_verdict(tmp_path, verdict(link=["email:a@b.c", "email:d@e.f"]))
    before = path.read_bytes()

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_verdict(tmp_path, verdict("second", link=["email:a@b.c", "email:g@h.i"]))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["verdicts.yaml"]

"""Link, unlink and simulate: what would change is shown first, and only what was decided is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cdp_pipeline.spec.load import load_project
from cdp_pipeline_tests.cli.conftest import Here
from cdp_pipeline_tests.orchestration.commands import Cdp

APART = ("identity", "unlink", "email:ann@example.com", "email: Bob@Example.com", "--why", "They called.")


def files(cdp: Cdp) -> dict[str, bytes]:
    return {str(path.relative_to(cdp.project)): path.read_bytes() for path in cdp.project.rglob("*") if path.is_file()}


def test_an_unlink_shows_its_consequences_and_writes_nothing_unless_told_to(copy: Cdp, cdp: Here) -> None:
    before, person = files(copy), cdp.json("person", "email:ann@example.com")["person_id"]
    said = cdp(*APART, code=1)
    assert "Nothing was written" in said.err
    assert files(copy) == before
    other = said.out.split(f"{person} becomes ")[1].split("\n")[0]
    assert "1 email" in other and "2 email" not in other
    for line in ("people: 7 before, 8 after; 1 split, 0 merged", "orders: 4 -> ", "revenue_365d: 152.74"):
        assert line in said.out
    assert (
        "are not one person:" in said.out and "keeps email:ann@example.com and email:bob@example.com apart" in said.out
    )


def test_an_unlink_is_written_once_and_then_cdp_check_still_finds_the_project_sound(copy: Cdp, cdp: Here) -> None:
    before = files(copy)
    told = cdp.json(*APART, "--by", "ann@example.com", "--yes")
    assert told["same_person"] is False and told["people"]["split"][0]["person_id"]
    assert told["effects"]["changed"]["orders"]["before"] and told["effects"]["sends"] == {
        "good_customers_to_crm": {"add": 1}
    }
    after = files(copy)
    (name,) = after.keys() - before.keys()
    assert name == "identity/verdicts.yaml" and before.items() <= after.items()
    (verdict,) = load_project(copy.project, copy.environment).verdicts.values()
    assert (verdict.unlink, verdict.by, verdict.why) == (
        ["email:ann@example.com", "email:bob@example.com"], "ann@example.com", "They called.",
    )  # fmt: skip
    assert cdp("check").out.startswith("my_company: sound")
    assert "says so already" in cdp.complaint(*APART, "--yes")
    assert "keeps them apart: take it out first" in cdp.complaint("identity", "link", *APART[2:], "--yes")
    assert files(copy) == after


def test_a_link_of_two_people_is_told_and_written(copy: Cdp, cdp: Here) -> None:
    cat, dan = "email:cat@example.com", "email:dan@example.com"
    told = cdp.json("identity", "link", cat, dan, "--why", "One mailbox.", "--yes")
    assert told["same_person"] is True
    (merged,) = told["people"]["merged"]
    assert sum(part.get("email", 0) for part in merged["of"].values()) == 2
    people = {cdp.json("person", one)["person_id"] for one in (cat, dan)}
    assert set(merged["of"]) == people and merged["person_id"] in people
    (verdict,) = load_project(copy.project, copy.environment).verdicts.values()
    assert verdict.link == [cat, dan]


def test_who_is_not_there_cannot_be_decided_on(cdp: Here) -> None:
    said = cdp.complaint("identity", "unlink", "email:anne@example.com", "email:bob@example.com", "--why", "x", "--yes")
    assert said == "no identifier email:anne@example.com, nearest: email:ann@example.com"
    same = cdp.complaint("identity", "link", "email:ann@example.com", "email:ANN@example.com", "--why", "x", "--yes")
    assert same == "email:ann@example.com and email:ann@example.com are the same identifier"


def test_the_packaged_demo_is_not_written_to(copy: Cdp, cdp: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDP_PROJECT")
    assert "cdp init DIR --from demo" in cdp.complaint(*APART, "--yes")


def test_other_rules_are_tried_on_the_rows_that_are_there(copy: Cdp, cdp: Here, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(copy.project, other)
    orders = other / "orders.yaml"
    orders.write_text(orders.read_text().replace("priority: 500\nlimit: 5", "priority: 500\nlimit: 1"))
    before = cdp.json("sql", "select * from identity.people order by all")
    told = cdp.json("identity", "simulate", str(other))
    assert (told["people"]["people_before"], told["people"]["people_after"]) == (7, 8)
    assert told["people"]["refused_after"] == {"a person has at most 1 email": 1}
    assert told["effects"]["changed"]["revenue_365d"]
    assert cdp.json("sql", "select * from identity.people order by all") == before
    said = cdp("identity", "simulate")
    assert "people: 7 before, 7 after; 0 split, 0 merged" in said.lines[0]
    assert said.lines[-1] == "no attribute, trait, audience or sync changes"


def test_other_audiences_are_worked_out_for_everybody(copy: Cdp, cdp: Here, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(copy.project, other)
    customers = other / "customers.yaml"
    customers.write_text(customers.read_text().replace('op: ">=", value: 100', 'op: ">=", value: 400'))
    told = cdp.json("identity", "simulate", str(other))
    assert told["people"]["moved"] == 0
    good = {
        row["person_id"]
        for row in cdp.json("sql", "select person_id from audiences.members where audience = 'good_customers'")
    }
    left = set(told["effects"]["left"]["good_customers"])
    assert left and left < good and "good_customers" not in told["effects"]["entered"]


def test_two_person_ids_are_explained_by_the_links_between_them(cdp: Here) -> None:
    ann = cdp.json("person", "email:ann@example.com")["person_id"]
    cat = cdp.json("person", "email:cat@example.com")["person_id"]
    answer = cdp.json("explain", "link", ann, "email:bob@example.com")
    assert answer["same_person"] and answer["notes"] == [f"of {ann}, email:ann@example.com is meant"]
    assert [held["count"] for held in answer["limits"]] == [2, 1]
    assert f"({ann}) and email:cat@example.com ({cat}) are not one person:" in cdp("explain", "link", ann, cat).out

"""`cdp diff` foretells what the next run makes, names people by id only, and changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline_tests.cli.conftest import Here
from cdp_pipeline_tests.cli.starter import NEWEST, state
from cdp_pipeline_tests.orchestration.commands import Cdp

NEW = """
kind: audience
name: small_orders
description: People who never ordered much at once.
rules: [{trait: largest, op: "<", value: 50}]
---
kind: trait
name: largest
description: Their largest order.
evaluation: max
event: order_completed
value: amount
"""


@pytest.fixture
def changed(shop: Cdp, tmp_path: Path) -> Path:
    """The shop's project with a shorter window, another threshold, another band and something new."""
    folder = tmp_path / "changed"
    shutil.copytree(shop.project, folder)
    changes = {
        "window: last 365 days": "window: last 45 days",
        "value: 100}": "value: 50}",
        "{name: quiet, above: 60, exit: 45}": "{name: quiet, above: 4, exit: 2}",
    }
    for file in folder.glob("*.yaml"):
        text = file.read_text()
        for old in [old for old in changes if old in text]:
            text = text.replace(old, changes.pop(old))
        file.write_text(text)
    assert not changes
    (folder / "new.yaml").write_text(NEW)
    return folder


def seen(cdp: Here) -> dict[str, Any]:
    """Everybody's traits, where they are and what they are in, by person id."""
    traits = cdp.json("sql", f"select * from traits.daily where day = '{NEWEST}'")
    bands = "select trait, person_id, arg_max(to_band, day) as band from traits.bands group by 1, 2"
    members = cdp.json("sql", f"select audience, person_id from audiences.members where day = '{NEWEST}'")
    return {
        "traits": {row["person_id"]: row for row in traits},
        "bands": {(row["trait"], row["person_id"]): row["band"] for row in cdp.json("sql", bands)},
        "members": {(row["audience"], row["person_id"]) for row in members},
    }


def test_what_a_diff_foretells_is_what_the_next_run_makes(copy: Cdp, cdp: Here, changed: Path) -> None:
    told, before = cdp.json("diff", str(changed), "--sample", "99"), seen(cdp)
    untouched = state(copy)
    shutil.copytree(changed, copy.project, dirs_exist_ok=True)
    assert state(copy) == untouched, "a diff publishes nothing"
    cdp("run", "group:traits or group:audiences")
    after = seen(cdp)
    assert told["people"] == len(before["traits"]) == 7 and told["identity"] is None and told["unseen"] == []
    assert [(one["kind"], one["name"], one["change"]) for one in told["documents"]] == [
        ("trait", "days_since_last_order", "changed"),
        ("trait", "largest", "new"),
        ("trait", "revenue_365d", "changed"),
        ("audience", "good_customers", "changed"),
        ("audience", "small_orders", "new"),
    ]
    assert [one["fields"] for one in told["documents"] if one["kind"] == "audience"] == [["rules"], []]
    by_trait = {one["name"]: one for one in told["traits"]}
    assert {"largest", "revenue_365d"} <= by_trait.keys()
    for name in after["traits"][min(after["traits"])].keys() - {"_computed_at"}:
        pairs = {p: (row.get(name), after["traits"][p][name]) for p, row in before["traits"].items()}
        unlike = {p: pair for p, pair in pairs.items() if pair[0] != pair[1]}
        one = by_trait.get(name, {"sample": [], "changed": 0, "gained": 0})
        assert one["changed"] == len(unlike), name
        assert {p: tuple(pair) for p, *pair in one["sample"] if pair} in (unlike, {})
        assert one["gained"] == sum(was is None for was, _ in unlike.values())
    crossed = [
        (trait, band, after["bands"][trait, person]) for (trait, person), band in before["bands"].items()
        if after["bands"][trait, person] != band
    ]  # fmt: skip
    assert {(one["name"], was, becomes): n for one in told["bands"] for was, becomes, n in one["moves"]} == {
        move: crossed.count(move) for move in crossed
    }
    quiet = sum(trait == "days_since_last_order" and to == "quiet" for trait, _, to in crossed)
    assert told["fires"] == {"gone_quiet": quiet} and quiet > 0
    was, now = cdp.json("trait", "history", "revenue_365d")
    assert (was["today"], was["days"], was["days_replaced"]) == (False, 0, 1) and (now["today"], now["days"]) == (
        True,
        1,
    )
    assert was["changed"] == by_trait["revenue_365d"]["changed"], "what was foretold was replaced, and is kept"
    person_id, old, new = by_trait["revenue_365d"]["sample"][0]
    values = cdp.json("trait", "history", "revenue_365d", person_id)
    assert [(row["value"], row["now"]) for row in values] == [(old, False), (new, True)]
    assert "did you mean 'revenue_365d'?" in cdp.complaint("trait", "history", "revenue_36")
    for one in told["audiences"]:
        was, becomes = (
            {person for audience, person in side["members"] if audience == one["name"]} for side in (before, after)
        )
        assert (one["before"], one["after"]) == (len(was), len(becomes))
        assert (set(one["entering"]), set(one["leaving"])) == (becomes - was, was - becomes)
    moved = {audience for audience, _ in before["members"] ^ after["members"]}
    assert {one["name"] for one in told["audiences"]} == moved and {"good_customers", "small_orders"} <= moved


def test_a_diff_reads_as_markdown_without_anybody_s_data(cdp: Here, changed: Path, tmp_path: Path) -> None:
    file = tmp_path / "review.md"
    assert "Wrote" in cdp("diff", str(changed), "--markdown", str(file)).err
    text = file.read_text()
    assert text.startswith(f"## What this change does to people\n\nAs of {NEWEST}, 7 people. ")
    assert "| trait | `revenue_365d` | changed: " in text and "### Audiences" in text
    for personal in ("example.com", "Ann", "Fay", "7946"):
        assert personal not in text


def test_people_who_part_are_told(cdp: Here, shop: Cdp, tmp_path: Path) -> None:
    folder = tmp_path / "apart"
    shutil.copytree(shop.project, folder)
    (folder / "verdicts.yaml").write_text(
        "kind: verdict\nname: not_one\ndescription: Two people.\nwhy: They said so.\nby: me@example.com\n"
        'on: 2026-01-01\nunlink: ["email:ann@example.com", "email:bob@example.com"]\n'
    )
    told = cdp.json("diff", str(folder), "--sample", "9")
    assert (told["identity"]["people_before"], told["identity"]["people_after"]) == (7, 8)
    [parted] = told["identity"]["split"]
    orders = next(one for one in told["traits"] if one["name"] == "orders")
    [(person_id, before, after)] = orders["sample"]
    assert person_id == parted["person_id"] and (before, after) in ((4, 3), (4, 1)), "one of them keeps the id"
    assert "0 people merge, 1 split" in cdp("diff", str(folder)).out


def test_the_same_project_makes_no_difference(cdp: Here, shop: Cdp) -> None:
    assert cdp("diff", str(shop.project)).lines[-1].endswith("The projects say the same.")
    assert "no traits were computed for 2026-01-01" in cdp.complaint("diff", str(shop.project), "--day", "2026-01-01")

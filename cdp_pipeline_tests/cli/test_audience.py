"""What a marketer asks of an audience on the command line, in words and as JSON."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from cdp_pipeline_tests.cli.conftest import Here
from cdp_pipeline_tests.cli.starter import NEWEST
from cdp_pipeline_tests.orchestration.commands import Cdp

GOOD, QUIET = "good_customers", "quiet_good_customers"


def test_a_size_says_how_many_of_everybody_and_how_many_each_channel_reaches(cdp: Here) -> None:
    [size] = cdp.json("audience", "size", GOOD)
    assert size == {
        "audience": GOOD, "day": str(NEWEST), "people": 6, "reachable_email": 5, "reachable_phone": 4, "everybody": 7,
        "share": 6 / 7,
    }  # fmt: skip
    assert cdp("audience", "size", GOOD).lines[1].split()[2:] == ["6", "5", "4", "7", "0.8571"]


def test_a_day_that_was_never_computed_is_computed_when_it_is_asked_for(cdp: Here) -> None:
    day = str(NEWEST - timedelta(days=45))
    [size] = cdp.json("audience", "size", GOOD, "--day", day)
    # By then Cat had spent 150 and Eve 500; Fay, Dan, Guy and Ann's 132 came later.
    assert (size["people"], size["day"]) == (2, day)
    emails = {row["email"] for row in cdp.json("audience", "preview", GOOD, "--day", day)}
    assert emails == {"cat@example.com", "eve@example.com"}
    quiet = cdp.json("audience", "members", QUIET, "--as-of", str(NEWEST - timedelta(days=30)))
    assert len(quiet) == 2, "Cat and Eve, 70 and 170 days after their orders: nothing was known of that day's bands"


def test_a_waterfall_ends_with_the_size_and_names_the_closest_miss(cdp: Here) -> None:
    found = cdp.json("audience", "waterfall", QUIET)
    assert (found["everybody"], found["members"]) == (7, 1)
    assert [(step["condition"], step["left"], step["removed"], step["fail_only_this"]) for step in found["steps"]] == [
        (f"is in the audience {GOOD}", 6, 1, 0),
        ("days_since_last_order is in the band quiet", 1, 5, 5),
    ]
    missed = cdp.json("audience", "waterfall", QUIET, "--misses", "2")["misses"]
    assert [row["fails only"] for row in missed] == ["days_since_last_order is in the band quiet"] * 2
    said = cdp("audience", "waterfall", QUIET)
    assert said.lines[0] == f"{QUIET}, {NEWEST}: 1 of 7 people"
    assert said.lines[-1] == (
        "Closest: 5 people would be in, were it not for: days_since_last_order is in the band quiet"
    )


def test_overlaps_are_of_one_with_all_or_of_each_pair(cdp: Here) -> None:
    [row] = cdp.json("audience", "overlap", QUIET)
    assert (row["audience"], row["people"], row["in_both"], row["share_of_this"]) == (GOOD, 6, 1, 1.0)
    assert cdp.json("audience", "overlap") == [
        {"audience": GOOD, GOOD: 6, QUIET: 1}, {"audience": QUIET, GOOD: 1, QUIET: 1},
    ]  # fmt: skip
    assert cdp("audience", "overlap").lines[1].split() == [GOOD, "6", "1"]
    assert f"did you mean '{GOOD}'" in cdp.complaint("audience", "overlap", "good_customer")


def test_a_breakdown_never_tells_names(cdp: Here) -> None:
    rows = cdp.json("audience", "breakdown", QUIET)
    assert {row["what"] for row in rows} <= {"orders", "revenue_365d", "days_since_last_order"}
    orders = next(row for row in rows if row["what"] == "orders" and row["people"])
    assert (orders["share"], orders["people"]) == (1.0, 1)
    assert cdp("audience", "breakdown", GOOD).code == 0


def test_members_are_those_of_todays_definition_or_of_what_was_found_then(cdp: Here) -> None:
    members = cdp.json("audience", "members", GOOD)
    assert len(members) == 6 and members == sorted(members)
    assert cdp("audience", "members", GOOD).lines == members
    assert cdp.json("audience", "members", GOOD, "--definition", "then") == members
    said = cdp.complaint("audience", "members", GOOD, "--definition", "then", "--as-of", "2026-01-02")
    assert "was not computed for 2026-01-02" in said and "--definition HEAD" in said


def test_between_two_days_one_sees_who_came_and_because_of_what(cdp: Here) -> None:
    first = str(NEWEST - timedelta(days=45))
    found = cdp.json("audience", "diff", GOOD, "--from", first)
    assert (found["before"], found["after"], found["stay"]) == (2, 6, 2)
    assert found["entered"]["because"] == [
        {"condition": "nobody knew them then", "people": 3}, {"condition": "revenue_365d >= 100", "people": 1},
    ]  # fmt: skip
    assert found["left"]["people"] == 0
    lines = cdp("audience", "diff", GOOD, "--from", first, "--sample", "0").lines
    assert lines[0] == f"{GOOD}: 2 people before, 6 after, 2 stay" and "4 enter" in lines
    assert "another project" in cdp("audience", "diff", GOOD, code=2).err.replace("\n", " ")


def test_another_definition_is_tried_before_it_is_put_in_force(cdp: Here, shop: Cdp, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(shop.project, other)
    rules = other / "customers.yaml"
    rules.write_text(rules.read_text().replace('op: ">=", value: 100', 'op: ">=", value: 400'))
    found = cdp.json("audience", "diff", GOOD, str(other))
    assert (found["before"], found["after"], found["entered"]["people"]) == (6, 2, 0)
    assert found["left"]["because"] == [{"condition": "revenue_365d >= 400", "people": 4}]
    assert len(found["left"]["sample"]) == 4

    traits = other / "traits.yaml"
    traits.write_text(traits.read_text().replace("window: last 365 days", "window: last 30 days"))
    found = cdp.json("audience", "diff", GOOD, str(other))
    assert found["after"] == 1, "only Fay spent 400 pounds within 30 days; the lake never saw this trait"

    shutil.copytree(shop.project, tmp_path / "without")
    (tmp_path / "without" / rules.name).write_text((shop.project / rules.name).read_text().replace(GOOD, "best"))
    assert "audience 'good_customers'" in cdp("audience", "diff", GOOD, str(tmp_path / "without"), code=1).err


def test_the_sql_of_an_audience_can_be_given_to_cdp_sql(cdp: Here) -> None:
    text = cdp.json("audience", "sql", QUIET)["sql"]
    assert cdp("audience", "sql", QUIET).out == f"{text}\n"
    assert [row["person_id"] for row in cdp.json("sql", text)] == cdp.json("audience", "members", QUIET)


def test_unknown_audiences_are_answered_with_the_nearest(cdp: Here) -> None:
    for command in ("waterfall", "breakdown", "members", "sql"):
        assert f"did you mean '{GOOD}'" in cdp.complaint("audience", command, "good_customer")

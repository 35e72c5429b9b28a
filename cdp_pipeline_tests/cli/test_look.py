"""Commands that look: at people, audiences, tables, rows set aside and the installation itself."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from pathlib import Path

import pytest

from cdp_pipeline_tests.cli.conftest import Here
from cdp_pipeline_tests.cli.starter import BAD, NEWEST
from cdp_pipeline_tests.orchestration.commands import Cdp


def test_a_person_is_found_by_any_of_their_identifiers(cdp: Here) -> None:
    page = cdp.json("person", "email:ANN@example.com")
    assert {(row["type"], row["value"]) for row in page["identifiers"]} == {
        ("email", "ann@example.com"), ("email", "bob@example.com"), ("phone", "+442079460018"),
    }  # fmt: skip
    assert page["traits"]["orders"] == 4 and float(page["traits"]["revenue_365d"]) == 152.74
    assert page["audiences"] == ["good_customers"]
    assert page == cdp.json("person", "phone:020 7946 0018") == cdp.json("person", page["person_id"])


def test_a_person_page_reads_well_in_a_terminal(cdp: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    said = cdp("person", "email:ann@example.com")
    assert all(len(line) <= 100 for line in said.lines)
    assert any(line.split()[-2:] == ["revenue_365d", "152.74"] for line in said.lines)
    assert "most recent in orders, of 2 values" in " ".join(said.out.split()), "Ann and Bob have two names"
    assert any(line.split()[-3:] == ["days_since_last_order", "3", "ok"] for line in said.lines)
    assert "None" not in said.out


def test_a_persons_identity_is_drawn_into_a_file(cdp: Here, tmp_path: Path) -> None:
    file = tmp_path / "ann.svg"
    said = cdp("person", "email:ann@example.com", "--graph", str(file), "--json")
    assert json.loads(said.out)["identifiers"] and "ann.svg" in said.err
    picture = file.read_text()
    assert picture.startswith("<svg") and "3 identifiers" in picture
    assert all(value in picture for value in ("ann@example.com", "bob@example.com", "+442079460018"))


def test_a_person_as_of_a_day_has_the_traits_of_that_day_or_none(cdp: Here) -> None:
    day = NEWEST.isoformat()
    assert cdp.json("person", "email:ann@example.com", "--as-of", day)["traits"]["day"] == day
    earlier = cdp.json("person", "email:ann@example.com", "--as-of", str(NEWEST - timedelta(days=1)))
    assert earlier["traits"] == {} and earlier["audiences"] == [] and earlier["identifiers"]


def test_rankings_that_nobody_declared_are_not_nothing_to_show(cdp: Here) -> None:
    assert "no ranking is declared" in cdp.complaint("recommend", "email:ann@example.com")


def test_an_unknown_person_is_answered_with_the_nearest(cdp: Here) -> None:
    assert "did you mean email:ann@example.com?" in cdp.complaint("person", "Ann@example.com")
    assert "nearest: email:ann@example.com" in cdp.complaint("person", "email:an@example.com")
    assert "email, phone" in cdp.complaint("person", "nobody")
    assert "email" in cdp.complaint("timeline", "mail:ann@example.com")


def test_a_timeline_is_newest_first_and_as_long_as_asked(cdp: Here) -> None:
    rows = cdp.json("timeline", "email:fay@example.com")
    assert len(rows) == 15 and rows == sorted(rows, key=lambda row: row["occurred_at"], reverse=True)
    assert cdp.json("timeline", "email:fay@example.com", "--limit", "2") == rows[:2]
    assert "20.10" in cdp("timeline", "email:fay@example.com").lines[1]


def test_a_link_is_explained_and_so_is_its_absence(cdp: Here) -> None:
    found = cdp.json("explain", "link", "email:ann@example.com", "email:bob@example.com")
    assert found["same_person"] and [link["value_b"] for link in found["path"]] == ["+442079460018"] * 2
    assert "are one person" in cdp("explain", "link", "email:ann@example.com", "email:bob@example.com").out
    other = cdp("explain", "link", "email:ann@example.com", "email:dan@example.com")
    assert "are not one person" in other.out and "no row ever showed them" in other.out


def test_membership_is_explained_condition_by_condition(cdp: Here) -> None:
    said = cdp("explain", "audience", "quiet_good_customers", "email:cat@example.com")
    assert said.lines[0].startswith("yes") and "it is quiet" in said.out
    assert cdp("explain", "audience", "good_customers", "email:hal@example.com").lines[0].startswith("no")


def test_audiences_are_listed_measured_and_sampled(cdp: Here) -> None:
    listed = {row["audience"]: row for row in cdp.json("audience", "list")}
    assert listed["good_customers"]["people"] == 6 and listed["quiet_good_customers"]["people"] == 1
    [size] = cdp.json("audience", "size", "good_customers")
    assert (size["people"], size["reachable_email"], size["reachable_phone"]) == (6, 5, 4)
    sample = cdp.json("audience", "preview", "good_customers", "--limit", "3")
    assert len(sample) == 3 and len(cdp.json("audience", "preview", "good_customers")) == 6
    assert {row["email"] for row in cdp.json("audience", "preview", "quiet_good_customers")} == {"cat@example.com"}
    assert "did you mean 'good_customers'" in cdp.complaint("audience", "size", "good_customer")
    assert "did you mean 'good_customers'" in cdp.complaint("audience", "preview", "Good_customers")
    assert "nothing is known of 2020-01-02" in cdp.complaint(
        "audience", "size", "good_customers", "--day", "2020-01-02"
    )


COUNTED = "select evaluated.orders, count(*) as people from traits.daily evaluated group by 1 order by 1"


def test_sql_answers_as_table_json_and_csv(cdp: Here) -> None:
    rows = cdp.json("sql", COUNTED)
    assert sum(row["people"] for row in rows) == 7
    told = list(csv.DictReader(io.StringIO(cdp("sql", COUNTED, "--csv").out)))
    assert told == [{name: str(value) for name, value in row.items()} for row in rows]
    assert cdp("sql", COUNTED).lines[1:] == [f"{row['orders']:>6}  {row['people']:>6}" for row in rows]
    assert cdp("sql", "select 1 as n, 2 as n").lines[0].split() == ["n", "n_1"]
    assert cdp("sql", "select 1 where false").out == "nothing to show\n"
    schemas = cdp.json("sql", "select distinct table_schema as name from information_schema.tables")
    assert {"sources", "identity", "profile", "traits", "audiences", "activation"} <= {row["name"] for row in schemas}
    assert cdp.json("sql", "describe traits.daily") and cdp.json("sql", "explain select * from traits.daily")


def test_sql_shows_the_lake_as_it_was(cdp: Here) -> None:
    now = cdp.json("sql", "select current_date as day")[0]["day"]
    assert cdp.json("sql", COUNTED, "--as-of", now) == cdp.json("sql", COUNTED)
    assert "2026-01-02" in cdp.complaint("sql", COUNTED, "--as-of", "2026-01-02")


@pytest.mark.parametrize(
    "query",
    [
        "insert into identity.people select * from identity.people",
        "delete from identity.people",
        "drop table identity.people",
        "create table identity.mine as select 1 as n",
        "copy (select 1) to '{file}'",
        "explain analyze copy (select 1) to '{file}'",
        "attach '{file}' as other",
        "set memory_limit = '1GB'",
        "select 1; select 2",
        "",
    ],
)
def test_sql_only_reads(cdp: Here, tmp_path: Path, query: str) -> None:
    file = tmp_path / "written"
    assert "cdp sql reads" in cdp.complaint("sql", query.format(file=file))
    assert not file.exists()


def test_a_query_that_is_wrong_is_told_as_the_database_sees_it(cdp: Here) -> None:
    assert 'Did you mean "daily"' in cdp("sql", "select * from traits.dayly", code=1).err
    assert "syntax error" in cdp("sql", "selekt 1", code=1).err
    assert '"orders"' in cdp("sql", "select ordrs from traits.daily", code=1).err


def test_wide_rows_stand_one_under_the_other_in_a_terminal_and_whole_in_a_pipe(
    cdp: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "select * from identity.edges"
    piped = cdp("sql", query)
    assert len(piped.lines) == 1 + len(cdp.json("sql", query))
    monkeypatch.setenv("COLUMNS", "100")
    terminal = cdp("sql", query)
    assert terminal.lines[0].strip() == "1 of 4" and max(map(len, terminal.lines)) <= 100


def test_what_was_set_aside_is_shown_as_it_came(cdp: Here) -> None:
    [row] = cdp.json("quarantine", "list")
    assert (row["source"], row["reason"], row["column"], row["rows"]) == ("orders", "wrong_type", "total", 1)
    [row] = cdp.json("quarantine", "show", "orders")
    assert row["raw"].startswith(f"{BAD},") and "free" in row["raw"]
    assert "did you mean 'orders'" in cdp.complaint("quarantine", "show", "order")


def test_status_and_doctor_find_a_fresh_installation_well(cdp: Here) -> None:
    for command in ("status", "doctor"):
        findings = cdp.json(command)
        assert {finding["state"] for finding in findings} <= {"ok", "warn"}, findings
        assert all(finding["do"] == "" for finding in findings if finding["state"] == "ok")
        assert len(cdp(command).lines) == len(findings) + 1
    assert "1 row set aside" in cdp("status").out


def test_help_names_every_command(cdp: Here) -> None:
    commands = {"init", "demo-data", "check", "run", "dev", "status", "doctor", "person", "timeline", "explain"}
    shown = [line.strip("│ ").split()[0] for line in cdp("--help").lines if line.startswith("│")]
    assert commands | {"audience", "sql", "quarantine", "sync"} <= set(shown)


def test_json_is_json_everywhere(cdp: Here) -> None:
    for command in (["check"], ["audience", "list"], ["quarantine", "list"], ["status"], ["doctor"]):
        assert isinstance(json.loads(cdp(*command, "--json").out), list)


def test_a_lake_that_is_not_there_yet_is_one_line(cdp: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDP_LAKE", str(tmp_path / "none"))
    for command in (["sql", "select 1"], ["person", "email:ann@example.com"], ["audience", "list"]):
        assert "cdp run" in cdp.complaint(*command)


def test_replay_mends_what_a_patch_mends_and_a_dry_run_nothing(copy: Cdp, cdp: Here, tmp_path: Path) -> None:
    patch = tmp_path / "patch.yaml"
    patch.write_text("total: '12.50'\n")
    replay = ("quarantine", "replay", "orders")
    assert cdp.json(*replay)[0]["still_waiting"] == 1
    assert cdp.json(*replay, "--patch", str(patch), "--dry-run")[0]["accepted"] == 1
    assert cdp.json("quarantine", "list")
    assert cdp.json(*replay, "--patch", str(patch))[0]["accepted"] == 1
    assert cdp.json("quarantine", "list") == []
    [row] = cdp.json("sql", f"select total from sources.orders where order_id = '{BAD}'")
    assert float(row["total"]) == 12.5


@pytest.mark.parametrize(
    ("text", "told"),
    [("[", "cannot be read as YAML"), ("- 1", "a patch is"), ("totl: 1", "did you mean 'total'")],
)
def test_a_wrong_patch_is_one_line(cdp: Here, tmp_path: Path, text: str, told: str) -> None:
    patch = tmp_path / "patch.yaml"
    patch.write_text(text)
    replay = ("quarantine", "replay", "orders", "--dry-run", "--patch")
    assert told in cdp.complaint(*replay, str(patch))
    assert "No such file" in cdp.complaint(*replay, str(tmp_path / "none.yaml"))

"""Commands that make: a project, the demo's data, and everything `cdp run` computes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from cdp_pipeline_tests.cli.conftest import Here
from cdp_pipeline_tests.cli.starter import NEWEST, state
from cdp_pipeline_tests.destinations.servers import Answer, Receiver
from cdp_pipeline_tests.orchestration.commands import Cdp


def test_a_starter_project_is_sound_and_names_what_comes_next(cdp: Here, tmp_path: Path) -> None:
    assert f"cdp check --project {tmp_path / 'mine'}" in cdp("init", str(tmp_path / "mine")).out
    sound = cdp("check", "--project", str(tmp_path / "mine")).out
    assert re.fullmatch(r"my_company: sound\. 1 source, \d\d traits, \d\d audiences, 1 trigger\.\n", sound), sound
    assert cdp("init", str(tmp_path / "all"), "--from", "demo").code == 0
    assert cdp.json("check", "--project", str(tmp_path / "all")) == []


def test_a_project_is_only_written_where_nothing_is(cdp: Here, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "is not an empty folder" in cdp.complaint("init", str(tmp_path))
    assert "is not an empty folder" in cdp.complaint("init", str(tmp_path / "thesis.txt"))
    assert "starter and demo" in cdp.complaint("init", str(tmp_path / "new"), "--from", "scratch")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_project_with_its_lake_inside_stays_sound_after_a_run(shop: Cdp, cdp: Here, tmp_path: Path) -> None:
    shutil.copytree(shop.project, tmp_path / "shop")
    shutil.copytree(shop.lake, tmp_path / "shop" / "data" / "lake")
    assert (tmp_path / "shop" / "data" / "lake" / "dagster" / "dagster.yaml").exists()
    assert "sound" in cdp("check", "--project", str(tmp_path / "shop")).out


@pytest.fixture
def broken(copy: Cdp) -> Cdp:
    customers = copy.project / "customers.yaml"
    customers.write_text(customers.read_text().replace("revenue_365d, op", "revenue_356d, op"))
    (copy.project / "a.yaml").write_text("kind: traits\nname: x\n")
    return copy


def test_every_problem_is_a_line_in_order_and_the_exit_code_is_1(broken: Cdp, cdp: Here) -> None:
    said = cdp("check", code=1)
    assert said.lines == sorted(said.lines) and len(said.lines) == 2
    assert said.lines[0].startswith("a.yaml:1: kind: unknown kind 'traits', did you mean 'trait'")
    assert "did you mean 'revenue_365d'" in said.lines[1]
    assert said.err.startswith("2 problems in ")
    assert [(row["file"], row["line"]) for row in cdp.json("check", code=1)] == [
        (line.split(":")[0], int(line.split(":")[1])) for line in said.lines
    ]


def test_a_broken_project_stops_every_command_with_its_problems(broken: Cdp, cdp: Here) -> None:
    for command in (["run"], ["status"], ["sql", "select 1"], ["person", "email:ann@example.com"]):
        said = cdp(*command, code=1)
        assert said.out == "" and said.err.startswith("a.yaml:1: ") and len(said.err.splitlines()) == 2
    said = cdp("doctor", code=1)
    assert "FAIL  project shop" in said.out and "2 problems" in said.out and "cdp check" in said.out


def test_editors_get_a_json_schema(cdp: Here) -> None:
    schema = json.loads(cdp("check", "--schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/") and "audience" in json.dumps(schema)


def test_the_demo_is_the_same_bytes_for_the_same_seed(cdp: Here, tmp_path: Path) -> None:
    def made(name: str, seed: str) -> dict[str, str]:
        cdp("demo-data", str(tmp_path / name), "--customers", "30", "--days", "10", "--seed", seed)
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / name)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert made("one", "1") == made("again", "1") != made("other", "2")


def test_the_demo_may_end_yesterday_so_that_there_is_something_to_act_on(cdp: Here, tmp_path: Path) -> None:
    cdp("demo-data", str(tmp_path / "new"), "--customers", "30", "--days", "3", "--until", "2026-11-21")
    assert sorted(file.name[:10] for file in (tmp_path / "new").glob("shop_orders/*.*"))[-1] == "2026-11-21"


def test_a_run_ends_with_what_was_made_and_every_check(shop: Cdp) -> None:
    said = (shop.lake.parent / "first_run.txt").read_text()
    assert any(line.split() == ["traits/daily", "7"] for line in said.splitlines())
    assert re.search(r"(\d+) of \1 checks passed", said)
    assert "People: 7, of whom 7 known" in said and "good_customers 6" in said and "5 shown in dry run" in said
    assert f"Audiences at the end of {NEWEST}: " in said


def test_a_second_run_changes_nothing(copy: Cdp, cdp: Here) -> None:
    before = state(copy)
    report = cdp.json("run")
    assert report["success"] and report["day"] == str(NEWEST) and all(check["passed"] for check in report["checks"])
    assert state(copy) == before


def test_days_are_computed_as_asked_and_stay_what_they_are(copy: Cdp, cdp: Here) -> None:
    first = NEWEST - timedelta(days=2)
    cdp("run", "group:traits or group:audiences", "--from", str(first), "--to", str(NEWEST))
    days = "select day, count(*) as people from traits.daily group by 1 order by 1"
    assert [row["day"] for row in cdp.json("sql", days)] == [str(first + timedelta(days=n)) for n in range(3)]
    counted = cdp.json("sql", days)
    assert cdp.json("run", "traits/daily", "--day", str(first))["day"] == str(first)
    assert cdp.json("sql", days) == counted
    assert cdp.json("person", "email:dan@example.com", "--as-of", str(first))["traits"]["orders"] == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["traits/dayly"], "unknown asset 'traits/dayly', did you mean 'traits/daily'"),
        (["group:nosuch"], "names no asset"),
        (["group:"], "selection syntax"),
        (["--day", "1999-01-01"], "first_day, 2026-01-01"),
        (["--day", "2999-01-01"], "to today"),
    ],
)
def test_a_run_that_cannot_be_is_one_line(cdp: Here, arguments: list[str], told: str) -> None:
    assert told in cdp.complaint("run", *arguments)


def test_options_that_contradict_each_other_are_refused(cdp: Here) -> None:
    assert "--day, or --from" in cdp("run", "--day", "2026-02-01", "--from", "2026-01-01", code=2).err
    assert "go together" in cdp("run", "--from", "2026-01-01", code=2).err
    assert "'yesterday' does not match" in cdp("run", "--day", "yesterday", code=2).err


def test_a_missing_file_is_said_in_one_line(cdp: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDP_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "lake" / "dagster"))
    monkeypatch.setenv("CDP_DATA", str(tmp_path / "none"))
    [line] = cdp("run", code=1).err.strip().splitlines()
    assert line.startswith("sources/orders failed: ") and "orders.csv" in line and "Error" not in line


def test_a_file_that_goes_away_once_loaded_takes_nothing_with_it(
    copy: Cdp, cdp: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(copy)
    monkeypatch.setenv("CDP_DATA", str(tmp_path / "none"))
    cdp("run", "group:sources")
    assert state(copy) == before


def test_who_waits_for_an_answer_that_does_not_come_is_told_until_when_and_why(
    copy: Cdp, cdp: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver(lambda _: Answer(503, {"Retry-After": "600"}, applied=False)) as hook:
        monkeypatch.setenv("CRM_URL", hook.url)
        monkeypatch.setenv("CRM_DRY_RUN", "false")
        cdp("sync", "apply")
        [plan] = cdp.json("sync", "plan")
        cdp("sync", "approve", plan["plan_id"])
        first = cdp("sync", "deliver").err
        assert "1 to be tried again" in first and "sync:good_customers_to_crm to crm: " in first and "HTTP 503" in first
        again = cdp("sync", "deliver").err
        assert "wait until" in again and "HTTP 503" in again, "and not only that nothing is due"
        assert "UTC: HTTP 503" in cdp("status").out


def test_the_first_sync_waits_until_somebody_has_looked(copy: Cdp, cdp: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    [shown] = cdp.json("sync", "plan")
    assert (shown["state"], shown["add"]) == ("shown", 5), "a dry run has nothing to wait for"
    answers = [Answer(422, applied=False)]
    with Receiver(lambda _: answers.pop() if answers else Answer()) as hook:
        monkeypatch.setenv("CRM_URL", hook.url)
        monkeypatch.setenv("CRM_DRY_RUN", "false")
        report = cdp("run", "group:activation").out
        assert "no_plan_is_held" in report
        [plan] = cdp.json("sync", "plan")
        assert hook.requests == [] and plan["state"] == "held" and "first" in plan["because"]
        assert f"cdp sync approve {plan['plan_id']}" in cdp("status").out
        assert f"held: {plan['plan_id']}" in cdp.complaint("sync", "approve", "another")
        assert cdp.json("sync", "apply")[0]["state"] == "held" and hook.requests == []
        released = cdp.json("sync", "approve", plan["plan_id"], "--by", "ann")
        assert released == [{"plan_id": plan["plan_id"], "released": 5}] and hook.requests == []
        assert "no_plan_is_held" not in cdp("status").out, "what was released is no longer said to wait"
        assert "4 delivered" in cdp("sync", "deliver", "good_customers_to_crm").err
        cdp("run", "group:activation")
        [stands] = cdp.json("sync", "list")
        assert (stands["there"], stands["failed"], stands["last_plan"]) == (4, 1, "applied")
        [case] = cdp.json("sync", "failed", "good_customers_to_crm")
        assert (case["state"], case["reason"], case["operations"]) == ("failed", "HTTP 422", 1)
        [status] = cdp.json("sync", "status")
        stands = {name: status[name] for name in ("audience", "delivered", "failed", "suppressed", "adds_up")}
        assert stands == {"audience": 6, "delivered": 4, "failed": 1, "suppressed": 1, "adds_up": True}
        assert "did you mean 'crm'" in cdp.complaint("sync", "retry", "--destination", "cmr")
        assert "nothing has failed" in cdp("sync", "retry", "--op", "another").out
        assert "cdp sync failed, then cdp sync retry" in cdp("status").out
        assert cdp.json("sync", "retry", "--sync", "good_customers_to_crm") == [{"due_again": 1}]
        cdp("sync", "apply")
        assert sorted(effect["data"]["email"] for effect in hook.effects.values()) == [
            f"{name}@example.com" for name in ("ann", "cat", "dan", "eve", "fay")
        ]
        assert len(hook.requests) == 6 and cdp.json("sync", "plan")[0]["state"] == "unchanged"
        assert cdp.json("sync", "dismiss", "nobody asks") == [{"dismissed": 0}]
        assert ("applied", "ann") in [(run["state"], run["approved_by"]) for run in cdp.json("sync", "runs")]
        assert "not paused" in cdp.complaint("sync", "resume", "crm")
        assert "did you mean 'good_customers_to_crm'" in cdp.complaint("sync", "plan", "good_customer_to_crm")
        cdp("sync", "forget", "good_customers_to_crm")
        [again] = cdp.json("sync", "plan")
        assert (again["state"], again["add"], again["remove"]) == ("held", 5, 0) and "lost" in again["because"]
        cdp("sync", "approve", again["plan_id"])
        cdp("sync", "apply")
        assert len(hook.effects) == 10, "what is sent again after a loss is no repetition over there"

"""The guard-rails of the design, one after the other, on the whole way from an audience in the lake to the receiver.

Each is planted in a sync of its own, and all are run at once: it is held, Dagster and the commands say so and why, and
an approval sends just what was held.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from cdp_pipeline.activation.schema import acknowledged, outbox
from cdp_pipeline.audiences.members import HELD, MEMBERS, SIZES
from cdp_pipeline.cli import main
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake import Mirror, Upsert
from cdp_pipeline.lake.table import Table
from cdp_pipeline.orchestration.build import build_defs
from cdp_pipeline.orchestration.installation import lake_of, ledger_of
from cdp_pipeline.orchestration.run import RunReport, run_project
from cdp_pipeline.profile.customers import customers_table
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.cli.conftest import Here, Said
from cdp_pipeline_tests.destinations.servers import SECRET, Answer, Received, Receiver

TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)
FIRST = "it is the first synchronisation to 'crm'"
BEFORE = {
    "as_usual": 100, "shrinks": 400, "grows": 100, "empties": 50, "blurs": 100, "unsound": 100, "stale": 100,
    "forgotten": 300, "leaks": 30, "rejected": 10, "locked": 10,
}  # fmt: skip
"""How many each audience has when all syncs have settled, by the name of the sync."""
NOW = BEFORE | {"arrives": 40, "as_usual": 105, "shrinks": 299, "grows": 131, "empties": 0, "unsound": 101,
                "stale": 101, "forgotten": 150, "rejected": 40, "locked": 12, "tried": 10}  # fmt: skip
HELD_BECAUSE = {
    "arrives": FIRST,
    "shrinks": "it would remove 101 of the 400 who are there",
    "grows": "the audience has 131 people, usually 100",
    "empties": "the audience is empty; the audience has 0 people, usually 50",
    "blurs": "'city' is unknown of 12% of the audience, before of 0%",
    "unsound": "check 'usual_size' of audiences/unsound failed",
    "stale": "audience 'stale' is older than 2 days",
    "forgotten": "the ledger has lost what 300 deliveries left there: everybody is sent again, nobody is removed; "
    "the audience has 150 people, usually 300",
    "rejected": "the audience has 40 people, usually 10",
}
DECLARED = """
kind: project
name: scheme
description: A loyalty scheme whose members are kept in the CRM.
timezone: Europe/London
currency: GBP
first_day: 2026-01-01
shipped: {traits: false, audiences: false}
lake: {path: "${CDP_LAKE}"}
---
kind: identifier
name: email
description: E-mail address.
---
kind: source
name: cards
description: Cards of the loyalty scheme.
files: ${CDP_DATA}/cards.csv
mode: snapshot
grain: [email]
columns:
  email: {type: string, required: true, normalise: email, identifier: email, pii: true}
  city: {type: string}
---
kind: attribute
name: email
description: E-mail address.
pii: true
sources: [{source: cards, column: email}]
---
kind: attribute
name: city
description: Where they live.
sources: [{source: cards, column: city}]
"""
SYNCED = """
---
kind: audience
name: NAME
description: Some of them.
rules: [{attribute: city, op: "!=", value: NAME}]
---
kind: sync
name: NAME
description: Kept in the CRM.
audience: NAME
destination: CRM
mode: mirror
key: email
mapping: {email: email, city: city}
"""
DESTINATION = """
---
kind: destination
name: NAME
description: A system of another department.
type: webhook
url: ${CRM_URL}/NAME
secret: ${CRM_SECRET}
allow_private: true
rate: RATE
dry_run: DRY
"""
DESTINATIONS = {"rejected": "picky", "locked": "safe", "tried": "trial"}
"""Where syncs lead that do not lead to the CRM; the trial is in dry run."""


def email(person_id: str) -> str:
    return f"{person_id}@example.com"


def rows(table: Table, found: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(table.columns) | row for row in found], table.schema.to_pyarrow())


@dataclass
class Scheme:
    """The loyalty scheme, the systems it syncs to, and what people run."""

    project: Project
    hook: Receiver
    found: dict[str, Any] = field(default_factory=dict)
    """What a run and the commands said when everything was planted."""

    def said(self, *arguments: str) -> Said:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with pytest.MonkeyPatch.context() as given, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            given.setattr("sys.argv", ["cdp", *arguments])
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
        return Said(out.getvalue(), err.getvalue(), code)

    @property
    def cdp(self) -> Here:
        return Here(self.said)

    def become(self, sizes: dict[str, int], day: Any, unknown_cities: int = 0) -> None:
        """Who is in each audience at the end of a day; some of `blurs` live nobody knows where."""
        people = [(name, f"{name}-{number:03}", number) for name, size in sizes.items() for number in range(size)]
        known = customers_table(self.project)
        with lake_of(self.project) as lake:
            lake.publish(
                Mirror(MEMBERS, rows(MEMBERS, [
                    {"audience": name, "person_id": id_, "day": day} for name, id_, _ in people
                ])),
                Upsert(SIZES, rows(SIZES, [{"audience": name, "day": day, "people": n} for name, n in sizes.items()])),
                Mirror(HELD, rows(HELD, [])),
                Mirror(known, rows(known, [
                    {"person_id": id_, "email": email(id_),
                     "city": None if name == "blurs" and number < unknown_cities else "Leeds"}
                    for name, id_, number in people
                ])),
                Mirror(PEOPLE, rows(PEOPLE, [
                    {"person_id": id_, "kind": "known", "identifiers": 1} for _, id_, _ in people
                ])),
                Mirror(IDENTIFIERS, rows(IDENTIFIERS, [
                    {"type": "email", "value": email(id_), "person_id": id_, "status": "ok", "id": at}
                    for at, (_, id_, _) in enumerate(people)
                ])),
            )  # fmt: skip

    def run(self, *assets: str) -> RunReport:
        report = run_project(self.project, " or ".join(f'key:"activation/{name}"' for name in assets))
        assert report.failures == {}
        return report

    def plan(self, name: str) -> dict[str, Any]:
        """What `cdp sync plan` said of a sync when everything was planted."""
        return next(line for line in self.found["plan"] if line["sync"] == name)

    def told(self, name: str) -> list[tuple[str, bool, str | None]]:
        """What was received for a sync since the planting: of whom, whether a member, and of where."""
        effects = [one for one in self.hook.effects.values() if one["type"] == f"sync.{name}"]
        return sorted((one["key"], one["member"], one["data"].get("city")) for one in effects)

    def approve_and_send(self, name: str) -> list[tuple[str, bool, str | None]]:
        """What is received after an approval of the plan that was held, and nothing before."""
        plan = self.plan(name)
        assert plan["state"] == "held" and self.told(name) == []
        [said] = self.cdp.json("sync", "approve", plan["plan_id"], "--by", "ann")
        assert said["released"] == plan["add"] + plan["update"] + plan["remove"] and self.told(name) == []
        self.cdp("sync", "deliver", name)
        return self.told(name)


def answer(request: Received) -> Answer:
    """The CRM takes everything; the others refuse whoever came after the first ten."""
    new = int(request.json["key"].split("@")[0][-3:]) >= 10
    if request.path.endswith("/safe") and new:
        return Answer(401, applied=False)
    return Answer(422, applied=False) if request.path.endswith("/picky") and new else Answer()


@pytest.fixture(scope="module")
def scheme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheme]:
    """Everything has settled; then each guard-rail was planted, the plans were made in a run, and everybody looked."""
    folder = tmp_path_factory.mktemp("scheme")
    text = DECLARED
    for name in NOW:
        text += SYNCED.replace("NAME", name).replace("CRM", DESTINATIONS.get(name, "crm"))
    for name in ("crm", *DESTINATIONS.values()):
        text += DESTINATION.replace("NAME", name).replace("DRY", str(name == "trial").lower())
        text = text.replace("RATE", "10" if name == "picky" else "10000")
    (folder / "project.yaml").write_text(text)
    with Receiver(answer) as hook, pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "CDP_PROJECT": folder, "CDP_LAKE": folder / "lake", "CDP_DATA": folder / "data", "CRM_URL": hook.url,
            "CRM_SECRET": SECRET, "DAGSTER_HOME": folder / "lake" / "dagster",
        }.items():  # fmt: skip
            environment.setenv(name, str(value))
        environment.delenv("COLUMNS", raising=False)  # xdist sets it, and lines would be broken
        scheme = Scheme(load_project(folder), hook)
        scheme.become(BEFORE | {"arrives": 38}, YESTERDAY)
        assert not scheme.run("plan").checks[0]["passed"]
        first = {run["sync"]: run for run in scheme.cdp.json("sync", "runs")}
        assert {run["state"] for name, run in first.items() if name != "tried"} == {"held"}
        for name in BEFORE:
            scheme.cdp("sync", "approve", first[name]["plan_id"])
        [check] = scheme.run("deliveries").checks
        assert check["check"] == "people_accounted_for" and check["passed"]
        assert len(hook.effects) == sum(BEFORE.values())
        hook.effects.clear()
        hook.requests.clear()
        _plant(scheme)
        [check] = [check for check in scheme.run("plan").checks if not check["passed"]]
        scheme.found = {
            "check": check, "plan": scheme.cdp.json("sync", "plan"), "status": scheme.cdp("status").out,
            "list": scheme.cdp.json("sync", "list"), "accounts": scheme.cdp.json("sync", "status"),
            "superseded": first["arrives"]["plan_id"],
            "shown": scheme.cdp.json("sync", "show", "shrinks", "--each", "2"),
        }  # fmt: skip
        scheme.cdp("sync", "deliver", *(name for name in NOW if name != "tried"))
        yield scheme


def _plant(scheme: Scheme) -> None:
    scheme.become(NOW, TODAY, unknown_cities=12)
    with dg.DagsterInstance.get() as instance, pytest.MonkeyPatch.context() as then:
        size = dg.AssetCheckEvaluation(dg.AssetKey(["audiences", "unsound"]), "usual_size", False, {})
        instance.report_runless_asset_event(size)
        long_ago = time.time() - 90 * 86400
        then.setattr(time, "time", lambda: long_ago)
        instance.report_runless_asset_event(dg.AssetMaterialization(["audiences", "stale"]))
    with ledger_of(scheme.project) as ledger, ledger.writing() as connection:
        connection.execute(acknowledged.delete().where(acknowledged.c.sync == "forgotten"))
        connection.execute(outbox.delete().where(outbox.c.key == email("leaks-007")))


@pytest.mark.parametrize("name", HELD_BECAUSE)
def test_it_is_held_and_everybody_is_told_so_in_the_same_words(scheme: Scheme, name: str) -> None:
    plan, because = scheme.plan(name), HELD_BECAUSE[name]
    assert (plan["state"], plan["because"]) == ("held", because)
    command = f"cdp sync approve {plan['plan_id']}"
    check = scheme.found["check"]
    assert f"{name} is held: {because}. It would " in check["says"] and command in check["says"]
    assert check["check"] == "no_plan_is_held" and check["severity"] == "WARN"
    [shown] = [row for row in check["metadata"]["plans"] if row["sync"] == name]
    assert shown["held because"] == because
    assert shown["it would"] == ", ".join(f"{kind} {plan[kind]}" for kind in ("add", "update", "remove") if plan[kind])
    assert f"held: {because}" in scheme.found["status"] and command in scheme.found["status"]
    [stands] = [row for row in scheme.found["list"] if row["sync"] == name]
    assert (stands["last_plan"], stands["says"]) == ("held", because)
    [accounts] = [row for row in scheme.found["accounts"] if row["sync"] == name]
    assert accounts["adds_up"] is True and accounts["audience"] == NOW[name]


def test_somebody_who_looks_sees_exactly_what_would_be_sent(scheme: Scheme) -> None:
    found = [(row["stage"], row["kind"], row["state"], row["payload"]["member"]) for row in scheme.found["shown"]]
    assert found == [*[("held", "remove", "pending", False)] * 2, *[("decided", "add", "delivered", True)] * 2]
    assert {row["payload"]["key"] for row in scheme.found["shown"][:2]} == {email(f"shrinks-{n}") for n in (299, 300)}


def test_what_is_as_usual_goes_and_nothing_that_is_held_was_sent_and_nobody_is_named(scheme: Scheme) -> None:
    states = {line["sync"]: line["state"] for line in scheme.found["plan"] if line["state"] != "held"}
    assert states == {"as_usual": "ready", "locked": "ready", "leaks": "unchanged", "tried": "shown"}
    assert {one["type"] for one in scheme.hook.effects.values()} <= {"sync.as_usual", "sync.locked"}
    assert "example.com" not in str(scheme.found["check"]) + str(scheme.found["plan"])


@pytest.mark.parametrize(
    ("name", "sent"),
    {
        "shrinks": [(number, False, None) for number in range(299, 400)],
        "grows": [(number, True, "Leeds") for number in range(100, 131)],
        "empties": [(number, False, None) for number in range(50)],
        "blurs": [(number, True, None) for number in range(12)],
        "unsound": [(100, True, "Leeds")],
        "stale": [(100, True, "Leeds")],
        "forgotten": [(number, True, "Leeds") for number in range(150)],
    }.items(),
)
def test_approval_sends_exactly_what_was_held(scheme: Scheme, name: str, sent: list[tuple[int, bool, Any]]) -> None:
    expected = [(email(f"{name}-{number:03}"), member, city) for number, member, city in sent]
    assert scheme.approve_and_send(name) == expected
    complaint = scheme.cdp.complaint("sync", "approve", scheme.plan(name)["plan_id"])
    assert "was released already, by ann" in complaint


def test_what_the_ledger_has_lost_is_sent_anew_and_nobody_is_ever_removed_for_it(scheme: Scheme) -> None:
    plan = scheme.plan("forgotten")
    assert (plan["add"], plan["remove"]) == (150, 0), "150 have left meanwhile: whom we no longer know of stays"


def test_an_approval_holds_whatever_the_audience_becomes_and_gates_judge_at_the_moment_of_sending(
    scheme: Scheme,
) -> None:
    plan = scheme.plan("arrives")
    said = scheme.cdp.complaint("sync", "approve", scheme.found["superseded"])
    assert "is superseded" in said and f"now '{plan['plan_id']}' is held. Plan anew: cdp sync plan arrives" in said
    scheme.become(NOW | {"arrives": 45}, TODAY, unknown_cities=12)
    scheme.cdp("suppress", f"email:{email('arrives-003')}")
    sent = scheme.approve_and_send("arrives")
    assert [key for key, _, _ in sent] == [email(f"arrives-{n:03}") for n in range(40) if n != 3]
    [after] = scheme.cdp.json("sync", "plan", "arrives")
    assert (after["state"], after["add"], after["unchanged"]) == ("ready", 5, 39)
    assert after["suppressed_because"].startswith("1: on the list of people we do not contact")


def test_a_destination_that_refuses_our_key_is_paused_and_a_sync_too_much_of_which_is_rejected_is_stopped(
    scheme: Scheme,
) -> None:
    scheme.approve_and_send("rejected")
    status = scheme.cdp("status").out
    assert "paused: HTTP 401: the secret is refused" in status and "cdp sync resume safe" in status
    assert "paused: 'picky' rejected 10 of 10" in status and "cdp sync resume sync:rejected" in status
    says = {row["sync"]: (row["says"], row["waiting"], row["failed"]) for row in scheme.cdp.json("sync", "list")}
    assert says["rejected"] == ("'picky' rejected 10 of 10", 20, 10)
    assert says["locked"] == ("HTTP 401: the secret is refused", 2, 0)
    scheme.cdp("sync", "resume", "rejected")
    assert "sync:rejected" not in scheme.cdp("status").out.replace("delivery sync:rejected", "")


def test_a_dry_run_shows_what_would_be_sent_and_whom_the_gates_would_refuse_and_why(scheme: Scheme) -> None:
    plan = scheme.plan("tried")
    assert plan["because"] == "would be held: it is the first synchronisation to 'trial'" and plan["add"] == 10
    scheme.cdp("suppress", f"email:{email('tried-004')}")
    assert scheme.cdp("sync", "deliver", "tried").err == "trial: 9 shown (dry run), 1 suppressed\n"
    shown, refused = scheme.cdp.json("sync", "show", "tried")
    assert (refused["state"], refused["reason"]) == ("suppressed", "gate: suppressed: manual")
    assert (shown["state"], shown["reason"], shown["payload"]["data"]["city"]) == ("dry_run", "dry run", "Leeds")
    assert (refused["person_id"], refused["kind"], shown["kind"]) == ("tried-004", "add", "add")
    assert scheme.told("tried") == []


def test_somebody_who_is_lost_between_plan_and_delivery_is_missed(scheme: Scheme) -> None:
    [accounts] = [row for row in scheme.found["accounts"] if row["sync"] == "leaks"]
    assert (accounts["missing"], accounts["adds_up"]) == (1, False)
    [check] = scheme.run("deliveries").checks
    assert not check["passed"] and check["severity"] == "ERROR"
    rows = {row["sync"]: row["missing"] for row in check["metadata"]["audiences"]}
    assert {name for name, missing in rows.items() if missing} - {"arrives"} == {"leaks"} and rows["leaks"] == 1


def test_a_ledger_that_is_lost_altogether_sends_everybody_again_and_removes_nobody(scheme: Scheme) -> None:
    lake = scheme.project.settings.lake.path
    for file in Path(lake or "").glob("ledger.sqlite*"):
        file.unlink()
    for _ in range(2):
        found = {line["sync"]: line for line in scheme.cdp.json("sync", "plan", "shrinks", "empties", "arrives")}
        assert {name: (line["state"], line["add"], line["remove"]) for name, line in found.items()} == {
            "shrinks": ("held", 299, 0), "empties": ("unchanged", 0, 0), "arrives": ("held", 45, 0)
        }  # fmt: skip
        assert found["shrinks"]["because"].startswith("the ledger has lost what 299 deliveries left there")
        scheme.run("outbox")  # From now on the lake knows no more than the ledger does.


def test_a_held_plan_is_released_by_a_job_in_dagster_too(scheme: Scheme) -> None:
    job = build_defs(scheme.project).resolve_job_def("approve_plan")

    def launch(plan_id: str) -> dg.ExecuteInProcessResult:
        config = {"ops": {"release": {"config": {"plan_id": plan_id}}}}
        return job.execute_in_process(run_config=config, raise_on_error=False)

    [line] = scheme.cdp.json("sync", "plan", "arrives")
    released = launch(line["plan_id"])
    assert released.success
    assert scheme.cdp("sync", "deliver", "arrives").err == "crm: 45 delivered\n"
    again = launch(line["plan_id"]).get_step_failure_events()[0].step_failure_data.user_failure_data
    assert again is not None
    assert f"was released already, by Dagster run {released.run_id.partition('-')[0]}" in str(again.description)

"""A wrong merge from the row that makes it to the delivery that is taken back: found by a check, undone by `unlink`."""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline.lake import open_lake
from cdp_pipeline.lake.query import query_lake
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.cli.starter import NEWEST, few_traits
from cdp_pipeline_tests.destinations.servers import Receiver
from cdp_pipeline_tests.orchestration.commands import Cdp

pytestmark = pytest.mark.slow
ANN, BOB, CAT = (f"{name}@example.com" for name in ("ann", "bob", "cat"))
ANNS_PHONE = "+442079460018"
ORDERS = [
    ("O1", 40, CAT, "", "Cat Orr", "150.00"),
    ("O2", 60, BOB, "020 7946 0099", "Bob Ray", "40.00"),
    ("O3", 20, ANN, "020 7946 0018", "Ann Lee", "130.00"),
    ("O4", 0, CAT, "", "Cat Orr", "10.00"),
]
OTHERS = [
    (f"P{n}", 30, f"customer{n}@example.com", f"020 7946 {1000 + n}", f"Customer {n}", "9.00") for n in range(200)
]
WRONG = ("O5", 0, BOB, "020 7946 0018", "Bob Ray", "25.00")
"""Bob's order, with Ann's phone number: somebody at the counter took the wrong one."""


def write(cdp: Cdp, orders: list[tuple[Any, ...]]) -> None:
    cdp.data.mkdir(exist_ok=True)
    with (cdp.data / "orders.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["order_id", "ordered_at", "email", "phone", "name", "total"])
        for number, days, *rest in [*orders, *OTHERS]:
            writer.writerow([number, f"{NEWEST - timedelta(days=days)} 12:00:00", *rest])


def sql(cdp: Cdp, query: str) -> list[dict[str, Any]]:
    """What `cdp sql` answers, without a process of its own."""
    with open_lake(LakeLocation(path=str(cdp.lake)), read_only=True) as lake:
        names, rows = query_lake(lake, query)
        return [dict(zip(names, row, strict=True)) for row in rows]


def whose(cdp: Cdp) -> dict[str, str]:
    rows = sql(cdp, "select type, value, person_id from identity.identifiers")
    return {f"{row['type']}:{row['value']}": row["person_id"] for row in rows}


def revenue(cdp: Cdp) -> dict[str, float]:
    rows = sql(cdp, f"select person_id, revenue_365d from traits.daily where day = '{NEWEST}'")
    return {row["person_id"]: float(row["revenue_365d"]) for row in rows}


def good(cdp: Cdp) -> set[str]:
    query = f"select person_id from audiences.members where audience = 'good_customers' and day = '{NEWEST}'"
    return {row["person_id"] for row in sql(cdp, query)}


def there(hook: Receiver) -> dict[str, float]:
    """What the destination was told to hold: revenue by e-mail address."""
    held: dict[str, float] = {}
    for key in hook.order:
        effect = hook.effects[key]
        if effect["type"] == "sync.good_customers_to_crm":
            held.pop(effect["key"], None)
            if effect["member"]:
                held[effect["key"]] = float(effect["data"]["revenue"])
    return held


def failed(cdp: Cdp, *run: str) -> list[str]:
    return [f"{check['asset']}: {check['check']}" for check in cdp.json(*run)["checks"] if not check["passed"]]


def test_a_wrong_merge_is_found_and_undone_down_to_what_was_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdp = Cdp(tmp_path / "shop", tmp_path / "data", tmp_path / "lake")
    cdp.run("init", str(cdp.project))
    few_traits(cdp.project)
    orders = cdp.project / "orders.yaml"
    orders.write_text(orders.read_text().replace("name: name\n", "name: name\nat_most: 1\n"))
    contradicted = "profile/provenance: name_at_most_1"
    with Receiver() as hook:
        monkeypatch.setenv("CRM_URL", hook.url)
        monkeypatch.setenv("CRM_DRY_RUN", "false")
        write(cdp, ORDERS)
        assert contradicted not in failed(cdp, "run")
        [plan] = cdp.json("sync", "plan")
        cdp.run("sync", "approve", plan["plan_id"])
        cdp.run("run", "group:activation")
        before = whose(cdp)
        ann, bob, cat = (before[f"email:{address}"] for address in (ANN, BOB, CAT))
        assert len({ann, bob, cat}) == 3 and good(cdp) == {ann, cat}
        assert there(hook) == {ANN: 130, CAT: 160}

        write(cdp, [*ORDERS, WRONG])
        assert contradicted in failed(cdp, "run")
        merged = whose(cdp)
        assert merged[f"email:{ANN}"] == merged[f"email:{BOB}"]
        assert revenue(cdp)[merged[f"email:{ANN}"]] == 195
        assert there(hook) == {BOB: 195, CAT: 160}
        path = cdp.json("explain", "link", f"email:{ANN}", f"email:{BOB}")["path"]
        assert [(link["value_b"], link["record_id"] is not None) for link in path] == [(ANNS_PHONE, True)] * 2

        unlink = ("identity", "unlink", f"email:{BOB}", f"phone:{ANNS_PHONE}", "--why", "Ann's number.", "--by", "me")
        shown = cdp.run(*unlink, code=1)
        for line in (
            "people: 202 before, 203 after; 1 split, 0 merged", "revenue_365d: 195.0000 -> ",
            "sync good_customers_to_crm would send: 1 add, 1 remove", "Nothing was written",
        ):  # fmt: skip
            assert line in shown, shown
        assert not (cdp.project / "identity").exists() and whose(cdp) == merged
        foretold = cdp.json(*unlink, "--yes")["effects"]

        assert contradicted not in failed(cdp, "run")
        assert whose(cdp) == before
        assert (revenue(cdp)[ann], revenue(cdp)[bob]) == (130, 65)
        assert set(foretold["changed"]) == {"name", "email", "orders", "revenue_365d", "days_since_last_order"}
        for name, values in foretold["changed"].items():
            table = "profile.customers" if name in ("name", "email") else f"traits.daily where day = '{NEWEST}'"
            now = {row["person_id"]: row[name] for row in sql(cdp, f"select person_id, {name} from {table}")}
            assert values["after"] == {
                person: json.loads(json.dumps(now[person], default=str)) for person in (ann, bob)
            }
        assert good(cdp) == {ann, cat}
        assert there(hook) == {ANN: 130, CAT: 160}
        plans = {row["action"]: row["person_id"] for row in sql(cdp, "select action, person_id from activation.plan")}
        assert plans["add"] == ann and set(plans) == {"add", "remove"}
    answer = cdp.run("explain", "link", f"email:{ANN}", f"email:{BOB}")
    assert "keeps them apart" in answer and "are not one person" in answer
    changes = sql(cdp, "select change, person_id, other_person_id, cause from identity.changes order by change")
    assert [row["change"] for row in changes if row["change"] != "created"] == ["merged", "split"]
    assert {row["person_id"] for row in changes if row["change"] == "split"} == {
        row["person_id"] for row in changes if row["change"] == "merged"
    }

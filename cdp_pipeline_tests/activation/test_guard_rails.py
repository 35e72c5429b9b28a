"""Each guard-rail is planted and seen to hold the plan, on the way it really takes; approval lets go just that plan."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from cdp_pipeline.activation.ledger import Ledger, LedgerError
from cdp_pipeline.activation.plan import SyncPlan
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline.activation.refresh import plan_sync
from cdp_pipeline.activation.sync import approve, conservation, submit
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline_tests.activation.projects import NOW, sync

VIPS = sync(mapping={"id": "person_id", "tier": "tier"}, key="id")


def table(ids: range, tier: str | None = "gold", unknown: int = 0) -> pa.Table:
    tiers = [None if n < unknown else tier for n, _ in enumerate(ids)]
    return pa.table({"person_id": [f"p{n:04}" for n in ids], "tier": pa.array(tiers, pa.string())})


def deliver(ledger: Ledger, day: int) -> dict[str, dict[str, Any]]:
    """Carry out what is enqueued; what is over there afterwards, by key."""
    now, sent = NOW + timedelta(days=day), {}
    while True:
        claim = ledger.claim(
            "hook", limit=1000, now=now, lease=timedelta(hours=1), worker="w", repeatable=True, max_attempts=3, rate=1e6
        )
        if not claim.ops:
            return sent
        now += timedelta(seconds=1)
        sent |= {str(one.delivery.payload["key"]): dict(one.delivery.payload) for one in claim.ops}
        outcomes = [(one, Outcome(one.delivery.op_id, "delivered")) for one in claim.ops]
        ledger.settle(outcomes, worker="w", now=now, max_attempts=3)


@pytest.fixture
def settled(ledger: Ledger) -> Ledger:
    """A thousand people are over there."""
    first = plan_sync(ledger, VIPS, table(range(1000)))
    assert submit(ledger, first, dry_run=False, now=NOW).state == "held"
    approve(ledger, first.plan_id, by="ann", now=NOW)
    assert submit(ledger, first, dry_run=False, now=NOW).state == "applied"
    assert len(deliver(ledger, 0)) == 1000
    return ledger


def half_gone(sizes: list[int] | None = None) -> dict[str, Any]:
    return {"people": table(range(500)), "recent_sizes": sizes or []}


@pytest.mark.parametrize(
    ("people", "given", "because"),
    [
        (table(range(500)), {}, "it would remove 500 of 1000"),
        (table(range(0)), {}, "the audience is empty"),
        (table(range(1400)), {"recent_sizes": [1000, 990, 1010]}, "the audience has 1400 people, usually 1000"),
        (table(range(1000), unknown=200), {}, "'tier' is unknown of 20%, before of 0%"),
        (table(range(1001)), {"upstream": ["check 'grain' of profile/customers failed"]}, "check 'grain'"),
    ],
)
def test_a_plan_that_somebody_should_see_sends_nothing_until_just_that_plan_is_approved(
    settled: Ledger, people: pa.Table, given: dict[str, Any], because: str
) -> None:
    found = plan_sync(settled, VIPS, people)
    for _ in range(2):
        submitted = submit(settled, found, dry_run=False, now=NOW, **given)
        assert submitted.state == "held" and because in "; ".join(submitted.reasons)
    assert deliver(settled, 1) == {}
    with pytest.raises(LedgerError, match=found.plan_id):
        approve(settled, "another", by="ann", now=NOW)
    approve(settled, found.plan_id, by="ann", now=NOW)
    other = plan_sync(settled, VIPS, people.slice(0, max(0, people.num_rows - 90)))
    if other.plan_id != found.plan_id:
        assert submit(settled, other, dry_run=False, now=NOW, **given).state == "held"
        assert deliver(settled, 2) == {}
    assert submit(settled, found, dry_run=False, now=NOW, **given).state == "applied"
    assert deliver(settled, 3).keys() == {op.key for op in found.ops if op.state == "pending"}
    accounts = conservation(settled, "vips", people["person_id"].to_pylist())
    assert accounts.holds and accounts.states.get("delivered", 0) == people.num_rows


def test_what_changes_as_usual_is_not_held(settled: Ledger) -> None:
    found = plan_sync(settled, VIPS, table(range(50, 1050), unknown=50))
    assert submit(settled, found, dry_run=False, recent_sizes=[1000], now=NOW).state == "applied"
    assert found.counts == {"add": 50, "remove": 50, "update": 50}


def carried_out(ledger: Ledger, vips: Sync, people: pa.Table, day: int) -> tuple[SyncPlan, dict[str, dict[str, Any]]]:
    found = plan_sync(ledger, vips, people)
    if submit(ledger, found, dry_run=False, now=NOW).state == "held":
        approve(ledger, found.plan_id, by="ann", now=NOW)
        submit(ledger, found, dry_run=False, now=NOW)
    return found, deliver(ledger, day)


def test_nothing_known_empties_the_field_is_left_out_or_says_what_stands_for_it(ledger: Ledger) -> None:
    people = pa.table({"person_id": ["p1"], **{name: pa.array([None], pa.string()) for name in ("a", "b", "c")}})
    mapping = {"id": "person_id", "a": "a", "b": "b", "c": "c"}
    said = {
        "all cleared": sync(name="one", mapping=mapping, key="id"),
        "all left out": sync(name="two", mapping=mapping, key="id", nulls="skip"),
        "each its own": sync(name="three", mapping=mapping, key="id", nulls={"a": "skip"}, defaults={"b": "none"}),
    }
    sent = {
        name: carried_out(ledger, one, people, day)[1]["p1"]["data"] for day, (name, one) in enumerate(said.items(), 1)
    }
    assert sent == {
        "all cleared": {"id": "p1", "a": None, "b": None, "c": None},
        "all left out": {"id": "p1"},
        "each its own": {"id": "p1", "b": "none", "c": None},
    }
    with pytest.raises(ValueError, match="not in the mapping"):
        sync(mapping=mapping, key="id", nulls={"z": "skip"})
    with pytest.raises(ValueError, match="is the key"):
        sync(mapping=mapping, key="id", defaults={"id": "x"})


def test_a_key_that_becomes_somebody_else_s_is_sent_again_and_nobody_is_lost(ledger: Ledger) -> None:
    vips = sync(mapping={"mail": "email", "tier": "tier"}, key="mail")

    def people(**emails: str) -> pa.Table:
        return pa.table({"person_id": list(emails), "email": list(emails.values()), "tier": ["gold"] * len(emails)})

    carried_out(ledger, vips, people(p1="a@x.y", p2="b@x.y"), 1)
    reused, sent = carried_out(ledger, vips, people(p2="a@x.y", p3="b@x.y"), 2)
    assert reused.counts == {"update": 2} and sent.keys() == {"a@x.y", "b@x.y"}
    assert conservation(ledger, "vips", ["p2", "p3"]).states == {"delivered": 2}
    assert carried_out(ledger, vips, people(p2="a@x.y", p3="b@x.y"), 3)[1] == {}
    swapped, _ = carried_out(ledger, vips, people(p2="b@x.y", p3="a@x.y"), 4)
    assert swapped.counts == {"update": 2}
    assert conservation(ledger, "vips", ["p2", "p3"]).states == {"delivered": 2}


def test_whoever_was_merged_into_another_is_not_sent_again_and_still_counts(ledger: Ledger) -> None:
    vips = sync(mapping={"mail": "email"}, key="mail")
    carried_out(ledger, vips, pa.table({"person_id": ["p2"], "email": ["a@x.y"]}), 1)
    merged = plan_sync(ledger, vips, pa.table({"person_id": ["p1"], "email": ["a@x.y"]}), {"p2": "p1"})
    assert merged.ops == [] and merged.unchanged == 1
    submit(ledger, merged, dry_run=False, now=NOW)
    assert conservation(ledger, "vips", ["p1"], {"p2": "p1"}).states == {"delivered": 1}

"""Each guard-rail is planted and seen to hold the plan, on the way it really takes; approval lets go just that plan."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from cdp_pipeline.activation import claims
from cdp_pipeline.activation.ledger import Ledger, LedgerError
from cdp_pipeline.activation.plan import SyncPlan
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline.activation.refresh import plan_sync
from cdp_pipeline.activation.sync import approve, conservation, history, submit, waiting
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline_tests.activation.projects import NOW, sync
from cdp_pipeline_tests.activation.taking import take

VIPS = sync(mapping={"id": "person_id", "tier": "tier"}, key="id")


def table(ids: range, tier: str | None = "gold", unknown: int = 0) -> pa.Table:
    tiers = [None if n < unknown else tier for n, _ in enumerate(ids)]
    return pa.table({"person_id": [f"p{n:04}" for n in ids], "tier": pa.array(tiers, pa.string())})


def deliver(ledger: Ledger, day: int) -> dict[str, dict[str, Any]]:
    """Carry out what is enqueued; what is over there afterwards, by key."""
    now, sent = NOW + timedelta(days=day), {}
    while True:
        claim = take(ledger, now)
        if not claim.ops:
            return sent
        now += timedelta(seconds=1)
        sent |= {str(one.delivery.payload["key"]): dict(one.delivery.payload) for one in claim.ops}
        outcomes = [Outcome(one.delivery.op_id, "delivered") for one in claim.ops]
        claims.settle(ledger, claim, outcomes, now=now, max_attempts=3)


@pytest.fixture
def settled(ledger: Ledger) -> Ledger:
    """A thousand people are over there."""
    first = plan_sync(ledger, VIPS, table(range(1000)))
    assert submit(ledger, first, dry_run=False, now=NOW).state == "held"
    approve(ledger, first.plan_id, by="ann", now=NOW)
    assert submit(ledger, first, dry_run=False, now=NOW).state == "applied"
    assert len(deliver(ledger, 0)) == 1000
    return ledger


@pytest.mark.parametrize(
    ("people", "given", "because"),
    [
        (table(range(500)), {}, "it would remove 500 of the 1,000 who are there"),
        (table(range(0)), {}, "the audience is empty"),
        (table(range(1400)), {"recent_sizes": [1000, 990, 1010]}, "the audience has 1,400 people, usually 1,000"),
        (table(range(1000), unknown=200), {}, "'tier' is unknown of 20% of the audience, before of 0%"),
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
    wanted = {op.key for op in found.ops if op.state == "pending"}
    assert approve(settled, found.plan_id, by="ann", now=NOW) == len(found.ops)
    with pytest.raises(LedgerError, match="released already, by ann"):
        approve(settled, found.plan_id, by="bob", now=NOW)
    assert deliver(settled, 3).keys() == wanted
    accounts = conservation(settled, VIPS, people["person_id"].to_pylist())
    assert accounts.holds and accounts.states.get("delivered", 0) == people.num_rows


def held(ledger: Ledger, people: pa.Table, now: datetime = NOW, vips: Sync = VIPS) -> SyncPlan:
    found = plan_sync(ledger, vips, people)
    assert submit(ledger, found, dry_run=False, now=now).state == "held"
    return found


def test_what_is_released_is_what_was_shown_whatever_has_changed_and_the_next_plan_starts_from_there(
    settled: Ledger,
) -> None:
    shown = held(settled, table(range(300, 1000), "silver"))
    # Before anybody looked, another three hundred have gone and some have come: the plan is what it was.
    moved = table(range(600, 1050), "bronze")
    assert approve(settled, shown.plan_id, by="ann", now=NOW, syncs={"vips": VIPS}) == 1000
    sent = deliver(settled, 1)
    assert {key: (said["member"], said["data"].get("tier")) for key, said in sent.items()} == {
        f"p{n:04}": (n >= 300, "silver" if n >= 300 else None) for n in range(1000)
    }
    after = held(settled, moved, NOW + timedelta(days=1))
    assert after.counts == {"remove": 300, "update": 400, "add": 50} and after.present == 700
    approve(settled, after.plan_id, by="ann", now=NOW + timedelta(days=1))
    deliver(settled, 2)
    assert plan_sync(settled, VIPS, moved).ops == []


def test_only_the_last_plan_can_be_released(settled: Ledger) -> None:
    hour = timedelta(hours=1)
    older = held(settled, table(range(500)), NOW + hour)
    newer = held(settled, table(range(400)), NOW + 2 * hour)
    with pytest.raises(LedgerError, match=f"'{older.plan_id}' of sync 'vips' is superseded.*'{newer.plan_id}' is held"):
        approve(settled, older.plan_id, by="ann", now=NOW)
    # The mishap upstream is mended: nobody has gone after all, and nobody can be removed by an old click any more.
    assert submit(settled, plan_sync(settled, VIPS, table(range(1000))), dry_run=False, now=NOW).state == "unchanged"
    with pytest.raises(LedgerError, match=r"superseded.*nothing of it is held any more"):
        approve(settled, newer.plan_id, by="ann", now=NOW)
    assert deliver(settled, 1) == {} and [one["state"] for one in history(settled)] == ["superseded"] * 2 + ["applied"]
    again = held(settled, table(range(500)))
    assert again.plan_id == older.plan_id and len(waiting(settled)) == 1
    assert approve(settled, again.plan_id, by="ann", now=NOW) == 500
    assert set(deliver(settled, 1)) == {f"p{n:04}" for n in range(500, 1000)}


def test_a_plan_is_released_only_as_long_as_it_is_fresh_and_the_sync_is_declared_as_it_was(settled: Ledger) -> None:
    later = NOW + timedelta(days=3, minutes=1)
    found = held(settled, table(range(500)))
    for said, now, syncs in (
        ("last planned at 2026-03-10 09:00 UTC, more than 3 days ago", later, {"vips": VIPS}),
        ("declared differently since", NOW, {"vips": VIPS.model_copy(update={"mode": "upsert"})}),
        ("not declared any more", NOW, {}),
    ):
        with pytest.raises(LedgerError, match=said):
            approve(settled, found.plan_id, by="ann", now=now, syncs=syncs)
    assert deliver(settled, 4) == {}
    assert held(settled, table(range(500)), now=later).plan_id == found.plan_id
    assert approve(settled, found.plan_id, by="ann", now=later, syncs={"vips": VIPS}) == 500


def test_what_an_earlier_plan_has_sent_meanwhile_is_not_sent_again_by_the_release(settled: Ledger) -> None:
    earlier = plan_sync(settled, VIPS, table(range(1050)))
    assert submit(settled, earlier, dry_run=False, now=NOW).enqueued == 50
    found = held(settled, table(range(500, 1060)))
    assert found.counts == {"add": 60, "remove": 500}
    assert len(deliver(settled, 1)) == 50
    assert approve(settled, found.plan_id, by="ann", now=NOW) == 510
    assert len(deliver(settled, 2)) == 510
    assert plan_sync(settled, VIPS, table(range(500, 1060))).ops == []


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
    assert conservation(ledger, vips, ["p2", "p3"]).states == {"delivered": 2}
    assert carried_out(ledger, vips, people(p2="a@x.y", p3="b@x.y"), 3)[1] == {}
    swapped, _ = carried_out(ledger, vips, people(p2="b@x.y", p3="a@x.y"), 4)
    assert swapped.counts == {"update": 2}
    assert conservation(ledger, vips, ["p2", "p3"]).states == {"delivered": 2}


def test_whoever_was_merged_into_another_is_not_sent_again_and_still_counts(ledger: Ledger) -> None:
    vips = sync(mapping={"mail": "email"}, key="mail")
    carried_out(ledger, vips, pa.table({"person_id": ["p2"], "email": ["a@x.y"]}), 1)
    merged = plan_sync(ledger, vips, pa.table({"person_id": ["p1"], "email": ["a@x.y"]}), {"p2": "p1"})
    assert merged.ops == [] and merged.unchanged == 1
    submit(ledger, merged, dry_run=False, now=NOW)
    assert conservation(ledger, vips, ["p1"], {"p2": "p1"}).states == {"delivered": 1}

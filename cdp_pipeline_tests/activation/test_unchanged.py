"""Comparing by fingerprints finds exactly what comparing everybody one by one finds."""

from __future__ import annotations

import random
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from cdp_pipeline.activation import claims
from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.plan import SyncPlan, plan
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline.activation.refresh import plan_sync
from cdp_pipeline.activation.schema import acknowledged
from cdp_pipeline.activation.sync import approve, epoch, held_fingerprints, holds, submit
from cdp_pipeline.activation.unchanged import WIDTH, compare
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline_tests.activation.projects import NOW, sync
from cdp_pipeline_tests.activation.taking import take

SCHEMA = pa.schema(
    {"person_id": pa.string(), "email": pa.string(), "spent": pa.decimal128(12, 2), "since": pa.date32(),
     "share": pa.float64(), "tags": pa.list_(pa.string())}
)  # fmt: skip
EVERYTHING = {"mail": "email", "spent": "spent", "since": "since", "share": "share", "tags": "tags", "gone": "unknown"}
Row = dict[str, Any]


def table(people: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(people, schema=SCHEMA)


def somebody(dice: random.Random, number: int) -> Row:
    return {
        "person_id": f"p{number}",
        "email": dice.choice([None, "", "x@y.z", f'{number}"quoted\\é@y.z', f"{number}@y.z", f"{number}@y.z"]),
        "spent": dice.choice([None, Decimal("1.10"), Decimal("1.20")]), "since": date(2026, 1, dice.randint(1, 2)),
        "share": dice.choice([None, 0.1, 1 / 3, float("nan")]), "tags": dice.choice([None, [], ["a"], ["a", "b"]]),
    }  # fmt: skip


def carry_out(ledger: Ledger, found: SyncPlan, dice: random.Random, step: int) -> None:
    if submit(ledger, found, dry_run=False, now=NOW).state == "held":
        approve(ledger, found.plan_id, by="test", now=NOW)
        submit(ledger, found, dry_run=False, now=NOW)
    now = NOW + timedelta(days=step)
    claim = take(ledger, now)
    states = dice.choices(["delivered", "failed", "retry"], [8, 1, 1], k=len(claim.ops))
    outcomes = [Outcome(one.delivery.op_id, state) for one, state in zip(claim.ops, states, strict=True)]  # type: ignore[arg-type]
    claims.settle(ledger, claim, outcomes, now=now, max_attempts=3)


@pytest.mark.parametrize("mode", ["mirror", "upsert", "append", "event"])
@pytest.mark.parametrize("seed", range(6))
def test_fingerprints_and_one_by_one_lead_to_the_same_plan(mode: str, seed: int) -> None:
    dice = random.Random(seed)
    vips = sync(mode=mode, mapping=EVERYTHING, key="mail", nulls={"spent": "skip"})
    crowd = [somebody(dice, number) for number in range(12)]
    spared = 0
    with open_ledger("sqlite://") as ledger:
        for step in range(1, 8):
            crowd = [somebody(dice, int(one["person_id"][1:])) if dice.random() < 0.2 else one for one in crowd]
            merged = {"p1": "p2"} if step == 4 else {}
            if merged:  # The elder takes over what was known of the other.
                crowd[1:3] = [{**crowd[1], "person_id": "p2"}, {**crowd[2], "person_id": "p1", "email": None}]
            here = [one for one in crowd if dice.random() < 0.8 and one["person_id"] not in merged]
            refused = {one["person_id"]: "no consent" for one in here if dice.random() < 0.1}
            people = {one["person_id"]: one for one in here}
            mark = epoch(ledger, vips)
            slow = plan(vips, people, people, holds(ledger, vips), refused, aliases=merged, epoch=mark)
            fast = plan_sync(ledger, vips, table(here), merged, refused)
            assert [op.op_id for op in fast.ops] == [op.op_id for op in slow.ops]
            assert [(op.payload_text, op.state, op.reason) for op in fast.ops] == [
                (op.payload_text, op.state, op.reason) for op in slow.ops
            ]
            assert (fast.size, fast.unchanged, fast.present) == (slow.size, slow.unchanged, slow.present)
            assert sorted(fast.forgotten) == sorted(slow.forgotten) and fast.plan_id == slow.plan_id
            spared += fast.unchanged
            carry_out(ledger, fast, dice, step)
    assert spared > 5


def settled(ledger: Ledger, vips: Sync, people: list[Row]) -> None:
    carry_out(ledger, plan_sync(ledger, vips, table(people)), _fine(), 1)


def _fine() -> random.Random:
    class Fine(random.Random):
        def choices(self, *_: Any, k: int = 1, **__: Any) -> list[Any]:
            return ["delivered"] * k

    return Fine()


def looked_at(ledger: Ledger, vips: Sync, people: list[Row]) -> tuple[int, list[str]]:
    compared = compare(vips, table(people), held_fingerprints(ledger, vips))
    return len(compared.people), [op.kind for op in plan_sync(ledger, vips, table(people)).ops]


def person(number: int, **fields: Any) -> Row:
    return {"person_id": f"p{number}", "email": f"{number}@y.z", "spent": None, "since": None, "share": None,
            "tags": None, **fields}  # fmt: skip


def test_only_who_differs_is_looked_at(ledger: Ledger) -> None:
    vips = sync(mapping={"mail": "email", "spent": "spent"}, key="mail")
    crowd = [person(number) for number in range(50)]
    settled(ledger, vips, crowd)
    assert looked_at(ledger, vips, crowd) == (0, [])
    changed = [*crowd[:48], person(48, spent=Decimal("2.00")), person(60)]
    assert looked_at(ledger, vips, changed) == (2, ["update", "add", "remove"])


def test_a_field_that_is_not_sent_and_a_new_mapping_each_count_for_what_they_are(ledger: Ledger) -> None:
    vips = sync(mapping={"mail": "email"}, key="mail")
    settled(ledger, vips, [person(1), person(2)])
    assert looked_at(ledger, vips, [person(1, share=0.5), person(2)]) == (0, [])
    wider = vips.model_copy(update={"mapping": {"mail": "email", "share": "share"}})
    assert looked_at(ledger, wider, [person(1), person(2)]) == (2, ["update", "update"])


def test_where_fingerprints_are_lost_everybody_is_compared_once_and_nobody_is_sent_again(ledger: Ledger) -> None:
    vips = sync(mapping={"mail": "email"}, key="mail")
    crowd = [person(number) for number in range(5)]
    settled(ledger, vips, crowd)
    for lost in (None, "0" * WIDTH):
        with ledger.writing() as connection:
            connection.execute(sa.update(acknowledged).values(fingerprint=lost))
        assert looked_at(ledger, vips, crowd) == (5, [])
        submit(ledger, plan_sync(ledger, vips, table(crowd)), dry_run=False, now=NOW)
        assert looked_at(ledger, vips, crowd) == (0, [])


def test_an_audience_without_anybody_of_which_nothing_is_held_has_no_plan() -> None:
    found = compare(sync(), table([]), "")
    assert (found.size, found.unchanged, found.people, found.unmatched) == (0, 0, {}, [])

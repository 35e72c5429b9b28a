"""What a destination holds becomes what the audience is, through every fault, and nothing else is touched."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cdp_pipeline.activation import claims
from cdp_pipeline.activation.ledger import Ledger, LedgerError, open_ledger
from cdp_pipeline.activation.plan import PLAN, Held, SyncPlan, guards, plan, plan_rows
from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline.activation.sync import approve, conservation, held_fingerprints, holds, submit
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline_tests.activation.projects import NOW, sync
from cdp_pipeline_tests.activation.taking import take

HOUR = timedelta(hours=1)
People = dict[str, dict[str, object]]


class Elsewhere:
    """A destination in memory that honours idempotency keys: the oracle for what really happened over there."""

    def __init__(self, foreign: tuple[str, ...] = ()) -> None:
        self.rows: dict[str, Any] = dict.fromkeys(foreign, "theirs")
        self.seen: set[str] = set()
        self.log: list[tuple[str, bool]] = []

    def take(self, delivery: Delivery) -> None:
        if delivery.op_id in self.seen:
            return
        self.seen.add(delivery.op_id)
        key, member = str(delivery.payload["key"]), bool(delivery.payload["member"])
        self.log.append((key, member))
        if member:
            self.rows[key] = delivery.payload["data"]
        else:
            self.rows.pop(key, None)


class World:
    """A ledger, a clock and a destination, driven step by step."""

    def __init__(self, ledger: Ledger, sync: Sync, foreign: tuple[str, ...] = ()) -> None:
        self.ledger, self.sync, self.there, self.now = ledger, sync, Elsewhere(foreign), NOW

    def plan(self, people: People) -> SyncPlan:
        found = plan(self.sync, people, people, holds(self.ledger, self.sync))
        if submit(self.ledger, found, dry_run=False, now=self.now).state == "held":
            approve(self.ledger, found.plan_id, by="test", now=self.now)
            assert submit(self.ledger, found, dry_run=False, now=self.now).state == "applied"
        return found

    def work(self, faults: list[str], rounds: int = 1, repeatable: bool = True) -> None:
        for _ in range(rounds):
            self.now += 12 * HOUR  # Longer than any lease or wait.
            claim = take(self.ledger, self.now, limit=10, repeatable=repeatable)
            if not claim.ops:
                return
            outcomes = []
            for claimed in claim.ops:
                fault = faults.pop() if faults else "fine"
                if fault in ("fine", "answer lost", "nobody knows", "crash"):
                    self.there.take(claimed.delivery)
                state = {"fine": "delivered", "rejected": "failed", "nobody knows": "unknown"}.get(fault, "retry")
                if fault != "crash":
                    outcomes.append(Outcome(claimed.delivery.op_id, state))  # type: ignore[arg-type]
            claims.settle(self.ledger, claim, outcomes, now=self.now, max_attempts=3)

    @property
    def states(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (_, _, state), number in self.ledger.counts().items():
            found[state] += number
        return found

    def settle_down(self, people: People) -> None:
        for _ in range(3):
            self.ledger.retry(self.now)
            self.plan(people)
            self.work([], rounds=3)


def person(version: int = 0) -> dict[str, object]:
    return {"tier": version}


FAULTS = ["fine", "fine", "answer lost", "refused", "rejected", "crash"]
AUDIENCES: list[People] = [{}, {"p1": person(0)}, {"p1": person(1)}, {"p1": person(0), "p2": person(0)}]


@pytest.mark.parametrize("seed", range(50))
def test_through_every_fault_a_mirror_ends_up_equal_and_never_touches_what_is_not_ours(seed: int) -> None:
    # Dice, not hypothesis: it favours short and equal steps, and missed a broken ledger that one run in ten here finds.
    dice = random.Random(seed)
    steps = [
        (dice.choice(AUDIENCES), dice.choices(FAULTS, k=dice.randint(0, 4)), dice.randint(0, 2))
        for _ in range(dice.randint(4, 8))
    ]
    with open_ledger("sqlite://") as ledger:
        world = World(ledger, sync(mapping={"id": "person_id", "tier": "tier"}, key="id"), foreign=("theirs",))
        for people, faults, rounds in steps:
            world.plan(people)
            world.work(faults, rounds)
        world.settle_down(people)
        wanted = {name: {"id": name, "tier": row["tier"]} for name, row in people.items()}
        assert world.there.rows == {"theirs": "theirs", **wanted}
        assert plan(world.sync, people, people, holds(ledger, world.sync)).ops == []
        accounts = conservation(ledger, world.sync, people)
        assert accounts.holds and accounts.states["delivered"] == len(people)


def test_who_left_and_came_back_unchanged_is_sent_again(ledger: Ledger) -> None:
    """The fault of an earlier ledger: compared with NULL, somebody who came back was for ever 'unchanged'."""
    world = World(ledger, sync(mapping={"id": "person_id"}, key="id"))
    for people in ({"p1": {}}, {}, {"p1": {}}, {}, {"p1": {}}):
        world.plan(people)
        world.work([])
        assert list(world.there.rows) == list(people)
    assert world.there.log == [("p1", True), ("p1", False)] * 2 + [("p1", True)]


def test_a_refused_addition_is_not_ours_to_remove(ledger: Ledger) -> None:
    world = World(ledger, sync(mapping={"id": "person_id"}, key="id"), foreign=("p1",))
    world.plan({"p1": {}})
    world.work(["rejected"])
    assert world.plan({}).ops == []
    world.plan({"p1": {}})
    world.work([])
    assert world.there.rows == {"p1": {"id": "p1"}}


def test_a_failed_row_is_not_tried_again_by_planning_again_but_by_a_change(ledger: Ledger) -> None:
    world = World(ledger, sync(mapping={"id": "person_id", "tier": "tier"}, key="id"))
    world.plan({"p1": person(1)})
    world.work(["rejected"])
    world.plan({"p1": person(1)})
    world.work([])
    assert world.there.rows == {}
    world.plan({"p1": person(2)})
    world.work([])
    assert world.there.rows == {"p1": {"id": "p1", "tier": 2}}


@pytest.mark.parametrize(
    ("mode", "log"),
    [
        ("upsert", [("p1", True), ("p2", True), ("p1", True)]),
        ("mirror", [("p1", True), ("p2", True), ("p1", False), ("p1", True)]),
        ("append", [("p1", True), ("p2", True), ("p1", True)]),
        ("event", [("p1", True), ("p2", True), ("p1", False), ("p1", True)]),
    ],
)
def test_each_mode_sends_what_it_says(ledger: Ledger, mode: str, log: list[tuple[str, bool]]) -> None:
    world = World(ledger, sync(mode=mode, mapping={"id": "person_id", "tier": "tier"}, key="id"))
    for people in (
        {"p1": person(0)},
        {"p1": person(0), "p2": person(0)},
        {"p2": person(0)},
        {"p1": person(1), "p2": person(0)},
    ):
        world.plan(people)
        world.work([])
    assert world.there.log == log


def test_a_key_that_changes_moves_the_person_and_one_key_stands_for_one_person(ledger: Ledger) -> None:
    world = World(ledger, sync(mapping={"mail": "email"}, key="mail"))
    world.plan({"p1": {"email": "a@example.com"}, "p2": {"email": "a@example.com"}, "p3": {"email": None}})
    world.work([])
    assert list(world.there.rows) == ["a@example.com"]
    accounts = conservation(ledger, world.sync, ["p1", "p2", "p3"])
    assert accounts.holds and accounts.states == {"delivered": 1, "suppressed": 2}
    world.plan({"p1": {"email": "b@example.com"}})
    world.work([], rounds=2)
    assert list(world.there.rows) == ["b@example.com"]


def crowd(number: int) -> People:
    return {f"p{index:04}": {} for index in range(number)}


def test_the_first_synchronisation_waits_for_an_approval_of_exactly_that_plan(ledger: Ledger) -> None:
    vips = sync(mapping={"id": "person_id"}, key="id")
    first = plan(vips, ["p1"], {}, {})
    for _ in range(2):
        assert submit(ledger, first, dry_run=False, now=NOW).state == "held"
    assert ledger.counts() == {}
    accounts = conservation(ledger, vips, ["p1"])
    assert accounts.holds and accounts.states == {"held": 1}
    with pytest.raises(LedgerError, match=first.plan_id):
        approve(ledger, "another", by="ann", now=NOW)
    assert approve(ledger, first.plan_id, by="ann", now=NOW) == 1
    assert conservation(ledger, vips, ["p1"]).states == {"pending": 1}
    other = plan(vips, ["p1", "p2"], {}, {})
    assert submit(ledger, other, dry_run=False, now=NOW).state == "applied"


def test_a_dry_run_is_shown_at_once_and_sent_when_the_sync_goes_live(ledger: Ledger) -> None:
    vips = sync(mapping={"id": "person_id"}, key="id")
    shown = plan(vips, ["p1"], {}, {})
    assert submit(ledger, shown, dry_run=True, now=NOW).enqueued == 1
    claims.show_dry_run(ledger, claims.waiting_for(ledger, "hook", 10), {}, NOW)
    assert submit(ledger, shown, dry_run=True, now=NOW).enqueued == 0
    assert submit(ledger, shown, dry_run=False, now=NOW).state == "held"
    assert approve(ledger, shown.plan_id, by="ann", now=NOW) == 1


def test_guard_rails_speak_of_mass_removal_sudden_size_and_an_empty_audience() -> None:
    vips = sync(mapping={"id": "person_id"}, key="id")
    thousand = plan(vips, crowd(1000), {}, {})
    held = {op.key: Held(op.person_id, op.op_id, op.payload_hash, True, True) for op in thousand.ops}

    def said(size: int, usual: list[int]) -> list[str]:
        return guards(plan(vips, crowd(size), {}, held), first=False, recent_sizes=usual)

    assert said(900, [1000]) == []
    assert said(899, [1000]) == ["it would remove 101 of the 1,000 who are there"]
    assert said(1300, [1000] * 6 + [10]) == []
    assert said(1301, [1000] * 6 + [10]) == ["the audience has 1,301 people, usually 1,000"]
    assert "the audience is empty" in said(0, [])


def test_the_published_plan_names_nobody_s_key() -> None:
    found = plan(sync(mapping={"mail": "email"}, key="mail"), ["p1"], {"p1": {"email": "ann@example.com"}}, {})
    rows = plan_rows(found, "held", ["the first synchronisation"])
    assert rows.schema == PLAN.schema.to_pyarrow()
    assert rows.num_rows == 1 and "ann@example.com" not in str(rows.to_pylist())


def test_a_plan_made_before_the_destination_changed_does_not_undo_the_change(ledger: Ledger) -> None:
    world = World(ledger, sync(mapping={"id": "person_id", "tier": "tier"}, key="id"))
    world.plan({"p1": person(1)})
    world.work([])
    stale = plan(world.sync, {}, {}, holds(ledger, world.sync))
    world.plan({"p1": person(2)})
    world.work([])
    assert [op.kind for op in stale.ops] == ["remove"]
    approve_and_submit(ledger, stale)
    world.work([])
    assert world.there.rows == {"p1": {"id": "p1", "tier": 2}}


def test_who_comes_back_while_the_removal_is_under_way_is_there_in_the_end(ledger: Ledger) -> None:
    """Otherwise the repeated addition would be taken for a duplicate over there, and for delivered over here."""
    world = World(ledger, sync(mapping={"id": "person_id"}, key="id"))
    world.plan({"p1": {}})
    world.work(["answer lost"])
    world.plan({})
    removal = take(ledger, world.now + 12 * HOUR, limit=1)
    world.plan({"p1": {}})
    world.there.take(removal.ops[0].delivery)
    delivered = Outcome(removal.ops[0].delivery.op_id, "delivered")
    claims.settle(ledger, removal, [delivered], now=world.now, max_attempts=3)
    world.now += HOUR
    world.work([])
    world.settle_down({"p1": {}})
    assert world.there.rows == {"p1": {"id": "p1"}}


def approve_and_submit(ledger: Ledger, found: SyncPlan) -> None:
    if submit(ledger, found, dry_run=False, now=NOW).state == "held":
        approve(ledger, found.plan_id, by="test", now=NOW)
        submit(ledger, found, dry_run=False, now=NOW)


def test_who_leaves_while_the_destination_still_processes_them_is_removed(ledger: Ledger) -> None:
    world = World(ledger, sync())
    world.plan({"p1": {}})
    taken = take(ledger, NOW, limit=10)
    [op] = taken.ops
    accepted = Outcome(op.delivery.op_id, "accepted", after=HOUR, reference="job-7")
    claims.settle(ledger, taken, [accepted], now=NOW, max_attempts=3)
    assert [each.kind for each in world.plan({}).ops] == ["remove"]
    [removal] = take(ledger, NOW + HOUR, limit=10).ops
    assert removal.delivery.payload == {
        "type": "sync.vips", "key": "p1", "member": False, "data": {"person_id": "p1"},
    }  # fmt: skip


def test_whose_key_changed_and_into_whom_somebody_was_merged_are_still_accounted_for(ledger: Ledger) -> None:
    world = World(ledger, sync(mapping={"mail": "email"}, key="mail"))
    world.plan({"p1": {"email": "a@x.y"}, "p2": {"email": "b@x.y"}})
    world.work([])
    world.plan({"p1": {"email": "c@x.y"}, "p2": {"email": "b@x.y"}})
    world.work([], rounds=3)
    assert sorted(world.there.rows) == ["b@x.y", "c@x.y"]
    assert conservation(ledger, world.sync, ["p1", "p2"]).states == {"delivered": 2}
    world.plan({"p1": {"email": "c@x.y"}})  # p2 is a part of p1 now, and the address is gone
    world.work([])
    assert conservation(ledger, world.sync, ["p1"], {"p2": "p1"}).states == {"delivered": 1}


@pytest.mark.parametrize("mode", ["event", "append"])
def test_a_move_that_may_have_arrived_is_not_told_again_whatever_is_known_now(ledger: Ledger, mode: str) -> None:
    world = World(ledger, sync(mode=mode, mapping={"id": "person_id", "tier": "tier"}, key="id"))
    world.plan({"p1": person(0)})
    world.work(["nobody knows"], repeatable=False)
    for people in ({"p1": person(1)}, {"p1": person(0)}):
        world.plan(people)
        world.work([], repeatable=False)
    assert world.there.log == [("p1", True)]
    assert ledger.counts() == {("sync:vips", "hook", "unknown"): 1}


@pytest.mark.parametrize("mode", ["event", "mirror"])
def test_who_leaves_and_is_back_before_anybody_is_told_is_not_sent_again_where_that_may_have_arrived(
    ledger: Ledger, mode: str
) -> None:
    world = World(ledger, sync(mode=mode, mapping={"id": "person_id"}, key="id"))
    world.plan({"p1": {}})
    world.work(["nobody knows"], repeatable=False)
    world.plan({})
    assert world.states == {"doubtful": 1, "pending": 1}
    world.plan({"p1": {}})
    world.work([], repeatable=False)
    assert world.there.log == [("p1", True)] and world.states == {"unknown": 1, "suppressed": 1}
    assert ledger.retry(world.now) == 1, "somebody is asked again"


def test_a_sync_that_is_sent_elsewhere_starts_anew_and_finds_what_it_left_when_it_comes_back(ledger: Ledger) -> None:
    here = sync(mapping={"id": "person_id", "tier": "tier"}, key="id")
    elsewhere = here.model_copy(update={"destination": "other"})
    world = World(ledger, here)
    world.plan({"p1": person(), "p2": person()})
    world.work([])
    world.plan({"p1": person(1), "p3": person()})  # Decided, not sent yet: one to update, one to add, one to remove.
    first = plan(elsewhere, ["p1"], {"p1": person(1)}, holds(ledger, elsewhere))
    submitted = submit(ledger, first, dry_run=False, now=world.now)
    assert submitted.reasons == ["it is the first synchronisation to 'other'"]
    # Nobody is added any more where it was sent before, but whoever was to be taken out is.
    world.work([])
    assert world.there.rows == {"p1": {"id": "p1", "tier": 0}}
    approve(ledger, first.plan_id, by="ann", now=world.now)
    sent = take(ledger, world.now + 12 * HOUR, destination="other")
    assert [one.delivery.payload["key"] for one in sent.ops] == ["p1"]
    claims.settle(ledger, sent, [Outcome(first.ops[0].op_id, "delivered")], now=world.now, max_attempts=3)
    assert conservation(ledger, elsewhere, ["p1"]).states == {"delivered": 1}
    assert [op.kind for op in world.plan({"p1": person(1)}).ops] == ["update"]


def test_a_release_that_a_later_plan_has_dropped_is_asked_for_again(ledger: Ledger) -> None:
    world = World(ledger, sync(mapping={"id": "person_id"}, key="id"))
    world.plan(crowd(300))
    world.work([], rounds=40)
    for _ in range(2):
        fewer = plan(world.sync, crowd(100), {}, holds(ledger, world.sync))
        assert submit(ledger, fewer, dry_run=False, now=world.now).state == "held"
        approve(ledger, fewer.plan_id, by="ann", now=world.now)
        assert submit(ledger, fewer, dry_run=False, now=world.now).state == "applied"
        whole = plan(world.sync, crowd(300), {}, holds(ledger, world.sync))
        assert submit(ledger, whole, dry_run=False, now=world.now).state == "unchanged"
    world.work([])
    assert len(world.there.rows) == 300


def test_who_is_kept_away_for_another_reason_than_before_is_shown_with_that_one(ledger: Ledger) -> None:
    world = World(ledger, sync(mapping={"mail": "email"}, key="mail"))
    world.plan({"p1": {"email": None}})
    refused = plan(world.sync, ["p1"], {"p1": {"email": "a@x.y"}}, {}, {"p1": "gate: no consent"})
    submit(ledger, refused, dry_run=False, now=world.now)
    assert [(row["state"], row["reason"]) for row in ledger.about(["p1"])] == [("suppressed", "gate: no consent")]


def test_a_key_that_is_somebody_else_s_before_it_was_sent_is_sent_as_theirs(ledger: Ledger) -> None:
    """Otherwise the gates ask whom it belonged to whether it may be sent."""
    world = World(ledger, sync(mapping={"mail": "email"}, key="mail"))
    for name in ("p1", "p2"):
        world.plan({name: {"email": "a@x.y"}})
    [one] = take(ledger, world.now).ops
    assert one.person_id == "p2"
    assert conservation(ledger, world.sync, ["p2"]).states == {"pending": 1}


def test_what_a_slow_plan_has_found_unchanged_is_not_written_over_what_was_sent_meanwhile(ledger: Ledger) -> None:
    vips = sync(mapping={"id": "person_id", "tier": "tier"}, key="id")
    world = World(ledger, vips)
    first = world.plan({"p1": person(0)})
    world.work([])
    slow = replace(first, ops=[], proven={"p1": ("p1", "0" * 16, first.ops[0].op_id)})
    world.plan({"p1": person(1)})
    world.work([])
    submit(ledger, slow, dry_run=False, now=world.now)
    assert held_fingerprints(ledger, vips) == ""
    submit(ledger, replace(slow, proven={"p1": ("p1", "0" * 16, holds(ledger, vips)["p1"].op_id)}), dry_run=False,
           now=world.now)  # fmt: skip
    assert held_fingerprints(ledger, vips) == "0" * 16


def test_what_was_there_by_a_ledger_that_did_not_say_where_is_there_still(ledger_address: str) -> None:
    vips = sync(mapping={"id": "person_id"}, key="id")
    with open_ledger(ledger_address) as ledger:
        world = World(ledger, vips)
        world.plan({"p1": {}, "p2": {}})
        world.work([])
        known = holds(ledger, vips)
        with ledger.writing() as connection:
            connection.exec_driver_sql("CREATE TABLE before AS SELECT * FROM acknowledged")
            connection.exec_driver_sql("ALTER TABLE before DROP COLUMN destination")
            connection.exec_driver_sql("DROP TABLE acknowledged")
            connection.exec_driver_sql("ALTER TABLE before RENAME TO acknowledged")
            connection.exec_driver_sql("ALTER TABLE plans DROP COLUMN destination")
    for _ in range(2):
        with open_ledger(ledger_address) as ledger:
            assert holds(ledger, vips) == known and len(known) == 2
    with open_ledger(ledger_address) as ledger:
        more = plan(vips, ["p1", "p2", "p3"], {}, holds(ledger, vips))
        assert submit(ledger, more, dry_run=False, now=NOW).state == "applied"


@pytest.mark.parametrize("fate", ["nobody knows", "rejected"])
def test_a_removal_that_was_refused_or_may_have_been_made_waits_for_somebody(ledger: Ledger, fate: str) -> None:
    world = World(ledger, sync(mapping={"id": "person_id"}, key="id"))
    world.plan({"p1": {}})
    world.work([])
    for faults in ([fate], [], []):
        world.plan({})
        world.work(faults, repeatable=False)
    assert world.states == {"delivered": 1, "unknown" if fate == "nobody knows" else "failed": 1}

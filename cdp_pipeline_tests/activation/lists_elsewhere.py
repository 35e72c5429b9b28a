"""A list kept elsewhere and a model of it in plain Python: who should be there, what was sent and what came of it.

The model shares no code with the ledger or with plan.py. Steps are drawn by the test; `settle_down` lets everything
arrive and then holds the list against the audience.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

import pyarrow as pa

from cdp_pipeline.activation import claims
from cdp_pipeline.activation.claims import Claim, Claimed
from cdp_pipeline.activation.ledger import Ledger, LedgerError, open_ledger
from cdp_pipeline.activation.plan import SyncPlan
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline.activation.refresh import plan_sync
from cdp_pipeline.activation.sync import approve, conservation, submit, waiting
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline_tests.activation.projects import NOW, sync
from cdp_pipeline_tests.activation.taking import take

HOUR = timedelta(hours=1)
FOREIGN = "theirs@x.y"
FATES = ("fine", "fine", "fine", "answer lost", "refused", "rejected", "crash", "untried")


class Elsewhere:
    """Two destinations that already hold somebody of their own; `repeatable`: an operation twice is had once."""

    def __init__(self, repeatable: bool) -> None:
        self.repeatable = repeatable
        self.rows: dict[str, dict[str, Any]] = {name: {FOREIGN: "theirs"} for name in ("hook", "other")}
        self.seen: set[str] = set()
        self.asked_again = False
        self.added: dict[str, set[str]] = defaultdict(set)
        self.entries: Counter[tuple[str, str]] = Counter()

    def take(self, destination: str, one: Claimed) -> None:
        payload, op_id = one.delivery.payload, one.delivery.op_id
        if op_id in self.seen and self.repeatable:
            return
        assert op_id not in self.seen or self.asked_again, (
            "an operation that may have arrived was repeated though nobody asked"
        )
        self.seen.add(op_id)
        key = str(payload["key"])
        if payload["member"]:
            self.rows[destination][key] = payload["data"]
            self.added[destination].add(key)
            self.entries[destination, key] += 1
        else:
            assert key in self.added[destination], "only what was put there is ever taken out"
            self.rows[destination].pop(key, None)


class World:
    """People, their audience, a clock, a ledger, and a list elsewhere that should be as the audience is."""

    def __init__(self, mode: str, repeatable: bool) -> None:
        self.ledger: Ledger = open_ledger("sqlite://")
        self.elsewhere, self.now = Elsewhere(repeatable), NOW
        self.sync: Sync = sync(mode=mode, mapping={"mail": "email", "tier": "tier"}, key="mail")
        self.mode_changed = False
        self.people: dict[str, dict[str, str | None]] = {
            f"p{n}": {"email": f"{n}@x.y", "tier": "gold"} for n in range(5)
        }
        self.audience: set[str] = set()
        self.merged: dict[str, str] = {}
        self.dry_run = False
        self.owner: dict[str, str] = {}
        self.entries: Counter[str] = Counter()
        self.left_there: dict[str, set[str]] = defaultdict(set)
        self.begun: set[str] = set()
        self.in_force: str | None = None
        self.permitted: set[str] = set()
        self.late: list[tuple[Claim, list[Outcome]]] = []
        self.stale: SyncPlan | None = None

    def close(self) -> None:
        self.ledger.close()

    # What people do

    def changed(self) -> None:
        """Note whose each key is: of two the first by name; every time it is somebody's anew is an entry."""
        owner = {}
        for person in sorted(self.members()):
            if key := self.people[person]["email"]:
                owner.setdefault(key, person)
        self.entries.update(key for key, person in owner.items() if self.owner.get(key) != person)
        self.owner = owner

    def members(self) -> set[str]:
        return {person for person in self.audience if person not in self.merged}

    def enter(self, person: str) -> None:
        self.audience.add(person)
        self.changed()

    def leave(self, person: str) -> None:
        self.audience.discard(person)
        self.changed()

    def become(self, person: str, email: str | None, tier: str) -> None:
        self.people[person] = {"email": email, "tier": tier}
        self.changed()

    def merge(self, person: str, elder: str) -> None:
        """Into somebody who is nobody else's part, and takes over the address."""
        if person != elder and elder not in self.merged and person not in self.merged.values():
            self.merged[person] = elder
            self.people[elder] = dict(self.people[person])
            self.audience |= {elder} if person in self.audience else set()
            self.changed()

    def split(self, person: str) -> None:
        self.merged.pop(person, None)
        self.changed()

    def clock(self, hours: int) -> None:
        self.now += hours * HOUR

    # What operators do

    def set_mode(self, mode: str) -> None:
        self.sync = self.sync.model_copy(update={"mode": mode})
        self.mode_changed = True

    def send_to(self, destination: str) -> None:
        self.sync = self.sync.model_copy(update={"destination": destination})

    def lose_ledger(self) -> None:
        self.ledger.close()
        self.ledger, self.stale, self.late = open_ledger("sqlite://"), None, []
        self.begun.clear()
        self.in_force = None
        self.entries.update(self.owner.keys())
        for name, rows in self.elsewhere.rows.items():
            self.left_there[name] |= rows.keys() - {FOREIGN}

    def retry(self) -> None:
        self.elsewhere.asked_again |= bool(self.ledger.retry(self.now))

    def dismiss(self, not_arrived: bool) -> None:
        self.ledger.dismiss(self.now, "so be it", not_arrived=not_arrived)

    # Planning

    def look(self) -> SyncPlan:
        rows = [{"person_id": one, **self.people[one]} for one in sorted(self.members())]
        schema = pa.schema([(name, pa.string()) for name in ("person_id", "email", "tier")])
        return plan_sync(self.ledger, self.sync, pa.Table.from_pylist(rows, schema=schema), self.merged)

    def plan(self, *, releases: bool, upstream: bool = False) -> str:
        found = self.look()
        state = self.submit(found, releases=releases, upstream=upstream)
        accounts = conservation(self.ledger, self.sync, self.members(), self.merged)
        # Whose key is under way as somebody else's is left to the next plan.
        under_way = {row["key"]: row["person_id"] for row in self.told() if row["state"] == "inflight"}
        left = sum(self.owner.get(key, person) != person for key, person in under_way.items())
        assert 0 <= accounts.missing <= left, accounts
        return state

    def told(self) -> list[dict[str, Any]]:
        return self.ledger.about([*self.people])

    def remember(self) -> None:
        """Another run has planned, and comes to submitting it later."""
        self.stale = self.look()

    def submit_stale(self) -> None:
        if self.stale is not None:
            self.submit(self.stale, releases=True, upstream=False)
            self.stale = None

    def submit(self, found: SyncPlan, *, releases: bool, upstream: bool) -> str:
        told = submit(
            self.ledger, found, dry_run=self.dry_run, now=self.now, upstream=["a check failed"] if upstream else []
        )
        moves = bool(found.ops or found.forgotten)
        speaks_against = upstream or found.size == 0 or found.sync.destination not in self.begun
        if not moves:
            assert told.state == "unchanged"
            self.in_force = None
        elif self.dry_run:
            assert told.state == "shown"
            self.in_force = None
        elif told.state == "held":
            assert speaks_against and told.enqueued == 0
            if releases:
                approve(self.ledger, found.plan_id, by="ann", now=self.now)
                self.release(found)
        else:
            assert told.state == "applied"
            assert not speaks_against or self.in_force == found.plan_id, "nobody was asked"
            self.release(found)
        return told.state

    def release(self, found: SyncPlan) -> None:
        self.in_force = found.plan_id
        self.begun.add(found.sync.destination)
        self.permitted |= {op.op_id for op in found.ops if op.state == "pending"}

    def approve_what_waits(self) -> None:
        for one in waiting(self.ledger):
            try:
                approve(self.ledger, one["plan_id"], by="bob", now=self.now, syncs={"vips": self.sync})
            except LedgerError:
                continue
            self.in_force = one["plan_id"]
            self.begun.add(self.sync.destination)
            self.permitted |= {str(row["op_id"]) for row in self.told() if row["state"] == "pending"}

    # Delivering

    def work(self, fates: list[str], destination: str) -> int:
        if self.dry_run:
            claims.show_dry_run(self.ledger, claims.waiting_for(self.ledger, destination, 1000), {}, self.now)
            return 0
        repeatable = self.elsewhere.repeatable
        taken = take(self.ledger, self.now, destination=destination, limit=4, repeatable=repeatable)
        people = [(one.origin, one.person_id) for one in taken.ops]
        assert len(people) == len(set(people))
        now, late = [], []
        for one, fate in zip(taken.ops, fates + ["fine"] * len(taken.ops), strict=False):
            assert one.delivery.op_id in self.permitted, "sent though no plan that was let go has it"
            if fate in ("fine", "answer lost", "crash"):
                self.elsewhere.take(destination, one)
            elif fate == "refused" and one.delivery.payload["member"]:
                # For all the ledger knows it may have been done.
                self.elsewhere.added[destination].add(one.key)
            lost = "retry" if repeatable else "unknown"
            state = {"fine": "delivered", "crash": "delivered", "rejected": "failed", "refused": "retry",
                     "untried": "untried", "answer lost": lost}[fate]  # fmt: skip
            (late if fate == "crash" else now).append(Outcome(one.delivery.op_id, state))  # type: ignore[arg-type]
        claims.settle(self.ledger, taken, now, now=self.now, max_attempts=3)
        if late:
            self.late.append((taken, late))
        return len(taken.ops)

    def come_back_late(self) -> None:
        for taken, outcomes in self.late:
            claims.settle(self.ledger, taken, outcomes, now=self.now, max_attempts=3)
        self.late.clear()

    # What must be so in the end

    def settle_down(self) -> None:
        self.dry_run, self.stale = False, None
        for _ in range(4):
            if self.elsewhere.repeatable:
                self.retry()
            self.now += 12 * HOUR
            self.plan(releases=True)
            while self.work([], self.sync.destination):
                self.now += 12 * HOUR
            self.now += 12 * HOUR
        unsure = {
            str(row["key"])
            for row in self.told()
            if row["state"] in ("unknown", "doubtful", "failed") or str(row["reason"]).startswith("dismissed")
        }
        self.check({key for key in unsure if key in self.owner or self.sync.mode in ("mirror", "event")})

    def check(self, unsure: set[str]) -> None:
        destination, mode = self.sync.destination, self.sync.mode
        there = dict(self.elsewhere.rows[destination])
        assert there.pop(FOREIGN) == "theirs"
        wanted = {key: {"mail": key, "tier": self.people[person]["tier"]} for key, person in self.owner.items()}
        assert wanted.keys() - unsure <= there.keys(), "missing"
        if mode == "mirror" and not self.left_there[destination]:
            assert there.keys() - unsure <= wanted.keys(), "extra"
        if mode in ("mirror", "upsert"):
            assert all(there[key] == data for key, data in wanted.items() if key not in unsure), "not up to date"
        if mode in ("append", "event") and not self.mode_changed and not self.elsewhere.asked_again:
            for (where, key), count in self.elsewhere.entries.items():
                assert count <= self.entries[key], f"{count} entries told of {key} at {where}"
        if not unsure:
            found = self.look()
            assert not found.forgotten and all(op.state == "suppressed" for op in found.ops), found.counts
            accounts = conservation(self.ledger, self.sync, self.members(), self.merged)
            assert accounts.states["delivered"] >= len(wanted), accounts
            assert accounts.states.keys() <= {"delivered", "suppressed"}, accounts

"""Any order of firing, working, failing, crashing and waiting: nobody gets anything twice, out of order or too soon."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cdp_pipeline.activation import claims
from cdp_pipeline.activation.claims import Claim, Claimed
from cdp_pipeline.activation.ledger import Ledger, Op, open_ledger, operation_id
from cdp_pipeline.activation.protocol import Outcome
from cdp_pipeline_tests.activation.projects import DAY, NOW
from cdp_pipeline_tests.activation.taking import take

COOL_DOWN, LEASE = timedelta(hours=6), timedelta(minutes=5)
PEOPLE = ["p1", "p2", "p3"]


class LedgerMachine(RuleBasedStateMachine):
    """The model knows what was called for and what took effect; it shares no code with the ledger."""

    ledger: Ledger

    @initialize()
    def start(self) -> None:
        self.ledger, self.now = open_ledger("sqlite://"), NOW
        self.called_for: set[tuple[str, int]] = set()
        self.decided_at: dict[str, list[datetime]] = defaultdict(list)
        self.effects: list[tuple[str, int]] = []
        self.keys: set[str] = set()
        self.abandoned: list[tuple[Claim, Claimed]] = []

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()

    @rule(person=st.sampled_from(PEOPLE), occasion=st.integers(0, 5))
    def fire(self, person: str, occasion: int) -> None:
        op_id = operation_id(person, occasion)
        payload = {"person": person, "occasion": occasion}
        op = Op(op_id, "trigger:t", "hook", person, "act", payload, str(occasion), "0")
        counts = self.ledger.fire("t", [op], day=DAY, now=self.now, cool_down=COOL_DOWN)
        if (person, occasion) in self.called_for:
            assert counts == {"known": 1}
            return
        self.called_for.add((person, occasion))
        too_soon = any(self.now - before < COOL_DOWN for before in self.decided_at[person])
        assert counts == {"suppressed" if too_soon else "pending": 1}
        if not too_soon:
            self.decided_at[person].append(self.now)

    @rule(minutes=st.sampled_from([1, 4, 6, 60, 400]))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(
        fates=st.lists(st.sampled_from(["fine", "fine", "lost", "refused", "rejected", "untried", "crash"]), min_size=3)
    )
    def work(self, fates: list[str]) -> None:
        claim = take(self.ledger, self.now, limit=3, lease=LEASE, max_attempts=4, rate=100)
        people = [claimed.delivery.payload["person"] for claimed in claim.ops]
        assert len(people) == len(set(people))
        done = []
        for claimed, fate in zip(claim.ops, fates, strict=False):
            if fate in ("fine", "lost", "crash"):
                self.apply(claimed)
            if fate == "crash":
                self.abandoned.append((claim, claimed))
                continue
            state = {"fine": "delivered", "rejected": "failed", "untried": "untried"}.get(fate, "retry")
            done.append(Outcome(claimed.delivery.op_id, state))  # type: ignore[arg-type]
        claims.settle(self.ledger, claim, done, now=self.now, max_attempts=4)

    def apply(self, claimed: Claimed) -> None:
        if claimed.delivery.op_id not in self.keys:
            self.keys.add(claimed.delivery.op_id)
            payload = claimed.delivery.payload
            self.effects.append((str(payload["person"]), int(str(payload["occasion"]))))

    @rule()
    def come_back_late(self) -> None:
        """A worker that was taken for lost had its effect, and says so now."""
        for claim, claimed in self.abandoned:
            outcome = Outcome(claimed.delivery.op_id, "delivered")
            claims.settle(self.ledger, claim, [outcome], now=self.now, max_attempts=4)
        self.abandoned.clear()

    @rule()
    def retry_failed(self) -> None:
        self.ledger.retry(self.now)

    @invariant()
    def every_call_is_one_row_and_what_was_suppressed_never_took_effect(self) -> None:
        if not hasattr(self, "ledger"):
            return
        rows = self.ledger.about(PEOPLE)
        assert len(rows) == len(self.called_for)
        by_state = {row["op_id"]: row["state"] for row in rows}
        assert all(by_state[key] != "suppressed" for key in self.keys)
        assert all(key in self.keys for key, state in by_state.items() if state == "delivered")

    @invariant()
    def nobody_has_two_under_way(self) -> None:
        if hasattr(self, "ledger"):
            under_way = [row["person_id"] for row in self.ledger.about(PEOPLE) if row["state"] == "inflight"]
            assert len(under_way) == len(set(under_way))


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=25, stateful_step_count=25)

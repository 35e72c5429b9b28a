"""Days in which people, operators, runs and faults come in any order: the list elsewhere is as the audience in the end.

And at every moment: what was not put there is not taken out, what nobody let go is not sent, what may have arrived is
not repeated where that would be felt, and every member is in some state.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cdp_pipeline_tests.activation.lists_elsewhere import FATES, World

MODES = ["mirror", "upsert", "append", "event"]
people = st.sampled_from([f"p{n}" for n in range(5)])
emails = st.sampled_from(["0@x.y", "1@x.y", "2@x.y", None, ""])
fates = st.lists(st.sampled_from(FATES), max_size=4)
places = st.sampled_from(["hook", "other"])


class ListsMachine(RuleBasedStateMachine):
    @initialize(mode=st.sampled_from(MODES), repeatable=st.booleans())
    def start(self, mode: str, repeatable: bool) -> None:
        self.world = World(mode, repeatable)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.world.settle_down()
            finally:
                self.world.close()

    @rule(person=people)
    def enter(self, person: str) -> None:
        self.world.enter(person)

    @rule(person=people)
    def leave(self, person: str) -> None:
        self.world.leave(person)

    @rule(person=people, email=emails, tier=st.sampled_from(["gold", "silver"]))
    def become(self, person: str, email: str | None, tier: str) -> None:
        self.world.become(person, email, tier)

    @rule(person=people, elder=people)
    def merge(self, person: str, elder: str) -> None:
        self.world.merge(person, elder)

    @rule(person=people)
    def split(self, person: str) -> None:
        self.world.split(person)

    @rule(hours=st.sampled_from([-3, -1, 1, 12, 80]))
    def clock(self, hours: int) -> None:
        self.world.clock(hours)

    @rule(releases=st.booleans(), upstream=st.booleans())
    def plan(self, releases: bool, upstream: bool) -> None:
        self.world.plan(releases=releases, upstream=upstream)

    @rule()
    def another_run_plans(self) -> None:
        self.world.remember()

    @rule()
    def the_other_run_submits(self) -> None:
        self.world.submit_stale()

    @rule()
    def approve(self) -> None:
        self.world.approve_what_waits()

    @rule(fates=fates, place=places)
    def work(self, fates: list[str], place: str) -> None:
        self.world.clock(12)
        self.world.work(fates, place)

    @rule(fates=fates)
    def work_at_once(self, fates: list[str]) -> None:
        self.world.work(fates, self.world.sync.destination)

    @rule()
    def come_back_late(self) -> None:
        self.world.come_back_late()

    @rule()
    def retry(self) -> None:
        self.world.retry()

    @rule(not_arrived=st.booleans())
    def dismiss(self, not_arrived: bool) -> None:
        self.world.dismiss(not_arrived)

    @rule(mode=st.sampled_from(MODES))
    def another_mode(self, mode: str) -> None:
        self.world.set_mode(mode)

    @rule(place=places)
    def another_destination(self, place: str) -> None:
        self.world.send_to(place)

    @rule(dry_run=st.booleans())
    def dry_run(self, dry_run: bool) -> None:
        self.world.dry_run = dry_run

    @rule()
    def lose_ledger(self) -> None:
        self.world.lose_ledger()


TestListsMachine = ListsMachine.TestCase
TestListsMachine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)

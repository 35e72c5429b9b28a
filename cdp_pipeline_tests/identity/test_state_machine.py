"""Identity over a life of runs: rows come, come late and go, people decide, rules change; what must hold, always holds.

After every step the next run is made and examined: by its own tables, by runs on the same rows in another order, and
by a run that knows nothing of the past.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import combinations
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.identity.shop import (
    IDENTIFIERS,
    UNPROTECTED,
    Resolved,
    Row,
    identifier,
    partition,
    persons,
    resolved,
)
from cdp_pipeline_tests.identity.shop import project as shop

End = tuple[str, str]


def ruled(**changed: dict[str, Any]) -> Project:
    """The shop with other settings for some types."""
    given = {
        name: spec.model_dump(exclude_unset=True, exclude={"kind", "name", "description"})
        for name, spec in IDENTIFIERS.items()
    }
    return shop({name: identifier(name, **{**given[name], **changed.get(name, {})}) for name in IDENTIFIERS})


def of_strategy(strategy: str) -> Project:
    plain = shop()
    told = {**plain.settings.model_dump(), "identity": {"strategy": strategy}}
    return dataclasses.replace(plain, settings=type(plain.settings).model_validate(told))


RULES = {
    "as they are": shop(),
    "no protection": shop(UNPROTECTED),
    "one address": ruled(email={"limit": 1}),
    "many cookies": ruled(anonymous_id={"limit": 9, "shared_above": 1}),
    "two addresses a day": ruled(email={"limit": {"count": 1, "within": "1 day"}}, anonymous_id={"shared_above": 9}),
    "ann blocked": ruled(email={"blocked": {"values": ["ann@example.com"]}}),
    "cookies do not last": ruled(anonymous_id={"expires": "58 days"}),
    **{strategy: of_strategy(strategy) for strategy in ("link", "isolation", "best_match", "strict")},
}
ENDS: list[End] = [
    *(("customer_id", str(number)) for number in range(1, 5)),
    *(("email", f"{name}@example.com") for name in ("ann", "bob", "cy")),
    *(("anonymous_id", f"k{number}") for number in range(1, 4)),
]
PAIRS = st.sampled_from([(a, b) for a in sorted(ENDS) for b in sorted(ENDS) if a < b])
ROWS = st.builds(
    Row,
    source=st.sampled_from(["web", "till"]),
    record=st.just(0),
    day=st.integers(1, 3),
    customer=st.none() | st.integers(1, 4),
    mail=st.none() | st.sampled_from([value for type_, value in ENDS if type_ == "email"] + ["test@example.com"]),
    cookie=st.none() | st.sampled_from([value for type_, value in ENDS if type_ == "anonymous_id"]),
)


class Identity(RuleBasedStateMachine):
    """What is in the world (rows, verdicts, rules), the last state, and every person there ever was."""

    @initialize(rows=st.lists(ROWS, max_size=6))
    def begin(self, rows: list[Row]) -> None:
        self.rows: list[Row] = []
        self.vetoed: set[tuple[End, End]] = set()
        self.linked: set[tuple[End, End]] = set()
        self.ruling = "as they are"
        self.numbers = 0
        self.last: Resolved | None = None
        self.held: dict[str, set[End]] = {}
        self._add(rows)
        self._run()

    def _add(self, rows: list[Row]) -> None:
        for row in rows:
            self.numbers += 1
            self.rows.append(dataclasses.replace(row, record=self.numbers))

    def _resolve(self, rows: list[Row], before: Resolved | None) -> Resolved:
        vetoed = [(a, b, f"apart_{place}") for place, (a, b) in enumerate(sorted(self.vetoed))]
        return resolved(rows, before, RULES[self.ruling], declared=sorted(self.linked), vetoed=vetoed)

    def _run(self) -> Resolved:
        before, self.last = self.last, self._resolve(self.rows, self.last)
        # Neither the order of rows nor how often a run is made makes a difference.
        assert equal(self.last, self._resolve(self.rows[::-1], before))
        again = self._resolve(self.rows, self.last)
        assert persons(again) == persons(self.last) and again.changes.num_rows == 0
        assert again.people.equals(self.last.people) and again.edges.equals(self.last.edges)
        # The past names people; it does not say who they are.
        assert partition(self._resolve(self.rows, None)) == partition(self.last)
        whose = persons(self.last)
        living: dict[str, set[End]] = {}
        for one, person in whose.items():
            if person is not None:
                living.setdefault(person, set()).add(one)
        # What left every source and comes back is new: nothing is remembered of it.
        self.held = {person: theirs & whose.keys() for person, theirs in self.held.items()} | living
        return self.last

    @rule(rows=st.lists(ROWS, min_size=1, max_size=3))
    def rows_come(self, rows: list[Row]) -> None:
        self._add(rows)
        self._run()

    @rule(row=ROWS)
    def a_row_comes_late(self, row: Row) -> None:
        self._add([dataclasses.replace(row, day=0)])
        self._run()

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def a_row_goes(self, data: st.DataObject) -> None:
        self.rows.pop(data.draw(st.integers(0, len(self.rows) - 1)))
        self._run()

    @rule(pair=PAIRS)
    def two_are_kept_apart(self, pair: tuple[End, End]) -> None:
        self.vetoed.add(pair)
        self._run()

    @precondition(lambda self: self.vetoed)
    @rule(data=st.data())
    def two_are_kept_apart_no_more(self, data: st.DataObject) -> None:
        self.vetoed.remove(data.draw(st.sampled_from(sorted(self.vetoed))))
        self._run()

    @rule(pair=PAIRS)
    def two_are_linked(self, pair: tuple[End, End]) -> None:
        self.linked.add(pair)
        self._run()

    @precondition(lambda self: self.linked)
    @rule(data=st.data())
    def two_are_linked_no_more(self, data: st.DataObject) -> None:
        self.linked.remove(data.draw(st.sampled_from(sorted(self.linked))))
        self._run()

    @rule(rules=st.sampled_from(sorted(RULES)))
    def rules_change(self, rules: str) -> None:
        self.ruling = rules
        self._run()

    @rule(row=ROWS)
    def a_wrong_merge_is_undone(self, row: Row) -> None:
        """A row brings two people together and verdicts part them: whoever they were, they are again."""
        assert self.last is not None
        before, was = self.last, persons(self.last)
        pairs = [(a, b) for a, b in combinations(row.identifiers, 2) if None not in (was.get(a), was.get(b))]
        pairs = [(a, b) for a, b in pairs if was[a] != was[b]]
        if not pairs:
            return
        self._add([dataclasses.replace(row, day=3)])
        merged = persons(self._run())
        if all(merged[a] != merged[b] for a, b in pairs):
            return
        self.vetoed.update(pairs)
        after = self._run()
        if partition(after) == partition(before):
            assert persons(after) == was

    @rule(pair=PAIRS)
    def a_veto_is_thought_better_of(self, pair: tuple[End, End]) -> None:
        """Kept apart and no more, at once: as if nothing had been said."""
        assert self.last is not None
        before = persons(self.last)
        if pair in self.vetoed:
            return
        self.vetoed.add(pair)
        self._run()
        self.vetoed.remove(pair)
        assert persons(self._run()) == before

    @invariant()
    def people_are_what_links_tie_together(self) -> None:
        if self.last is None:
            return
        tied = {one: {one} for one, person in persons(self.last).items() if person is not None}
        for edge in self.last.edges.to_pylist():
            if edge["status"] == "accepted":
                a, b = tied[edge["type_a"], edge["value_a"]], tied[edge["type_b"], edge["value_b"]]
                if a is not b:
                    a |= b
                    for one in b:
                        tied[one] = a
        assert {frozenset(group) for group in tied.values()} == partition(self.last)

    @invariant()
    def nobody_is_over_a_limit(self) -> None:
        if self.last is None:
            return
        specs = RULES[self.ruling].identifiers
        first_seen = {(row["type"], row["value"]): row["first_seen"] for row in self.last.identifiers.to_pylist()}
        for person in partition(self.last):
            for spec in specs.values():
                theirs = [one for one in person if one[0] == spec.name]
                if spec.limit is not None and spec.limit.within is not None:
                    for start in theirs:
                        end = first_seen[start] + spec.limit.within
                        assert sum(first_seen[start] <= first_seen[one] < end for one in theirs) <= spec.limit.count
                elif spec.limit is not None or spec.unique:
                    assert len(theirs) <= (spec.limit.count if spec.limit is not None else 1)

    @invariant()
    def whoever_is_kept_apart_is_apart(self) -> None:
        if self.last is not None:
            whose = persons(self.last)
            for a, b in self.vetoed:
                assert whose.get(a) is None or whose.get(a) != whose.get(b)

    @invariant()
    def every_id_there_ever_was_leads_to_somebody(self) -> None:
        """To a living person at once, or to nobody where nothing is left of all that was theirs."""
        if self.last is None:
            return
        people = {row["person_id"]: row for row in self.last.people.to_pylist()}
        whose = persons(self.last)
        living = {person for person in whose.values() if person is not None}
        sizes = Counter(whose.values())
        for person in self.held:
            end = people[person]["merged_into"] or person
            assert people[end]["merged_into"] is None
            assert people[end]["identifiers"] == sizes[end]
            assert end in living or all(whose.get(one) is None for one in self.held[end])
            assert person in living or people[person]["identifiers"] == 0
        assert set(self.held) == set(people)


def equal(one: Resolved, other: Resolved) -> bool:
    tables = (field.name for field in dataclasses.fields(Resolved))
    return all(getattr(one, name).equals(getattr(other, name)) for name in tables)


Identity.TestCase.settings = settings(max_examples=20, stateful_step_count=12)
test_identity_keeps_its_promises_whatever_happens = Identity.TestCase

"""What one way of telling who is who does to people, against counting it by hand."""

from __future__ import annotations

from collections import Counter

import ibis
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.identity.consequences import Consequences, Regrouped, consequences
from cdp_pipeline_tests.identity.shop import UNPROTECTED, Resolved, Row, identifier, persons, project, resolved, rows

STRICT = project(
    {name: identifier(name, priority=spec.priority, limit=1, unique=True) for name, spec in UNPROTECTED.items()}
)


def compared(before: Resolved, after: Resolved) -> Consequences:
    return consequences(
        *(ibis.memtable(one.identifiers) for one in (before, after)),
        *(ibis.memtable(one.edges) for one in (before, after)),
    )


@settings(max_examples=15)
@given(rows(), st.sampled_from([project(), STRICT, project(UNPROTECTED)]), rows(most=3))
def test_merges_splits_and_moves_are_those_counted_by_hand(found: list[Row], other, more: list[Row]) -> None:  # type: ignore[no-untyped-def]
    before = resolved(found)
    after = resolved([*found, *more], before, other)
    was, becomes = persons(before), persons(after)
    pairs = {(was[one], becomes.get(one)) for one in was}
    told = compared(before, after)
    groups = Counter(person for person in was.values() if person), Counter(p for p in becomes.values() if p)
    assert (told.people_before, told.people_after) == tuple(map(len, groups))
    assert (told.largest_before, told.largest_after) == tuple(max(group.values(), default=0) for group in groups)
    assert told.identifiers == sum(person is not None for person in was.values())
    assert told.moved == sum(person is not None and becomes.get(one) != person for one, person in was.items())
    whole = [(one, other_) for one, other_ in pairs if one is not None and other_ is not None]
    assert {one.person_id for one in told.split} == {p for p, n in Counter(one for one, _ in whole).items() if n > 1}
    assert {one.person_id for one in told.merged} == {p for p, n in Counter(one for _, one in whole).items() if n > 1}
    for one in told.split:
        for part, tally in one.parts.items():
            theirs = [end for end in was if was[end] == one.person_id and becomes.get(end) == part]
            assert tally == Counter(type_ for type_, _ in theirs)
    moved = {end for end in was.keys() | becomes.keys() if was.get(end) != becomes.get(end)}
    assert told.before >= {was[end] for end in moved if was.get(end)}
    assert told.after >= {becomes[end] for end in moved if becomes.get(end)}
    # Nobody who is not named has anything to do with what moved.
    assert all(was.get(end) in told.before or becomes.get(end) in told.after for end in moved if was.get(end))


def test_an_unlink_is_told_as_a_split_with_counts_and_no_identifier() -> None:
    found = [
        Row("web", 1, 0, customer=1, mail="ann@example.com", cookie="k1"), Row("web", 2, 1, mail="bob@example.com"),
        Row("web", 3, 2, customer=1, mail="bob@example.com"),
    ]  # fmt: skip
    before = resolved(found)
    apart = (("email", "ann@example.com"), ("email", "bob@example.com"), "apart_1")
    told = compared(before, resolved(found, before, vetoed=[apart]))
    person = persons(before)["customer_id", "1"]
    other = next(iter(told.after - {person}))
    assert (told.people_before, told.people_after, told.moved, told.churn) == (1, 2, 1, 0.25)
    assert told.split == [
        Regrouped(str(person), {str(person): {"anonymous_id": 1, "customer_id": 1, "email": 1}, other: {"email": 1}})
    ]
    assert told.refused_after == {"verdict apart_1 keeps them apart": 2}
    said = "\n".join(told.lines())
    assert f"{person} becomes {person} (1 anonymous_id, 1 customer_id, 1 email) and {other} (1 email)" in said
    assert "links that do not hold, verdict apart_1 keeps them apart: 0 before, 2 after" in said
    assert "@" not in said


def test_nothing_changed_is_nothing_told() -> None:
    before = resolved([Row("web", 1, 0, customer=1), Row("web", 2, 0, customer=2)])
    told = compared(before, before)
    assert (told.moved, told.churn, told.split, told.merged) == (0, 0.0, [], [])
    assert not told.before and not told.after
    nobody = resolved([])
    assert compared(nobody, nobody).churn == 0.0

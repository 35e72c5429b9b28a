"""The figures of identity's quality, against counting pairs one by one."""

from __future__ import annotations

from datetime import datetime
from itertools import combinations

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.identity.quality import churn, hang_by_one_link, quality, sizes
from cdp_pipeline_tests.identity.shop import TYPES, Row, moments, partition, persons, resolved, rows


@settings(max_examples=15)
@given(rows(), st.data())
def test_precision_and_recall_are_those_of_all_pairs(found: list[Row], data: st.DataObject) -> None:
    result = resolved(found)
    true = {one: data.draw(st.sampled_from("ABC")) for one in sorted(moments(found))}
    whose = persons(result)
    together = right = belong = 0
    for one, other in combinations(true, 2):
        same, truly = whose[one] is not None and whose[one] == whose[other], true[one] == true[other]
        together, belong, right = together + same, belong + truly, right + (same and truly)
    # Values nobody saw, and values of two people, are no one's to find.
    lines = [(*one, person) for one, person in true.items()] + [
        ("email", "unseen", "A"),
        ("email", "both", "A"),
        ("email", "both", "B"),
    ]
    truth = pa.table(dict(zip(("type", "value", "person"), map(list, zip(*lines, strict=True)), strict=True)))
    figures = quality(result.identifiers, result.people, result.edges, truth)
    assert figures["judged_identifiers"] == len(true)
    assert figures["precision"] == pytest.approx(right / together if together else 1)
    assert figures["recall"] == pytest.approx(right / belong if belong else 1)


@settings(max_examples=15)
@given(rows())
def test_counts_are_those_of_the_tables(found: list[Row]) -> None:
    result = resolved(found)
    figures = quality(ibis.memtable(result.identifiers), ibis.memtable(result.people), ibis.memtable(result.edges))
    sizes = sorted((len(group) for group in partition(result)), reverse=True)
    assert figures["people"] == len(sizes) == figures["people_known"] + figures["people_anonymous"]
    assert figures["largest_people"] == sizes[:10]
    assert figures["largest_person"] == max(sizes, default=0)
    assert figures["singletons"] == sizes.count(1)
    assert figures["identifiers"] == len(moments(found))
    assert figures["identifiers_blocked"] == result.identifiers["status"].to_pylist().count("blocked")
    assert figures["identifiers_shared"] == result.identifiers["status"].to_pylist().count("shared")
    assert figures["one_in_thousand_has"] == max(sizes, default=0), "of so few, nobody is beyond"
    whose = persons(result)
    for name, spec in TYPES.items():
        theirs = [group for group in partition(result) for one in group if one[0] == spec]
        lone = [group for group in theirs if len(group) == 1]
        assert figures["alone"].get(spec, 0) == pytest.approx(len(lone) / len(theirs) if theirs else 0), name
        blocked = [one for one, person in whose.items() if one[0] == spec and person is None]
        assert figures["blocked"].get(spec, 0) == len(blocked)
    statuses = result.edges["status"].to_pylist()
    assert figures["links"] == len(statuses)
    assert figures["links_refused"] == statuses.count("refused_limit") + statuses.count("refused_unique")
    assert sum(figures["limits"].values()) == figures["links_refused"]
    assert figures["links_inactive"] == statuses.count("inactive")
    assert "precision" not in figures


def test_what_several_people_use_is_nobodys_mistake() -> None:
    result = resolved([Row("web", 1, 0, customer=1, cookie="k1")])
    truth = {"type": ["customer_id", "anonymous_id"], "value": ["1", "k1"], "person": ["A", "B"]}
    judged = [
        quality(result.identifiers, result.people, result.edges, pa.table(truth | extra))["judged_identifiers"]
        for extra in ({}, {"shared": ["false", "true"]})
    ]
    assert judged == [2, 1]


def test_what_no_row_ties_to_its_person_is_left_out_of_reachable_recall() -> None:
    result = resolved([Row("web", 1, 0, customer=1, mail="ann@example.com"), Row("web", 2, 0, cookie="k1")])
    lines = {"type": ["customer_id", "email", "anonymous_id"], "value": ["1", "ann@example.com", "k1"]}
    truth = pa.table({**lines, "person": ["A", "A", "A"], "reachable": ["true", "true", "false"]})
    figures = quality(result.identifiers, result.people, result.edges, truth)
    assert (figures["precision"], figures["recall"], figures["recall_reachable"]) == (1.0, pytest.approx(1 / 3), 1.0)


Pairs = dict[tuple[int, int], tuple[int, bool]]  # ends → in how many sources, and whether in one row only


def _edges(pairs: Pairs) -> pa.Table:
    lines = [
        {
            "id_a": a, "id_b": b, "status": "accepted" if source == 0 else "redundant", "rule": "same_row",
            "first_seen": datetime(2026, 1, 1), "last_seen": datetime(2026, 1, 1 if once else 2),
        }
        for (a, b), (sources, once) in pairs.items()
        for source in range(sources)
    ]  # fmt: skip
    time = pa.timestamp("us")
    types = {"id_a": pa.int64(), "id_b": pa.int64(), "status": pa.string(), "rule": pa.string()}
    return pa.Table.from_pylist(lines, schema=pa.schema([*types.items(), ("first_seen", time), ("last_seen", time)]))


def _reached(pairs: Pairs, start: int) -> set[int]:
    found = {start}
    while grown := {end for pair in pairs for end in pair if found.intersection(pair)} - found:
        found |= grown
    return found


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda pair: pair[0] < pair[1]),
        st.tuples(st.integers(1, 2), st.booleans()),
        max_size=16,
    )
)
def test_people_who_hang_by_one_link_are_those_whom_taking_it_away_parts_in_halves(pairs: Pairs) -> None:
    hanging = set()
    for pair in pairs:
        rest = {other: seen for other, seen in pairs.items() if other != pair}
        halves = [_reached(rest, end) for end in pair]
        if pairs[pair] == (1, True) and halves[0] != halves[1] and min(map(len, halves)) >= 2:
            hanging.add(min(halves[0] | halves[1]))
    assert hang_by_one_link(_edges(pairs)) == len(hanging)


def test_a_long_chain_of_people_is_looked_through_as_well() -> None:
    chain: Pairs = {(place, place + 1): (1, place == 2_000) for place in range(5_000)}
    assert hang_by_one_link(_edges(chain)) == 1
    closed = chain | {(0, 5_000): (1, False)}
    assert hang_by_one_link(_edges(closed)) == 0


def test_the_tail_is_what_one_person_in_a_thousand_exceeds() -> None:
    people = [(2, 2_989), (40, 10), (900, 1)]
    table = pa.table({"kind": ["known"] * 3_000, "identifiers": [size for size, n in people for _ in range(n)]})
    table = table.append_column("merged_into", pa.nulls(3_000, pa.string()))
    figures = sizes(table)
    assert (figures["largest_person"], figures["one_in_thousand_has"]) == (900, 40)
    assert figures["largest_people"] == [900] + [40] * 9
    assert figures["ten_largest_share"] == pytest.approx((900 + 360) / (2 * 2_989 + 400 + 900))


def test_churn_counts_who_moved_and_not_who_came_went_or_was_recognised() -> None:
    ann = [Row("web", 1, 0, customer=1, mail="ann@example.com"), Row("web", 2, 0, customer=2, cookie="k2")]
    before = resolved([*ann, Row("web", 3, 0, cookie="k1"), Row("web", 4, 0, mail="gone@example.com")])
    # k1 turns out to be Ann's, her address moves to customer 3 of old, cy@ is new, gone@ was erased.
    later = [Row("web", 1, 0, customer=1, cookie="k1"), ann[1], Row("web", 5, 1, mail="cy@example.com")]
    after = resolved([*later, Row("web", 6, 1, customer=2, mail="ann@example.com")], before)
    figures = churn(before.identifiers, after.identifiers, before.people, after.people)
    assert figures == {"identifiers_known": 6, "identifiers_moved": 1, "identifiers_recognised": 1, "churn": 1 / 6}
    assert churn(*(empty(table) for table in (before.identifiers, after.identifiers, before.people, after.people))) == {
        "identifiers_known": 0, "identifiers_moved": 0, "identifiers_recognised": 0, "churn": 0.0,
    }  # fmt: skip
    changed = [row for row in after.identifiers.to_pylist() if row not in before.identifiers.to_pylist()]
    some = pa.Table.from_pylist(changed, schema=after.identifiers.schema)
    assert churn(before.identifiers, some, before.people, after.people) == figures


def empty(table: pa.Table) -> pa.Table:
    return table.slice(0, 0)

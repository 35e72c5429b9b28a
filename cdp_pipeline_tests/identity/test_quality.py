"""The figures of identity's quality, against counting pairs one by one."""

from __future__ import annotations

from itertools import combinations

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.identity.quality import quality
from cdp_pipeline_tests.identity.shop import Row, moments, partition, persons, resolved, rows


@settings(max_examples=15, deadline=None)
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


@settings(max_examples=15, deadline=None)
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
    statuses = result.edges["status"].to_pylist()
    assert figures["links"] == len(statuses)
    assert figures["links_refused"] == statuses.count("refused_limit") + statuses.count("refused_unique")
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

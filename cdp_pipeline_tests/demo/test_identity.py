"""The demo company's people are found again: held against its truth, planted tablets and placeholders and all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from cdp_pipeline.identity.history import read_truth
from cdp_pipeline.identity.quality import quality
from cdp_pipeline.sources.demo import generate
from cdp_pipeline_tests.demo.company import resolved
from cdp_pipeline_tests.sources_demo.exports import Company, identifiers


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return Company(generate(tmp_path_factory.mktemp("data"), 2_500, 16, seed=4, last_day=date(2026, 1, 15)))


@pytest.fixture(scope="module")
def found(
    company: Company, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The figures, and the identifiers with whose they are, as the demo project resolves them."""
    with resolved(company.folder, tmp_path_factory.mktemp("lake")) as shop:
        result, truth = shop.found, read_truth(shop.project, shop.lake.ibis)
        identifiers = result.identifiers.to_pyarrow()
        figures = quality(identifiers, result.people, result.edges.to_pyarrow(), truth)
        yield figures, identifiers.to_pylist()


def test_people_are_told_apart_and_put_together_as_they_really_are(found: tuple[dict[str, Any], Any]) -> None:
    figures, _ = found
    assert figures["precision"] >= 0.995
    assert figures["recall_reachable"] >= 0.97
    assert figures["largest_person"] <= 20


def test_every_planted_value_is_seen_for_what_it_is(company: Company, found: tuple[Any, list[dict[str, Any]]]) -> None:
    """A tablet or a line of the call centre that two people were seen with is shared; placeholders are blocked."""
    planted = {(r["type"], r["value"]): r["why"] for r in company.truth("identifiers") if not r["person"]}
    several = {one for one, why in planted.items() if why.startswith(("tablet", "line"))}
    met: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
    for row in company.rows:
        # The oracle's own normalisation leaves out the lines, which it knows for nobody's.
        told = [("anonymous_id", row.cells.get("anonymous_id")), ("phone", _line(row.cells.get("phone")))]
        for one in several.intersection(told) if row.fault is None else ():
            met[one] |= {(type_, company.person_of[type_, value]) for type_, value in identifiers(row)
                         if type_ in ("customer_id", "email")}  # fmt: skip
    state = {(row["type"], row["value"]): row["status"] for row in found[1]}
    for one in planted.keys() & state.keys():
        people = max(sum(type_ == by for type_, _ in met[one]) for by in ("customer_id", "email"))
        if one in several:
            assert (state[one] == "shared") == (people > 1), (one, people)
        else:
            assert state[one] == "blocked"
    assert {planted[one] for one in planted.keys() & state.keys()} == set(planted.values())
    assert sum(state.get(one) == "shared" for one in several) >= 10


def _line(phone: object) -> str:
    return "+44" + str(phone or "").replace(" ", "").removeprefix("0")


def test_nobody_is_a_tablet(company: Company, found: tuple[Any, list[dict[str, Any]]]) -> None:
    nobodys = {(row["type"], row["value"]) for row in company.truth("identifiers") if not row["person"]}
    people = defaultdict(list)
    for row in found[1]:
        people[row["person_id"]].append((row["type"], row["value"]))
    del people[None]
    for ones in people.values():
        assert len(ones) == 1 or nobodys.isdisjoint(ones)

"""Labels against a plain Python oracle."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import ibis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.predictions.targets import labels
from cdp_pipeline_tests.predictions.people import prediction
from cdp_pipeline_tests.traits.shop import DAYS, event, events, timeline_rows


def oracle(rows: list[dict[str, Any]], cutoffs: list[date], horizon: int, happens: bool, when: Any) -> set[tuple]:
    found = set()
    for cut in cutoffs:
        for person in {r["person_id"] for r in rows if r["person_id"] and r["_day"] <= cut}:
            hit = any(
                r["person_id"] == person and r["event"] == "order" and when(r)
                and cut < r["_day"] <= cut + timedelta(days=horizon)
                for r in rows
            )  # fmt: skip
            found.add((person, cut, int(hit == happens)))
    return found


def labelled(rows: list[dict[str, Any]], cutoffs: list[date], **fields: Any) -> set[tuple]:
    table = labels(ibis.memtable(timeline_rows(rows)), prediction(**fields), cutoffs).to_pyarrow()
    found = [(row["person_id"], row["day"], row["label"]) for row in table.to_pylist()]
    assert len(found) == len(set(found))
    return set(found)


@settings(max_examples=15)
@given(events(), st.lists(st.sampled_from(DAYS), min_size=1, max_size=4), st.integers(1, 5), st.booleans())
def test_labels_are_what_a_loop_over_events_says(
    rows: list[dict[str, Any]], cutoffs: list[date], horizon: int, happens: bool
) -> None:
    target = {"event": ["order"], "happens": happens, "when": "amount > 10"}
    expected = oracle(rows, cutoffs, horizon, happens, lambda r: r["amount"] is not None and r["amount"] > 10)
    assert labelled(rows, cutoffs, target=target, horizon=f"{horizon} days") == expected


@pytest.mark.parametrize(("after", "label"), [(0, 0), (1, 1), (60, 1), (61, 0)])
def test_the_window_is_open_at_the_cut_off_and_closed_at_its_end(after: int, label: int) -> None:
    cut = date(2024, 2, 1)
    seen = event(event="visit", _day=date(2024, 1, 1))
    assert labelled([seen, event(_day=cut + timedelta(days=after))], [cut]) == {("p_00", cut, label)}


def test_people_first_seen_after_the_cut_off_are_not_labelled() -> None:
    assert labelled([event(_day=date(2024, 2, 2))], [date(2024, 2, 1)]) == set()

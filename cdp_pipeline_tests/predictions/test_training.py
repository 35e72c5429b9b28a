"""Training windows keep their embargo, and no feature knows anything after its day."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import ibis
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.model import train
from cdp_pipeline.predictions.training import (
    HISTORY,
    FeatureError,
    binary_table,
    feature_names,
    features,
    history,
    population_traits,
    training_set,
)
from cdp_pipeline.predictions.windows import Cutoffs, LeakageError, cutoffs
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.predictions.people import TEST_DAY, prediction, training
from cdp_pipeline_tests.traits.shop import DAYS, event, events, project, timeline_rows, trait

TRAITS = [
    trait("orders", "count"),
    trait("orders_3d", "count", window="last 3 days"),
    trait("spent", "sum", value="amount"),
    trait("points", "average", value="points", window="last 4 days"),
    trait("last_channel", "last", value="channel"),
]
SHOP = project(*TRAITS, prediction())


def people_of(rows: list[dict[str, Any]]) -> ibis.Table:
    names = sorted({row["person_id"] for row in rows if row["person_id"]})
    return ibis.memtable({"person_id": names}, schema={"person_id": "string"})


def known(rows: list[dict[str, Any]], days: list[date], people: ibis.Table | None = None) -> list[dict[str, Any]]:
    people = people_of(rows) if people is None else people
    table = features(Known(as_of, ibis.memtable(timeline_rows(rows)), people), prediction(), SHOP, days)
    return table.order_by("person_id", "day").to_pyarrow().to_pylist()


@given(st.dates(date(2020, 1, 1), date(2030, 1, 1)), st.integers(0, 2000), st.integers(1, 200), st.integers(1, 60),
       st.integers(1, 24))  # fmt: skip
def test_every_cut_off_is_fully_labelled_embargoed_and_has_history(
    last: date, past: int, horizon: int, every: int, count: int
) -> None:
    first = last - timedelta(days=past)
    spec = prediction(horizon=f"{horizon} days", every=f"{every} days", cutoffs=count)
    found = cutoffs(spec, last, first)
    assert found.test + spec.horizon == last
    assert len(found.train) <= count
    assert all(day + spec.horizon <= found.test and day - spec.horizon >= first for day in found.train)
    assert all(b - a == spec.every for a, b in zip(found.train, found.train[1:], strict=False))
    room = (found.test - 2 * spec.horizon - first).days
    assert len(found.train) == (0 if room < 0 else min(count, room // every + 1))
    found.check_embargo()


def test_a_missing_embargo_is_rejected_where_the_set_is_made_and_where_it_is_learned_from() -> None:
    close = Cutoffs((TEST_DAY - timedelta(days=59),), TEST_DAY, timedelta(days=60))
    with pytest.raises(LeakageError, match="labelled until 2024-06-02, after the test cut-off 2024-06-01"):
        training_set(Known(as_of, ibis.memtable(timeline_rows([])), people_of([])), prediction(), SHOP, close)
    with pytest.raises(LeakageError, match="labelled until"):
        train(training(people=50), prediction(horizon="61 days"))
    mixed = training(people=50)
    mixed = mixed.set_column(2, "split", pc.if_else(pc.equal(mixed["day"], mixed["day"][0]), "test", mixed["split"]))
    with pytest.raises(LeakageError, match="2 cut-offs"):
        train(mixed, prediction())


@settings(max_examples=8)
@given(events(), st.integers(0, len(DAYS) - 2))
def test_features_from_a_timeline_cut_off_at_the_day_are_identical(rows: list[dict[str, Any]], cut: int) -> None:
    day, people = DAYS[cut], people_of(rows)
    past = [row for row in rows if row["_day"] <= day]
    whole = [row for row in known(rows, [day, DAYS[-1]], people) if row["day"] == day]
    assert whole == known(past, [day], people)


@settings(max_examples=12)
@given(events(), st.lists(st.sampled_from(DAYS), min_size=1, max_size=3, unique=True))
def test_the_history_of_the_target_is_what_a_loop_over_events_says(
    rows: list[dict[str, Any]], days: list[date]
) -> None:
    expected = {}
    for day in days:
        for person in {r["person_id"] for r in rows if r["person_id"] and r["_day"] <= day}:
            seen = [r for r in rows if r["person_id"] == person and r["_day"] <= day]
            hits = [r for r in seen if r["event"] == "order"]
            ago = [(day - r["_day"]).days for r in hits]
            amounts = [r["amount"] for r in hits if r["amount"] is not None]
            expected[person, day] = {
                "_recency": min(ago) if ago else None,
                "_times": float(len(set(ago))),
                "_since_first": max(ago) if ago else None,
                "_amount": float(sum(amounts)) if amounts else None,
                "_tenure": max((day - r["_day"]).days for r in seen),
                "_active_days": len({r["_day"] for r in seen}),
            }
    found = history(ibis.memtable(timeline_rows(rows)), days, prediction()).to_pyarrow().to_pylist()
    assert {(r["person_id"], r["day"]): {name: r[name] for name in HISTORY} for r in found} == expected


def test_a_training_set_has_one_row_per_person_and_cut_off_as_declared() -> None:
    test, train_day = date(2024, 3, 1), date(2024, 1, 1)
    windows = Cutoffs((train_day,), test, timedelta(days=60))
    rows = [
        event(_day=date(2023, 12, 1)),
        event(_day=date(2024, 2, 1), person_id="p_01"),
        event(_day=date(2024, 4, 1)),
        event(_day=date(2024, 5, 1), person_id="p_02"),
    ]
    known = Known(as_of, ibis.memtable(timeline_rows(rows)), people_of(rows))
    table = training_set(known, prediction(), SHOP, windows)
    found = table.order_by("day", "person_id").to_pyarrow().to_pylist()
    level_day = test - timedelta(days=28)
    assert [(r["person_id"], r["day"], r["split"], r["label"], r["_soon"], r["orders"]) for r in found] == [
        ("p_00", train_day, "train", 0, 0, 1.0),
        ("p_00", level_day, "level", None, 0, 1.0),
        ("p_01", level_day, "level", None, 0, 1.0),
        ("p_00", test, "test", 1, None, 1.0),
        ("p_01", test, "test", 0, None, 1.0),
    ]
    declared = binary_table(prediction(), SHOP, as_of_schema())
    assert declared.schema.equals(table.schema())
    assert all(column.description for column in declared.columns.values())


def as_of_schema() -> ibis.Schema:
    return as_of(ibis.memtable(timeline_rows([])), people_of([]), DAYS[:1], SHOP).schema()


def test_the_population_is_asked_with_the_traits_its_rules_mention() -> None:
    rules = [{"any": [{"trait": "orders", "op": ">=", "value": 2}, {"none": [{"band": "spent", "is": "calm"}]}]}]
    spec = prediction(population=rules, features=["points"])
    assert sorted(population_traits(spec.population)) == ["orders", "spent"]
    compared = prediction(population=[{"trait": "spent", "op": ">", "value": {"trait": "points"}}], features=["points"])
    assert sorted(population_traits(compared.population)) == ["points", "spent"]
    rows = [event(), event(_day=DAYS[4]), event(person_id="p_01")]
    twice = Known(
        as_of,
        ibis.memtable(timeline_rows(rows)),
        people_of(rows),
        lambda traits, days: traits.filter(traits.orders >= 2),
    )
    table = features(twice, spec, SHOP, [DAYS[6]])
    assert table.columns == ("person_id", "day", "points", *HISTORY)
    assert table.person_id.to_pyarrow().to_pylist() == ["p_00"]


def test_features_are_numeric_traits_and_a_declared_one_that_is_not_is_named() -> None:
    assert feature_names(prediction(), as_of_schema()) == ["orders", "orders_3d", "spent", "points"]
    assert feature_names(prediction(features=["points", "orders"]), as_of_schema()) == ["points", "orders"]
    with pytest.raises(FeatureError, match="feature 'last_channel' is of type string"):
        feature_names(prediction(features=["last_channel"]), as_of_schema())
    with pytest.raises(FeatureError, match="feature 'ordres' does not exist"):
        feature_names(prediction(features=["ordres"]), as_of_schema())

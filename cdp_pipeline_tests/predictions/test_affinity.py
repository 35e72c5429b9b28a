"""What people will take: pairs are known as a loop over events says, habits are found, and nothing leaks."""

from __future__ import annotations

import math
from datetime import date, timedelta
from functools import cache
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.predictions import affinity
from cdp_pipeline.predictions.item_scores import whole_people
from cdp_pipeline.predictions.items import ITEM, PAIR, PERSON, item_days, known_pairs, listed_items
from cdp_pipeline.predictions.kind import Champion, Trained
from cdp_pipeline.predictions.registry import version_of
from cdp_pipeline.predictions.windows import Cutoffs, LeakageError
from cdp_pipeline.spec.prediction import Affinity, Items
from cdp_pipeline_tests.predictions.people import known_of
from cdp_pipeline_tests.traits.shop import DAYS, event, project, timeline_rows

SHOP, HORIZON = project(), 28
DAY = date(2024, 6, 1)
WINDOWS = Cutoffs((DAY - timedelta(days=56), DAY - timedelta(days=28)), DAY, timedelta(days=HORIZON))
KINDS = ("tea", "coffee", "cake", "bread", "soap", "rope")


def prediction(**fields: Any) -> Affinity:
    document = {
        "kind": "prediction", "type": "affinity", "name": "likes", "description": "What they will buy.",
        "target": {"event": ["order"], "item": "category"}, "horizon": "28 days", "items": {"at_least": 5},
        "minimum": {"people": 50, "positives": 20}, "bands": [{"name": "warm", "above": 0.3}],
    }  # fmt: skip
    return Affinity.model_validate(document | fields)


def shoppers(people: int = 120, seed: int = 5) -> list[dict[str, Any]]:
    """Each has a favourite half of the shop: tea, coffee and cake, or bread, soap and rope, one of them above all."""
    random, rows = np.random.default_rng(seed), []
    for person in range(people):
        half, best = person % 2 * 3, int(random.integers(3))
        for ago in np.flatnonzero(random.random(200) < random.uniform(0.03, 0.15)):
            place = half + (best if random.random() < 0.6 else int(random.integers(3)))
            rows.append(
                event(
                    event_id=f"e{len(rows)}", person_id=f"p_{person:03}",
                    category=KINDS[place if random.random() < 0.9 else int(random.integers(6))],
                    _day=DAY + timedelta(days=HORIZON - int(ago)),
                )
            )  # fmt: skip
    return rows


@cache
def learned() -> tuple[pa.Table, Trained]:
    rows = affinity.training_set(known_of(shoppers()), prediction(), SHOP, WINDOWS).to_pyarrow()
    return rows, affinity.train(rows, prediction())


def scored(rows: list[dict[str, Any]], champion: Champion, day: date = DAY) -> list[dict[str, Any]]:
    inputs = affinity.inputs(known_of(rows), prediction(), SHOP, day).to_pyarrow()
    return affinity.score(inputs, champion, prediction(), SHOP, day).to_pylist()


some_events = st.lists(
    st.builds(
        event, person_id=st.sampled_from(["a", "b", "c"]), category=st.sampled_from(["tea", "cake", None]),
        _day=st.sampled_from(DAYS), event=st.sampled_from(["order", "order", "visit"]),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=6)
@given(some_events, st.lists(st.sampled_from(DAYS), min_size=1, max_size=2, unique=True))
def test_what_is_known_of_a_pair_is_what_a_loop_over_events_says(rows: list[dict[str, Any]], days: list[date]) -> None:
    horizon, expected = 3, {}
    for day in days:
        hits = {
            (r["person_id"], r["category"], (day - r["_day"]).days)
            for r in rows
            if r["event"] == "order" and r["category"] and r["_day"] <= day
        }
        people, items = {hit[0] for hit in hits}, {hit[1] for hit in hits}
        pairs = {(p, i): [ago for q, j, ago in hits if (q, j) == (p, i)] for p in people for i in items}
        whole = {p: list({ago for q, _, ago in hits if q == p}) for p in people}
        for (person, item), agos in pairs.items():
            figures = [*_figures(agos, horizon), *_figures(whole[person], horizon)[:5]]
            takes = [pairs[person, i] for i in items if pairs[person, i]]
            figures += [len(takes), sum(1 for agos in takes if min(agos) < horizon)]
            figures += [
                sum(1 for p in people if pairs[p, item]) / len(people),
                sum(1 for p in people if any(ago < horizon for ago in pairs[p, item])) / len(people),
                sum(len(pairs[p, item]) for p in people) / sum(len(agos) for agos in whole.values()),
            ]
            expected[person, day, item] = [pytest.approx(f, abs=1e-5) if f is not None else None for f in figures]
    timeline = ibis.memtable(timeline_rows(rows))
    who = known_of(rows).people.cross_join(ibis.memtable({"day": days}))
    table = known_pairs(item_days(timeline, prediction().target), who, days, Items(at_least=1), horizon)
    found = {
        (r["person_id"], r["day"], r["item"]): [r[name] for name in (*PAIR, *PERSON, *ITEM)]
        for r in table.to_pyarrow().to_pylist()
    }
    assert found == expected


def _figures(agos: list[int], horizon: int) -> list[float | None]:
    fading = [sum(math.exp(-ago / length) for ago in agos) for length in (horizon, 3 * horizon)]
    ends = [min(agos), max(agos)] if agos else [None, None]
    return [len(agos), sum(1 for ago in agos if ago < horizon), *fading, *ends]


def test_the_items_spoken_of_are_those_most_people_had() -> None:
    pairs = [("a", "tea"), ("b", "tea"), ("a", "cake"), ("b", "cake"), ("a", "soap"), ("c", "tea")]
    table = ibis.memtable([{"person_id": p, "day": DAY, "item": i} for p, i in pairs])

    def items(**fields: int) -> set[str]:
        return set(listed_items(table, Items(**fields)).item.to_pyarrow().to_pylist())

    assert items(at_least=2) == {"tea", "cake"}
    assert items(at_least=1, at_most=2) == {"tea", "cake"}


def test_habits_are_found_and_the_model_proves_itself() -> None:
    training, trained = learned()
    assert affinity.training_table(prediction(), SHOP, ibis.schema({})).schema.equals(
        ibis.memtable(training).select(*affinity.training_table(prediction(), SHOP, ibis.schema({})).columns).schema()
    )
    gates = affinity.judge(trained, prediction())
    assert all(gate.passed for gate in gates), gates
    assert {"better_than_own_rate", "better_than_popularity", "calibration"} <= {gate.name for gate in gates}
    assert trained.metrics["gain_over_popularity_low"] > 0
    assert trained.metrics["within_item_auc"] > 0.7
    assert affinity.charts(trained.card, prediction(), SHOP).keys() >= {"calibration", "gains", "importance"}


def test_two_trainings_are_identical_whatever_the_order_of_rows() -> None:
    training, trained = learned()
    shuffled = training.take(np.random.default_rng(0).permutation(training.num_rows))
    again = affinity.train(shuffled, prediction())
    assert again.metrics == trained.metrics
    assert again.scorer.logistic.weight.tobytes() == trained.scorer.logistic.weight.tobytes()
    assert version_of(shuffled, prediction()) == version_of(training, prediction())


def test_every_person_is_scored_for_every_item_and_ranked_by_it() -> None:
    rows, (_, trained) = shoppers(), learned()
    found = scored(rows, Champion("v1", trained.scorer))
    people = {r["person_id"] for r in rows if r["_day"] <= DAY}
    assert {(r["person_id"], r["item"]) for r in found} == {(p, i) for p in people for i in KINDS}
    for person in people:
        mine = [r for r in found if r["person_id"] == person]
        assert [r["rank"] for r in mine] == [1, 2, 3, 4, 5, 6]
        assert [r["score"] for r in mine] == sorted((r["score"] for r in mine), reverse=True)
    assert all(r["band"] == ("warm" if r["score"] >= 0.3 else None) for r in found)
    assert {r["basis"] for r in found} == {"model"} and {r["model_version"] for r in found} == {"v1"}
    halves = [
        r["person_id"] for r in found if r["rank"] == 1 and KINDS.index(r["item"]) // 3 == int(r["person_id"][2:]) % 2
    ]
    assert len(halves) > 0.9 * len(people)


def test_what_they_take_else_tells_two_people_apart_who_never_had_the_item() -> None:
    """Both bought four times, neither of them bread: one what bread is bought with, the other not."""

    def bought(person: str, *kinds: str) -> list[dict[str, Any]]:
        return [
            event(person_id=person, category=kind, _day=DAY - timedelta(days=9 * n)) for n, kind in enumerate(kinds)
        ]

    rows = shoppers() + bought("near", "soap", "rope", "soap", "rope") + bought("far", "tea", "cake", "tea", "cake")
    found = scored(rows, Champion("v1", learned()[1].scorer))
    bread = {r["person_id"]: r for r in found if r["item"] == "bread"}
    assert bread["near"]["score"] > 2 * bread["far"]["score"]
    assert "never so far" in bread["near"]["reasons"]
    assert "what else they take (raises)" in bread["near"]["reasons"]


def test_a_score_does_not_depend_on_who_else_is_in_the_chunk() -> None:
    rows, (_, trained) = shoppers(), learned()
    inputs = affinity.inputs(known_of(rows), prediction(), SHOP, DAY).order_by("person_id", "item").to_pyarrow()
    whole = trained.scorer.contributions(inputs)[0]
    parts = [trained.scorer.contributions(part)[0] for part in whole_people(inputs, 25)]
    assert len(parts) > 10
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12)
    batches = pa.RecordBatchReader.from_batches(inputs.schema, inputs.to_batches(max_chunksize=7))
    assert pa.concat_tables(list(whole_people(batches))).equals(inputs)


def test_without_a_model_everybody_gets_the_rate_of_each_item() -> None:
    training, _ = learned()
    short = affinity.train(training, prediction(minimum={"people": 1000}))
    assert short.scorer is None and short.missing == "needs 1000 people in the training windows, has 120"
    assert [gate.name for gate in affinity.judge(short, prediction())] == ["minimum_data"]
    found = scored(shoppers(), Champion("v0", None, short.missing, short.prior))
    past = training.filter(pc.equal(training["split"], "train"))
    for kind in KINDS:
        rate = pc.mean(past.filter(pc.equal(past["item"], kind))["label"]).as_py()
        assert {r["score"] for r in found if r["item"] == kind} == {round(rate, 6)}
    assert {r["basis"] for r in found} == {"prior"}


def test_the_training_set_of_a_past_day_does_not_know_what_came_later() -> None:
    rows = shoppers(people=40)
    keys = [("day", "ascending"), ("person_id", "ascending"), ("item", "ascending")]

    def made(some: list[dict[str, Any]]) -> pa.Table:
        return affinity.training_set(known_of(some), prediction(), SHOP, WINDOWS).to_pyarrow().sort_by(keys)

    end = DAY + timedelta(days=HORIZON)
    later = [event(person_id=f"p_{n:03}", category="rope", _day=end + timedelta(days=1)) for n in range(40)]
    assert made(rows).equals(made(rows + later))


def test_a_missing_embargo_is_rejected_where_it_is_made_and_where_it_is_learned_from() -> None:
    close = Cutoffs((DAY - timedelta(days=27),), DAY, timedelta(days=HORIZON))
    with pytest.raises(LeakageError, match="labelled until"):
        affinity.training_set(known_of([]), prediction(), SHOP, close)
    with pytest.raises(LeakageError, match="labelled until"):
        affinity.train(learned()[0], prediction(horizon="29 days"))


def test_the_outcome_of_a_score_is_whether_the_pair_happened() -> None:
    rows = [event(), event(person_id="b", category="cake"), event(_day=DAYS[6], category="cake")]
    timeline = ibis.memtable(timeline_rows(rows))
    found = affinity.outcomes(timeline, prediction(horizon="1 day"), [DAYS[5]]).to_pyarrow().to_pylist()
    mine = {(r["person_id"], r["item"]): r["label"] for r in found}
    assert mine == {("p_00", "tea"): 0, ("p_00", "cake"): 1, ("b", "tea"): 0, ("b", "cake"): 0}

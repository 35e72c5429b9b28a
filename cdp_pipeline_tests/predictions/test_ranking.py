"""Lists of items on the one path of predictions: what may be on them, where each item comes from, what is proven."""

from __future__ import annotations

import pickle
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any, get_args

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from cdp_pipeline.predictions import ranking
from cdp_pipeline.predictions.kind import Champion, Known, Trained
from cdp_pipeline.predictions.outcomes import joined
from cdp_pipeline.predictions.recommend.chain import VOICES
from cdp_pipeline.predictions.registry import version_of
from cdp_pipeline.predictions.windows import Cutoffs, LeakageError
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec.load import ProjectError, load_project
from cdp_pipeline.spec.prediction import Ranking, Way
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.traits.shop import SHOP as SOURCE
from cdp_pipeline_tests.traits.shop import event, project, rows_table, timeline_rows

SHOP, HORIZON = project(), timedelta(days=30)
DAY = date(2024, 6, 1)
WINDOWS = Cutoffs((DAY - 2 * HORIZON, DAY - HORIZON), DAY, HORIZON)
ITEMS = 24


def prediction(**fields: Any) -> Ranking:
    document = {
        "kind": "prediction", "type": "ranking", "name": "list", "description": "What they will want.",
        "target": {"event": ["order"], "item": "product_id"}, "views": {"event": ["visit"], "item": "product_id"},
        "horizon": "30 days", "top": 5, "minimum": {"people": 50, "positives": 20},
    }  # fmt: skip
    return Ranking.model_validate(document | fields)


def had(person: str, item: str, ago: int, what: str = "order") -> dict[str, Any]:
    day = DAY - timedelta(days=ago)
    return event(
        event_id=f"{person}{item}{ago}{what}",
        person_id=person,
        product_id=item,
        event=what,
        category=item[:1],
        _day=day,
    )


@cache
def shoppers(people: int = 150, seed: int = 5) -> tuple[dict[str, Any], ...]:
    """Everybody belongs to one of three groups of eight items and has two favourites; they look before they buy."""
    random, rows = np.random.default_rng(seed), []
    for number in range(people):
        group = number % 3 * 8
        favourites = random.choice(8, 2, replace=False) + group
        for ago in range(int(random.integers(0, 15)) - 30, 200, 15):
            items = {int(item) for item in favourites if random.random() < 0.5}
            if random.random() < 0.5:
                items.add(group + int(random.integers(8)))
            for item in items:
                name = f"{'abc'[number % 3]}{item:02}"
                rows += [had(f"p_{number:03}", name, ago), had(f"p_{number:03}", name, ago + 2, "visit")]
    return tuple(rows)


def known_of(rows: Any, **sources: ibis.Table) -> Known:
    timeline = ibis.memtable(timeline_rows(list(rows)))
    people = timeline.filter(timeline.person_id.notnull()).select("person_id").distinct()
    return Known(as_of, timeline, people, sources=sources)


@cache
def learned(wants: str = "anything") -> tuple[pa.Table, Trained]:
    declared = prediction(wants=wants)
    rows = ranking.training_set(known_of(shoppers()), declared, SHOP, WINDOWS).to_pyarrow()
    return rows, ranking.train(rows, declared)


def listed(known: Known, declared: Ranking, champion: Champion, day: date = DAY) -> list[dict[str, Any]]:
    inputs = ranking.inputs(known, declared, SHOP, day).to_pyarrow()
    rows = ranking.score(inputs, champion, declared, SHOP, day)
    assert rows.schema.equals(ranking.scores_table(declared).schema.to_pyarrow())
    return rows.to_pylist()


def champion_of(trained: Trained) -> Champion:
    return Champion("v1", trained.scorer, None, trained.prior)


@pytest.mark.parametrize("wants", ["anything", "discover", "buy_again"])
def test_lists_are_proven_on_days_they_were_not_learned_from(wants: str) -> None:
    rows, trained = learned(wants)
    assert trained.card["test_cutoff"] == str(DAY)
    assert trained.card["train_cutoffs"] == [str(DAY - 2 * HORIZON), str(DAY - HORIZON)]
    assert [gate for gate in ranking.judge(trained, prediction(wants=wants)) if not gate.passed] == []
    assert trained.metrics["ndcg"] > trained.metrics["popular_ndcg"]
    shuffled = rows.take(pa.array(np.random.default_rng(1).permutation(rows.num_rows)))
    again = ranking.train(shuffled, prediction(wants=wants), champion=trained.scorer)
    assert pickle.dumps(again.scorer) == pickle.dumps(trained.scorer)
    assert again.metrics["gain_over_champion"] == 0
    assert version_of(shuffled, prediction()) == version_of(rows, prediction())


def test_the_test_days_are_not_seen_by_what_is_learned() -> None:
    rows, trained = learned()
    test = rows.filter(pc.equal(rows["split"], "test"))
    other = test.drop_columns(["item", "category"])
    for name, value in (("item", "a00"), ("category", "a")):
        other = other.append_column(name, pa.array([value] * test.num_rows))
    other = other.select(rows.column_names)
    other = other.group_by(other.column_names).aggregate([])
    changed = ranking.train(pa.concat_tables([rows.filter(pc.equal(rows["split"], "train")), other]), prediction())
    assert changed.scorer.weights.weight.tolist() == trained.scorer.weights.weight.tolist()
    assert changed.metrics["ndcg"] != trained.metrics["ndcg"]
    with pytest.raises(LeakageError):
        early = Cutoffs((DAY - timedelta(days=29),), DAY, HORIZON)
        ranking.training_set(known_of(shoppers()), prediction(), SHOP, early)


def test_a_list_of_a_past_day_is_the_same_whatever_came_later() -> None:
    champion, past = champion_of(learned()[1]), DAY - timedelta(days=40)
    rows = [
        *shoppers(),
        had("p_later", "a01", 5),
        had("p_silent", "", 50, "visit"),
        had("p_silent_later", "", 5, "visit"),
    ]
    truncated = [row for row in rows if row["_day"] <= past]
    lists = listed(known_of(rows), prediction(), champion, past)
    assert lists == listed(known_of(truncated), prediction(), champion, past)
    assert "p_silent" in {row["person_id"] for row in lists}


def test_everybody_has_a_full_list_of_different_items_ranked_from_one() -> None:
    rows = [*shoppers(), had("p_silent", "a00", 1, "visit"), had("p_none", "", 5, "visit")]
    found = listed(known_of(rows), prediction(), champion_of(learned()[1]))
    by_person: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        by_person.setdefault(row["person_id"], []).append(row)
    assert by_person.keys() == {row["person_id"] for row in rows}
    for of_person in by_person.values():
        assert [row["rank"] for row in of_person] == [1, 2, 3, 4, 5]
        assert len({row["item"] for row in of_person}) == 5
        order = [prediction().ways.index(row["way"]) for row in of_person]
        assert order == sorted(order)
    assert all(0 <= row["score"] <= 1 and row["reasons"] and row["model_version"] == "v1" for row in found)
    assert {row["basis"] for row in found if row["way"] in ranking.IMPERSONAL} <= {"prior"}


@pytest.mark.parametrize("wants", ["discover", "buy_again"])
def test_what_was_had_before_is_all_or_nothing_of_a_list(wants: str) -> None:
    found = listed(known_of(shoppers()), prediction(wants=wants), champion_of(learned(wants)[1]))
    owned = {
        (row["person_id"], row["product_id"]) for row in shoppers() if row["event"] == "order" and row["_day"] <= DAY
    }
    assert found
    assert {(row["person_id"], row["item"]) in owned for row in found} == {wants == "buy_again"}


def test_nothing_is_listed_that_is_sold_out_or_was_had_too_lately() -> None:
    stock = [{"id": f"{'abc'[n // 8]}{n:02}", "quantity": n % 2, "_day": DAY - timedelta(days=3)} for n in range(ITEMS)]
    known = known_of(shoppers(), shop=ibis.memtable(rows_table(source_table(SOURCE), stock)))
    rule = {"source": "shop", "on": "id", "when": "quantity > 0"}
    declared = prediction(filters=[rule], rest="10 days")
    found = listed(known, declared, champion_of(learned()[1]))
    lately = {
        (row["person_id"], row["product_id"])
        for row in shoppers()
        if row["event"] == "order" and DAY - timedelta(days=10) < row["_day"] <= DAY
    }
    assert lately and found
    assert all(int(row["item"][1:]) % 2 for row in found)
    assert not {(row["person_id"], row["item"]) for row in found} & lately


def test_an_anonymous_visitor_gets_what_goes_with_the_visit_and_says_so() -> None:
    looks = [had(f"p_{n}", item, 20 + n, "visit") for n in range(9) for item in ("b08", "b15")]
    rows = [*shoppers(), *looks, had("p_anonymous", "b15", 0, "visit")]
    declared = prediction(chain=["session", "popular"], top=12)
    found = [
        row for row in listed(known_of(rows), declared, Champion(None, None, "nothing was trained yet"))
        if row["person_id"] == "p_anonymous"
    ]  # fmt: skip
    assert (found[0]["item"], found[0]["way"], found[0]["basis"]) == ("b08", "session", "model")
    assert found[0]["reasons"] == "often looked at together with b15"
    assert found[-1]["way"] == "popular" and found[-1]["basis"] == "prior"


def test_with_too_little_data_the_missing_number_is_named_and_lists_do_without_weights() -> None:
    declared = prediction(minimum={"people": 5000, "positives": 20})
    trained = ranking.train(learned()[0], declared)
    assert trained.missing == "needs 5000 people who had an item, has 150"
    assert [gate.words for gate in ranking.judge(trained, declared)] == [trained.missing]
    found = listed(known_of(shoppers()), declared, Champion("v", None, trained.missing, trained.prior))
    assert found and "learned" not in {row["way"] for row in found}


def test_the_card_says_how_much_of_the_lists_each_way_has_and_the_charts_draw_it() -> None:
    trained = learned()[1]
    assert sum(trained.card["shares"].values()) == pytest.approx(1, abs=1e-4)
    assert set(trained.card["alone"]) == set(prediction().ways)
    # The learned way filled every list, and still it is known how often the others are right.
    assert trained.card["shares"]["popular"] == 0 < trained.prior["rates"]["popular"] < 0.5
    assert sorted(ranking.charts(trained.card, prediction(), SHOP)) == ["drivers", "levels", "ways alone"]
    assert "p_0" not in str(trained.card)


def test_lists_are_joined_to_what_people_had_and_the_learned_scores_come_true() -> None:
    declared = prediction()
    rows = [*shoppers(), had("p_new", "a01", -3), had("p_late", "a02", 3, "visit")]
    found = listed(known_of(shoppers()), declared, champion_of(learned()[1]))
    scores = ranking.scores_table(declared).schema.to_pyarrow()
    given = [
        *found,
        found[0] | {"person_id": "p_late", "item": "a02"},
        found[0] | {"person_id": "p_new", "item": "a01"},
    ]
    happened = ranking.outcomes(known_of(rows).timeline, declared, [DAY])
    outcome = joined(ibis.memtable(pa.Table.from_pylist(given, schema=scores)), happened, declared, [DAY])
    label = {(row["person_id"], row["item"]): row["label"] for row in outcome.to_pyarrow().to_pylist()}
    after = {
        (row["person_id"], row["product_id"])
        for row in rows
        if row["event"] == "order" and DAY < row["_day"] <= DAY + HORIZON
    }
    pairs = {(row["person_id"], row["item"]) for row in given}
    # p_new had it, so that a row says so; p_late only looked at it.
    assert label == {pair: float(pair in after) for pair in pairs}
    said = [(row["score"], label[row["person_id"], row["item"]]) for row in found if row["way"] == "learned"]
    assert sum(score for score, _ in said) == pytest.approx(sum(came for _, came in said), rel=0.15)


def test_every_way_that_can_be_declared_is_there_and_has_words() -> None:
    assert set(get_args(Way)) == {"learned", *VOICES} == set(ranking.SAID)


def test_mistakes_in_a_chain_are_named() -> None:
    with pytest.raises(ValidationError, match="named twice"):
        prediction(chain=["popular", "popular"])
    with pytest.raises(ValidationError, match="need 'views'"):
        prediction(chain=["session"], views=None)
    with pytest.raises(ValidationError, match="bought_together"):
        prediction(chain=["boughttogether"])


def test_what_a_ranking_names_and_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    document = """
kind: project
name: shop
description: A shop.
timezone: UTC
currency: GBP
first_day: 2026-01-01
lake: {path: lake}
---
kind: source
name: products
description: The range.
files: products.csv
mode: snapshot
grain: [sku]
columns: {sku: {type: string}, stock: {type: integer}}
---
kind: prediction
name: discover
type: ranking
description: What they will like.
target: {event: [bought], item: product_id}
views: {event: [viewed], item: product_idd}
horizon: 30 days
category: categry
filters:
  - {source: product, on: sku}
  - {source: products, on: skuu, when: stock > 0}
  - {source: products, on: sku, when: stok > 0}
"""
    (tmp_path / "project.yaml").write_text(document)
    with pytest.raises(ProjectError) as told:
        load_project(tmp_path)
    said = "\n".join(map(str, told.value.problems))
    for where, nearest in (
        ("views.item", "product_id"), ("category", "category"), ("filters[0].source", "products"),
        ("filters[1].on", "sku"), ("filters[2].when", "stock"),
    ):  # fmt: skip
        assert any(f" {where}: " in line and f"'{nearest}'" in line for line in said.splitlines()), (where, said)

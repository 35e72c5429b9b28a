"""Conditions on a prediction that scores each person for each of several items."""

from __future__ import annotations

from typing import Any

import ibis

from cdp_pipeline.audiences.breakdown import people_of
from cdp_pipeline.audiences.explain import explain
from cdp_pipeline.audiences.rules import Scope, matching
from cdp_pipeline.spec.prediction import Affinity
from cdp_pipeline_tests.audiences.company import audience, rule
from cdp_pipeline_tests.traits.shop import DAYS, project, trait

DAY = DAYS[3]
LIKES = Affinity.model_validate(
    {
        "kind": "prediction", "type": "affinity", "name": "likes", "description": "What they will buy.",
        "target": {"event": ["order"], "item": "category"}, "horizon": "30 days",
        "bands": [{"name": "low", "above": 0}, {"name": "high", "above": 0.5}],
    }
)  # fmt: skip
FANS = audience("fans", rule(prediction="likes", item="shoes", op=">=", value=0.5))
SHOP = project(trait("orders", "count"), LIKES, FANS)
SCORES = {"ann": {"shoes": 0.7, "hats": 0.1}, "ben": {"shoes": 0.2, "hats": 0.6}, "eve": {"hats": 0.9}}


def scope() -> Scope:
    rows = []
    for person, items in SCORES.items():
        for place, (item, score) in enumerate(sorted(items.items(), key=lambda pair: -pair[1]), start=1):
            band = "high" if score >= 0.5 else "low"
            rows.append({"person_id": person, "day": DAY, "item": item, "score": score, "rank": place, "band": band})
    people = [{"person_id": person, "day": DAY, "orders": 1} for person in [*SCORES, "zoe"]]
    return Scope(traits=ibis.memtable(people), predictions={"likes": ibis.memtable(rows)})


def found(*rules: dict[str, Any]) -> set[str]:
    table = matching(SHOP, [rule(**one) for one in rules], scope(), [DAY])
    return set(table.person_id.to_pyarrow().to_pylist())


def test_a_condition_is_about_the_item_it_names() -> None:
    shoes, hats = {"prediction": "likes", "item": "shoes"}, {"prediction": "likes", "item": "hats"}
    assert found(shoes | {"op": ">=", "value": 0.5}) == {"ann"}
    assert found(hats | {"op": ">=", "value": 0.5}) == {"ben", "eve"}
    assert found(shoes | {"field": "rank", "op": "=", "value": 1}) == {"ann"}
    assert found(hats | {"field": "band", "op": "=", "value": "high"}) == {"ben", "eve"}
    assert found(shoes | {"op": "<", "value": 0.5}, hats | {"op": ">", "value": 0.5}) == {"ben"}
    assert found(shoes | {"op": "is_null"}) == {"eve", "zoe"}


def test_what_was_found_of_the_item_explains_a_membership() -> None:
    told = str(explain(SHOP, "fans", "ann", scope(), DAY))
    assert "yes  score of likes for shoes >= 0.5 (it is 0.7)" in told
    assert "(it is unknown)" in str(explain(SHOP, "fans", "zoe", scope(), DAY))


def test_everybody_is_counted_once_where_people_are_broken_down() -> None:
    assert people_of(SHOP, scope(), DAY).count().to_pyarrow().as_py() == 4

"""A model is judged within slices of people, by attributes it never learns from."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cdp_pipeline.predictions.gates import judge
from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.metrics import calibration_error, chance_error, sliced
from cdp_pipeline.predictions.model import Scorer, train
from cdp_pipeline.predictions.training import binary_table, training_set
from cdp_pipeline.predictions.windows import Cutoffs
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.predictions.people import prediction, training
from cdp_pipeline_tests.traits.shop import event, project, timeline_rows, trait

COUNTRY = Attribute.model_validate(
    {
        "kind": "attribute", "name": "country", "description": "Country.",
        "sources": [{"source": "shop", "column": "cast(quantity as varchar)"}],
    }
)  # fmt: skip


def by_country(rows: pa.Table) -> pa.Table:
    """Every third person lives in FR, where in the test window it happens to nobody."""
    french = pc.equal(pc.utf8_slice_codeunits(rows["person_id"], 7, 8), "3")
    never = pc.and_(french, pc.equal(rows["split"], "test"))
    rows = rows.set_column(3, "label", pc.if_else(never, 0, rows["label"]))
    return rows.append_column("_slice_country", pc.if_else(french, "FR", "GB"))


def test_a_slice_for_which_probabilities_are_wrong_closes_the_gate_and_is_named() -> None:
    spec = prediction(slices=["country"], minimum={"people": 100})
    trained = train(by_country(training(people=3000)), spec)
    failed = {gate.name: gate.words for gate in judge(trained, spec) if not gate.passed}
    assert set(failed) == {"slices"}
    assert failed["slices"].startswith("for country = FR probabilities are off by")
    assert "GB" not in failed["slices"]
    slices = trained.card["slices"]["country"]
    assert list(slices) == ["GB", "FR"] and slices["FR"]["people"] == 300


def test_what_slices_say_is_never_learned_from() -> None:
    rows = by_country(training(people=400))
    told = pc.cast(rows["label"], pa.string())
    scorer = train(rows.set_column(rows.column_names.index("_slice_country"), "_slice_country", told),
                   prediction(slices=["country"])).scorer  # fmt: skip
    assert isinstance(scorer, Scorer)
    assert not any(name.startswith("_slice") for name in scorer.model.features)


def test_the_training_set_holds_the_attribute_as_it_is_now() -> None:
    test, train_day = date(2024, 3, 1), date(2024, 1, 1)
    windows, spec = Cutoffs((train_day,), test, timedelta(days=60)), prediction(slices=["country"])
    timeline = ibis.memtable(
        timeline_rows([event(_day=date(2023, 12, 1)), event(_day=date(2023, 12, 1), person_id="p_01")])
    )
    known = Known(as_of, timeline, timeline.select("person_id").distinct())
    known = replace(known, attributes=ibis.memtable({"person_id": ["p_00"], "country": ["FR"], "email": ["x"]}))
    shop = project(trait("orders", "count"), COUNTRY, spec)
    table = training_set(known, spec, shop, windows)
    declared = binary_table(spec, shop, as_of(timeline, known.people, [test], shop).schema())
    assert table.schema().equals(declared.schema)
    found = {(row["person_id"], row["_slice_country"]) for row in table.to_pyarrow().to_pylist()}
    assert found == {("p_00", "FR"), ("p_01", None)}


def test_the_error_of_chance_is_what_exact_probabilities_have() -> None:
    random = np.random.default_rng(2)
    score = random.beta(2, 3, 400)
    drawn = [calibration_error((random.random(400) < score).astype(float), score) for _ in range(300)]
    assert chance_error(score) == pytest.approx(np.mean(drawn), rel=0.1)


def test_small_groups_and_people_without_a_value_are_no_slice() -> None:
    label, score = np.tile([0.0, 1.0], 300), np.linspace(0, 1, 600)
    assert list(sliced(label, score, ["GB"] * 301 + ["FR"] * 299)) == ["GB"]
    assert sliced(label, score, [None] * 600) == {}

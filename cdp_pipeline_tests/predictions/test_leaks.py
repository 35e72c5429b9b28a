"""Every way to leak, planted in a training set of made-up customers, is named; the honest set is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cdp_pipeline.predictions import leaks
from cdp_pipeline.predictions.binary import training_set
from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.kinds import kind_of
from cdp_pipeline.predictions.windows import cutoffs
from cdp_pipeline.spec.prediction import Affinity, Prediction, Response, Timing, Topics
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.predictions.people import prediction
from cdp_pipeline_tests.traits.shop import event, project, timeline_rows, trait

FIRST, LAST = date(2023, 1, 1), date(2023, 8, 28)
PREDICTION = prediction(horizon="30 days", features=["orders_30d", "spent"])
SHOP = project(trait("orders_30d", "count", window="last 30 days"), trait("spent", "sum", value="amount"), PREDICTION)


def customers() -> ibis.Table:
    random, rows = np.random.default_rng(5), []
    for person in range(150):
        day, rate = FIRST + timedelta(days=int(random.integers(0, 60))), random.gamma(1, 1 / 20) + 0.01
        while day <= LAST:
            rows.append(event(event_id=f"e{len(rows)}", person_id=f"p_{person:03}", _day=day))
            day += timedelta(days=1 + int(random.exponential(1 / rate)))
    return ibis.memtable(timeline_rows(rows))


TIMELINE = customers()
PEOPLE = TIMELINE.select("person_id").distinct()
KNOWN = Known(as_of, TIMELINE, PEOPLE)
WINDOWS = cutoffs(PREDICTION, LAST, FIRST)


@pytest.fixture(scope="module")
def honest() -> pa.Table:
    return training_set(KNOWN, PREDICTION, SHOP, WINDOWS).to_pyarrow()


@pytest.fixture(scope="module")
def again() -> tuple[pa.Table, pa.Table]:
    rows = leaks.rebuilt(KNOWN, PREDICTION, SHOP, WINDOWS.test).to_pyarrow()
    return rows, leaks.relabelled(KNOWN, PREDICTION, WINDOWS.test).to_pyarrow()


def found(training: pa.Table, again: tuple[pa.Table, pa.Table]) -> list[str]:
    return leaks.findings(training, *again, PREDICTION, WINDOWS.test)


def planted(training: pa.Table, column: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return training.set_column(training.column_names.index(column), column, values)


Again = tuple[pa.Table, pa.Table]


def test_an_honest_set_has_nothing_to_hide(honest: pa.Table, again: Again) -> None:
    assert found(honest, again) == []


def test_a_trait_computed_late_is_named(again: Again) -> None:
    def late(
        timeline: ibis.Table, people: ibis.Table, days: Sequence[date], shop: Project, names: Sequence[str]
    ) -> ibis.Table:
        """Traits as of two weeks later: what a table that is computed late and overwritten says of its day."""
        later = as_of(timeline, people, [day + timedelta(days=15) for day in days], shop, names)
        return later.mutate(day=(later.day - ibis.interval(days=15)).cast("date"))

    training = training_set(replace(KNOWN, as_of=late), PREDICTION, SHOP, WINDOWS).to_pyarrow()
    named = found(training, again)
    assert [text.split(":")[0] for text in named] == [
        f"feature '{name}' knows what came after {WINDOWS.test}" for name in ("orders_30d", "spent")
    ]


def test_what_was_announced_before_the_day_may_be_known() -> None:
    spec = prediction(horizon="30 days", features=["coming"])
    shop = project(trait("coming", "count", window="next 10 days"), spec)
    announced = replace(KNOWN, timeline=TIMELINE.mutate(_loaded_at=ibis.timestamp("2023-01-01").cast("timestamp(6)")))
    rows = leaks.features(announced, spec, shop, [WINDOWS.test]).drop("day").to_pyarrow()
    assert pc.sum(rows["coming"]).as_py() > 0
    assert leaks.rebuilt(announced, spec, shop, WINDOWS.test).to_pyarrow().sort_by("person_id") == rows.sort_by(
        "person_id"
    )


def test_a_missing_embargo_is_named(honest: pa.Table, again: Again) -> None:
    close = pc.if_else(pc.equal(honest["day"], max(WINDOWS.train)), WINDOWS.test - timedelta(days=3), honest["day"])
    named = found(planted(honest, "day", close), again)
    assert len(named) == 1
    assert "is labelled until" in named[0] and f"after the test cut-off {WINDOWS.test}" in named[0]


def test_a_target_inside_the_window_of_features_is_named(honest: pa.Table, again: Again) -> None:
    """Labels that count the month before the cut-off."""
    inside = pc.cast(pc.greater(honest["orders_30d"], 0), pa.int64())
    named = found(planted(honest, "label", inside), again)
    assert any(f"the target of {WINDOWS.test} counts what does not lie in the 30 days after it" in t for t in named)


def test_an_id_as_a_feature_is_named(honest: pa.Table, again: Again) -> None:
    number = pc.cast(pc.utf8_slice_codeunits(honest["person_id"], 2), pa.float64())
    named = found(planted(honest, "spent", pc.add(number, 70_000)), again)
    assert any(text.startswith("feature 'spent' is an id") for text in named)
    assert not any("'orders_30d' is an id" in text for text in named)


def test_a_feature_made_from_the_target_is_named(honest: pa.Table, again: Again) -> None:
    taken = pc.cast(pc.fill_null(honest["label"], 0), pa.float64())
    named = found(planted(honest, "spent", taken), again)
    assert any(text.startswith("feature 'spent' alone tells the target (AUC 1.000)") for text in named)


ITEM = {"event": ["order"], "item": "channel"}
PAIRS: dict[str, Prediction] = {
    "affinity": Affinity.model_validate(
        {"kind": "prediction", "type": "affinity", "name": "a", "description": "A.", "target": ITEM,
         "horizon": "30 days", "items": {"at_least": 1}}
    ),
    "topics": Topics.model_validate(
        {"kind": "prediction", "type": "topics", "name": "t", "description": "T.", "target": ITEM,
         "horizon": "30 days", "items": {"at_least": 1}}
    ),
    "timing": Timing.model_validate(
        {"kind": "prediction", "type": "timing", "name": "h", "description": "H.", "target": {"event": ["order"]},
         "horizon": "30 days"}
    ),
    "response": Response.model_validate(
        {"kind": "prediction", "type": "response", "name": "r", "description": "R.", "exposure": ITEM,
         "target": {"event": ["order"], "within": "5 days"}, "horizon": "30 days", "items": {"at_least": 1},
         "reach": {"web": [{"trait": "spent", "op": ">", "value": 1_000_000}]}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("type_", PAIRS)
def test_pairs_of_people_and_items_that_know_what_came_later_are_named(type_: str) -> None:
    spec, day = PAIRS[type_], WINDOWS.test
    made = kind_of(spec).training_set(KNOWN, spec, SHOP, WINDOWS).to_pyarrow()
    assert leaks.can_leak(spec)
    assert leaks.looked_for(KNOWN, spec, SHOP, made, day) == []
    of_later = replace(WINDOWS, train=(), test=day + timedelta(days=10))
    later = kind_of(spec).training_set(KNOWN, spec, SHOP, of_later).to_pyarrow()
    late = later.set_column(later.column_names.index("day"), "day", pa.array([day] * later.num_rows))
    named = leaks.looked_for(KNOWN, spec, SHOP, late, day)
    assert named and all("knows what came after" in text and "pairs of people and items" in text for text in named)
    close = replace(WINDOWS, train=(day - timedelta(days=3),), horizon=timedelta(days=3))
    touching = kind_of(spec).training_set(KNOWN, spec, SHOP, close).to_pyarrow()
    assert any("is labelled until" in text for text in leaks.looked_for(KNOWN, spec, SHOP, touching, day))

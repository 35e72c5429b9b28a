"""Scores are the same in any chunks and any order, ranked without ties, with bands and reasons."""

from __future__ import annotations

import tracemalloc
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from cdp_pipeline.predictions.binary import charts
from cdp_pipeline.predictions.kind import Champion
from cdp_pipeline.predictions.model import Scorer, train
from cdp_pipeline.predictions.scores import score, scores_table
from cdp_pipeline.predictions.training import words
from cdp_pipeline_tests.predictions.people import prediction, to_score, training
from cdp_pipeline_tests.traits.shop import project, trait

DAY = date(2024, 8, 1)
SHOP = project(trait("signal", "count"), trait("curve", "count"), trait("noise", "count"), prediction())
TRAINED = train(training(people=300), prediction())
CHAMPION = Champion("v1", TRAINED.scorer)
assert isinstance(TRAINED.scorer, Scorer)
MODEL = TRAINED.scorer.model


def scored(rows: pa.Table | pa.RecordBatchReader, champion: Champion = CHAMPION, **more: int) -> pa.Table:
    return score(rows, champion, prediction(), SHOP, DAY, **more)


def test_chunks_batches_and_order_make_no_difference() -> None:
    rows = to_score(1000)
    whole = scored(rows)
    assert whole.schema.equals(scores_table(prediction()).schema.to_pyarrow())
    assert scored(rows, chunk=61) == whole
    shuffled = rows.take(pa.array(np.random.default_rng(3).permutation(1000)))
    assert scored(shuffled) == whole
    assert scored(pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=64)), chunk=50) == whole


def test_ranks_run_from_the_highest_score_and_ties_go_by_person() -> None:
    rows = scored(to_score(1000)).to_pylist()
    assert [row["rank"] for row in rows] == list(range(1, 1001))
    keys = [(-row["score"], row["person_id"]) for row in rows]
    assert keys == sorted(keys)
    assert {row["model_version"] for row in rows} == {"v1"} and {row["day"] for row in rows} == {DAY}


def test_bands_begin_at_their_threshold() -> None:
    for rate, band in ((0.599999, "low"), (0.6, "high"), (0.0, "low")):
        rows = scored(to_score(1), Champion("v", None, "too little", {"rate": rate}))
        assert rows["band"].to_pylist() == [band]
    bare = score(to_score(1), CHAMPION, prediction(bands=[]), SHOP, DAY)
    assert bare["band"].to_pylist() == [None]


def test_reasons_name_the_largest_contributions_with_the_persons_own_values() -> None:
    people, model = to_score(300), MODEL
    said = {row["person_id"]: row for row in scored(people).to_pylist()}
    values, names = model.inputs(people), model.linear.features
    given = model.linear.contributions(values)
    spoken = words(prediction(), SHOP)
    for number, person in enumerate(people["person_id"].to_pylist()):
        row = said[person]
        if row["basis"] == "prior":
            assert row["reasons"] == "too new for a personal score: the rate of newcomers"
            continue
        parts = row["reasons"].split("; ")
        best = np.argsort(-np.abs(given[number]), kind="stable")[:3]
        assert len(parts) == 3
        for place, part in zip(best, parts, strict=True):
            value = values[number, place]
            text = "unknown" if np.isnan(value) else f"{round(value, 2):g}"
            assert part.startswith(f"{spoken[names[place]]}: ")
            assert part.endswith(" (raises)" if given[number, place] > 0 else " (lowers)")
            assert text in part.replace("-0 ", "0 ")
    assert words(prediction(), SHOP)["_recency"] == "days since the last order"


def test_without_a_model_everybody_has_the_rate_as_a_prior_with_the_reason() -> None:
    rows = scored(to_score(5), Champion("v", None, "needs 200 people, has 12", {"rate": 0.25})).to_pylist()
    assert {(row["score"], row["basis"], row["reasons"]) for row in rows} == {
        (0.25, "prior", "the rate of everybody: needs 200 people, has 12")
    }
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]


def test_nobody_to_score_is_an_empty_table() -> None:
    for empty in (to_score(3).slice(0, 0), pa.RecordBatchReader.from_batches(to_score(1).schema, [])):
        assert scored(empty).num_rows == 0


def test_working_memory_is_that_of_a_chunk() -> None:
    def peak(people: int, chunk: int) -> int:
        rows = to_score(people)
        tracemalloc.start()
        scored(rows, chunk=chunk)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    few, many = peak(10_000, 2_500), peak(40_000, 2_500)
    # Four times the people: the answer grows (some 60 bytes a person), the working memory of features does not.
    assert many - few < 30_000 * 60
    assert many < peak(40_000, 40_000) / 2


def test_charts_are_pictures_of_the_card_and_name_nobody() -> None:
    drawn = charts(TRAINED.card, prediction(), SHOP)
    assert sorted(drawn) == ["calibration", "gains", "importance", "lift"]
    assert all(text.count("data:image/png;base64,iVBOR") == 1 for text in drawn.values())
    assert "p_0" not in str(TRAINED.card)
    assert charts({"features": []}, prediction(), SHOP) == {}


@pytest.mark.parametrize("missing", ["signal", "_recency"])
def test_a_feature_that_is_not_given_is_an_error(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        scored(to_score(3).drop_columns([missing]))

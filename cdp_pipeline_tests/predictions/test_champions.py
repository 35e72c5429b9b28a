"""One champion a prediction, whatever is trained, promoted and rolled back, and in whatever order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.lake import Lake, Upsert
from cdp_pipeline.predictions import champions
from cdp_pipeline.predictions.champions import PromotionError, admitted, card_of, listed, promoted, rolled_back
from cdp_pipeline.predictions.registry import MODELS, ModelTamperedError, definition
from cdp_pipeline_tests.predictions.people import prediction

BUYS, START = prediction(), datetime(2026, 1, 1)


def version(number: int, status: str = "champion", name: str = "buys", **fields: Any) -> dict[str, Any]:
    """A row as the registry makes it, trained on the day of its number."""
    at = START + timedelta(days=number)
    gates = {
        "champion": [], "retired": [],
        "rejected": [{"name": "auc", "passed": False, "words": "AUC 0.510, at least 0.6 is needed"}],
        "insufficient": [{"name": "minimum_data", "passed": False, "words": "needs 200 people, has 12"}],
    }[status]  # fmt: skip
    return {
        "name": name, "version": f"v{number}", "status": status, "metrics": '{"auc": 0.7}', "trained_at": at,
        "promoted_at": at if status in ("champion", "retired") else None, "sha256": None,
        "card": json.dumps({"definition": definition(BUYS), "gates": gates, "test_cutoff": "2025-11-01"}),
    } | fields  # fmt: skip


def applied(rows: Sequence[dict[str, Any]], changed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as a table with the key (name, version) holds them afterwards."""
    return list({(row["name"], row["version"]): row for row in [*rows, *changed]}.values())


def reigning(rows: Sequence[dict[str, Any]], name: str = "buys") -> list[str]:
    return [row["version"] for row in rows if row["status"] == "champion" and row["name"] == name]


def trained(count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number in range(count):
        rows = applied(rows, admitted(rows, version(number), *(reigning(rows) or [None])))
    return rows


def test_rolling_back_twice_goes_back_two_champions_and_promoting_goes_forth_again() -> None:
    rows = trained(3)
    assert reigning(rows) == ["v2"]
    for expected in ("v1", "v0"):
        rows = applied(rows, rolled_back(rows, BUYS))
        assert reigning(rows) == [expected]
    with pytest.raises(PromotionError, match="v0 had no champion before it"):
        rolled_back(rows, BUYS)
    rows = applied(rows, promoted(rows, BUYS, "v2", datetime(2026, 2, 1, tzinfo=UTC)))
    assert reigning(rows) == ["v2"]
    rows = applied(rows, rolled_back(rows, BUYS))
    assert reigning(rows) == ["v1"], "the one promoted before v2 was promoted again"
    assert promoted(rows, BUYS, "v1", datetime(2026, 3, 1, tzinfo=UTC)) == [], "it is the champion already"


def test_a_version_that_was_once_registered_is_not_promoted_again_by_training_it_again() -> None:
    rows = trained(2)
    rows = applied(rows, rolled_back(rows, BUYS))
    assert admitted(rows, version(1), "v0") == []
    assert reigning(rows) == ["v0"]


def test_versions_of_before_promotions_were_noted_are_rolled_back_by_when_they_were_trained() -> None:
    rows = [row | {"promoted_at": None} for row in trained(3)]
    assert reigning(applied(rows, rolled_back(rows, BUYS))) == ["v1"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (version(9, "rejected"), r"did not prove itself: AUC 0.510, at least 0.6 is needed\. If its gates"),
        (version(9, "insufficient"), "is no model, its data were too few: needs 200 people, has 12"),
        (version(9, "retired", card='{"definition": "other", "gates": []}'), "another question .* train again"),
    ],
)
def test_a_version_that_may_not_score_is_not_promoted_and_the_reason_is_said(row: dict[str, Any], said: str) -> None:
    rows = [*trained(1), row]
    with pytest.raises(PromotionError, match=said):
        promoted(rows, BUYS, "v9", datetime(2026, 2, 1, tzinfo=UTC))
    with pytest.raises(PromotionError, match="v0 had no champion before it"):
        rolled_back(rows, BUYS)


def test_unknown_versions_and_untrained_predictions_are_said() -> None:
    with pytest.raises(PromotionError, match=r"unknown version of buys 'v7', there are v0, v1"):
        promoted(trained(2), BUYS, "v7", datetime(2026, 2, 1, tzinfo=UTC))
    with pytest.raises(PromotionError, match="buys has no champion to go back from"):
        rolled_back([], BUYS)
    with pytest.raises(PromotionError, match="nothing was trained yet; cdp run"):
        card_of([], "buys")


def test_a_newcomer_judged_against_a_champion_that_is_gone_does_not_depose_the_new_one() -> None:
    rows = trained(2)
    now = applied(rows, rolled_back(rows, BUYS))
    late = admitted(now, version(5), "v1")
    [row] = late
    assert row["status"] == "rejected" and row["promoted_at"] is None
    assert json.loads(row["card"])["gates"][-1]["words"].startswith("v0 became champion during the training")
    assert reigning(applied(now, late)) == ["v0"]


def test_failed_and_insufficient_newcomers_change_nobody_else() -> None:
    rows = trained(2)
    for status in ("rejected", "insufficient"):
        assert admitted(rows, version(7, status), "v1") == [version(7, status)]


def test_the_list_has_the_newest_first_and_says_what_lacked() -> None:
    rows = [*trained(2), version(2, "insufficient", metrics="{}"), version(0, name="apples")]
    assert [(row["name"], row["version"], row["status"], row["proof"]) for row in listed(rows)] == [
        ("apples", "v0", "champion", "auc 0.700"),
        ("buys", "v2", "insufficient", "needs 200 people, has 12"),
        ("buys", "v1", "champion", "auc 0.700"),
        ("buys", "v0", "retired", "auc 0.700"),
    ]
    assert [row["version"] for row in listed(rows, "apples")] == ["v0"]
    assert card_of(rows, "buys")["version"] == "v1", "the champion, though another was trained since"


acts = st.lists(
    st.one_of(
        st.tuples(st.just("train"), st.sampled_from(["champion", "rejected", "insufficient"])),
        st.tuples(st.just("promote"), st.integers(0, 8)),
        st.tuples(st.just("rollback"), st.none()),
    ),
    max_size=20,
)


@settings(max_examples=60)
@given(acts)
def test_whatever_is_done_in_whatever_order_there_is_one_champion_as_soon_as_a_model_passed(acts: list) -> None:
    rows, passed = [version(0, name="others")], False
    for number, (act, what) in enumerate(acts):
        try:
            if act == "train":
                passed |= what == "champion"
                changed = admitted(rows, version(number, what), *(reigning(rows) or [None]))
            elif act == "promote":
                changed = promoted(rows, BUYS, f"v{what}", (START + timedelta(days=number)).replace(tzinfo=UTC))
            else:
                changed = rolled_back(rows, BUYS)
        except PromotionError:
            changed = []
        rows = applied(rows, changed)
        assert len(reigning(rows)) == passed
        assert reigning(rows, "others") == ["v0"]
        assert all(row["promoted_at"] for row in rows if row["status"] in ("champion", "retired"))


def registered(lake: Lake, rows: list[dict[str, Any]]) -> None:
    lake.publish(Upsert(MODELS, pa.Table.from_pylist(rows, schema=MODELS.schema.to_pyarrow())))


def test_a_version_whose_file_is_gone_is_not_promoted(lake: Lake, tmp_path: Path) -> None:
    registered(lake, [version(0, sha256="aa"), version(1, "retired", sha256="bb")])
    with pytest.raises(ModelTamperedError, match=r"buys v1: its file model\.joblib is gone"):
        champions.promote(lake, tmp_path, BUYS, "v1", datetime(2026, 2, 1, tzinfo=UTC))
    lake.refresh()
    assert reigning(lake.read(MODELS).to_pyarrow().to_pylist()) == ["v0"]

"""Versions are deterministic, the champion is a row, and only the registered file is ever loaded."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cdp_pipeline.predictions.champions import admitted
from cdp_pipeline.predictions.model import train
from cdp_pipeline.predictions.registry import MODELS, ModelTamperedError, Renewal, champion, renew, version_of
from cdp_pipeline.spec.prediction import Prediction
from cdp_pipeline_tests.predictions.people import prediction, to_score, training
from cdp_pipeline_tests.predictions.test_champions import applied

NOW = datetime(2024, 8, 1, tzinfo=UTC)
NONE = MODELS.schema.to_pyarrow().empty_table()
AVAILABLE = training(people=1).column_names
GOOD, OTHER, NOISE = training(people=300), training(people=300, seed=2), training(people=300, planted=False)


class Registry:
    """A models folder and the rows of predictions.models, kept as the lake would."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, NONE

    def renew(self, rows: pa.Table, spec: Prediction | None = None, now: datetime = NOW) -> Renewal:
        done = renew(rows, spec or prediction(), self.rows, self.folder, now, snapshot=7)
        before = self.rows.to_pylist()
        self.rows = pa.Table.from_pylist(applied(before, admitted(before, done.row, done.rival)), schema=NONE.schema)
        return done

    def champion(self, spec: Prediction | None = None, available: list[str] = AVAILABLE) -> Any:
        return champion(spec or prediction(), self.rows, self.folder, available)

    def statuses(self) -> dict[str, str]:
        return {row["version"]: row["status"] for row in self.rows.to_pylist()}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def test_a_model_that_passes_is_registered_with_its_card_and_scores(registry: Registry) -> None:
    done = registry.renew(GOOD)
    assert (done.status, done.version[:11]) == ("champion", "2024-06-01-")
    place = registry.folder / "buys" / done.version
    assert sorted(path.name for path in place.iterdir()) == ["card.json", "model.joblib"]
    card = json.loads((place / "card.json").read_text())
    assert card["train_cutoffs"] == ["2024-01-03", "2024-02-02", "2024-03-03", "2024-04-02"]
    assert card["snapshot"] == 7 and card["metrics"] == done.metrics and "scikit-learn" in card["versions"]
    assert registry.champion().version == done.version
    assert registry.champion().why_prior is None
    assert sorted(path.name for path in registry.folder.iterdir()) == ["buys"]


def test_the_same_inputs_again_change_nothing(registry: Registry) -> None:
    first = registry.renew(GOOD)
    file = registry.folder / "buys" / first.version / "model.joblib"
    before = (registry.rows, file.stat().st_mtime_ns)
    again = registry.renew(GOOD, now=NOW.replace(year=2025))
    assert (again.version, again.status, again.metrics) == (first.version, first.status, first.metrics)
    assert (registry.rows, file.stat().st_mtime_ns) == before


def test_a_version_depends_on_data_and_declaration_but_not_on_order_or_words() -> None:
    version = version_of(GOOD, prediction())
    reversed_rows = GOOD.sort_by([("person_id", "descending"), ("day", "ascending")])
    assert version_of(reversed_rows, prediction(description="Other words.", bands=[])) == version
    different = [
        version_of(OTHER, prediction()),
        version_of(GOOD, prediction(gates={"min_auc": 0.7})),
        version_of(GOOD, prediction(), seed=1),
        version_of(GOOD.drop_columns(["noise"]), prediction()),
    ]
    assert len({version, *different}) == 5


def test_a_better_model_retires_the_champion_and_a_failed_one_leaves_it(registry: Registry) -> None:
    first = registry.renew(GOOD)
    second = registry.renew(OTHER)
    assert registry.statuses() == {first.version: "retired", second.version: "champion"}
    assert second.metrics["champion_auc"] == pytest.approx(first.metrics["auc"], abs=0.06)
    failed = registry.renew(NOISE)
    assert registry.statuses()[failed.version] == "rejected"
    assert registry.champion().version == second.version
    short = registry.renew(GOOD.slice(0, 10))
    assert registry.statuses()[short.version] == "insufficient"
    assert registry.champion().version == second.version


def test_without_a_champion_everybody_gets_the_rate_and_the_reason_is_said(registry: Registry) -> None:
    nothing = registry.champion()
    assert (nothing.version, nothing.scorer, nothing.why_prior) == (None, None, "nothing was trained yet")
    done = registry.renew(GOOD.slice(0, 10))
    assert registry.champion().version == done.version
    assert registry.champion().why_prior == "needs 200 people in the training windows, has 10"
    done = registry.renew(NOISE, now=NOW.replace(month=9))
    found = registry.champion()
    assert found.version == done.version and found.scorer is None
    assert found.prior["rate"] == pytest.approx(0.4, abs=0.05)
    assert "at least 0.6 is needed" in found.why_prior


def test_a_champion_of_another_question_or_of_lost_features_does_not_score(registry: Registry) -> None:
    registry.renew(GOOD)
    assert registry.champion(prediction(horizon="30 days")).why_prior == "nothing was trained yet"
    assert registry.champion(prediction(name="other")).version is None
    without = registry.champion(available=[name for name in AVAILABLE if name != "signal"])
    assert without.scorer is None
    assert without.why_prior == "the champion needs features that are no longer there"


def test_two_runs_that_train_one_version_at_once_agree(registry: Registry) -> None:
    """Neither has seen the other's row; whichever publishes last, row and file belong together."""
    first = renew(GOOD, prediction(), NONE, registry.folder, NOW)
    second = renew(GOOD, prediction(), NONE, registry.folder, NOW)
    assert first == second
    registry.rows = pa.Table.from_pylist([first.row], schema=NONE.schema)
    assert admitted([first.row], second.row, second.rival) == []
    assert registry.champion().version == first.version


@pytest.mark.parametrize("harm", ["changed", "swapped", "gone"])
def test_a_file_that_is_not_the_registered_one_is_never_loaded(registry: Registry, harm: str) -> None:
    other = registry.renew(OTHER)
    done = registry.renew(GOOD)
    current = done if registry.statuses()[done.version] == "champion" else other
    file = registry.folder / "buys" / current.version / "model.joblib"
    if harm == "gone":
        file.unlink()
    elif harm == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    else:
        elsewhere = other if current is done else done
        file.write_bytes((registry.folder / "buys" / elsewhere.version / "model.joblib").read_bytes())
    with pytest.raises(ModelTamperedError, match="is gone" if harm == "gone" else "registered was"):
        registry.champion()


def test_a_crash_while_writing_leaves_no_version_and_the_next_run_goes_on(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import joblib

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(joblib, "dump", full)
        with pytest.raises(OSError, match="No space left"):
            registry.renew(GOOD)
    assert list((registry.folder / "buys").iterdir()) == []
    assert registry.renew(GOOD).status == "champion"


def test_a_loaded_champion_scores_as_it_was_measured(registry: Registry) -> None:
    registry.renew(GOOD)
    people = to_score(300)
    loaded = registry.champion().scorer.probability(people)[0]
    made = train(GOOD, prediction()).scorer
    assert made is not None
    assert (loaded == made.probability(people)[0]).all()

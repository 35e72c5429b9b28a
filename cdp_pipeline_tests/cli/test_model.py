"""`cdp model` on a small shop: its models, its champions, a person's reasons, and what came of the scores."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from cdp_pipeline.orchestration.run import RunReport, run_project
from cdp_pipeline.spec.load import load_project
from cdp_pipeline_tests.cli.conftest import Here
from cdp_pipeline_tests.cli.starter import NEWEST, installed, write_orders
from cdp_pipeline_tests.orchestration.commands import Cdp

PEOPLE = 300
TESTED_ON = NEWEST - timedelta(days=30)
DOCUMENT = """
kind: prediction
name: buys
description: Orders within 30 days.
owner: team:crm
target: {event: [order_completed]}
horizon: 30 days
minimum: {people: 100, positives: 30}
gates: {min_auc: MIN_AUC, min_lift: 1, max_calibration_error: 0.2}
bands: [{name: low, above: 0}, {name: high, above: 0.5}]
"""


def orders() -> list[list[str]]:
    """People who order at rates of their own until they stop: those who spend little much sooner."""
    chance, lines = random.Random(5), []
    for person in range(PEOPLE):
        day, rate = NEWEST - timedelta(days=chance.randrange(1, 300)), chance.uniform(0.02, 0.06)
        low, high, stops = (60, 90, 0.01) if person % 2 else (5, 20, 0.3)
        while day <= NEWEST:
            lines.append((day, f"p{person}@example.com", f"{chance.uniform(low, high):.2f}"))
            day += timedelta(days=1 + int(chance.expovariate(rate)))
            if chance.random() < stops:
                break
    return [[str(n), f"{day} 12:00:00", email, "", "", total] for n, (day, email, total) in enumerate(sorted(lines), 1)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Cdp:
    """A shop whose prediction was trained once, and scored on its newest day and on the day it was tested on."""
    cdp = installed(tmp_path_factory.mktemp("model"))
    write_orders(cdp.data, orders())
    with pytest.MonkeyPatch.context() as patched:
        told(patched, cdp)
        declare(cdp, "0.55")
        report = run("group:sources or group:identity or group:profile or group:predictions")
        assert report.success, report.failures
        assert run('key:"predictions/buys"', TESTED_ON).success
    return cdp


def told(patched: pytest.MonkeyPatch, cdp: Cdp) -> None:
    for name, value in cdp.environment.items():
        patched.setenv(name, value)


def declare(cdp: Cdp, min_auc: str) -> None:
    (cdp.project / "buys.yaml").write_text(DOCUMENT.replace("MIN_AUC", min_auc))


def run(selection: str, day: date | None = None) -> RunReport:
    import os

    return run_project(load_project(Path(os.environ["CDP_PROJECT"])), selection, day, day)


def train() -> RunReport:
    return run('key:"predictions/buys_model" or key:"predictions/buys"')


@pytest.fixture
def model(trained: Cdp, cdp: Here, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    told(monkeypatch, trained)
    yield cdp


def test_promoting_and_rolling_back_say_who_scores_and_what_fails_is_told_with_the_reason(
    trained: Cdp, model: Here
) -> None:
    [first] = model.json("model", "list")
    assert (first["name"], first["status"], first["tested_on"]) == ("buys", "champion", str(TESTED_ON))
    assert model.complaint("model", "rollback", "buys").endswith("had no champion before it that asks the same")

    declare(trained, "0.551")
    assert train().success
    second = model.json("model", "show", "buys")
    assert second["status"] == "champion" and second["version"] != first["version"]
    assert second["metrics"]["auc"] > 0.6 and all(gate["passed"] for gate in second["card"]["gates"])
    changed = {row["version"]: row["status"] for row in model.json("model", "rollback", "buys")}
    assert changed == {second["version"]: "retired", first["version"]: "champion"}
    assert "Next: cdp run" in model("model", "promote", "buys", second["version"]).out

    declare(trained, "0.99")
    report = train()
    assert report.success, "a model that failed stops nothing: the champion goes on scoring"
    gates = next(check for check in report.checks if check["check"] == "gates")
    assert not gates["passed"] and gates["metadata"]["champion"] == second["version"]
    rejected = next(row for row in model.json("model", "list", "buys") if row["status"] == "rejected")
    said = model.complaint("model", "promote", "buys", rejected["version"])
    assert "did not prove itself: AUC" in said and "at least 0.99 is needed" in said
    assert {row["model_version"] for row in model.json("sql", "select * from predictions.buys where day = "
            f"'{NEWEST}'")} == {second["version"]}  # fmt: skip
    assert model.complaint("model", "show", "bys") == "unknown prediction 'bys', did you mean 'buys'?"


def test_a_person_is_told_every_feature_and_what_it_adds(model: Here) -> None:
    rows = "select person_id, score from predictions.buys where basis = 'model' order by day desc, rank limit 1"
    [best] = model.json("sql", rows)
    [told_why] = model.json("model", "explain", best["person_id"])
    assert (told_why["prediction"], told_why["score"], told_why["rank"]) == ("buys", best["score"], 1)
    adds = {row["what"]: row["points"] for row in told_why["adds"]}
    assert {"days since the last order_completed", "Orders ever"} <= set(adds)
    assert sum(adds.values()) > 0.1, "who is the likeliest is far above the average"
    text = model("model", "explain", best["person_id"], "--prediction", "buys").out
    assert "points of probability" in text and "days since the last order_completed" in text


def test_what_came_of_the_scores_is_what_the_model_was_tested_on(trained: Cdp, model: Here) -> None:
    """The day it was tested on was scored by the very model: both must come to the same figures."""
    report = run('key:"predictions/outcomes" or key:"predictions/realised"')
    assert report.success, report.failures
    rows = model.json("sql", "select * from predictions.realised")
    figures = {row["metric"]: row["value"] for row in rows}
    assert {row["day"] for row in rows} == {str(TESTED_ON)}
    assert {row["foreseen"] for row in rows} == {False}, "its model was tested on these very days"
    [version] = {row["model_version"] for row in rows}
    metrics = model.json("model", "show", "buys", version)["metrics"]
    assert figures["scored"] == figures["with_outcome"] == metrics["people"]
    for metric in ("auc", "ece", "lift_10", "brier"):
        assert figures[metric] == pytest.approx(metrics[metric], abs=1e-4)


def test_a_tampered_model_neither_scores_nor_is_promoted(trained: Cdp, model: Here) -> None:
    champion = next(row for row in model.json("model", "list", "buys") if row["status"] == "champion")
    file = trained.lake / "models" / "buys" / champion["version"] / "model.joblib"
    sound = file.read_bytes()
    file.write_bytes(sound[:-1] + b"\0")
    try:
        [said] = run('key:"predictions/buys"').failures.values()
        assert "model.joblib has hash" in said and "roll back" in said
        model("model", "rollback", "buys")
        assert "model.joblib has hash" in model.complaint("model", "promote", "buys", champion["version"])
    finally:
        file.write_bytes(sound)

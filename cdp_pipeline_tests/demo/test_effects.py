"""What the models of the demo company say, held against what is true of it: who has left, what the coupon changes.

Its timeline is made straight from the exports and the truth about who is who, so that only the models are looked at.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import duckdb
import ibis
import numpy as np
import pyarrow as pa
import pytest

import cdp_pipeline
from cdp_pipeline.audiences.rules import Scope, matching
from cdp_pipeline.predictions import binary, uplift
from cdp_pipeline.predictions.kind import Champion, Known, Trained
from cdp_pipeline.predictions.metrics import ranking
from cdp_pipeline.predictions.windows import cutoffs
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.sources.demo import generate
from cdp_pipeline.sources.demo.company import demand
from cdp_pipeline.sources.demo.people import NEVER, People
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.prediction import Binary, Uplift
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of

CUSTOMERS, DAYS, SEED, LAST = 4_000, 240, 5, date(2026, 6, 30)
FIRST = LAST - timedelta(days=DAYS - 1)
CANCELLED = 0.02
COUPON_FROM, COUPON_TO = 1, 9
"""Days after the coupon was sent on which it moves people, as the generator has it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("company"), CUSTOMERS, DAYS, SEED, last_day=LAST).folder


@pytest.fixture(scope="module")
def project(folder: Path) -> Project:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CDP_DATA", str(folder))
        return load_project(Path(cdp_pipeline.__file__).parent / "demo")


@pytest.fixture(scope="module")
def timeline(folder: Path, project: Project) -> ibis.Table:
    """Completed web orders, and e-mails and coupons: what the models below ask of."""
    database = duckdb.connect()
    database.execute(
        f"""CREATE TABLE known AS SELECT type, value, person FROM read_csv('{folder}/truth/identifiers.csv')
            WHERE person IS NOT NULL AND NOT shared"""
    )
    events = database.sql(
        f"""WITH orders AS (
              SELECT DISTINCT ON (order_id) order_id, person, ordered_at::TIMESTAMP AS at_, order_total, coupon, channel
              FROM read_csv('{folder}/shop_orders/*.csv.gz', all_varchar = true, ignore_errors = true,
                            union_by_name = true) AS o
              JOIN known
                ON type = 'customer_id' AND value = customer_id OR type = 'email' AND value = lower(trim(email))
              WHERE status = 'completed' ORDER BY order_id, person),
            mails AS (
              SELECT DISTINCT ON (message_id, event) message_id, event, person, happened_at::TIMESTAMP AS at_, campaign,
                     arm
              FROM read_parquet('{folder}/messages/*.parquet')
              JOIN known ON type = 'email' AND value = lower(trim(email)) WHERE medium = 'email'
              ORDER BY message_id, event, person)
            SELECT order_id AS event_id, person, at_, 'shop_orders' AS source, 'order_completed' AS event, channel,
                   order_total AS amount, coupon, NULL AS arm, NULL AS campaign FROM orders
            UNION ALL
            SELECT message_id || event, person, at_, 'messages', event, 'email', NULL, NULL, arm, campaign FROM mails
            ORDER BY 1"""
    ).to_arrow_table()
    return ibis.memtable(_as_timeline(events, project))


def _as_timeline(events: pa.Table, project: Project) -> pa.Table:
    schema = timeline_table(project).schema.to_pyarrow()
    person = pa.array([f"p_{number:05}" for number in events["person"].to_pylist()])
    own = {name: events[name].combine_chunks() for name in events.column_names} | {
        "person_id": person, "occurred_at": events["at_"].combine_chunks(),
        "_day": events["at_"].combine_chunks().cast(pa.date32()), "_loaded_at": events["at_"].combine_chunks(),
        "currency": pa.array(["GBP"] * events.num_rows),
    }  # fmt: skip

    def column(field: pa.Field) -> pa.Array:
        found = own.get(field.name)
        return pa.nulls(events.num_rows, field.type) if found is None else found.cast(field.type)

    properties = schema.field("properties").type
    own["properties"] = pa.StructArray.from_arrays([column(one) for one in properties], fields=list(properties))
    return pa.table([column(one) for one in schema], schema=schema)


def known(timeline: ibis.Table, project: Project, prediction: Binary | Uplift) -> Known:
    def population(traits: ibis.Table, days: object) -> ibis.Table:
        found = matching(project, prediction.population, Scope(traits=traits), days)
        return traits.semi_join(found, ["person_id", "day"])

    return Known(as_of, timeline, timeline.select("person_id").distinct(), population)


@pytest.fixture(scope="module")
def coupon(timeline: ibis.Table, project: Project) -> tuple[Uplift, pa.Table, Trained]:
    declared = project.predictions["coupon_effect"]
    assert isinstance(declared, Uplift)
    web = declared.target.model_copy(update={"event": ["order_completed"]})
    few = ["orders_lifetime", "orders_90d", "days_since_last_order", "average_order_value", "emails_opened_90d"]
    prediction = declared.model_copy(update={"target": web, "features": few})
    windows = cutoffs(prediction, LAST, FIRST)
    rows = uplift.training_set(known(timeline, project, prediction), prediction, project, windows).to_pyarrow()
    return prediction, rows, uplift.train(rows, prediction)


def true_effects(rows: pa.Table, prediction: Uplift) -> np.ndarray:
    """What the coupon really changes of each row, from the rates the generator lives by; interest is averaged over."""
    people = People(CUSTOMERS, DAYS, SEED)
    interest, weight = np.polynomial.hermite_e.hermegauss(15)
    mood, weight = np.exp(0.55 * interest - 0.15), weight / weight.sum()
    who = np.array([int(text[2:]) for text in rows["person_id"].to_pylist()])
    cut = np.array([(day - FIRST).days for day in rows["day"].to_pylist()])
    effects = np.empty(len(who))
    for start in np.unique(cut):
        at = cut == start
        sent = next(number for number in range(start + 1, DAYS) if (FIRST + timedelta(days=number)).day == 12)
        left = {True: np.ones((at.sum(), 15)), False: np.ones((at.sum(), 15))}
        for ago in range(prediction.target.within.days + 1):
            vitality = np.concatenate([people.vitality(block, sent + ago) for block in people.blocks()])[who[at]]
            online = people.buying[who[at]] * (1 - people.store_share[who[at]]) * (1 - CANCELLED)
            rate = (
                online * vitality * demand(FIRST + timedelta(days=sent + ago)) * (people.joined[who[at]] <= sent + ago)
            )
            moved = people.discount_effect[who[at]] * (COUPON_FROM <= ago <= COUPON_TO)
            for treated in left:
                left[treated] *= 1 - np.clip((rate * (1 + moved * treated))[:, None] * mood, 0, 1)
        effects[at] = (left[False] - left[True]) @ weight
    return effects


def test_the_effect_of_the_coupon_is_recovered_with_its_interval(coupon: tuple[Uplift, pa.Table, Trained]) -> None:
    prediction, rows, trained = coupon
    m, truth = trained.metrics, true_effects(rows, prediction)
    assert m["effect_low"] < truth.mean() < m["effect_high"]
    assert m["effect_low"] > 0
    gates = {gate.name: gate for gate in uplift.judge(trained, prediction)}
    assert gates["sample_ratio"].passed and gates["arms_alike"].passed
    # A company of this size cannot be sure of targeting; it is only claimed where both intervals say so.
    sure = m["qini_low"] > 0 and m["gain_best_low"] > 0
    assert gates["targeting_value"].passed == sure == trained.card["verdict"].startswith("targeting has value")


def test_whom_the_coupon_moves_is_found_as_far_as_it_can_be_seen(coupon: tuple[Uplift, pa.Table, Trained]) -> None:
    prediction, rows, trained = coupon
    assert trained.scorer is not None
    test = rows.filter(pa.compute.equal(rows["split"], "test")).sort_by("person_id")
    truth, said = true_effects(test, prediction), trained.scorer.change(test)
    best = np.argsort(-said)[: len(said) * 3 // 10]
    assert truth[best].mean() > 2 * truth.mean()
    assert trained.metrics["gain_best_low"] < truth[best].mean() - truth.mean() < trained.metrics["gain_best_high"]


def test_who_has_left_is_foreseen_with_an_honest_interval(timeline: ibis.Table, project: Project) -> None:
    declared = project.predictions["churn"]
    assert isinstance(declared, Binary)
    few = ["orders_lifetime", "orders_90d", "days_since_last_order", "average_order_value", "emails_opened_90d",
           "emails_clicked_90d", "email_open_share"]  # fmt: skip
    target = declared.target.model_copy(update={"event": ["order_completed"]})
    prediction = declared.model_copy(update={"features": few, "target": target})
    everything = known(timeline, project, prediction)
    windows = cutoffs(prediction, LAST, FIRST)
    rows = binary.training_set(everything, prediction, project, windows).to_pyarrow()
    trained = binary.train(rows, prediction)
    asked = binary.inputs(everything, prediction, project, windows.test).to_pyarrow()
    scores = binary.score(asked, Champion("v", trained.scorer), prediction, project, windows.test)
    people, day = People(CUSTOMERS, DAYS, SEED), (windows.test - FIRST).days
    who = np.array([int(text[2:]) for text in scores["person_id"].to_pylist()])
    gone = (people.churn[who] <= day) & ~((people.won_back[who] < NEVER) & (people.won_back[who] <= day))
    interest, weight = np.polynomial.hermite_e.hermegauss(15)
    mood, weight, stays = np.exp(0.55 * interest - 0.15), weight / weight.sum(), np.ones((len(who), 15))
    for ahead in range(1, prediction.horizon.days + 1):
        vitality = np.concatenate([people.vitality(block, day + ahead) for block in people.blocks()])[who]
        rate = people.buying[who] * (1 - people.store_share[who]) * (1 - CANCELLED) * vitality
        stays *= 1 - np.clip((rate * demand(windows.test + timedelta(days=ahead)))[:, None] * mood, 0, 1)
    truth, said = stays @ weight, scores["score"].to_numpy()
    m, chance = trained.metrics, (truth * (1 - truth)).sum() ** 0.5 / len(truth)
    assert abs(said.mean() - truth.mean()) < 2 * chance
    assert m["auc_low"] < ranking(truth, said) < m["auc_high"]  # of the probabilities as they really are
    assert np.corrcoef(truth, said)[0, 1] > 0.5
    assert ranking(gone.astype(float), said) > 0.65

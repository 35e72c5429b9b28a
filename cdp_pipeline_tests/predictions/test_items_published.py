"""Scores of people and items in a real lake: kept once, shown on a person's page, and known to templates."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa

from cdp_pipeline.activation.fire import known_people
from cdp_pipeline.lake import Lake, Mirror
from cdp_pipeline.lake.questions import Questions
from cdp_pipeline.predictions import affinity
from cdp_pipeline.predictions.kind import Champion
from cdp_pipeline.profile.person import flat, profile_of
from cdp_pipeline_tests.predictions.test_affinity import DAY, known_of, learned, prediction, shoppers
from cdp_pipeline_tests.traits.shop import project

SHOP, EARLIER = project(prediction()), DAY - timedelta(days=1)


def scores(day: date) -> pa.Table:
    inputs = affinity.inputs(known_of(shoppers(people=20)), prediction(), SHOP, day).to_pyarrow()
    return affinity.score(inputs, Champion("v1", learned()[1].scorer), prediction(), SHOP, day)


def test_what_comes_first_for_a_person_is_on_their_page_and_in_templates(lake: Lake) -> None:
    table, rows = affinity.scores_table(prediction()), {day: scores(day) for day in (EARLIER, DAY)}
    for day, of_day in rows.items():
        lake.publish(Mirror(table, of_day, within={"day": [day]}))
    assert lake.read(table).count().to_pyarrow().as_py() == sum(of_day.num_rows for of_day in rows.values())
    before = lake.latest()
    lake.publish(Mirror(table, scores(DAY), within={"day": [DAY]}))
    assert lake.latest() == before, "the same scores again change nothing"

    mine = [row for row in rows[DAY].to_pylist() if row["person_id"] == "p_001"]
    page = profile_of(lake, SHOP, "p_001")
    assert page["predictions"] == {}
    shown = [line for line in flat(page) if line[0] == "score"]
    assert [(name, item) for _, name, item, _ in shown] == [(f"likes {row['rank']}", row["item"]) for row in mine[:3]]
    assert f"{mine[0]['score']:.3f}" in shown[0][3] and "days so far" in shown[0][3]
    then = profile_of(lake, SHOP, "p_001", as_of=EARLIER)["items"]["likes"]
    assert {row["day"] for row in then} == {EARLIER}
    assert profile_of(lake, SHOP, "nobody")["items"] == {}

    known = known_people(Questions().of(lake), SHOP, ["p_001", "nobody"], DAY)
    assert known["p_001"]["likes"] == mine[0]["item"]
    assert "likes" not in known["nobody"]

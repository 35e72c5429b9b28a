"""Training sets of people and items, and what is scored, are the same on every engine as on DuckDB."""

from __future__ import annotations

import random
from datetime import date, datetime, time, timedelta

import ibis
import pyarrow as pa

from cdp_pipeline.predictions import affinity, response, timing
from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.windows import Cutoffs
from cdp_pipeline.spec.prediction import Affinity, Response, Timing
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.parity.conftest import EngineUnderTest, normalised
from cdp_pipeline_tests.traits.shop import event, project, timeline_rows

SHOP, DAY = project(), date(2024, 4, 5)
WINDOWS = Cutoffs((DAY - timedelta(days=14),), DAY, timedelta(days=14))
COMMON = {"kind": "prediction", "name": "asked", "description": "x", "horizon": "14 days"}
_CHANCE = random.Random(3)


def _row(number: int) -> dict[str, object]:
    day = DAY + timedelta(days=14 - _CHANCE.randrange(60))
    return event(
        event_id=f"e{number:03}", person_id=f"p{_CHANCE.randrange(6)}", _day=day,
        occurred_at=datetime.combine(day, time(_CHANCE.randrange(24), _CHANCE.randrange(60))),
        event=_CHANCE.choice(["order", "visit"]), category=_CHANCE.choice(["tea", "cake", "soap", None]),
        channel=_CHANCE.choice(["email", "sms"]), quantity=_CHANCE.randrange(3),
    )  # fmt: skip


ROWS = timeline_rows([_row(number) for number in range(150)])
AFFINITY = Affinity.model_validate(
    COMMON | {"type": "affinity", "target": {"event": ["order"], "item": "category"}, "items": {"at_least": 2}}
)
RESPONSE = Response.model_validate(
    COMMON
    | {
        "type": "response", "exposure": {"event": ["visit"], "item": "channel"}, "items": {"at_least": 2},
        "target": {"event": ["order"], "within": "5 days", "same": "quantity"},
    }
)  # fmt: skip
TIMING = Timing.model_validate(COMMON | {"type": "timing", "target": {"event": ["visit"]}})


def known_of(timeline: ibis.Table) -> Known:
    return Known(as_of, timeline, timeline.select("person_id").distinct())


def test_training_sets_of_people_and_items_are_equal_on_every_engine(engine: EngineUnderTest) -> None:
    """Across the change of clocks on 31 March."""
    here, there = known_of(ibis.memtable(ROWS)), known_of(engine.table(pa.table(ROWS)))
    for kind, prediction in ((affinity, AFFINITY), (response, RESPONSE), (timing, TIMING)):
        wanted = kind.training_set(here, prediction, SHOP, WINDOWS).to_pyarrow().to_pylist()
        assert wanted
        assert engine.rows(kind.training_set(there, prediction, SHOP, WINDOWS)) == normalised(wanted)

"""Events seen and events missed are the same occasions on every engine."""

from __future__ import annotations

from datetime import timedelta

import ibis
import pyarrow as pa

from cdp_pipeline.activation.happenings import low_watermark, occasions_of_events
from cdp_pipeline_tests.activation.projects import trigger
from cdp_pipeline_tests.activation.test_happenings import AT, CART, HOUR, SCHEMA, event
from cdp_pipeline_tests.parity.conftest import EngineUnderTest


def test_occasions_of_events_are_equal_on_every_engine(engine: EngineUnderTest) -> None:
    rows = [
        event("c1", "cart", AT - 5 * HOUR), event("c2", "cart", AT - 4 * HOUR), event("c3", "cart", AT - HOUR),
        event("c4", "cart", AT - 5 * HOUR, "p2"), event("o4", "order", AT - 3 * HOUR, "p2"),
        event("c5", "cart", AT - 5 * HOUR, "p3"), event("o5", "order", AT - 2 * HOUR, "p3"),
        event("c6", "cart", AT - 5 * HOUR, None), event("r1", "review", AT - HOUR, stars=1),
        event("r2", "review", AT - HOUR, "p2", stars=4), event("r3", "review", AT - HOUR, "p3"),
    ]  # fmt: skip
    timeline = engine.table(pa.Table.from_pylist(rows, schema=SCHEMA))
    after = AT - timedelta(days=2)

    def found(on: dict[str, object], table: ibis.Table) -> list[tuple[str, str]]:
        happened = occasions_of_events(trigger(on=on).on, table, after=after, until=AT)
        return [(one.person_id, one.text) for one in happened]

    bad = {"seen": {"event": "review", "when": "stars <= 2"}}
    assert found(CART, timeline) == [("p3", "missing:c5"), ("p1", "missing:c2")]
    assert found(bad, timeline) == [("p1", "seen:r1")]
    new = ibis.memtable(pa.table({"event_id": ["r2", "c1"]}))
    assert found(bad, timeline.semi_join(new, "event_id")) == []
    reached = engine.table(pa.table({"source": ["shop", "till"], "until": [AT - HOUR, AT - 2 * HOUR]}))
    assert low_watermark(reached, ["shop"], AT) == AT - HOUR
    assert low_watermark(reached, ["shop", "till"], AT) == AT - 2 * HOUR

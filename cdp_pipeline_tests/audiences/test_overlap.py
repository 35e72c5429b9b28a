"""What audiences share, against Python's own sets."""

from __future__ import annotations

import ibis
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.audiences.overlap import overlaps

NAMES = ["a", "b", "c", "d"]
SETS = st.fixed_dictionaries({name: st.sets(st.integers(0, 9)) for name in NAMES})


@settings(max_examples=20)
@given(SETS)
def test_overlaps_are_those_of_the_sets(sets: dict[str, set[int]]) -> None:
    rows = [{"audience": name, "person_id": f"p{n}"} for name, people in sets.items() for n in people]
    found = overlaps(
        ibis.memtable(pa.Table.from_pylist(rows, pa.schema({"audience": "string", "person_id": "string"})))
    )
    for name, people in sets.items():
        alike = found.rows(name, NAMES)
        assert [row["jaccard"] for row in alike] == sorted((row["jaccard"] for row in alike), reverse=True)
        assert {row["audience"] for row in alike} == set(NAMES) - {name}
        for row in alike:
            other = sets[row["audience"]]
            both, either = people & other, people | other
            assert row["in_both"] == len(both) and row["people"] == len(other)
            assert row["jaccard"] == (len(both) / len(either) if either else 0)
            assert row["share_of_this"] == (len(both) / len(people) if people else 0)
            assert row["share_of_that"] == (len(both) / len(other) if other else 0)
    assert found.matrix(NAMES) == [
        {"audience": name, **{other: len(sets[name] & sets[other]) for other in NAMES}} for name in NAMES
    ]

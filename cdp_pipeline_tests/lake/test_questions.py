"""A question is compiled once and still finds what the lake says now."""

from __future__ import annotations

import ibis
import pyarrow as pa

from cdp_pipeline.lake import Column, Lake, Mirror, Table
from cdp_pipeline.lake.questions import Questions

TABLE = Table("profile.customers", "People.", {"id": Column("string"), "town": Column("string")}, key=("id",))
WIDER = Table("profile.customers", "People.", {**TABLE.columns, "age": Column("int64")}, key=("id",))


class Asking:
    """Asks a lake of some ids, and counts how often that had to be compiled."""

    def __init__(self, lake: Lake) -> None:
        self.lake, self.questions, self.compiled = lake, Questions(), 0

    def of(self, *ids: str, when: int = 0) -> list[dict[str, object]]:
        asked = self.questions.of(self.lake)

        def question(given: ibis.Table) -> ibis.Table:
            self.compiled += 1
            if not asked.exists(TABLE.name):
                return given
            return asked.table(TABLE.name).semi_join(given, "id").order_by("id")

        return asked.answer("who", question, pa.table({"id": pa.array(ids, pa.string())}), when).to_pylist()


def publish(lake: Lake, table: Table, **towns: str) -> None:
    rows = [{"id": id_, "town": town, "age": 7} for id_, town in towns.items()]
    lake.publish(Mirror(table, pa.Table.from_pylist(rows).select(list(table.columns))))
    lake.refresh()


def test_what_was_compiled_once_finds_what_was_published_since(lake: Lake) -> None:
    publish(lake, TABLE, a="Leeds", b="York")
    asking = Asking(lake)
    assert asking.of("a", "c") == [{"id": "a", "town": "Leeds"}]
    assert asking.of("b") == [{"id": "b", "town": "York"}]
    publish(lake, TABLE, a="Bath", b="York", c="Hull")
    assert asking.of("a", "c") == [{"id": "a", "town": "Bath"}, {"id": "c", "town": "Hull"}]
    assert asking.compiled == 1


def test_a_table_that_came_or_has_another_column_is_seen(lake: Lake) -> None:
    asking = Asking(lake)
    assert asking.of("a") == [{"id": "a"}]
    publish(lake, TABLE, a="Leeds")
    assert asking.of("a") == [{"id": "a", "town": "Leeds"}]
    publish(lake, WIDER, a="Leeds")
    assert asking.of("a") == [{"id": "a", "town": "Leeds", "age": 7}]


def test_only_the_newest_form_of_a_question_is_remembered(lake: Lake) -> None:
    publish(lake, TABLE, a="Leeds")
    asking = Asking(lake)
    for when in (1, 1, 2, 1):
        asking.of("a", when=when)
    assert asking.compiled == 3

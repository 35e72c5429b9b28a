"""What the people of a household or an account come to: sums by hand, each person once, money to the last cent."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import ibis
import pytest

from cdp_pipeline.traits.rollup import rollup_table
from cdp_pipeline_tests.parity.conftest import normalised
from cdp_pipeline_tests.traits.firms import ACCOUNT, DAY, SHOP, by_hand, company, found_by

Rows = dict[str, list[dict[str, Any]]]


def found(rows: Rows) -> dict[str, dict[str, Any]]:
    return {row["group_id"]: row for row in found_by(rows, ibis.memtable).to_pyarrow().to_pylist()}


@pytest.mark.parametrize("seed", range(4))
def test_every_figure_is_what_one_adds_up_by_hand(seed: int) -> None:
    rows = company(seed)
    assert normalised(list(found(rows).values())) == normalised(by_hand(rows))


def holding() -> Rows:
    """A holding without people, above two firms, one of which has a branch."""
    tree = {"top": None, "north": "top", "south": "top", "branch": "north"}
    spent = {"north": ["0.10", "0.20"], "south": ["100.00"], "branch": ["7.00", None]}
    rows: Rows = {"groups": [], "members": [], "daily": [], "customers": []}
    for id_, parent in tree.items():
        group = {"kind": "account", "group_id": id_, "name": id_, "status": "ok", "parent_group_id": parent}
        rows["groups"].append(group)
        for number, money in enumerate(spent.get(id_, [])):
            person = f"{id_}{number}"
            rows["members"].append({"kind": "account", "group_id": id_, "person_id": person})
            value = None if money is None else Decimal(money)
            rows["daily"].append({"person_id": person, "day": DAY, "spent": value, "orders": 1})
    return rows


def test_a_holding_has_what_all_firms_below_it_have_and_nobody_counts_twice() -> None:
    figures = found(holding())
    total = {id_: row["spent_hierarchy"] for id_, row in figures.items()}
    assert total == {
        "top": Decimal("107.3000"), "north": Decimal("7.3000"), "south": Decimal("100.0000"),
        "branch": Decimal("7.0000"),
    }  # fmt: skip
    assert figures["top"]["orders_hierarchy"] == figures["top"]["heads_hierarchy"] == 5
    assert figures["north"]["rate_hierarchy"] == pytest.approx(7.3 / 3), "of the people, not of the firms' averages"
    assert (figures["top"]["people"], figures["top"]["spent_members"], figures["top"]["heads_members"]) == (0, None, 0)
    assert figures["north"]["spent_members"] == Decimal("0.3000"), "cents add up exactly"


def test_money_stays_money_and_every_figure_has_its_words() -> None:
    table = rollup_table(ACCOUNT, SHOP)
    types = {name: column.type for name, column in table.columns.items()}
    assert types["spent_hierarchy"] == types["best_members"] == "decimal(18, 4)"
    assert (types["rate_members"], types["anybody_members"], types["youngest_members"]) == (
        "float64",
        "boolean",
        "date",
    )
    assert table.name == "traits.account" and all(column.description for column in table.columns.values())

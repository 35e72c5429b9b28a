"""Deciding only what new rows touch gives what deciding everything gives, to the last word and id."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import ibis
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cdp_pipeline.identity.evidence import identified, identified_edges
from cdp_pipeline.identity.increment import State, resolve_new
from cdp_pipeline.identity.people import resolve
from cdp_pipeline.spec.project import IdentitySettings, Project
from cdp_pipeline.spec.verdict import Verdict
from cdp_pipeline_tests.identity.shop import IDENTIFIERS, NOW, Row, edges_table, identifier, project, rows, seen_table

_KEYS = {"edges": ("id_a", "id_b", "source"), "identifiers": ("id",), "people": ("person_id",)}


def held(rows: ibis.Table) -> ibis.Table:
    return ibis.memtable(rows.to_pyarrow())


def whole(found: list[Row], before: dict[str, pa.Table] | None, of: Project, now: datetime) -> dict[str, pa.Table]:
    last = (None, None) if before is None else (before["identifiers"], before["people"])
    result = resolve(edges_table(found), seen_table(found), *last, of, now)
    return in_arrow(result)


def in_arrow(result: Any) -> dict[str, pa.Table]:
    tables = {name: getattr(result, name) for name in (*_KEYS, "changes")}
    return {name: table.to_pyarrow() if isinstance(table, ibis.Table) else table for name, table in tables.items()}


def put(before: dict[str, pa.Table], new: dict[str, pa.Table]) -> dict[str, list[dict[str, Any]]]:
    """What an upsert of the new rows leaves, in plain Python; changes are this run's."""
    after = {}
    for name, key in _KEYS.items():
        kept = {tuple(row[column] for column in key): row for row in before[name].to_pylist()}
        kept.update({tuple(row[column] for column in key): row for row in new[name].to_pylist()})
        after[name] = [kept[one] for one in sorted(kept)]
    return after


def agree(early: list[Row], late: list[Row], of: Project, days: int) -> dict[str, pa.Table]:
    then, now = NOW - timedelta(days=days), NOW
    before = whole(early, None, of, then)
    full = whole([*early, *late], before, of, now)
    last = State(*(ibis.memtable(before[name]) for name in ("edges", "identifiers", "people")), at=then)
    new = resolve_new(
        identified_edges(ibis.memtable(edges_table(late))), identified(ibis.memtable(seen_table(late))),
        last, of, now, held,
    )  # fmt: skip
    found = in_arrow(new)
    by_hand = {
        name: sorted(full[name].to_pylist(), key=lambda row: [row[k] for k in key]) for name, key in _KEYS.items()
    }
    assert put(before, found) == by_hand
    order = [("change", "ascending"), ("person_id", "ascending")]
    assert found["changes"].sort_by(order) == full["changes"].sort_by(order)
    return found


_EXPIRING = {
    **IDENTIFIERS,
    "anonymous_id": identifier("anonymous_id", priority=100, limit=3, known=False, shared_above=1, expires="57 days"),
}
_PER_TIME = {**IDENTIFIERS, "email": identifier("email", priority=500, limit={"count": 1, "within": "2 days"})}
_FAMILIES = {
    **IDENTIFIERS,
    "anonymous_id": identifier(
        "anonymous_id",
        priority=100,
        known=False,
        shared_above=1,
        people_by=["customer_id", "email"],
        expires="57 days",
    ),
}
_APART = Verdict.model_validate(
    {"kind": "verdict", "name": "apart", "description": "a",
     "unlink": ["email:ann@example.com", "email:bob@example.com"], "by": "me", "on": "2026-01-01", "why": "b"}
)  # fmt: skip


def variants() -> list[Project]:
    strategies = [
        project(_FAMILIES), project(_EXPIRING), project(_PER_TIME), project(verdicts={"apart": _APART}),
    ]  # fmt: skip
    for name in ("isolation", "best_match", "strict"):
        plain = project()
        own = plain.settings.model_copy(update={"identity": IdentitySettings(strategy=name)})  # type: ignore[arg-type]
        strategies.append(project(settings=own))
    return strategies


@given(rows(most=25), rows(most=4), st.sampled_from(variants()), st.integers(0, 5))
@settings(max_examples=60)
@example(
    [Row("web", 1, 0, customer=1, cookie="k1")], [Row("web", 2, 3, customer=2, cookie="k1")], project(_EXPIRING), 1
)
@example([Row("web", n, 0, customer=n, cookie="k1") for n in (1, 2)], [], project(_EXPIRING), 5)
def test_deciding_what_is_touched_is_deciding_everything(
    early: list[Row], late: list[Row], of: Project, days: int
) -> None:
    late = [Row(**{**row.__dict__, "record": 100 + number}) for number, row in enumerate(late)]
    agree(early, late, of, days)


def test_only_what_changed_is_written() -> None:
    early = [Row("web", n, 0, customer=n, mail=f"user{n}@shop.test") for n in range(1, 50)]
    found = agree(early, [Row("web", 100, 1, customer=7, cookie="k9")], project(), 0)
    assert {row["value"] for row in found["identifiers"].to_pylist()} == {"7", "k9"}
    assert found["people"].num_rows == 1


def test_a_computer_whose_former_owner_lapsed_belongs_to_the_one_that_is_left() -> None:
    """Two customers kept it out of every component; the two addresses that remain are known to be one customer's."""
    early = [
        Row("web", 1, 0, customer=1, cookie="k"),
        Row("web", 2, 3, customer=2, cookie="k"),
        Row("web", 3, 3, mail="ann@example.com", cookie="k"),
        Row("web", 4, 3, mail="bob@example.com", cookie="k"),
        Row("till", 5, 3, customer=2, mail="ann@example.com"),
        Row("till", 6, 3, customer=2, mail="bob@example.com"),
    ]
    found = agree(early, [], project(_FAMILIES), 5)
    (computer,) = [row for row in found["identifiers"].to_pylist() if row["value"] == "k"]
    assert computer["status"] == "ok"


def test_a_tablet_that_turns_out_to_be_shared_frees_everybody_it_had_joined() -> None:
    early = [Row("web", n, 0, mail=f"user{n}@shop.test", cookie="tablet") for n in (1, 2)]
    early += [Row("web", 10 + n, 0, customer=n, mail=f"user{n}@shop.test") for n in (1,)]
    late = [Row("web", 20 + n, 1, customer=n, cookie="tablet") for n in (1, 3, 4)]
    found = agree(early, late, project(), 0)
    assert {"split"} <= set(found["changes"]["change"].to_pylist())

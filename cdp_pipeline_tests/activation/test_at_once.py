"""Two at the same moment: each of these fails when the ledger's locks are taken out.

One is stopped in the middle of its transaction, just after it has looked; the other then goes as far as it gets.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from cdp_pipeline.activation.claims import Claim
from cdp_pipeline.activation.ledger import Ledger, LedgerError, Op, open_ledger, operation_id
from cdp_pipeline.activation.plan import plan
from cdp_pipeline.activation.sync import approve, epoch, holds, submit
from cdp_pipeline_tests.activation.projects import DAY, NOW, sync
from cdp_pipeline_tests.activation.taking import take

VIPS = sync(mapping={"id": "person_id"}, key="id")
PATIENCE = 1.0  # Whoever has not come through by then waits for the other.


@pytest.fixture
def two(ledger_address: str) -> Iterator[tuple[Ledger, Ledger]]:
    with open_ledger(ledger_address) as one, open_ledger(ledger_address) as other:
        yield one, other


def at_once(two: tuple[Ledger, Ledger], act: Callable[[Ledger], Any], looks_at: str) -> list[Any]:
    """What both come to: `act` by the first, and by the second while the first has just looked at a table."""
    found: list[Any] = []

    def do(ledger: Ledger) -> None:
        try:
            found.append(act(ledger))
        except (LedgerError, sa.exc.DBAPIError) as error:
            found.append(error)

    one, other = two
    second = threading.Thread(target=do, args=(other,))

    def looked(_: object, __: object, statement: str, *___: object) -> None:
        if f"FROM {looks_at}" in statement and second.ident is None:
            second.start()
            second.join(PATIENCE)

    sa.event.listen(one._engine, "after_cursor_execute", looked)
    do(one)
    second.join()
    return found


def test_two_runs_that_submit_one_plan_decide_it_once(two: tuple[Ledger, Ledger]) -> None:
    first = plan(VIPS, ["p1"], {}, {})
    found = at_once(two, lambda ledger: submit(ledger, first, dry_run=False, now=NOW).state, "plans")
    assert found == ["held", "held"]


def test_of_two_who_approve_one_releases_it(two: tuple[Ledger, Ledger]) -> None:
    first = plan(VIPS, ["p1"], {}, {})
    submit(two[0], first, dry_run=False, now=NOW)
    found = at_once(two, lambda ledger: approve(ledger, first.plan_id, by="ann", now=NOW), "held_ops")
    assert sorted(map(str, found))[0] == "1" and "released already" in sorted(map(str, found))[1]
    assert two[0].counts() == {("sync:vips", "hook", "pending"): 1}


def test_two_runs_that_plan_apart_leave_what_one_of_them_wants(two: tuple[Ledger, Ledger]) -> None:
    first = plan(VIPS, ["p0"], {}, {})
    submit(two[0], first, dry_run=False, now=NOW)
    approve(two[0], first.plan_id, by="ann", now=NOW)
    plans = {id(two[0]): plan(VIPS, ["p0", "p1"], {}, {}), id(two[1]): plan(VIPS, ["p0", "p2"], {}, {})}
    found = at_once(two, lambda ledger: submit(ledger, plans[id(ledger)], dry_run=False, now=NOW).state, "outbox")
    assert found == ["applied", "applied"]
    rows = two[0].about(["p0", "p1", "p2"])
    assert Counter(row["state"] for row in rows) == {"pending": 2, "suppressed": 1}, "each drops what the other wants"


def test_two_workers_keep_to_one_rate(two: tuple[Ledger, Ledger]) -> None:
    ops = [Op(operation_id(n), "trigger:t", "hook", f"p{n}", "act", {}, str(n)) for n in range(4)]
    two[0].fire("t", ops, day=DAY, now=NOW)

    def one_a_second(ledger: Ledger) -> Claim:
        return take(ledger, NOW, limit=1, rate=1)

    found = at_once(two, one_a_second, "pace")
    assert all(isinstance(one, Claim) for one in found), found
    assert sum(len(one.ops) for one in found) == 1


def test_a_trigger_fired_by_two_acts_once(two: tuple[Ledger, Ledger]) -> None:
    op = Op(operation_id("once"), "trigger:t", "hook", "p1", "act", {}, "a")
    found = at_once(two, lambda ledger: ledger.fire("t", [op], day=DAY, now=NOW), "outbox")
    assert sorted(map(str, found)) == ["{'known': 1}", "{'pending': 1}"]


def test_two_who_begin_an_epoch_begin_one(two: tuple[Ledger, Ledger]) -> None:
    found = at_once(two, lambda ledger: epoch(ledger, VIPS), "epochs")
    assert len(set(map(str, found))) == 1 and holds(two[0], VIPS) == {}

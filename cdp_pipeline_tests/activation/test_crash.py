"""Workers are killed amid deliveries to a receiver that fails a quarter of the time: each effect is had just once."""

from __future__ import annotations

from cdp_pipeline_tests.activation.crash import crash

KILLS = 15  # benchmarks/crash.py kills four times as often.


def test_kill_nine_over_and_over_leaves_every_effect_exactly_once(ledger_address: str) -> None:
    outcome = crash(ledger_address, KILLS)
    assert outcome.kills == KILLS
    assert outcome.most_often > 1, "nothing was ever sent twice: the faults were too kind"
    outcome.check()

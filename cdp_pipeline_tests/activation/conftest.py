"""A ledger of the test's own, on each database it may live in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdp_pipeline.activation.ledger import Ledger, open_ledger


@pytest.fixture
def ledger(ledger_address: str) -> Iterator[Ledger]:
    with open_ledger(ledger_address) as opened:
        yield opened

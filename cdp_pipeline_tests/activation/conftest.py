"""A ledger of the test's own, on each database it may live in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdp_pipeline.activation.ledger import Ledger, open_ledger


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger, once on SQLite and once on a real Postgres."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def ledger(ledger_address: str) -> Iterator[Ledger]:
    with open_ledger(ledger_address) as opened:
        yield opened

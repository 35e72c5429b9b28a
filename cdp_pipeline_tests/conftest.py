"""Fixtures that every area shares: an embedded lake, and a real Postgres server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdp_pipeline.lake import Lake, open_lake
from cdp_pipeline.spec.project import LakeLocation


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """An empty embedded lake of this test's own."""
    with open_lake(LakeLocation(path=str(tmp_path / "lake"))) as opened:
        yield opened

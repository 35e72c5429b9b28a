"""A company of two thousand over a Christmas season, generated once for all tests of this folder."""

from __future__ import annotations

from datetime import date

import pytest

from cdp_pipeline.sources.demo import generate
from cdp_pipeline_tests.sources_demo.exports import Company


@pytest.fixture(scope="package")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    folder = tmp_path_factory.mktemp("demo")
    return Company(generate(folder, customers=2_000, days=92, seed=5, last_day=date(2026, 1, 31)))

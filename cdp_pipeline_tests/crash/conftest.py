"""Processes that start quickly, because their modules are loaded once in a fork server."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

import pytest


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cdp_pipeline_tests.crash.worker"])
    return context

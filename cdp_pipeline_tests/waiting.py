"""How tests wait for what another process or thread does, and which port a server gets that is told its own."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

PATIENCE = 480
"""Seconds until something is taken for broken: far more than it ever takes, because a machine may be busy."""

PORTS = range(10_000, 32_000)
"""Below those that a system gives to whoever asks for any, and to connections that go out."""

_turn = itertools.count(os.getpid() * 997)


def eventually(what: Callable[[], Any], every: float = 0.5) -> Any:
    """The first truthy answer; an AssertionError with the last one when patience runs out."""
    end = time.monotonic() + PATIENCE
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < end, f"gave up waiting, last answer: {answer!r}"
        time.sleep(every)


def long_before_midnight(minutes: int) -> None:
    """Wait for tomorrow (UTC) where today does not last so long any more: for what is told in days from today."""
    now = datetime.now(UTC)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    if midnight - now < timedelta(minutes=minutes):
        time.sleep((midnight - now).total_seconds() + 1)


def free_port() -> int:
    """A port of 127.0.0.1 at which nobody listens, and nobody will by chance before the caller does."""
    for turn in _turn:
        port = PORTS[turn % len(PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("there is always a next")

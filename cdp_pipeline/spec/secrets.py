"""Secrets written in the clear. They belong in the environment: `${NAME}`, or with an empty default, `${NAME:-}`.

A default that says something, `${NAME:-demo}`, is a secret in the clear as well, and is let pass only as long as what
it opens is on this machine (localhost, 127.0.0.1, ::1): so a demo runs out of the box, and the same project pointed at
a real server by an environment variable is told to set its secret too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

from cdp_pipeline.spec.documents import Document, Path

LOCAL = ("localhost", "127.0.0.1", "::1")
REFERENCE = re.compile(r"\$\{\w+(?::-(?P<default>[^{}]*))?\}")
_VALUE = r"((?:\$\{[^{}]*\}|[^@&/\s{}])+)"
IN_ADDRESSES = re.compile(rf"://[^/@\s:]*:{_VALUE}@|[?&](?:password|secret|token|api_key)={_VALUE}")
MESSAGE = "holds a secret in the clear: write ${NAME} and set NAME in the environment"


def secret_findings(document: Document, secret_fields: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Secret fields of the document, and passwords in the addresses anywhere in it, that are readable in the YAML."""
    for path, value in _texts(document.data, ()):
        written = document.written.get(path, value)
        if len(path) == 1 and path[0] in secret_fields:
            spans, address = [(0, len(written))], str(document.data.get("url") or document.data.get("host"))
        else:
            spans = [found.span(found.lastindex or 0) for found in IN_ADDRESSES.finditer(written)]
            address = value
        if any(_is_readable(written, start, end, address) for start, end in spans):
            yield path, MESSAGE


def _texts(data: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(data, str) and data:
        yield path, data
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield from _texts(value, (*path, key))


def _is_readable(written: str, start: int, end: int, address: str) -> bool:
    reference = REFERENCE.fullmatch(written, start, end)
    if reference is not None and not reference["default"]:
        return False
    within_default = any(r.start() <= start and end <= r.end() for r in REFERENCE.finditer(written))
    return not (within_default and _host(address) in LOCAL)


def _host(address: str) -> str | None:
    try:
        return urlsplit(address if "://" in address else f"//{address}").hostname
    except ValueError:
        return None

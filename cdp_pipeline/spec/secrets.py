"""Secrets written in the clear. They belong in the environment: `${NAME}`, or with an empty default, `${NAME:-}`.

A default that says something, `${NAME:-demo}`, is a secret in the clear as well. It is let pass while what it opens is
on this machine (localhost, 127.0.0.1, ::1), or while NAME is set and takes its place: so a demo runs out of the box,
and the same project pointed at a real server by an environment variable is told to set its secret too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

from cdp_pipeline.spec.documents import DataPath, Document

LOCAL = ("localhost", "127.0.0.1", "::1")
REFERENCE = re.compile(r"\$\{\w+(?::-(?P<default>[^{}]*))?\}")
_VALUE = r"((?:\$\{[^{}]*\}|[^@&/\s{}])+)"
IN_ADDRESSES = re.compile(rf"://[^/@\s:]*:{_VALUE}@|[?&](?:password|secret|token|api_key)={_VALUE}")
MESSAGE = "holds a secret in the clear: write ${NAME} and set NAME in the environment"


def secret_findings(document: Document, secret_fields: Collection[str]) -> Iterator[tuple[DataPath, str]]:
    """Secret fields of the document, and passwords in the addresses anywhere in it, that are readable in the YAML."""
    for path, value in _texts(document.data, ()):
        written = document.written.get(path, value)
        if len(path) == 1 and path[0] in secret_fields:
            spans, address = [(0, len(written))], str(document.data.get("url") or document.data.get("host"))
        else:
            spans = [found.span(found.lastindex or 0) for found in IN_ADDRESSES.finditer(written)]
            address = value
        if any(_is_readable(written, start, end, value, address) for start, end in spans):
            yield path, MESSAGE


def _texts(data: Any, path: DataPath) -> Iterator[tuple[DataPath, str]]:
    if isinstance(data, str) and data:
        yield path, data
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield from _texts(value, (*path, key))


def _is_readable(written: str, start: int, end: int, value: str, address: str) -> bool:
    reference = next((r for r in REFERENCE.finditer(written) if r.start() <= start and end <= r.end()), None)
    if reference is None:
        return True
    default = reference["default"] if (start, end) == reference.span() else written[start:end]
    return bool(default) and default in value and _host(address) not in LOCAL


def _host(address: str) -> str | None:
    try:
        return urlsplit(address if "://" in address else f"//{address}").hostname
    except ValueError:
        return None

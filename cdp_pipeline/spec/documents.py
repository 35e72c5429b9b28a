"""YAML text as plain data, with the line of everything in it and `${VAR}` filled in from the environment.

What the data must look like is not known here. This is YAML as people mean it: `on`, `no` and dates are text, a key is
text, a number with a leading zero is text. Nesting and what aliases unfold to are bounded, so no file can hang a check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

DataPath = tuple[str | int, ...]
MAX_BYTES, MAX_DEPTH, MAX_VALUES = 20_000_000, 40, 100_000

VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False, "True": True, "False": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
_TEXT_TAG = "tag:yaml.org,2002:str"


@dataclass
class Document:
    """One YAML document: its data, where each path stands, and the text of values as written where a variable is in."""

    data: Any = None
    line: int = 1
    lines: dict[DataPath, int] = field(default_factory=dict)
    written: dict[DataPath, str] = field(default_factory=dict)
    findings: list[tuple[int, DataPath, str]] = field(default_factory=list)

    def __str__(self) -> str:
        names = isinstance(self.data, dict) and isinstance(self.data.get("name"), str)
        return f"{self.data.get('kind')} '{self.data['name']}'" if names else ""

    def line_of(self, path: DataPath) -> int:
        """The line of a path, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, self.line)


class UnreadableError(ValueError):
    """The text is not YAML from this line on."""

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line, self.reason = line, reason


def read_documents(text: str, environment: Mapping[str, str]) -> Iterator[Document]:
    """The documents of a text, one by one; raises UnreadableError where the text stops being YAML."""
    events = yaml.parse(text, Loader=yaml.CSafeLoader)
    try:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                yield _Reader(events, environment).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UnreadableError(mark.line + 1 if mark else 1, str(error.problem or error.context)) from None
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position] if isinstance(error.position, int) else b""
        raise UnreadableError(before.count(b"\n") + 1, f"character #x{error.character:04x} is not allowed") from None


@dataclass
class _Reader:
    """Turns the parser's events into one document. Sizes count what a value unfolds to, aliases included."""

    events: Iterator[Any]
    environment: Mapping[str, str]
    result: Document = field(default_factory=Document)
    anchors: dict[str, tuple[Any, int] | None] = field(default_factory=dict)

    def document(self) -> Document:
        first = next(self.events)
        self.result.line = first.start_mark.line + 1
        self.result.data, _ = self.value(first, ())
        return self.result

    def value(self, event: Any, path: DataPath) -> tuple[Any, int]:
        line = event.start_mark.line + 1
        self.result.lines.setdefault(path, line)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, path)
        if len(path) > MAX_DEPTH:
            raise UnreadableError(line, f"nested more than {MAX_DEPTH} levels deep")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        data: Any
        if isinstance(event, yaml.ScalarEvent):
            data, size = self.scalar(event, path), 1
        elif isinstance(event, yaml.SequenceStartEvent):
            data, size = self.sequence(path)
        else:
            data, size = self.mapping(path)
        if event.tag is not None and event.tag not in ("!", _TEXT_TAG):
            self.find(event, path, f"tag '{event.tag}' means nothing here")
        if event.anchor is not None:
            self.anchors[event.anchor] = (data, size)
        if size > MAX_VALUES:
            raise UnreadableError(line, f"unfolds to more than {MAX_VALUES} values")
        return data, size

    def alias(self, event: Any, path: DataPath) -> tuple[Any, int]:
        known = self.anchors.get(event.anchor)
        if known is None:
            refers = "itself" if event.anchor in self.anchors else "nothing before it"
            self.find(event, path, f"'*{event.anchor}' refers to {refers}")
        return known or (None, 1)

    def sequence(self, path: DataPath) -> tuple[list[Any], int]:
        items: list[Any] = []
        size = 1
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item, grown = self.value(event, (*path, len(items)))
            items.append(item)
            size += grown
        return items, size

    def mapping(self, path: DataPath) -> tuple[dict[str, Any], int]:
        entries: dict[str, Any] = {}
        size = 1
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            name = key.value if isinstance(key, yaml.ScalarEvent) else None
            here = (*path, "?" if name is None else name)
            if name is None:
                self.value(key, here)
                self.find(key, path, "a key should be one word")
            elif name in entries:
                self.find(key, here, f"is given twice, first in line {self.result.lines[here]}")
                here = (*here, "?")
            self.result.lines.setdefault(here, key.start_mark.line + 1)
            item, grown = self.value(next(self.events), here)
            size += grown
            if name is not None:
                entries.setdefault(name, item)
        return entries, size

    def scalar(self, event: Any, path: DataPath) -> str | int | float | bool | None:
        text = event.value
        plain = event.style in (None, "") and event.tag is None
        if "${" not in text:
            return _plain_value(text) if plain else text
        self.result.written[path] = text
        if "${" in VARIABLE.sub("", text):
            self.find(event, path, "a variable is written ${NAME} or ${NAME:-default}, a plain ${ is written $${")
        filled = VARIABLE.sub(lambda found: self.variable(found, event, path), text)
        return None if plain and not filled else filled

    def variable(self, found: re.Match[str], event: Any, path: DataPath) -> str:
        name, default = found[1], found[2]
        if name is None:
            return "${"
        value = self.environment.get(name) or default
        if value is None:
            self.find(event, path, f"environment variable '{name}' is not set")
        return value or ""

    def find(self, event: Any, path: DataPath, message: str) -> None:
        self.result.findings.append((event.start_mark.line + 1, path, message))


def _plain_value(text: str) -> str | int | float | bool | None:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if text[-1:].isdigit() and _NUMBER.fullmatch(text):
        return float(text)
    return text

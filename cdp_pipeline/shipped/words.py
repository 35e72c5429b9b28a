"""The catalogue as it is written: words.yaml and the lists beside it, read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.documents import read_documents

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Field:
    """What an event may keep: the names it has in different houses, and text, number or day."""

    type: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """One line of the catalogue: what it says, and where it stands."""

    kind: str
    data: dict[str, Any]
    file: str
    line: int


@dataclass(frozen=True)
class Words:
    """roles: events that play a role; of each inner list the first that a project declares. each: what `each` means."""

    roles: dict[str, list[list[str]]]
    fields: dict[str, Field]
    each: dict[str, dict[str, dict[str, str]]]
    lines: list[Line]


@cache
def words() -> Words:
    """The words and lines that come with the house."""
    (about,) = read_documents((FOLDER / "words.yaml").read_text("utf-8"), {})
    data = about.data
    return Words(
        roles={role: [one.split(" | ") for one in alternatives] for role, alternatives in data["roles"].items()},
        fields={name: Field(field["type"], tuple(field["names"])) for name, field in data["fields"].items()},
        each=data["each"],
        lines=[
            *(line for path in sorted((FOLDER / "traits").glob("*.yaml")) for line in _lines("trait", path)),
            *_lines("audience", FOLDER / "audiences.yaml"),
        ],
    )


def _lines(kind: str, path: Path) -> list[Line]:
    (document,) = read_documents(path.read_text("utf-8"), {})
    file = path.relative_to(FOLDER.parent).as_posix()
    return [Line(kind, data, file, document.line_of((number,))) for number, data in enumerate(document.data)]

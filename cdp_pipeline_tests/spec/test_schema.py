"""The JSON Schema for editors says what the models say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline.spec.documents import Document, read_documents
from cdp_pipeline.spec.load import DEMO, MODELS
from cdp_pipeline.spec.schema import json_schema

SCHEMA = json_schema()
SOUND = Path(__file__).parent / "golden" / "sound"


def as_an_editor_sees_it(document: Document) -> Any:
    """The data with every `${NAME}` unfilled."""
    for path, text in document.written.items():
        place = document.data
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = text
    return document.data


def schema_errors(schema: Any, data: Any, path: str = "") -> Iterator[str]:
    """As much of JSON Schema as ours uses."""
    schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    kind = schema.get("type")
    if (kind == "null" and data is not None) or (kind in kinds and not isinstance(data, kinds[kind])):
        yield f"{path}: not {kind}"
        return
    if ("const" in schema and data != schema["const"]) or ("enum" in schema and data not in schema["enum"]):
        yield f"{path}: not the value"
    if "pattern" in schema and not re.search(schema["pattern"], data):
        yield f"{path}: not the pattern"
    if "anyOf" in schema and all(any(schema_errors(choice, data, path)) for choice in schema["anyOf"]):
        yield f"{path}: none of the choices"
    for part in schema.get("allOf", []):
        if "if" not in part:
            yield from schema_errors(part, data, path)
        elif not any(schema_errors(part["if"], data, path)):
            yield from schema_errors(part["then"], data, path)
    if isinstance(data, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        yield from (f"{path}.{name}: missing" for name in schema.get("required", []) if name not in data)
        for name, value in data.items():
            if name in properties:
                yield from schema_errors(properties[name], value, f"{path}.{name}")
            elif others is False:
                yield f"{path}.{name}: unknown"
            elif isinstance(others, dict):
                yield from schema_errors(others, value, f"{path}.{name}")
    if isinstance(data, list):
        for i, value in enumerate(data):
            yield from schema_errors(schema.get("items", {}), value, f"{path}[{i}]")


@pytest.mark.parametrize("folder", [DEMO, SOUND], ids=["demo", "sound"])
def test_sound_documents_have_no_red_lines(folder):
    documents = [
        document for path in sorted(folder.rglob("*.yaml")) for document in read_documents(path.read_text(), {})
    ]
    assert documents
    for document in documents:
        assert list(schema_errors(SCHEMA, as_an_editor_sees_it(document))) == []


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"kind": "triat"}, ".kind: not the value"),
        ({"kind": "trait", "name": "a", "description": "b", "evaluation": "conut"}, ".evaluation: none of the choices"),
        ({"kind": "trait", "name": "a", "description": "b", "evaluation": "count", "evnt": "x"}, ".evnt: unknown"),
        ({"kind": "audience", "name": "a", "description": "b", "rules": [{"is_": "x"}]}, ".rules[0].is_: unknown"),
        ({"kind": "destination", "name": "a", "description": "b"}, ".type: missing"),
        ({"kind": "match", "name": "a-b", "description": "b"}, ".name: not the pattern"),
    ],
)  # fmt: skip
def test_mistakes_have_red_lines(document, error):
    assert error in list(schema_errors(SCHEMA, document))


def test_every_kind_and_every_reference_is_defined():
    assert SCHEMA["properties"]["kind"]["enum"] == list(MODELS)
    references = re.findall(r"'\$ref': '#/\$defs/(\w+)'", str(SCHEMA))
    assert set(references) <= set(SCHEMA["$defs"])

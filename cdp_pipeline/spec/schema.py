"""JSON Schema of everything a project's YAML may say, for editors: completion, descriptions and red lines as you type.

With yaml-language-server: `# yaml-language-server: $schema=cdp.schema.json` as a file's first line. It knows each
document by itself; what documents say about each other is checked by `cdp check`.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from cdp_pipeline.spec.base import NAME_PATTERN
from cdp_pipeline.spec.load import MODELS, default_type, types_of

VARIABLE = {"type": "string", "pattern": r"\$\{", "description": "From the environment: ${NAME} or ${NAME:-default}."}


def json_schema() -> dict[str, Any]:
    """One schema for a document of any kind (draft 2020-12); `kind` and `type` choose its fields."""
    models = [model for alternatives in MODELS.values() for model in alternatives]
    typed = {kind: types for kind in MODELS if (types := types_of(kind))}
    refs, definitions = models_json_schema([(model, "validation") for model in models], by_alias=True)
    alone = [
        {"if": _of(kind), "then": refs[model, "validation"]} for kind, (model, *more) in MODELS.items() if not more
    ]
    chosen = [
        {"if": _of(kind, type_), "then": refs[model, "validation"]}
        for kind, types in typed.items()
        for type_, model in types.items()
    ]
    listed = [
        {"if": _of(kind), "then": {"properties": {"type": {"enum": list(types)}}}} for kind, types in typed.items()
    ]
    needed = [{"if": _of(kind), "then": {"required": ["type"]}} for kind in typed if default_type(kind) is None]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A document of a customer data platform",
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(MODELS), "description": "What the document declares."}},
        "allOf": [*alone, *chosen, *listed, *needed],
        "$defs": {name: _with_variables(schema) for name, schema in definitions["$defs"].items()},
    }


def _of(kind: str, type_: str | None = None) -> dict[str, Any]:
    """Whether a document is of this kind, and of this type or without one where that is the default."""
    found: dict[str, Any] = {"required": ["kind"], "properties": {"kind": {"const": kind}}}
    if type_ is not None:
        found["properties"]["type"] = {"const": type_}
        if type_ != default_type(kind):
            found["required"].append("type")
    return found


def _with_variables(schema: Any) -> Any:
    """Wherever a value is not just any text, `${NAME}` may stand in for it. Names are always written out."""
    if isinstance(schema, list):
        return [_with_variables(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    narrow = isinstance(schema.get("pattern"), str) and schema["pattern"] != NAME_PATTERN
    if narrow or schema.get("type") in ("integer", "number", "boolean") or isinstance(schema.get("enum"), list):
        about = {key: schema[key] for key in ("title", "description", "default") if key in schema}
        return {**about, "anyOf": [{key: part for key, part in schema.items() if key not in about}, VARIABLE]}
    return {key: _with_variables(part) for key, part in schema.items()}

"""JSON Schema of everything a project's YAML may say, for editors: completion, descriptions and red lines as you type.

With yaml-language-server: `# yaml-language-server: $schema=cdp.schema.json` as a file's first line. It knows each
document by itself; what documents say about each other is checked by `cdp check`.
"""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cdp_pipeline.spec.base import NAME_PATTERN
from cdp_pipeline.spec.load import MODELS

VARIABLE = {"type": "string", "pattern": r"\$\{", "description": "From the environment: ${NAME} or ${NAME:-default}."}


def json_schema() -> dict[str, Any]:
    """One schema for a document of any kind (draft 2020-12); `kind`, and a destination's `type`, choose its fields."""
    models = [model for alternatives in MODELS.values() for model in alternatives]
    refs, definitions = models_json_schema([(model, "validation") for model in models], by_alias=True)
    choices = [
        {"if": _chosen_by(kind, model), "then": refs[model, "validation"]}
        for kind, alternatives in MODELS.items()
        for model in alternatives
    ]
    types = [get_args(model.model_fields["type"].annotation)[0] for model in MODELS["destination"]]
    typed = {"required": ["type"], "properties": {"type": {"enum": types}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A document of a customer data platform",
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(MODELS), "description": "What the document declares."}},
        "allOf": [*choices, {"if": _chosen_by("destination"), "then": typed}],
        "$defs": {name: _with_variables(schema) for name, schema in definitions["$defs"].items()},
    }


def _chosen_by(kind: str, model: type[BaseModel] | None = None) -> dict[str, Any]:
    chosen = {"kind": {"const": kind}}
    if kind == "destination" and model is not None:
        chosen["type"] = {"const": get_args(model.model_fields["type"].annotation)[0]}
    return {"required": list(chosen), "properties": chosen}


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

"""What pydantic found wrong with a document, in plain words and at a path of the document as it was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from cdp_pipeline.spec.base import NAME_PATTERN, shown, unknown
from cdp_pipeline.spec.documents import DataPath, Document

# By the beginning of pydantic's error type.
WANTED = {
    "string_type": "text", "int_": "a whole number", "float_": "a number", "bool_": "true or false",
    "list_type": "a list", "tuple_type": "a list", "dict_type": "names with values", "model_type": "names with values",
    "model_attributes_type": "names with values", "finite_number": "a finite number",
}  # fmt: skip
PATTERNS = {
    NAME_PATTERN: "should begin with a small letter and hold only small letters, digits and _",
    "^[A-Z]{3}$": "should be three capital letters, such as EUR",
    "^[A-Z]{2}$": "should be two capital letters, such as GB",
    "^https?://": "should begin with http:// or https://",
    r"^(duckdb|sc://.+)$": "should be duckdb or a Spark Connect address such as sc://host:15002",
}
MESSAGES = {
    "missing": "is missing",
    "string_too_short": "should not be empty",
    "too_short": "should have at least {min_length}",
    "too_long": "should have at most {max_length}",
    "string_too_long": "should have at most {max_length} characters",
    "greater_than": "should be more than {gt:g}",
    "greater_than_equal": "should be at least {ge:g}",
    "less_than": "should be less than {lt:g}",
    "less_than_equal": "should be at most {le:g}",
    "value_error": "{error}",
}


def explained(
    errors: Sequence[ErrorDetails], model: type[BaseModel], document: Document
) -> Iterator[tuple[DataPath, str]]:
    """One finding per place: where a value could have been one of several things, they are named together.

    A value that came from the environment is shown as it is written, `${NAME}`: it may be a secret.
    """
    places: dict[DataPath, list[ErrorDetails]] = {}
    for error in errors:
        places.setdefault(_place(error, document.data), []).append(error)
    for path, found in places.items():
        given = document.written.get(path, found[0]["input"])
        wanted = list(dict.fromkeys(wants for error in found if (wants := _wanted(error))))
        if "a number" in wanted:
            wanted = [words for words in wanted if words != "a whole number"]
        others = [error for error in found if not _wanted(error)]
        if others:
            yield path, _message(others[0], path, given, model)
        else:
            choice = " or ".join([", ".join(wanted[:-1]), wanted[-1]] if wanted[1:] else wanted)
            yield path, f"should be {choice}, got {shown(given)}"


def _place(error: ErrorDetails, data: Any) -> DataPath:
    """Where in the document: pydantic also names the alternatives it tried, which nobody wrote."""
    location = error["loc"]
    for depth, part in enumerate(location):
        inside = part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))
        if not inside:
            return location[: depth + 1] if error["type"] == "missing" else location[:depth]
        data = data[part]
    return location


def _wanted(error: ErrorDetails) -> str | None:
    return next((words for start, words in WANTED.items() if error["type"].startswith(start)), None)


def _message(error: ErrorDetails, path: DataPath, given: Any, model: type[BaseModel]) -> str:
    context: Mapping[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return unknown("field", path[-1], fields_at([model], path[:-1]))
        case "literal_error":
            return (
                unknown("value", given, _quoted(context["expected"]))
                if isinstance(given, str)
                else (f"should be {context['expected']}, got {shown(given)}")
            )
        case "string_pattern_mismatch" if str(given).startswith("_") and context["pattern"] == NAME_PATTERN:
            return "should not begin with '_', which the pipeline keeps for its own columns"
        case "string_pattern_mismatch":
            words = PATTERNS.get(context["pattern"], f"should look like {context['pattern']}")
            return f"{words}, got {shown(given)}"
    template = MESSAGES.get(error["type"])
    if template is None:
        return error["msg"].removeprefix("Input ") + f", got {shown(given)}"
    message = template.format(**context)
    bounded = error["type"] != "value_error" and ("at " in message or "than " in message)
    return f"{message}, got {shown(given)}" if bounded else message


def _quoted(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").strip("'").split("', '")


def fields_at(models: Sequence[type[BaseModel]], path: DataPath) -> set[str]:
    """The names that may be written at a path of a document."""
    skip = False
    for part in path:
        if isinstance(part, int) or skip:
            skip = False
            continue
        every = [(name, field) for model in models for name, field in model.model_fields.items()]
        fields = [field for name, field in every if part in (name, field.alias)]
        models = [model for field in fields for model in _models_in(field.annotation)]
        skip = any(_holds_names(field.annotation) for field in fields)
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _holds_names(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_holds_names(argument) for argument in get_args(annotation))

"""What may stand in a Liquid template of a letter, and what is wrong with one. Filling it in is activation's."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from liquid import BoundTemplate, Environment
from liquid.exceptions import LiquidError

from cdp_pipeline.spec.base import unknown


class TemplateError(Exception):
    """A template that cannot be read, or that uses more than it may."""


class _Limited(Environment):
    loop_iteration_limit = 1_000
    output_stream_limit = 200_000
    local_namespace_limit = 200_000
    context_depth_limit = 20
    block_nesting_limit = 20


# No loader: a template includes nothing. In HTML a value is text and never markup, unless the template says `safe`.
_environment = _Limited(autoescape=False)
_html_environment = _Limited(autoescape=True)
_ALWAYS_THERE = {"person", "now", "today", "forloop", "empty", "blank"}


def parsed(text: str, html: bool = False) -> BoundTemplate:
    """The template, ready to be filled in; TemplateError says why it cannot be read."""
    try:
        return (_html_environment if html else _environment).from_string(text)
    except (LiquidError, RecursionError, ValueError, TypeError) as error:
        raise TemplateError(str(error).partition("\n")[0]) from error


def problems(text: str, mapped: Collection[str], person: Collection[str]) -> Iterator[str]:
    """What is wrong with a template that knows `{{ <mapped field> }}` and `{{ person.<attribute or trait> }}`."""
    try:
        template = parsed(text)
        filters, names = set(template.filter_names()), template.global_variable_segments()
    except TemplateError as error:
        yield f"template: {error}"
        return
    except (LiquidError, RecursionError) as error:
        yield f"template: {type(error).__name__}"
        return
    for name in sorted(filters - set(_environment.filters)):
        yield f"template: {unknown('filter', name, _environment.filters)}"
    for first, *rest in sorted(names, key=str):
        if first == "person" and rest and isinstance(rest[0], str) and rest[0] not in person:
            yield f"template: {unknown('attribute, trait or prediction', rest[0], person)}"
        elif first not in _ALWAYS_THERE and first not in mapped:
            yield f"template: {unknown('field of the mapping', first, {*mapped, 'person'})}"

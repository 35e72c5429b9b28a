"""Liquid templates of mails, with limits on what a template may use up. Which person goes in is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

from liquid import BoundTemplate, Environment
from liquid.exceptions import LiquidError


class TemplateError(Exception):
    """A template that cannot be read, or that uses more than it may."""


class _Limited(Environment):
    loop_iteration_limit = 1_000
    output_stream_limit = 200_000
    local_namespace_limit = 200_000
    context_depth_limit = 20
    block_nesting_limit = 20


# No loader: a template includes nothing. No autoescape: these are words in a plain-text mail, not HTML.
_environment = _Limited(autoescape=False)


@lru_cache(maxsize=256)
def _parsed(text: str) -> BoundTemplate:
    return _environment.from_string(text)


def check(text: str) -> str | None:
    """What is wrong with a template, or None."""
    try:
        _parsed(text)
    except LiquidError as error:
        return str(error)
    return None


def _liquid(values: Mapping[str, object]) -> dict[str, object]:
    """Liquid's number filters take a Decimal for no number at all and answer 0."""
    return {name: float(value) if isinstance(value, Decimal) else value for name, value in values.items()}


def render(text: str, mapped: Mapping[str, object], person: Mapping[str, object]) -> str:
    """The text with `{{ <mapped field> }}` and `{{ person.<attribute or trait> }}` filled in; unknowns stay empty."""
    try:
        return _parsed(text).render({**_liquid(mapped), "person": _liquid(person)})
    except (LiquidError, RecursionError, ValueError, TypeError, ArithmeticError) as error:
        raise TemplateError(f"template: {type(error).__name__}") from error

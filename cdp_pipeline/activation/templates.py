"""Filling in the Liquid templates of letters, within limits. What may stand in one is spec/template.py's."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

from liquid.exceptions import LiquidError

from cdp_pipeline.spec.template import TemplateError, parsed

_parsed = lru_cache(maxsize=256)(parsed)


def _liquid(values: Mapping[str, object]) -> dict[str, object]:
    """Liquid's number filters take a Decimal for no number at all and answer 0."""
    return {name: float(value) if isinstance(value, Decimal) else value for name, value in values.items()}


def render(text: str, mapped: Mapping[str, object], person: Mapping[str, object], *, html: bool = False) -> str:
    """The text with `{{ <mapped field> }}` and `{{ person.<attribute or trait> }}` filled in; unknowns stay empty.

    `html`: the text is HTML; what is filled in is shown as it is and never becomes markup.
    """
    template = _parsed(text, html)
    try:
        return template.render({**_liquid(mapped), "person": _liquid(person)})
    except (LiquidError, RecursionError, ValueError, TypeError, ArithmeticError) as error:
        raise TemplateError(f"template: {type(error).__name__}") from error

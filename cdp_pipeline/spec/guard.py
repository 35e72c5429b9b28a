"""`kind: guard`: what must be true of people for nobody to bother them, said once for all triggers of some purposes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.base import Document, Name


class Guard(Document):
    """While every rule of `when` holds for somebody, no trigger of these purposes acts for them.

    Whether the act is dropped or waits until then is the trigger's to say (`if_guarded`).
    """

    kind: Literal["guard"]
    when: Annotated[list[Rule], Field(min_length=1)]
    purposes: Annotated[list[Name], Field(min_length=1)]

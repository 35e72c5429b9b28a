"""Every type has a page, and what the pages show is what `cdp check` would take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from cdp_pipeline.spec.destination import DESTINATIONS
from cdp_pipeline.spec.documents import read_documents
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline.spec.trigger import Trigger

PAGES = Path(__file__).parents[2] / "docs" / "destinations"
MODELS = {str(each.model_fields["type"].annotation.__args__[0]): each for each in DESTINATIONS}  # type: ignore[union-attr]


def documents(page: Path) -> list[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = "---\n".join(blocks)
    environment = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "from_the_environment")
    return [each.data for each in read_documents(text, environment) if isinstance(each.data, dict)]


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_what_a_page_shows_can_be_declared(page: Path) -> None:
    shown = [each for each in documents(page) if "kind" in each]
    assert any(each["kind"] == "destination" for each in shown)
    for each in shown:
        model: Any = {"sync": Sync, "trigger": Trigger}.get(each["kind"]) or MODELS[each["type"]]
        TypeAdapter(model).validate_python(each)
        destination = next(one for one in shown if one["kind"] == "destination")
        if each["kind"] == "sync":
            declared = MODELS[destination["type"]].model_validate(destination)
            wanted = getattr(declared, declared.keyed_by) if declared.keyed_by else each["key"]
            assert each["key"] == wanted and each["key"] in each["mapping"]
            assert not declared.takes or set(each["mapping"]) <= set(declared.takes)

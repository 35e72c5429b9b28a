"""Each type has its page: what it says can be declared, says every word there is, and how the connector was tried."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import cdp_pipeline
from cdp_pipeline.spec.destination import DESTINATIONS, Destination
from cdp_pipeline_tests.destinations.kit import TYPES

PAGES = Path(cdp_pipeline.__file__).parent.parent / "docs" / "destinations"
BY_TYPE = {str(each.model_fields["type"].annotation.__args__[0]): each for each in DESTINATIONS}  # type: ignore[union-attr]
VARIABLE = re.compile(r"\$\{\w+(?::-([^}]*))?\}")
OF_SERVICES = {"url", "allow_private", "version", "revision", "token_url"}  # Told once, on the first page.


def page(kind: str) -> str:
    return (PAGES / f"{kind}.md").read_text()


def declared(text: str) -> list[dict[str, Any]]:
    """The destinations in a page's YAML, with an environment in which every variable is set."""
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.S)
    filled = (VARIABLE.sub(lambda found: found[1] or "a secret of the environment", block) for block in blocks)
    documents = [document for block in filled for document in yaml.safe_load_all(block)]
    return [each for each in documents if isinstance(each, dict) and each.get("kind") == "destination"]


@pytest.mark.parametrize("kind", TYPES)
def test_what_the_page_shows_can_be_declared(kind: str) -> None:
    shown = declared(page(kind))
    assert shown and all(BY_TYPE[kind].model_validate(each) for each in shown)


@pytest.mark.parametrize("kind", TYPES)
def test_the_page_says_every_word_that_only_this_type_has(kind: str) -> None:
    own = BY_TYPE[kind].model_fields.keys() - Destination.model_fields.keys() - OF_SERVICES
    text = page(kind)
    assert [name for name in sorted(own) if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("kind", TYPES)
def test_the_page_says_what_the_connector_was_tried_against(kind: str) -> None:
    assert re.search(r"## How it was tried|Tested\s+against", page(kind))


def test_the_first_page_leads_to_every_other_and_says_the_words_they_share() -> None:
    text = page("README")
    assert [kind for kind in TYPES if f"({kind}.md)" not in text] == []
    shared = {"dry_run", "channel", "rate", "timeout", "max_attempts", *OF_SERVICES}
    assert shared - OF_SERVICES <= Destination.model_fields.keys()
    assert [name for name in sorted(shared) if f"`{name}`" not in text] == []


def test_no_page_is_left_of_a_type_that_is_gone() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} <= {*TYPES, "README", "mail_providers"}

"""What README and docs show is true: what they declare can be declared, links lead somewhere, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

import cdp_pipeline
from cdp_pipeline.cli import app
from cdp_pipeline.spec.load import ProjectError, load_project

ROOT = Path(cdp_pipeline.__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
"""Pages about destinations have tests of their own."""


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_whatever_a_page_links_to_exists(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, part = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        headings = re.findall(r"(?m)^#+ (.*)$", found.read_text()) if part else []
        if not found.exists() or (part and part not in map(anchor, headings)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_whatever_a_page_declares_has_the_form_that_check_asks_for(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)
    shown = [block for block in blocks if re.search(r"(?m)^kind: ", block)]
    for number, block in enumerate(shown):
        (tmp_path / f"{number}.yaml").write_text(block)
    if not shown:
        pytest.skip("declares nothing")
    try:
        load_project(tmp_path, {})
    except ProjectError as found:
        # What it names is another company's; that there is no such event or source here is no fault of the page.
        assert [str(each) for each in found.problems if not re.search(r"unknown |no document of kind", str(each))] == []


def commands(group: typer.core.TyperGroup, before: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found = set()
    for name, command in group.commands.items():
        inner = isinstance(command, typer.core.TyperGroup)
        found |= commands(command, (*before, name)) if inner else {(*before, name)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_whatever_a_page_tells_to_run_is_a_command(page: Path) -> None:
    there = commands(typer.main.get_command(app))  # type: ignore[arg-type]
    groups = {command[0] for command in there if len(command) > 1}
    told = {tuple(words.split()) for words in re.findall(r"\bcdp ([a-z][a-z-]*(?: [a-z][a-z-]*)?)", page.read_text())}
    missing = {words for words in told if words[:1] not in there and words not in there and words[0] not in groups}
    missing |= {words for words in told if words[0] in groups and words[1:] and words not in there}
    assert missing == set()

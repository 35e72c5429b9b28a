"""What a project folder's problems read like (golden files), and that nothing but a ProjectError ever comes out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cdp_pipeline.spec.load import DEMO, ProjectError, load_project

GOLDEN = Path(__file__).parent / "golden"
SOUND = GOLDEN / "sound"
ENVIRONMENT = {"HOOK_SECRET": "whsec_from_the_environment"}
CASES = sorted(path.name for path in GOLDEN.iterdir() if path != SOUND)


def problems(folder: Path, environment: dict[str, str] = ENVIRONMENT) -> str:
    try:
        load_project(folder, environment)
    except ProjectError as error:
        return f"{error}\n"
    return ""


def overlaid(case: str, folder: Path) -> Path:
    """The sound project with the files of a case laid over it."""
    shutil.copytree(SOUND, folder, dirs_exist_ok=True)
    for path in (GOLDEN / case).glob("*.yaml"):
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_problems_read_as_they_did(case, tmp_path):
    expected = GOLDEN / case / "expected.txt"
    found = problems(overlaid(case, tmp_path))
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(found)
    assert found == expected.read_text()
    assert found, "a case without a problem shows nothing"


def test_a_sound_project_loads_with_everything_it_declares():
    project = load_project(SOUND, ENVIRONMENT)
    assert set(project.sources) == {"orders", "contacts"}
    assert set(project.traits) == {"orders_90d", "revenue", "last_coupon", "order_value", "good"}
    assert project.destinations["hook"].secret == ENVIRONMENT["HOOK_SECRET"]
    assert project.destinations["mail"].password is None
    assert str(project.zone) == "Europe/Berlin"
    assert project.folder == SOUND


def test_the_packaged_demo_loads_with_an_empty_environment():
    assert problems(DEMO, {}) == ""


def test_a_folder_that_is_not_there_is_one_problem(tmp_path):
    assert problems(tmp_path / "gone") == f"{tmp_path / 'gone'}:1: there is no such folder\n"


def test_files_that_cannot_be_read_are_problems(tmp_path):
    overlaid("sound", tmp_path)
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "other.yaml").write_text("- 1")
    assert problems(tmp_path).splitlines() == [
        "dangling.yaml:1: cannot be read: No such file or directory",
        "pipe.yaml:1: is not a file of at most 20 MB",
    ]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    overlaid("sound", tmp_path)
    for path in tmp_path.glob("*.yaml"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert problems(tmp_path) == ""


def test_a_secret_from_the_environment_is_never_shown(tmp_path):
    overlaid("sound", tmp_path)
    (tmp_path / "asked.yaml").write_text(
        "kind: destination\nname: asked\ndescription: x\ntype: webhook\nurl: ${HOOK_SECRET}\nsecret: ${HOOK_SECRET}\n"
        "rate: ${HOOK_SECRET}\n"
    )
    found = problems(tmp_path)
    assert "${HOOK_SECRET}" in found
    assert ENVIRONMENT["HOOK_SECRET"] not in found


def test_a_default_secret_is_let_pass_only_while_its_server_is_on_this_machine(tmp_path):
    overlaid("sound", tmp_path)
    (tmp_path / "asked.yaml").write_text(
        "kind: destination\nname: asked\ndescription: x\ntype: webhook\n"
        "url: ${HOOK_URL:-http://localhost:80}\nsecret: ${OTHER_SECRET:-demo}\n"
    )
    assert problems(tmp_path) == ""
    real = ENVIRONMENT | {"HOOK_URL": "https://hooks.example.com"}
    assert problems(tmp_path, real).startswith("asked.yaml:6: secret: holds a secret in the clear")
    assert problems(tmp_path, real | {"OTHER_SECRET": "set for real"}) == ""


def test_every_problem_is_reported_at_once_and_sorted(tmp_path):
    overlaid("sound", tmp_path)
    for case in ("field_unknown", "unknown_in_syncs", "circle_of_traits"):
        shutil.copy(GOLDEN / case / "asked.yaml", tmp_path / f"{case}.yaml")
    with pytest.raises(ProjectError) as raised:
        load_project(tmp_path, ENVIRONMENT)
    places = [(problem.file, problem.line) for problem in raised.value.problems]
    assert places == sorted(places)
    assert {file for file, _ in places} == {"circle_of_traits.yaml", "field_unknown.yaml", "unknown_in_syncs.yaml"}


def test_dagsters_own_files_in_a_project_folder_are_not_the_projects(tmp_path):
    shutil.copytree(SOUND, tmp_path, dirs_exist_ok=True)
    for name in ("dagster.yaml", "workspace.yaml"):
        place = tmp_path / "data" / "lake" / "dagster" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("storage: {}\n")
    assert problems(tmp_path) == ""

"""The house keeps its shape: one direction, Dagster in one room, light imports, words at every door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cdp_pipeline

ROOT = Path(cdp_pipeline.__file__).parent
WALK = [
    "sources", "identity", "profile", "traits", "predictions", "audiences", "consent", "activation", "destinations",
    "review",
]  # fmt: skip
BELOW = {"spec": {"spec", "shipped"}, "shipped": {"shipped", "spec"}, "lake": {"lake", "spec"}}
ON_TOP = {"orchestration", "cli", "definitions"}
MODULES = sorted(path for path in ROOT.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_a_package_imports_only_the_ones_before_it() -> None:
    wrong = []
    for path in MODULES:
        here = room(path)
        if here in ON_TOP or here == "__init__":
            continue
        allowed = BELOW.get(here) or {"spec", "shipped", "lake", *WALK[: WALK.index(here) + 1]}
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "cdp_pipeline" and len(parts) > 1 and parts[1] not in allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_only_orchestration_and_definitions_know_dagster() -> None:
    knowing = {room(path) for path in MODULES for name in imports(path) if name.split(".")[0].startswith("dagster")}
    assert knowing <= {"orchestration", "definitions"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), "open the module with one to three sentences"


def test_loading_the_code_location_imports_neither_pandas_nor_scikit_learn() -> None:
    program = (
        "import sys, cdp_pipeline.definitions;"
        "print([name for name in ('pandas', 'sklearn', 'matplotlib', 'scipy', 'pyspark') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_that_asks_the_lake_waits_for_neither_dagster_nor_sqlalchemy() -> None:
    program = (
        "import sys, cdp_pipeline.cli, cdp_pipeline.lake.query;"
        "from cdp_pipeline.orchestration.installation import lake_of;"
        "print([name for name in ('dagster', 'sqlalchemy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_of_one_machine_and_no_registry_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT.parent, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    places = ["/wor" + "k/", "/ro" + "ot/", "/ho" + "me/", "py" + "pi.org", "registry." + "npm"]
    texts = {".py", ".yaml", ".toml", ".md", ".lock", ".json", ".txt", ""}
    found = [
        f"{name}: {place}"
        for name in listed.stdout.split()
        if (path := ROOT.parent / name).suffix in texts and path.is_file()
        for place in places
        if place in path.read_text(errors="replace")
    ]
    assert found == []

"""A thousand traits and a thousand audiences: they load, every mistake among them is named, and Dagster takes them.

How long that takes is told by benchmarks/large_project.py, whose project this is; here nothing looks at a clock.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline.spec.load import ProjectError, load_project

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "large_project.py"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    if not BENCHMARK.exists():
        pytest.skip("not a git checkout")
    spec = importlib.util.spec_from_file_location("large_project", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_thousand_traits_and_audiences_become_dagster_s_assets(benchmark: Any, tmp_path: Path) -> None:
    from cdp_pipeline.orchestration.build import build_defs

    project = load_project(benchmark.write(tmp_path / "project", 1000, 1000))
    assert (len(project.traits), len(project.audiences)) == (1000, 1000)
    keys = build_defs(project).resolve_asset_graph().get_all_asset_keys()
    assert {("audiences", name) for name in project.audiences} <= {tuple(key.path) for key in keys}


def test_a_thousand_mistakes_are_a_thousand_lines_each_with_the_nearest_right_name(
    benchmark: Any, tmp_path: Path
) -> None:
    folder = benchmark.write(tmp_path / "project", 1000, 1000)
    for file in folder.glob("generated_01*.yaml"):
        file.write_text(file.read_text().replace("trait: trait_", "trait: trai_"))
    with pytest.raises(ProjectError) as error:
        load_project(folder)
    said = [str(problem) for problem in error.value.problems]
    assert len(said) == 3000
    for line in said:
        wrong = line.split("unknown trait '")[1].split("'")[0]
        assert line.endswith(f"did you mean '{wrong.replace('trai_', 'trait_')}'?")

"""A thousand traits and a thousand audiences: they load, every mistake among them is named, and Dagster takes them.

How long that takes is told by benchmarks/large_project.py, whose project this is; here nothing looks at a clock.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
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


def test_a_thousand_traits_and_audiences_make_a_lineage_that_can_be_read(benchmark: Any, tmp_path: Path) -> None:
    """The lineage page shows each group as one box until it is opened, and draws every edge of those that are."""
    from cdp_pipeline.orchestration.build import build_defs

    project = load_project(benchmark.write(tmp_path / "project", 1000, 1000))
    assert (len(project.traits), len(project.audiences)) == (1000, 1000)
    graph = build_defs(project).resolve_asset_graph()
    nodes = {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}
    parents = {name: {key.to_user_string() for key in node.parent_keys} for name, node in nodes.items()}
    groups = Counter(node.group_name for node in nodes.values())
    assert len(groups) <= 35 and max(groups.values()) <= 40, "traits are columns, audiences lie in their area's box"
    for number in range(1000):
        name = f"audiences/audience_{number:04}"
        assert nodes[name].group_name == f"audiences_area_{number // 40:02}"
        built_on = {number - 1, number // 2} if number % 10 == 9 else set()
        tables = {"traits/daily", "profile/timeline"}
        assert parents[name] == tables | {f"audiences/audience_{other:04}" for other in built_on}
        assert nodes[name].description.startswith(f"Audience {number}.\n\nIn it is whoever:\n- at least one")
    assert len(parents["audiences/members"]) == 1000
    assert all(parents[f"audiences/{name}"] == {"audiences/members"} for name in ("sizes", "changes", "held"))
    asking = dg.AssetSelection.from_string('tag:"asks/audience" and group:"audiences_area_*"').resolve(graph)
    assert len(asking) == 100


def test_a_thousand_mistakes_are_a_thousand_lines_each_with_the_nearest_right_name(
    benchmark: Any, tmp_path: Path
) -> None:
    folder = benchmark.write(tmp_path / "project", 1000, 1000)
    for file in folder.glob("audiences/*/audiences.yaml"):
        file.write_text(file.read_text().replace("trait: trait_", "trait: trai_"))
    with pytest.raises(ProjectError) as error:
        load_project(folder)
    said = [str(problem) for problem in error.value.problems]
    assert len(said) == 3000
    for line in said:
        wrong = line.split("unknown trait '")[1].split("'")[0]
        assert line.endswith(f"did you mean '{wrong.replace('trai_', 'trait_')}'?")

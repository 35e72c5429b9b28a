"""The demo's graph as Dagster sees it, written down: a change of keys, dependencies or checks shows in review."""

import os
from pathlib import Path

from cdp_pipeline.orchestration.build import build_defs
from cdp_pipeline.spec.load import load_project, project_folder

GRAPH = Path(__file__).with_name("graph.txt")


def graph_text() -> str:
    graph = build_defs(load_project(project_folder())).resolve_asset_graph()
    lines = []
    for key in sorted(graph.get_all_asset_keys(), key=str):
        node = graph.get(key)
        checks = ", ".join(sorted(check.name for check in node.check_keys))
        parents = ", ".join(sorted(parent.to_user_string() for parent in node.parent_keys))
        days = " by day" if node.partitions_def is not None else ""
        lines.append(f"{key.to_user_string()} [{node.group_name}]{days}\n  from: {parents}\n  checks: {checks}\n")
    return "".join(lines)


def test_keys_dependencies_groups_and_checks_are_as_written_down(monkeypatch) -> None:
    monkeypatch.delenv("CDP_PROJECT", raising=False)
    text = graph_text()
    if os.environ.get("REWRITE"):
        GRAPH.write_text(text)
    assert text == GRAPH.read_text(), "if this is meant, write it down: REWRITE=1 pytest " + __name__


def test_every_asset_speaks_to_a_marketer_and_has_an_owner_a_kind_and_columns(monkeypatch) -> None:
    monkeypatch.delenv("CDP_PROJECT", raising=False)
    graph = build_defs(load_project(project_folder())).resolve_asset_graph()
    groups = set()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        groups.add(node.group_name)
        assert node.description and len(node.description) > 15, key
        assert node.owners, key
        assert node.kinds, key
        if not key.path[-1].endswith("_model"):
            schema = node.metadata["dagster/column_schema"]
            assert all(column.description or key.path[0] == "sources" for column in schema.columns), key
    assert groups == {
        "sources", "identity", "profile", "traits", "predictions", "audiences", "activation", "measurement",
    }  # fmt: skip

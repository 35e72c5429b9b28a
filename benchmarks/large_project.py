# ruff: noqa: T201
"""A project of a thousand traits and a thousand audiences: how long `cdp check` and Dagster's code location take.

    python benchmarks/large_project.py [--traits 1000] [--audiences 1000]

The demo's sources, identifiers and attributes, with its traits and audiences replaced by generated ones: every kind of
evaluation over a few hundred different conditions, traits over traits, nested rules, and audiences made of audiences.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from cdp_pipeline.spec.load import DEMO

EVENTS = ["order_completed", "receipt_paid", "product_viewed", "page_viewed", "cart_added"]
WINDOWS = ["lifetime", "last 30 days", "last 3 months", "previous month", "between 60 and 30 days ago"]
OVER_EVENTS = [
    {"evaluation": "count"},
    {"evaluation": "sum", "value": "amount"},
    {"evaluation": "average", "value": "amount"},
    {"evaluation": "max", "value": "amount"},
    {"evaluation": "last", "value": "channel"},
    {"evaluation": "unique_count", "value": "product_id"},
    {"evaluation": "days_since"},
    {"evaluation": "most_frequent", "value": "category"},
]
AREA = 40
"""Audiences of one area: they lie in a folder of their own."""
IS_NUMBER = [True, True, True, True, False, True, True, False]


def documents(traits: int, audiences: int) -> list[dict[str, object]]:
    """The generated documents; of ten traits two are made of other traits, of ten audiences one of other audiences."""
    found: list[dict[str, object]] = []
    numbers: list[str] = []
    for number in range(traits):
        name = f"trait_{number:04}"
        shape = number % len(OVER_EVENTS)
        trait: dict[str, object] = {"kind": "trait", "name": name, "description": f"Generated indicator {number}."}
        if number % 10 == 8:
            trait |= {"evaluation": "ratio", "numerator": numbers[-1], "denominator": numbers[-3]}
        elif number % 10 == 9:
            one, other = numbers[-2], numbers[len(numbers) // 2]
            trait |= {"evaluation": "expression"}
            trait["expression"] = f"case when {one} > {number} then coalesce({other}, 0) * 2.0 else {one} / 3.0 end"
        else:
            trait |= OVER_EVENTS[shape] | {"event": EVENTS[number % 5], "window": WINDOWS[number // 7 % 5]}
            if number % 3:
                trait["when"] = f"amount > {number // 4} and channel in ('web', 'store', 'app')"
        found.append(trait)
        if number % 10 >= 8 or IS_NUMBER[shape]:
            numbers.append(name)
    for number in range(audiences):
        one, other, third = (numbers[(number * step) % len(numbers)] for step in (1, 3, 7))
        rules: list[dict[str, object]] = [
            {"any": [{"trait": one, "op": ">=", "value": number}, {"trait": other, "op": "is_null"}]},
            {"event": EVENTS[number % 5], "when": f"amount > {number // 5}", "window": "last 90 days", "count": 2},
            {"none": [{"trait": third, "op": "between", "value": [1, number + 2]}]},
        ]
        if number % 10 == 9:
            rules += [{"audience": f"audience_{number - 1:04}"}, {"none": [{"audience": f"audience_{number // 2:04}"}]}]
        found.append(
            {"kind": "audience", "name": f"audience_{number:04}", "description": f"Audience {number}.", "rules": rules}
        )
    return found


def write(folder: Path, traits: int, audiences: int) -> Path:
    """The project: traits in files of a hundred, audiences in a folder for each area of the business."""
    leave = shutil.ignore_patterns(
        "traits", "audiences", "activation", "predictions", "groups.yaml", "__pycache__", "*.py"
    )
    shutil.copytree(DEMO, folder, ignore=leave)
    settings = folder / "project.yaml"
    document = yaml.safe_load(settings.read_text())
    document.pop("alerts", None)
    document["shipped"] = {"traits": False, "audiences": False}
    settings.write_text(yaml.safe_dump(document))
    made = documents(traits, audiences)
    for start in range(0, traits, 100):
        _file(folder / "traits" / f"{start:05}.yaml", made[start : min(start + 100, traits)])
    for area, start in enumerate(range(traits, len(made), AREA)):
        _file(folder / "audiences" / f"area_{area:02}" / "audiences.yaml", made[start : start + AREA])
    return folder


def _file(path: Path, documents: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))


def timed(what: str, program: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    taken = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = (done.stdout.strip() or done.stderr.strip()).splitlines()
    print(f"{what:45} {taken:7.2f} s {cpu:7.2f} CPU-s   {said[-1] if said else ''}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traits", type=int, default=1000)
    parser.add_argument("--audiences", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = write(Path(place) / "project", given.traits, given.audiences)
        load = f"from cdp_pipeline.spec.load import load_project; project = load_project({str(folder)!r})"
        timed("importing cdp", "import cdp_pipeline.cli")
        timed("cdp check", f"import sys; sys.argv = ['cdp', 'check', '--project', {str(folder)!r}]; "
                           "from cdp_pipeline.cli import main; main()")  # fmt: skip
        build = "from cdp_pipeline.orchestration.build import build_defs; defs = build_defs(project); "
        graph = "graph = defs.resolve_asset_graph(); print(len(list(graph.get_all_asset_keys())), 'assets')"
        timed("Dagster: definitions and asset graph", f"{load}; {build}{graph}")


if __name__ == "__main__":
    main()

# ruff: noqa: T201
"""How well predictions do beside their rivals, on the real data sets of ../shared/data: one table of it all.

    python benchmarks/predictions.py [--only purchase value] [--data ../shared/data]

Each area is a module of prediction_sets/; the cut-offs were written down first (prediction_sets/windows.py). Intervals
are paired bootstraps over people. Writes predictions.md beside this file.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path

import prediction_sets
from prediction_sets.row import Row

HERE = Path(__file__).parent
NOT_AREAS = ("row", "windows", "shops", "binary_rivals", "item_rivals")


def table(rows: Iterable[Row]) -> str:
    lines = [
        "| what | window | measure | ours | rival | theirs | 95 % of the difference | demanded | met |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        between = "" if row.low is None or row.high is None else f"{row.low:+.4f} … {row.high:+.4f}"
        theirs = "" if row.theirs is None else f"{row.theirs:.4f}"
        met = "" if row.met is None else "yes" if row.met else "**no**"
        cells = (row.what, row.window, row.measure, f"{row.ours:.4f}", row.rival or "", theirs, between)
        lines.append("| " + " | ".join((*cells, row.demanded or "", met)) + " |")
    return "\n".join(lines)


def main() -> None:
    areas = [one.name for one in pkgutil.iter_modules(prediction_sets.__path__) if one.name not in NOT_AREAS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--only", nargs="*", choices=areas, default=areas)
    asked = parser.parse_args()
    text = []
    for area in asked.only:
        module = importlib.import_module(f"prediction_sets.{area}")
        part = f"## {module.__doc__.splitlines()[0]}\n\n{table(module.rows(asked.data))}\n"
        print(part, flush=True)
        text.append(part)
    if asked.only == areas:
        head = "# Predictions, measured\n\nWritten by `python benchmarks/predictions.py`.\n\n"
        (HERE / "predictions.md").write_text(head + "\n".join(text))


if __name__ == "__main__":
    main()

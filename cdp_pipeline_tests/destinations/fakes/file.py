"""A folder that somebody reads as the docs say: every file, in the order they came, each operation once."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.destination import File
from cdp_pipeline_tests.destinations.kit import Bench

LACKS = {"refuse": "a file is taken whole, whoever stands in it"}


def file(folder: Path, **fields: Any) -> File:
    given = {"name": "drop", "dry_run": False, "rate": 100_000, "folder": str(folder), **fields}
    return File(kind="destination", type="file", description="A drop.", **given)


def operations(files: Iterable[tuple[str, str]]) -> list[str]:
    """The ids in these files (name and text), each once."""
    found: list[str] = []
    for name, text in files:
        if name.endswith(".csv"):
            found += [row["_op_id"] for row in csv.DictReader(text.splitlines())]
        else:
            found += [json.loads(line)["op_id"] for line in text.splitlines()]
    return list(dict.fromkeys(found))


def picked_up(folder: Path) -> list[str]:
    files = sorted((path for path in folder.iterdir() if path.name[0] != "."), key=lambda path: path.stat().st_mtime_ns)
    return operations((path.name, path.read_text()) for path in files)


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    place = folder / "drop"
    place.mkdir()
    yield Bench(
        file(place),
        arrived=lambda: picked_up(place),
        absent=file(folder / "not mounted"),
        lacks={**LACKS, "wait": "a folder asks nobody to wait", "silent": "a folder answers", "locked": "no secret"},
    )

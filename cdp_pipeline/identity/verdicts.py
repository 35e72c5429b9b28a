"""What people decided about pairs of identifiers, as evidence and vetoes for people.py, and written into a project.

Values are spelled as the sources normalise them, so that a verdict meets the identifier it speaks of.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.identity.named import spellings

if TYPE_CHECKING:
    import pyarrow as pa

    from cdp_pipeline.identity.named import Identified
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.verdict import Verdict

End = tuple[str, str]
VERDICT = "verdict"


def verdict_edges(project: Project) -> pa.Table:
    """One edge per pair of identifiers that a verdict links, shaped as edges.edges(); rule and source are `verdict`.

    The record is the verdict's name, the time its day. An identifier may be spelled in several ways, by sources that
    normalise it differently: each is a pair, and what no source ever showed is for the caller to leave out.
    """
    import pyarrow as pa

    rows = {
        (one, other): (verdict.name, datetime.combine(verdict.on, time()))
        for name in sorted(project.verdicts, reverse=True)
        for verdict in [project.verdicts[name]]
        if verdict.link is not None
        for one, other in _pairs(verdict, project)
    }
    moment = pa.timestamp("us")
    return pa.table(
        {
            "type_a": pa.array([one[0] for one, _ in rows], pa.string()),
            "value_a": pa.array([one[1] for one, _ in rows], pa.string()),
            "type_b": pa.array([other[0] for _, other in rows], pa.string()),
            "value_b": pa.array([other[1] for _, other in rows], pa.string()),
            "source": pa.array([VERDICT] * len(rows), pa.string()),
            "record_id": pa.array([name for name, _ in rows.values()], pa.string()),
            "first_seen": pa.array([at for _, at in rows.values()], moment),
            "last_seen": pa.array([at for _, at in rows.values()], moment),
            "rule": pa.array([VERDICT] * len(rows), pa.string()),
            "score": pa.array([1.0] * len(rows), pa.float64()),
        }
    )


def vetoes(project: Project) -> list[tuple[End, End, str]]:
    """The pairs of identifiers that are never one person's, the smaller first, with the verdict that says so."""
    found = {
        pair: name
        for name in sorted(project.verdicts, reverse=True)
        if project.verdicts[name].unlink is not None
        for pair in _pairs(project.verdicts[name], project)
    }
    return sorted((one, other, name) for (one, other), name in found.items())


def _pairs(verdict: Verdict, project: Project) -> Iterator[tuple[End, End]]:
    (type_a, value_a), (type_b, value_b) = verdict.ends
    for a, b in product(spellings(type_a, value_a, project), spellings(type_b, value_b, project)):
        one, other = sorted([(type_a, a), (type_b, b)])
        if one != other:
            yield one, other


def with_verdicts(edges: ibis.Table, seen: ibis.Table, project: Project) -> ibis.Table:
    """The evidence with what verdicts link, where both identifiers were seen; verdicts that were in it are left out."""
    declared = ibis.memtable(verdict_edges(project))
    for end in ("a", "b"):
        known = seen.select(**{f"type_{end}": "type", f"value_{end}": "value"})
        declared = declared.semi_join(known, [f"type_{end}", f"value_{end}"])
    evidence = edges.filter(edges["rule"] != VERDICT).select(*declared.columns)
    return evidence.union(declared)


class VerdictError(ValueError):
    """A verdict that cannot be written: it is there already, or another says the contrary; the message says which."""


def new_verdict(project: Project, a: Identified, b: Identified, *, apart: bool, by: str, on: date, why: str) -> Verdict:
    """A verdict on two identifiers, named by them, so that saying it twice is noticed. The name gives nobody away."""
    from cdp_pipeline.spec.verdict import Verdict

    one, other = sorted((a.end, b.end))
    if one == other:
        raise VerdictError(f"{a} and {b} are the same identifier")
    for verdict in project.verdicts.values():
        if {one, other} in [set(pair) for pair in _pairs(verdict, project)]:
            same = (verdict.unlink is not None) == apart
            said = "says so already" if same else f"{'links them' if apart else 'keeps them apart'}: take it out first"
            raise VerdictError(f"verdict '{verdict.name}' ({verdict.by}, {verdict.on}) {said}")
    pair = [f"{type_}:{value}" for type_, value in (one, other)]
    digest = hashlib.sha256("\x1f".join([*one, *other]).encode()).hexdigest()[:10]
    return Verdict(
        kind="verdict",
        name=f"{'apart' if apart else 'together'}_{digest}",
        description="Two people, kept apart by hand." if apart else "One person, put together by hand.",
        by=by,
        on=on,
        why=why,
        link=None if apart else pair,
        unlink=pair if apart else None,
    )


def with_verdict(project: Project, verdict: Verdict) -> Project:
    """The project as it will be."""
    return replace(project, verdicts={**project.verdicts, verdict.name: verdict})


def write_verdict(folder: Path, verdict: Verdict) -> Path:
    """Append a verdict to identity/verdicts.yaml of a project; what stands there stays as it is, or nothing changes."""
    path = folder / "identity" / "verdicts.yaml"
    path.parent.mkdir(exist_ok=True)
    there = path.read_bytes() if path.exists() else b""
    between = b"" if not there.strip() else b"---\n" if there.endswith(b"\n") else b"\n---\n"
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with beside.open("wb") as file:
            file.write(there + between + _as_yaml(verdict).encode())
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _as_yaml(verdict: Verdict) -> str:
    field, pair = ("link", verdict.link) if verdict.link is not None else ("unlink", verdict.unlink)
    lines = [
        "kind: verdict",
        f"name: {verdict.name}",
        f"description: {_quoted(verdict.description)}",
        f"{field}:",
        *(f"  - {_quoted(end)}" for end in pair or []),
        f"by: {_quoted(verdict.by)}",
        f"on: {verdict.on}",
        f"why: {_quoted(verdict.why)}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Any text in one line of YAML; `$${` is how a project writes a plain `${`."""
    import yaml

    plain = text.replace("${", "$${")
    return yaml.safe_dump(plain, default_style='"', allow_unicode=True, width=float("inf")).strip()

"""What documents say about each other: names that must exist, fragments that must fit, circles. One function per kind.

A finding is a path within the document and a message; where that stands in a file is load.py's business. Nothing is
said about a name whose own document could not be read: that document has its own problem, and this would only echo it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from cdp_pipeline.spec.documents import DataPath
from cdp_pipeline.spec.references.activation import (
    consent_findings,
    contact_policy_findings,
    guard_findings,
    sync_findings,
    trigger_findings,
)
from cdp_pipeline.spec.references.declared import Declared, Findings, name_findings
from cdp_pipeline.spec.references.identity import group_findings, identifier_findings, match_findings, verdict_findings
from cdp_pipeline.spec.references.predictions import prediction_findings
from cdp_pipeline.spec.references.rules import audience_findings, audiences_read
from cdp_pipeline.spec.references.sources import attribute_findings, project_findings, source_findings
from cdp_pipeline.spec.references.traits import trait_findings
from cdp_pipeline.spec.types import traits_read


def findings(declared: Declared) -> Iterator[tuple[str, str, DataPath, str]]:
    """Everything wrong between the documents, as kind, name, path and message."""
    for kind, check in CHECKS.items():
        for name, spec in declared.of(kind).items():
            for path, message in check(spec, declared):
                yield kind, name, path, message
            for message in name_findings(kind, name):
                yield kind, name, ("name",), message
    for kind, needs in (("trait", traits_read), ("audience", audiences_read)):
        for circle in _circles({name: needs(spec) for name, spec in declared.of(kind).items()}):
            yield kind, circle[0], ("name",), f"{kind}s go round in a circle: {' -> '.join(circle)}"


def _circles(graph: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Each circle once, from its first name alphabetically back to it."""
    graph = {name: {other for other in others if other in graph} for name, others in graph.items()}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = error.args[1][:0:-1]
            start = circle.index(min(circle))
            yield [*circle[start:], *circle[: start + 1]]
            graph[circle[0]] = graph[circle[0]] - {circle[1 % len(circle)]}
        else:
            return


CHECKS: dict[str, Callable[[Any, Declared], Findings]] = {
    "project": project_findings,
    "source": source_findings,
    "identifier": identifier_findings,
    "match": match_findings,
    "attribute": attribute_findings,
    "trait": trait_findings,
    "prediction": prediction_findings,
    "audience": audience_findings,
    "trigger": trigger_findings,
    "guard": guard_findings,
    "destination": lambda destination, declared: iter(()),
    "sync": sync_findings,
    "verdict": verdict_findings,
    "group": group_findings,
    "consent": consent_findings,
    "contact_policy": contact_policy_findings,
}

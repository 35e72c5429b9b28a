"""Whether predictions fit the events, traits and people they name, and are not judged by what they learn from."""

from __future__ import annotations

from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.documents import DataPath
from cdp_pipeline.spec.prediction import EventTarget, Features, ItemFilter, Prediction, Ranking, ValueTarget
from cdp_pipeline.spec.references.declared import (
    BOOLEAN,
    Declared,
    Findings,
    column_fits,
    events_exist,
    fragment_fits,
    trait_fits,
)
from cdp_pipeline.spec.references.rules import rule_findings
from cdp_pipeline.spec.references.traits import columns_read
from cdp_pipeline.spec.types import NUMERIC, fragment_names, source_columns

REACHED_BY = ("all", "any", "none", "trait", "attribute", "event", "identifier", "reachable")
"""What may be asked of people whom a prediction is to reach: nothing that may itself ask the prediction."""


def prediction_findings(prediction: Prediction, declared: Declared) -> Findings:
    for field in ("target", "exposure", "treatment", "views"):
        target = getattr(prediction, field, None)
        if isinstance(target, EventTarget):
            yield from _event_target(target, declared, (field,))
    if isinstance(prediction, Ranking):
        if declared.all_sources_known and prediction.category not in declared.event_columns:
            yield ("category",), unknown("column of an event", prediction.category, declared.event_columns)
        for i, one in enumerate(prediction.filters):
            yield from _item_filter(one, declared, ("filters", i))
    if isinstance(prediction, Features):
        for i, name in enumerate(prediction.features):
            yield from trait_fits(name, declared, ("features", i), NUMERIC | {BOOLEAN})
        for i, name in enumerate(getattr(prediction, "slices", [])):
            yield from declared.reference("attribute", name, ("slices", i))
            yield from _told_by_features(name, prediction, declared)
    for item, rules in getattr(prediction, "reach", {}).items():
        for i, rule in enumerate(rules):
            yield from rule_findings(rule, declared, ("reach", item, i), subjects=REACHED_BY)
    for i, rule in enumerate(prediction.population):
        yield from rule_findings(rule, declared, ("population", i), subjects=("all", "any", "none", "trait"))


def _told_by_features(attribute: str, prediction: Features, declared: Declared) -> Findings:
    """Features that read a column from which an attribute is made by which the model is to be judged."""
    found = declared.of("attribute").get(attribute)
    columns = {name for one in found.sources for name in fragment_names(one.column)} if found is not None else set()
    for i, feature in enumerate(prediction.features):
        told = sorted(columns_read(feature, declared) & columns)
        if told:
            yield (
                ("features", i),
                f"'{feature}' reads {', '.join(told)}, which tells the attribute '{attribute}': what a model is judged "
                "by is never a feature",
            )


def _item_filter(one: ItemFilter, declared: Declared, path: DataPath) -> Findings:
    yield from declared.reference("source", one.source, (*path, "source"))
    source = declared.of("source").get(one.source)
    if source is not None:
        columns = source_columns(source)
        yield from column_fits(one.on, columns, (*path, "on"))
        yield from fragment_fits(one.when, columns, (*path, "when"), {BOOLEAN})


def _event_target(target: EventTarget, declared: Declared, path: DataPath) -> Findings:
    yield from events_exist(target.event, declared, (*path, "event"))
    if not declared.all_sources_known:
        return
    yield from fragment_fits(target.when, declared.event_columns, (*path, "when"), {BOOLEAN})
    if isinstance(target, ValueTarget):
        yield from fragment_fits(target.value, declared.event_columns, (*path, "value"), NUMERIC)
    for field in ("item", "same", "arm"):
        name = getattr(target, field, None)
        if name is not None and name not in declared.event_columns:
            yield (*path, field), unknown("column of an event", name, declared.event_columns)

"""Whether rules, and the audiences they make, fit what they ask: every subject, operator and value."""

from __future__ import annotations

from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.audience import SUBJECTS, Audience, Happening, Rule
from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.documents import DataPath
from cdp_pipeline.spec.operators import CHANGES, unsuited
from cdp_pipeline.spec.reach import CHANNELS, WAYS
from cdp_pipeline.spec.references.declared import (
    BOOLEAN,
    DATE,
    STRING,
    Declared,
    Findings,
    band_fits,
    column_fits,
    events_exist,
    fragment_fits,
    kind_of,
    question_fits,
    trait_fits,
    word,
    words,
)
from cdp_pipeline.spec.source import IBIS_TYPES
from cdp_pipeline.spec.types import NUMERIC, source_columns


def audience_findings(audience: Audience, declared: Declared) -> Findings:
    if declared.settings is not None and audience.cadence not in declared.settings.cadences:
        yield ("cadence",), unknown("cadence", audience.cadence, declared.settings.cadences)
    for i, rule in enumerate(audience.rules):
        yield from rule_findings(rule, declared, ("rules", i))
    yield from _tests(audience, declared)


def _tests(audience: Audience, declared: Declared) -> Findings:
    tests = audience.tests
    for field in ("must_include", "must_exclude"):
        for i, text in enumerate(getattr(tests, field)):
            yield from declared.reference("identifier", text.partition(":")[0], ("tests", field, i))
    for field in ("disjoint_from", "subset_of"):
        for i, name in enumerate(getattr(tests, field)):
            yield from declared.reference("audience", name, ("tests", field, i))
            if name == audience.name:
                yield ("tests", field, i), "an audience is not compared with itself"
    for name in tests.share_with:
        path: DataPath = ("tests", "share_with", name)
        type_ = declared.attributes.get(name, BOOLEAN)
        if name in CHANNELS or declared.unreadable("attribute", name):
            continue
        if name not in declared.of("attribute"):
            yield path, unknown("channel or attribute", name, {*CHANNELS, *declared.attributes})
        elif type_ != BOOLEAN:
            yield path, f"should be a channel or something true or false, attribute '{name}' is {word(type_)}"


def rule_findings(rule: Rule, declared: Declared, path: DataPath, subjects: tuple[str, ...] = SUBJECTS) -> Findings:
    subject = rule.subject
    if subject not in subjects:
        yield (*path, subject), f"has no place here, only {', '.join(subjects)}"
    for key in ("all", "any", "none"):
        for i, nested in enumerate(getattr(rule, key) or []):
            yield from rule_findings(nested, declared, (*path, key, i), subjects)
    if rule.trait is not None:
        yield from trait_fits(rule.trait, declared, (*path, "trait"))
        if rule.other_trait is not None:
            yield from _two_traits(rule, rule.trait, rule.other_trait, declared, path)
        else:
            yield from question_fits(rule.op, rule.value, declared.traits.get(rule.trait), rule.trait, path)
        if rule.op in CHANGES and subjects != SUBJECTS:
            yield (*path, "op"), f"'{rule.op}' has no place here, where there is no day before"
    if rule.attribute is not None:
        for field, name in (("attribute", rule.attribute), ("longitude", rule.longitude)):
            if name is not None:
                yield from declared.reference("attribute", name, (*path, field))
                yield from question_fits(rule.op, rule.value, declared.attributes.get(name), name, path)
    if rule.prediction is not None:
        yield from _prediction_rule(rule, rule.prediction, declared, path)
    if rule.band is not None:
        yield from trait_fits(rule.band, declared, (*path, "band"))
        yield from band_fits(rule.band, rule.is_, declared, (*path, "is"))
    if rule.event is not None:
        yield from happening_findings(rule, declared, path)
        yield from _figures(rule, declared, path)
    for i, step in enumerate(rule.sequence or []):
        yield from happening_findings(step, declared, (*path, "sequence", i))
    if rule.without is not None:
        yield from happening_findings(rule.without, declared, (*path, "without"))
    if declared.all_sources_known:
        yield from fragment_fits(rule.same, declared.event_columns, (*path, "same"))
    yield from _related(rule, declared, (*path, "related"))
    if rule.account is not None:
        yield from declared.reference("group", rule.account.group, (*path, "account", "group"))
        for i, nested in enumerate(rule.account.rules):
            yield from rule_findings(nested, declared, (*path, "account", "rules", i), subjects)
    yield from declared.reference("audience", rule.audience, (*path, "audience"))
    yield from declared.reference("identifier", rule.identifier, (*path, "identifier"))
    if rule.reachable is not None:
        ways = WAYS[rule.reachable].identifiers
        if not any(name in declared.of("identifier") or declared.unreadable("identifier", name) for name in ways):
            yield (*path, "reachable"), f"needs an identifier called {' or '.join(ways)}"


def happening_findings(what: Rule | Happening, declared: Declared, path: DataPath) -> Findings:
    for i, name in enumerate(what.event or []):
        place = (*path, "event", i) if len(what.event or []) > 1 else (*path, "event")
        yield from events_exist([name], declared, place)
    if declared.all_sources_known:
        yield from fragment_fits(what.when, declared.event_columns, (*path, "when"), {BOOLEAN})


def _figures(rule: Rule, declared: Declared, path: DataPath) -> Findings:
    """What is asked of the events' values: whether there are such values, and whether the question suits them."""
    for figure, of, asked in rule.measures:
        place = (*path, figure)
        if of is None:
            type_ = DATE if figure in ("first", "last") else IBIS_TYPES["integer"]
            yield from question_fits(asked.op, asked.value, type_, figure, place)
        elif declared.all_sources_known:
            wanted = NUMERIC if figure in ("sum", "average") else None
            problems = list(fragment_fits(of, declared.event_columns, (*place, "of"), wanted))
            yield from problems
            if not problems:
                type_ = IBIS_TYPES["integer"] if figure == "distinct" else expressions.check(of, declared.event_columns)
                yield from question_fits(asked.op, asked.value, type_, f"{figure} of {of}", place)


def _related(rule: Rule, declared: Declared, path: DataPath) -> Findings:
    """Whether each hop leads from columns there are to columns of the same type."""
    of_events = rule.event is not None
    before, whose = (declared.event_columns, "an event") if of_events else (declared.attributes, "a person")
    for i, hop in enumerate(rule.related or []):
        place = (*path, i)
        yield from declared.reference("source", hop.source, (*place, "source"))
        source = declared.of("source").get(hop.source)
        if not hop.on and (i or of_events):
            yield (*place, "on"), f"is missing: which column of {whose} equals which of '{hop.source}'"
        if source is None:
            return
        columns = source_columns(source)
        if not hop.on and not i and not of_events and not source.identifier_columns:
            yield (*place, "on"), f"is missing: '{hop.source}' has no identifiers to know its people by"
        for left, right in hop.on.items():
            here = (*place, "on", left)
            if not i and not of_events:
                yield from declared.reference("attribute", left, here)
            elif left not in before and (i or declared.all_sources_known):
                yield here, unknown(f"column of {whose}", left, before)
            yield from column_fits(right, columns, here)
            one, other = before.get(left), columns.get(right)
            if one is not None and other is not None and one != other:
                yield here, f"should be of one type, '{left}' is {word(one)} and '{right}' is {word(other)}"
        yield from fragment_fits(hop.when, columns, (*place, "when"), {BOOLEAN})
        before, whose = columns, f"'{hop.source}'"


def _prediction_rule(rule: Rule, name: str, declared: Declared, path: DataPath) -> Findings:
    yield from declared.reference("prediction", name, (*path, "prediction"))
    types = {"score": IBIS_TYPES["number"], "rank": IBIS_TYPES["integer"], "band": STRING}
    problems = list(question_fits(rule.op, rule.value, types[rule.field], name, path))
    yield from problems
    prediction = declared.of("prediction").get(name)
    if prediction is not None and prediction.over_items and rule.item is None:
        yield path, f"needs 'item': '{name}' has a score for each of several"
    if prediction is not None and not prediction.over_items and rule.item is not None:
        yield (*path, "item"), f"has no place here: '{name}' has one score per person"
    if rule.field == "band" and prediction is not None and not problems and rule.op in ("=", "!=", "in", "not_in"):
        bands = [band.name for band in prediction.bands]
        for value in rule.value if isinstance(rule.value, list) else [rule.value]:
            if value not in bands:
                yield (*path, "value"), unknown("band", value, bands)


def _two_traits(rule: Rule, name: str, other: str, declared: Declared, path: DataPath) -> Findings:
    """Whether two traits are of one kind, and the operator suits it."""
    yield from trait_fits(other, declared, (*path, "value", "trait"))
    one, two = declared.traits.get(name), declared.traits.get(other)
    said = unsuited(str(rule.op), kind_of(one), name, word(one)) if one is not None else None
    if said is not None:
        yield (*path, "op"), said
    elif one is not None and two is not None and kind_of(one) != kind_of(two):
        wanted = words(NUMERIC) if one in NUMERIC else word(one)
        yield (*path, "value", "trait"), f"should be {wanted} like '{name}', trait '{other}' is {word(two)}"


def audiences_read(audience: Audience) -> set[str]:
    waiting, found = list(audience.rules), set()
    while waiting:
        rule = waiting.pop()
        found |= {rule.audience} if rule.audience is not None else set()
        waiting += rule.inner
    return found

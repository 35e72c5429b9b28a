"""Whether identifiers, matches, groups and verdicts fit what they name."""

from __future__ import annotations

from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.documents import DataPath
from cdp_pipeline.spec.group import Group, RollUp, Way
from cdp_pipeline.spec.identifier import Identifier
from cdp_pipeline.spec.match import Match
from cdp_pipeline.spec.references.declared import BOOLEAN, STRING, Declared, Findings, column_fits, name_findings, word
from cdp_pipeline.spec.types import NUMERIC, UNION, source_columns
from cdp_pipeline.spec.verdict import Verdict


def identifier_findings(identifier: Identifier, declared: Declared) -> Findings:
    if identifier.people_by is not None and identifier.shared_above is None:
        yield ("people_by",), "needs shared_above, the number of people one value may have"
    for i, name in enumerate(identifier.people_by or ()):
        yield from declared.reference("identifier", name, ("people_by", i))
        other = declared.of("identifier").get(name)
        if other is not None and other.priority <= identifier.priority:
            weaker = f"{identifier.name} (priority {identifier.priority})"
            yield ("people_by", i), f"should be stronger than {weaker}, '{name}' has {other.priority}"


def match_findings(match: Match, declared: Declared) -> Findings:
    for i, comparison in enumerate(match.compare):
        for j, name in enumerate(comparison.attributes):
            path = (
                "compare",
                i,
                comparison.kind,
                *((j,) if isinstance(getattr(match.compare[i], comparison.kind), list) else ()),
            )
            yield from declared.reference("attribute", name, path)
            if declared.attributes.get(name) == UNION:
                yield path, f"a union of values cannot be compared, '{name}' is one"
    yield from match.disagreements()


def group_findings(group: Group, declared: Declared) -> Findings:
    for i, way in enumerate(group.by):
        yield from _way(way, declared, ("by", i))
    for i, figure in enumerate(group.rollup):
        yield from _roll_up(figure, declared, ("rollup", i))


def _way(way: Way, declared: Declared, path: DataPath) -> Findings:
    for j, name in enumerate(way.same or []):
        yield from declared.reference("attribute", name, (*path, "same", j))
        if declared.attributes.get(name) == UNION:
            yield (*path, "same", j), f"should be one value, '{name}' is {word(UNION)}"
    yield from declared.reference("attribute", way.email_domain, (*path, "email_domain"))
    type_ = declared.attributes.get(way.email_domain or "", STRING)
    if type_ != STRING:
        yield (*path, "email_domain"), f"should be string, '{way.email_domain}' is {word(type_)}"
    yield from declared.reference("identifier", way.identifier, (*path, "identifier"))
    yield from declared.reference("source", way.source, (*path, "source"))
    if way.column is not None and way.source is not None and way.source in declared.of("source"):
        yield from column_fits(way.column, source_columns(declared.of("source")[way.source]), (*path, "column"))
    directory = way.directory
    if directory is not None:
        path = (*path, "directory")
        yield from declared.reference("source", directory.source, (*path, "source"))
        if directory.source in declared.of("source"):
            columns = source_columns(declared.of("source")[directory.source])
            yield from column_fits(directory.key, columns, (*path, "key"))
            if directory.name is not None:
                yield from column_fits(directory.name, columns, (*path, "name"), {STRING})
            if directory.parent is not None:
                yield from column_fits(directory.parent, columns, (*path, "parent"))


def _roll_up(figure: RollUp, declared: Declared, path: DataPath) -> Findings:
    for message in name_findings("rollup", figure.name):
        yield (*path, "name"), message
    yield from declared.reference("trait", figure.trait, (*path, "trait"))
    yield from declared.reference("attribute", figure.attribute, (*path, "attribute"))
    kind, name = ("trait", figure.trait) if figure.trait is not None else ("attribute", figure.attribute)
    type_ = (declared.traits if kind == "trait" else declared.attributes).get(name or "")
    if type_ is None:
        return
    if figure.evaluation in ("sum", "average") and type_ not in NUMERIC:
        yield (*path, kind), f"should be a number, {kind} '{name}' is {word(type_)}"
    elif figure.evaluation in ("any", "all", "none", "at_least", "share") and type_ != BOOLEAN:
        yield (*path, kind), f"should be true or false, {kind} '{name}' is {word(type_)}"
    elif figure.evaluation in ("min", "max") and type_ in (BOOLEAN, UNION):
        yield (*path, kind), f"should be something with an order, {kind} '{name}' is {word(type_)}"


def verdict_findings(verdict: Verdict, declared: Declared) -> Findings:
    field = "link" if verdict.link is not None else "unlink"
    for i, (type_, _) in enumerate(verdict.ends):
        if type_ not in declared.of("identifier") and not declared.unreadable("identifier", type_):
            yield (field, i), unknown("identifier type", type_, declared.of("identifier"))
    about = _about(verdict, declared)
    if len(about) == 1:
        yield (field, 1), "is the same identifier as the first"
    for other in declared.of("verdict").values():
        if field == "unlink" and other.link is not None and _about(other, declared) == about:
            yield (field,), f"verdict '{other.name}' links the same two"


def _about(verdict: Verdict, declared: Declared) -> set[tuple[str, str]]:
    """The two identifiers, with capitals left out of account where a source leaves them out."""
    columns = [column for source in declared.of("source").values() for column in source.columns.values()]
    plain = {column.identifier for column in columns if column.normalise in ("email", "lower", "upper", "postcode")}
    return {(type_, value.casefold() if type_ in plain else value) for type_, value in verdict.ends}

"""The SQL of an audience, for people to read and for `cdp sql` to run: whom it holds at the end of a day."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.rules import Scope, columns_of, every_rule, leaves, matching
from cdp_pipeline.audiences.waterfall import conditions, sentence
from cdp_pipeline.spec.audience import Rule

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project

LONGEST = 50
KEYWORDS = "SELECT keyword_name, keyword_category FROM duckdb_keywords()"


def sql_of(project: Project, name: str, scope: Scope, day: date) -> str:
    """One SELECT in DuckDB's dialect over the lake's tables: person_id and day. What is asked stands above it."""
    import sqlglot
    from sqlglot.optimizer import eliminate_subqueries, merge_subqueries, pushdown_projections, qualify

    whole = Rule(audience=name)
    unbound, schema = _unbound(scope)
    text = str(ibis.to_sql(matching(project, [whole], unbound, [day]), dialect="duckdb"))
    try:
        tree: Any = sqlglot.parse_one(text, dialect="duckdb")
        tree = qualify.qualify(tree, schema=schema, dialect="duckdb", quote_identifiers=False)
        tree = pushdown_projections.pushdown_projections(tree, schema=schema)
        tree = merge_subqueries.merge_subqueries(tree)
        said = _plain(eliminate_subqueries.eliminate_subqueries(tree)).sql(dialect="duckdb", pretty=True)
    except sqlglot.errors.SqlglotError:
        said = text  # Something the optimiser does not know: longer to read, and as true.
    for column, words in _names(project, whole).items():
        said = re.sub(rf"\b{column}\b", words, said)
    asked = [sentence(rule).replace("*/", "* /") for rule in conditions(project.audiences[name].rules)]
    # No line comment in front: `cdp sql "$(cdp audience sql …)"` would take it for an option.
    head = "\n     ".join([f"/* {name}, at the end of {day}: people of whom all of these hold", *asked])
    return f"{head} */\n{said}"


def _plain(tree: Any) -> Any:
    """The same query without what only machines write: quotes nobody needs, `TRUE AND`, tables called t17."""
    import duckdb
    from sqlglot import exp

    reserved = {word for word, category in duckdb.sql(KEYWORDS).fetchall() if category == "reserved"}
    for both in reversed(list(tree.find_all(exp.And))):
        for side, other in ((both.left, both.right), (both.right, both.left)):
            if isinstance(side, exp.Boolean) and side.this:
                both.replace(other)
                break
    for select in tree.find_all(exp.Select):
        tables = [one for one in select.find_all(exp.Table) if one.parent_select is select]
        names = [one.name for one in tables]
        for table in tables:
            alias = table.alias
            if table.db and names.count(table.name) == 1 and table.name not in [other.alias for other in tables]:
                table.set("alias", None)
                for column in select.find_all(exp.Column):
                    if column.table == alias and column.parent_select is select:
                        column.set("table", exp.to_identifier(table.name))
            elif alias == table.name:
                table.set("alias", None)
    for name in tree.find_all(exp.Identifier):
        plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name.name) and name.name not in reserved
        name.set("quoted", not plain)
    for one in tree.find_all(exp.Alias):
        if isinstance(one.this, exp.Column) and one.this.name == one.alias:
            one.replace(one.this)
    return tree


def _unbound(scope: Scope) -> tuple[Scope, dict[str, Any]]:
    """The same tables by the names they have in the lake, with no lake behind them."""
    places = {
        "traits": "traits.daily", "customers": "profile.customers", "bands": "traits.bands",
        "timeline": "profile.timeline", "identifiers": "identity.identifiers", "groups": "identity.group_members",
    }  # fmt: skip
    schema: dict[str, Any] = {}

    def named(table: ibis.Table, place: str) -> ibis.Table:
        folder, name = place.split(".")
        types = {column: str(type_) for column, type_ in table.schema().items()}
        schema.setdefault(folder, {})[name] = types
        return ibis.table(table.schema(), name=name, database=folder)

    given: dict[str, Any] = {
        one.name: named(table, places[one.name])
        for one in fields(scope)
        if one.name in places and (table := getattr(scope, one.name)) is not None
    }
    for one in ("predictions", "sources"):
        given[one] = {name: named(table, f"{one}.{name}") for name, table in getattr(scope, one).items()}
    return replace(scope, **given), schema


def _names(project: Project, whole: Rule) -> dict[str, str]:
    """Words for the columns whose names are numbers nobody can read."""
    found: dict[str, str] = {}
    for rule in leaves(every_rule(project, [whole])):
        for column in columns_of(rule):
            if re.search(r"_[0-9a-f]{16}(_|$)", column) and column not in found:
                words = re.sub(r"[^a-z0-9]+", "_", sentence(rule).lower()).strip("_")[:LONGEST].strip("_")
                taken = sum(other == words or other.startswith(f"{words}_") for other in found.values())
                found[column] = words if not taken else f"{words}_{taken + 1}"
    return found

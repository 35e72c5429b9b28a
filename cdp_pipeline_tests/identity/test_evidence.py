"""What is read off source rows: identifiers seen, pairs seen together, and whose a row is. Against loops over rows."""

from __future__ import annotations

import ibis
from hypothesis import given, settings

from cdp_pipeline.identity.edges import edges
from cdp_pipeline.identity.rows import person_of_rows
from cdp_pipeline.identity.seen import identifiers_seen, seen
from cdp_pipeline_tests.identity.shop import (
    CRM,
    IDENTIFIERS,
    TYPES,
    WEB,
    Row,
    edges_table,
    ibis_tables,
    moments,
    pairs,
    persons,
    project,
    resolved,
    rows,
    source,
    tables,
)

few = settings(max_examples=10)


@few
@given(rows(most=25))
def test_every_identifier_on_every_row_is_seen(found: list[Row]) -> None:
    result = seen(ibis_tables(found), project())
    by_hand = [(row.source, row.record_id, *one, row.at) for row in found for one in row.identifiers]
    assert sorted(tuple(line.values()) for line in result.to_pyarrow().to_pylist()) == sorted(by_hand)
    summary = {(row["type"], row["value"]): row for row in identifiers_seen(result).to_pyarrow().to_pylist()}
    assert {one: (row["first_seen"], row["last_seen"]) for one, row in summary.items()} == moments(found)


@few
@given(rows(most=25))
def test_pairs_on_one_row_are_edges_once_per_source_with_their_earliest_row(found: list[Row]) -> None:
    result = edges(ibis_tables(found), project()).to_pyarrow()
    assert {tuple(row.values())[:5]: tuple(row.values())[5:8] for row in result.to_pylist()} == pairs(found)
    assert result.num_rows == len(pairs(found))
    assert result.column_names == edges_table(found).column_names
    assert set(result["rule"].to_pylist()) <= {"same_row"} and set(result["score"].to_pylist()) <= {1.0}


def test_two_columns_of_one_type_pair_their_values_but_not_a_value_with_itself() -> None:
    columns = {
        name: {"type": "string", "identifier": "email"} for name in ("mail", "billing_mail")
    } | {"id": {"type": "string"}, "at": {"type": "timestamp"}}  # fmt: skip
    both = source("both", columns=columns, occurred_at="at")
    base = tables([Row("web", 1, 0), Row("web", 2, 1), Row("web", 3, 2)])["web"].select(
        ["id", "at", "_record_id", "_occurred_at", "_loaded_at"]
    )
    table = base.append_column("mail", [["b@x.de", "a@x.de", "c@x.de"]]).append_column(
        "billing_mail", [["a@x.de", "b@x.de", "c@x.de"]]
    )
    result = edges({"both": ibis.memtable(table)}, project(sources={"both": both})).to_pyarrow().to_pylist()
    assert [(row["value_a"], row["value_b"], row["record_id"]) for row in result] == [("a@x.de", "b@x.de", "web0001")]


def test_versions_of_a_snapshot_row_are_rows_of_their_own() -> None:
    found = [
        Row("crm", 1, 0, customer=1, mail="old@example.com", until=5),
        Row("crm", 1, 5, customer=1, mail="new@example.com"),
    ]
    result = edges(ibis_tables(found), project()).to_pyarrow().to_pylist()
    assert {(row["value_a"], row["value_b"]) for row in result} == {("1", "old@example.com"), ("1", "new@example.com")}


def test_a_row_without_a_time_of_its_own_was_seen_when_it_was_loaded() -> None:
    table = ibis_tables([Row("web", 1, 0, mail="ann@example.com")])["web"]
    timeless = table.mutate(_occurred_at=ibis.null("timestamp(6)"))
    (row,) = seen({"web": timeless}, project()).to_pyarrow().to_pylist()
    assert f"{row['at']:%Y-%m-%d}" == "2026-02-10"


def test_a_project_whose_sources_name_nobody_has_no_evidence() -> None:
    nobody = source("weather", columns={"id": {"type": "string"}}, mode="snapshot")
    of = project(sources={"weather": nobody})
    table = ibis_tables([Row("web", 1, 0)])["web"]
    assert seen({"weather": table}, of).count().to_pyarrow().as_py() == 0
    assert edges({"weather": table}, of).count().to_pyarrow().as_py() == 0
    assert person_of_rows(table, nobody, ibis.memtable(resolved([]).identifiers), of)["person_id"].type().is_string()


@few
@given(rows(most=25))
def test_a_row_is_its_strongest_identifiers_person_and_no_row_is_lost(found: list[Row]) -> None:
    result = resolved(found)
    whose = persons(result)
    status = {(row["type"], row["value"]): row["status"] for row in result.identifiers.to_pylist()}
    strongest_first = sorted(TYPES.items(), key=lambda name: -IDENTIFIERS[name[1]].priority)

    def by_hand(row: Row) -> str | None:
        ones = [(type_, str(getattr(row, name))) for name, type_ in strongest_first if getattr(row, name) is not None]
        own = [one for one in ones if status[one] == "ok"] + [one for one in ones if status[one] == "shared"]
        return whose[own[0]] if own else None

    for spec, table in ((WEB, "web"), (CRM, "crm")):
        rows_of = person_of_rows(ibis_tables(found)[table], spec, ibis.memtable(result.identifiers), project())
        lines = rows_of.to_pyarrow().to_pylist()
        expected = {row.record_id: by_hand(row) for row in found if row.source == table}
        assert len(lines) == len(expected)
        assert {line["_record_id"]: line["person_id"] for line in lines} == expected

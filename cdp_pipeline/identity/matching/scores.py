"""Splink's engine room: people prepared in an in-memory DuckDB, and pairs of them scored by a learned model.

What a model is and when it is learned belongs to model.py. Splink is imported here and there only, inside functions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cdp_pipeline.identity.matching.comparisons import Compared
from cdp_pipeline.identity.matching.evidence import Patterns

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

MEMORY = "350MB"
"""What DuckDB may take before it spills to disk; the whole process stays below a gigabyte."""
AT_ONCE = 250_000
"""Pairs scored in one go."""


class SplinkMissingError(RuntimeError):
    """A match is declared and Splink is not installed."""

    def __init__(self, match: str) -> None:
        super().__init__(f"match {match}: needs Splink, which is not installed: pip install 'splink==5.0.0'")
        self.match = match


def need_splink(match: str) -> None:
    """Raises SplinkMissingError where Splink cannot be imported."""
    try:
        import splink  # noqa: F401
    except ModuleNotFoundError as missing:
        raise SplinkMissingError(match) from missing


@contextmanager
def engine(people: pa.Table, found: list[Compared]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the table `people`: unique_id (the row's number), is_new, and the prepared columns.

    `people` is in the order that numbers it and may have a boolean `is_new`. What Splink would log is not heard.
    """
    import tempfile

    import duckdb
    import pyarrow as pa

    prepared = {name: sql for one in found for name, sql in one.columns.items()}
    columns = ", ".join(f'{sql} as "{name}"' for name, sql in prepared.items())
    is_new = "is_new" if "is_new" in people.column_names else "true"
    heard = logging.getLogger("splink")
    level = heard.level
    with tempfile.TemporaryDirectory() as spill:
        # Two threads: more would each keep buffers of their own.
        settings: dict[str, Any] = {
            "memory_limit": MEMORY,
            "threads": 2,
            "temp_directory": spill,
            "preserve_insertion_order": "false",
        }
        connection = duckdb.connect(config=settings)
        try:
            heard.setLevel(logging.CRITICAL)
            numbers = pa.array(range(people.num_rows), pa.int32())
            connection.register("people_given", people.append_column("unique_id", numbers))
            connection.execute(
                f"create table people as select unique_id, {is_new} as is_new, {columns} from people_given"
            )
            connection.unregister("people_given")
            yield connection
        finally:
            heard.setLevel(level)
            connection.close()


def rare_columns(found: list[Compared]) -> list[str]:
    """The prepared columns whose rarity counts."""
    return sorted({level.rare for one in found for level in one.levels if level.rare is not None})


def linker(
    connection: duckdb.DuckDBPyConnection, settings: Mapping[str, Any], frequencies: pa.Table | None = None
) -> Any:
    """A Splink linker over `people`, with the frequencies of values as they were learned (column, value, share).

    A value that was not there then is as rare as the rarest that was: `share` of the row with value null.
    """
    from splink import DuckDBAPI, Linker

    interface = DuckDBAPI(connection)
    made = Linker(
        interface.register("people", dataset_display_name="people"), dict(settings), log_level=None,
        validate_settings=False,
    )  # fmt: skip
    if frequencies is not None:
        connection.register("frequencies", frequencies)
        for column in sorted(set(frequencies["column"].to_pylist())):
            connection.execute(
                f"""create or replace temp table known_{column} as
                select p.value as "{column}", coalesce(f.share, rarest.share) as "tf_{column}"
                from (select distinct "{column}" as value from people where "{column}" is not null) p
                left join frequencies f on f.value = p.value and f."column" = '{column}'
                cross join (select share from frequencies where "column" = '{column}' and value is null) rarest"""
            )
            made.table_management.register_term_frequency_lookup(interface.register(f"known_{column}"), column)
    return made


def score(
    connection: duckdb.DuckDBPyConnection,
    settings: Mapping[str, Any],
    frequencies: pa.Table,
    pairs: str,
    least: float | None = None,
    columns: str = '"unique_id_l" as l, "unique_id_r" as r, match_weight as weight',
) -> pa.Table:
    """The pairs of the table `pairs` (l < r) that reach the weight `least` in bits, with the columns asked for.

    In slices, so that memory stays bounded whatever the number of pairs.
    """
    import pyarrow as pa

    made = linker(connection, settings, frequencies)
    total = connection.sql(f"select count(*) from {pairs}").fetchall()[0][0]
    slices = max(1, -(-total // AT_ONCE))
    scored = []
    for place in range(slices):
        connection.execute(
            "create or replace temp table slice_ as select '0' as match_key, l as join_key_l, r as join_key_r "
            f"from {pairs} where (l + r) % {slices} = {place}"
        )
        made.table_management.register_blocked_pairs_for_predict(made._db_api.register("slice_"))
        predicted = made.inference.predict(threshold_match_weight=least, warning_mode="never")
        scored.append(connection.sql(f"select {columns} from {predicted.physical_name}").to_arrow_table())
        predicted.drop_table_from_database_and_remove_from_cache()
    return pa.concat_tables(scored)


def patterns(
    connection: duckdb.DuckDBPyConnection,
    settings: Mapping[str, Any],
    frequencies: pa.Table,
    pairs: str,
    least: float | None = None,
) -> Patterns:
    """How the pairs of a table agree, in the order of their rows; `least` leaves out hopeless ones."""
    import numpy as np

    count = len(settings["comparisons"])
    columns = ["unique_id_l as l", "unique_id_r as r"]
    for place, one in enumerate(settings["comparisons"]):
        columns.append(f"gamma_c{place}::tinyint as level{place}")
        top = len(one["comparison_levels"]) - 2
        rare = {
            top - at: level["tf_adjustment_column"]
            for at, level in enumerate(one["comparison_levels"][1:])
            if level.get("tf_adjustment_column")
        }
        cases = " ".join(
            f'when {at} then -log2(greatest("tf_{column}_l", "tf_{column}_r"))' for at, column in rare.items()
        )
        columns.append((f"case gamma_c{place} {cases} end" if rare else "null") + f"::float as rarity{place}")
    table = score(connection, settings, frequencies, pairs, least, ", ".join(columns)).sort_by(
        [("l", "ascending"), ("r", "ascending")]
    )
    numbers = {name: table[name].to_numpy() for name in ("l", "r", *(f"level{place}" for place in range(count)))}
    rarity = [table[f"rarity{place}"].to_numpy().astype(np.float64) for place in range(count)]
    return Patterns(numbers["l"], numbers["r"], [numbers[f"level{place}"] for place in range(count)], rarity)


def pairs_inside(connection: duckdb.DuckDBPyConnection, part: np.ndarray, into: str) -> None:
    """Fill the table `into` with every pair of rows of one part (the part of each row, by its number)."""
    import numpy as np
    import pyarrow as pa

    together = np.flatnonzero(np.bincount(part, minlength=len(part))[part] > 1)
    connection.register("parts_", pa.table({"id": together.astype(np.int32), "part": part[together]}))
    connection.execute(
        f"create or replace temp table {into} as "
        "select l.id as l, r.id as r from parts_ l join parts_ r on l.part = r.part and l.id < r.id"
    )
    connection.unregister("parts_")

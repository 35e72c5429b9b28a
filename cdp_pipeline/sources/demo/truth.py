"""What is really so: who is who, how people drift, which dirt was put where. Collected on the way."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from cdp_pipeline.sources.demo.dirt import PLANTED
from cdp_pipeline.sources.demo.people import (
    CHANNELS,
    CUSTOMER,
    CUSTOMER_AGAIN,
    EMAIL,
    EMAIL_AGAIN,
    KINDS,
    LOYALTY,
    NEVER,
    PHONE,
    SLOTS,
    TYPES,
    People,
    bits,
)  # fmt: skip
from cdp_pipeline.sources.demo.text import Numbers, constant, dates

_SECOND_ACCOUNT = int(bits(CUSTOMER_AGAIN) | bits(EMAIL_AGAIN))


class Evidence:
    """Which identifiers of a person were ever seen, and seen together, on a row that survives."""

    def __init__(self, people: int) -> None:
        self.together = np.zeros((people, SLOTS), np.uint16)
        self.borrowed = np.zeros(people, np.uint16)

    def record(self, person: Numbers, mask: Numbers) -> None:
        """Rows speak of `person` with the identifiers in `mask`; rows about nobody in particular have mask 0.

        Borrowed is what the next person uses too: the family's computer, a phone number, a computer second-hand.
        """
        named = mask > 0
        pairs = np.unique(person[named].astype(np.uint64) << np.uint64(32) | mask[named].astype(np.uint64))
        who, mask = (pairs >> np.uint64(32)).astype(np.int64), pairs.astype(np.uint32)
        seen, borrowed = mask.astype(np.uint16), (mask >> 16).astype(np.uint16)
        lenders = borrowed > 0
        np.bitwise_or.at(self.borrowed, who[lenders] - 1, borrowed[lenders])
        for slot in range(SLOTS):
            has = (seen >> slot & 1).astype(bool)
            np.bitwise_or.at(self.together, (who[has], slot), seen[has])

    def seen(self, who: slice) -> Numbers:
        """One bit per slot that occurs in the data, by its owner or by somebody else."""
        return np.bitwise_or.reduce(self.together[who], axis=1) | self.borrowed[who]

    def reachable(self, who: slice) -> Numbers:
        """One bit per slot that a chain of rows ties to the person's strongest identifier.

        Neither what others use too nor a second shop account is a tie: one person may have one customer number.
        """
        together = self.together[who]
        outside = self.borrowed[who] | np.uint16(_SECOND_ACCOUNT)
        seen = np.bitwise_or.reduce(together, axis=1) & ~outside
        reached = np.zeros(len(together), np.uint16)
        for slot in (CUSTOMER, LOYALTY, EMAIL, PHONE, *range(SLOTS)):
            first = np.uint16(bits(slot))
            reached = np.where((reached == 0) & (seen & first > 0), first, reached)
        for _ in range(SLOTS):
            before = reached.copy()
            for slot in range(SLOTS):
                reached |= np.where(reached >> slot & 1, together[:, slot] & ~outside, 0).astype(np.uint16)
            if (before == reached).all():
                break
        return reached


class DirtLedger:
    """How many rows of which file got which kind of dirt."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str, str], int] = {}
        self.rates: dict[tuple[str, str], float] = {}

    def add(self, kind: str, source: str, file: str, rate: float, count: int) -> None:
        self.rates[kind, source] = rate
        if count:
            self.counts[kind, source, file] = self.counts.get((kind, source, file), 0) + count


def write(folder: Path, people: People, evidence: Evidence, dirt: DirtLedger, tablets: list[str], first: date) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_people(folder / "people.csv", people)
    _write_persons(folder / "persons.csv", people, first)
    _write_identifiers(folder / "identifiers.csv", people, evidence, tablets)
    with (folder / "dirt.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["kind", "source", "file", "rate", "count"])
        for (kind, source, path), count in sorted(dirt.counts.items()):
            rows.writerow([kind, source, path, dirt.rates[kind, source], count])


def _writer(path: Path, columns: list[str], types: dict[str, pa.DataType]) -> pa_csv.CSVWriter:
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    return pa_csv.CSVWriter(path, schema, write_options=pa_csv.WriteOptions(quoting_style="needed"))


def _write_people(path: Path, people: People) -> None:
    with _writer(path, ["customer", "person"], {"person": pa.int64()}) as out:
        for block in people.blocks():
            who = np.arange(block.start, block.stop)
            for slot, some in (
                (CUSTOMER, people.kind[block] == 0),
                (CUSTOMER_AGAIN, people.second_account[block] < NEVER),
            ):
                chosen = who[some]
                out.write_table(pa.table({"customer": people.identifier(slot, chosen), "person": pa.array(chosen)}))


def _write_persons(path: Path, people: People, first: date) -> None:
    columns = [
        "person", "kind", "joined_on", "churn_day", "won_back_day", "discount_effect", "preferred_hour",
        "preferred_channel", "buying_rate", "household", "company",
    ]  # fmt: skip
    numbers = {
        "person": pa.int64(), "discount_effect": pa.float64(), "preferred_hour": pa.int64(),
        "buying_rate": pa.float64(), "household": pa.int64(), "company": pa.int64(),
    }  # fmt: skip
    start = (first - date(1970, 1, 1)) / timedelta(days=1)
    with _writer(path, columns, numbers) as out:
        for block in people.blocks():
            who = np.arange(block.start, block.stop)
            days = {
                name: np.where(values[block] < NEVER, values[block] + start, 0)
                for name, values in (
                    ("joined_on", people.joined),
                    ("churn_day", people.churn),
                    ("won_back_day", people.won_back),
                )
            }
            out.write_table(
                pa.table(
                    {
                        "person": who,
                        "kind": pa.array(KINDS).take(pa.array(people.kind[block])),
                        **{
                            name: pa.array(dates(values).to_numpy(False), mask=values == 0, type=pa.string())
                            for name, values in days.items()
                        },
                        "discount_effect": people.discount_effect[block].astype(np.float64).round(3),
                        "preferred_hour": people.hour[block].astype(np.int64),
                        "preferred_channel": pa.array(CHANNELS).take(pa.array(people.channel[block])),
                        "buying_rate": people.buying[block].astype(np.float64).round(5),
                        "household": np.where(people.household[block], who // 2 * 2, who),
                        "company": pa.array(people.company[block].astype(np.int64), mask=people.company[block] < 0),
                    }
                ).select(columns)
            )


def _write_identifiers(path: Path, people: People, evidence: Evidence, tablets: list[str]) -> None:
    """One row per identifier that occurs in the data. `reachable` says whether any evidence ties it to its person.

    First those that are nobody's, whether they occur or not: the tablets in the stores and the planted values.
    """
    columns = ["type", "value", "person", "shared", "reachable", "why"]
    types = {"person": pa.int64(), "shared": pa.bool_(), "reachable": pa.bool_()}
    with _writer(path, columns, types) as out:
        nobodys = [("anonymous_id", tablet, "tablet in a store, used by many") for tablet in tablets]
        nobodys += [(one.column, value, one.why) for one in PLANTED.values() for value in one.values.values()]
        kinds, values, why_nobodys = (list(cells) for cells in zip(*nobodys, strict=True))
        rows = len(nobodys)
        out.write_table(
            pa.table(
                {
                    "type": kinds,
                    "value": values,
                    "person": pa.nulls(rows, pa.int64()),
                    "shared": [True] * rows,
                    "reachable": [False] * rows,
                    "why": why_nobodys,
                }
            )
        )
        for block in people.blocks():
            seen, reachable, borrowed = evidence.seen(block), evidence.reachable(block), evidence.borrowed[block]
            for slot in range(SLOTS):
                chosen = np.flatnonzero(seen >> slot & 1)
                shared = (borrowed[chosen] >> slot & 1).astype(bool)
                tied = (reachable[chosen] >> slot & 1).astype(bool)
                who = chosen + block.start
                why = np.select(
                    [
                        shared & ~people.household[who],
                        shared,
                        tied,
                        np.full(len(chosen), slot in (CUSTOMER_AGAIN, EMAIL_AGAIN)),
                    ],
                    [
                        "second-hand, used by one person and then by another",
                        "used by several people",
                        "",
                        "second account, and one person may have one customer number",
                    ],
                    "never on a row with another identifier of this person",
                )
                out.write_table(
                    pa.table(
                        {
                            "type": constant(TYPES[slot], len(who)),
                            "value": people.identifier(slot, who),
                            "person": who,
                            "shared": shared,
                            "reachable": tied & ~shared,
                            "why": pa.array(why, pa.string()),
                        }
                    )
                )

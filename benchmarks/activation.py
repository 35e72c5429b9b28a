# ruff: noqa: T201
"""Deliveries a second to a webhook on loopback with the ledger on, beside plain httpx; the diff of a large audience.

    python benchmarks/activation.py [--single 4000] [--batched 100000] [--members 1000000] [--permitted 100000]
        [--postgres]

The receiver is a process of its own and does nothing but answer. Ours claims from a SQLite ledger with every commit on
disk, signs, sends, and settles with what the destination then holds; httpx only sends the same bodies, on 16 lines.
As in an installation (orchestration/deliveries.py), garbage is collected after many new objects, not every 700.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa

from cdp_pipeline.activation import claims
from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.gates import ContactGates
from cdp_pipeline.activation.ledger import Ledger, Op, open_ledger, operation_id
from cdp_pipeline.activation.plan import SyncPlan
from cdp_pipeline.activation.protocol import Outcome, canonical_json
from cdp_pipeline.activation.refresh import plan_sync
from cdp_pipeline.activation.schema import acknowledged
from cdp_pipeline.activation.sync import approve, submit
from cdp_pipeline.activation.unchanged import compare
from cdp_pipeline.consent.ledger import Said, open_consents
from cdp_pipeline.consent.subjects import LakeSubjects, everybody
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake import Mirror, open_lake
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.orchestration.deliveries import COLLECTED_AFTER
from cdp_pipeline.spec.project import LakeLocation, Project
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline_tests.activation.projects import NOW, project, sync, trigger, webhook
from cdp_pipeline_tests.activation.taking import take
from cdp_pipeline_tests.conftest import running_postgres
from cdp_pipeline_tests.consent.people import EMAIL, PHONE, consent, policy

LINES, BATCH = 16, 100
ZONES = {"GB": "Europe/London", "US": "Europe/Berlin"}
CUSTOMERS = Table(
    "profile.customers", "People.", {name: Column("string") for name in ("person_id", "country")}, key=("person_id",)
)


class Answering(asyncio.Protocol):
    """Just enough HTTP to take a POST with a length and say 200."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.heard = transport, b""

    def data_received(self, data: bytes) -> None:
        self.heard += data
        while (end := self.heard.find(b"\r\n\r\n")) >= 0:
            head = self.heard[:end].lower()
            start = head.index(b"content-length:") + len(b"content-length:")
            length = int(head[start:].split(b"\r\n", 1)[0])
            if len(self.heard) < end + 4 + length:
                return
            self.heard = self.heard[end + 4 + length :]
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")  # type: ignore[attr-defined]


def answer(ready: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def body(number: int) -> dict[str, object]:
    data = {"email": f"customer{number}@example.com", "tier": "gold", "revenue": 12.5 * number, "orders": number % 9}
    return {"type": "sync.vips", "key": f"customer{number}@example.com", "member": True, "data": data}


def timed(name: str, records: int, work: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.monotonic(), time.process_time()
    work()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{name}: {records / wall:,.0f} records/s, {records / cpu:,.0f} a CPU second", flush=True)
    return records / wall, records / cpu


def plain(url: str, bodies: list[bytes]) -> None:
    import httpx

    async def line(client: httpx.AsyncClient, waiting: list[bytes]) -> None:
        while waiting:
            (await client.post(url, content=waiting.pop())).raise_for_status()

    async def lines() -> None:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=LINES), timeout=60) as client:
            await asyncio.gather(*(line(client, bodies) for _ in range(LINES)))

    asyncio.run(lines())


def ours(ledger: Ledger, url: str, records: int, batch: int) -> Callable[[], None]:
    name = f"hook{batch}"
    whole = project(webhook(url, name=name, batch=batch, rate=1e9))
    ops = [
        Op(operation_id(name, n), "sync:vips", name, f"p{n}", "add", body(n), key=f"customer{n}@example.com")
        for n in range(records)
    ]

    def decide() -> None:
        ledger.send_once(ops, NOW)

    timed("  enqueued before", records, decide)
    ops.clear()

    def work() -> None:
        done = deliver(
            ledger, whole, now=NOW, connect=destination_for, limit=records, budget=timedelta(minutes=9), only=[name]
        ).totals
        assert done == {"delivered": records}, done

    return work


def throughput(folder: Path, single: int, batched: int) -> None:
    ready, theirs = multiprocessing.Pipe()
    receiver = multiprocessing.get_context("spawn").Process(target=answer, args=(theirs,), daemon=True)
    receiver.start()
    url = f"http://127.0.0.1:{ready.recv()}/hook"
    bodies = [canonical_json(body(number)).encode() for number in range(max(single, batched))]
    joined = [b"[" + b",".join(bodies[start : start + BATCH]) + b"]" for start in range(0, batched, BATCH)]
    try:
        with open_ledger(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger:
            httpx_one = timed("httpx, single", single, lambda: plain(url, bodies[:single]))
            ours_one = timed("ours, single", single, ours(ledger, url, single, 1))
            httpx_many = timed(f"httpx, batches of {BATCH}", batched, lambda: plain(url, joined))
            ours_many = timed(f"ours, batches of {BATCH}", batched, ours(ledger, url, batched, BATCH))
    finally:
        receiver.kill()
    for name, one, other in (("single", ours_one, httpx_one), ("batched", ours_many, httpx_many)):
        print(f"{name}: ours / httpx {one[0] / other[0]:.2f} by wall, {one[1] / other[1]:.2f} by CPU")


def members(first: int, last: int, shift: float) -> pa.Table:
    ids = range(first, last)
    return pa.table(
        {
            "person_id": [f"cdp_{n:022d}" for n in ids],
            "email": [f"customer{n}@example.com" for n in ids],
            "tier": ["gold" if n % 3 else "silver" for n in ids],
            "spent": [n % 1000 + (shift if n % 100 == 0 else 0.0) for n in ids],
        }
    )


def carry_out(ledger: Ledger, found: SyncPlan) -> None:
    if submit(ledger, found, dry_run=False, now=NOW).state == "held":
        approve(ledger, found.plan_id, by="benchmark", now=NOW)
    now = NOW
    while True:
        claim = take(ledger, now, limit=5000, max_attempts=5, rate=1e9)
        if not claim.ops:
            return
        now += timedelta(seconds=1)
        outcomes = [Outcome(one.delivery.op_id, "delivered", "HTTP 200", code=200) for one in claim.ops]
        claims.settle(ledger, claim, outcomes, now=now, max_attempts=5)


def put_there(ledger: Ledger, vips: Sync, people: pa.Table) -> None:
    """As if all of them had been delivered, without the hour of delivering them."""
    found = compare(vips, people, "")
    same = {
        "sync": vips.name,
        "destination": vips.destination,
        "payload_hash": "0" * 64,
        "certain": True,
        "present": True,
    }
    at = NOW.replace(tzinfo=None)
    rows = (
        {**same, "key": row["email"], "person_id": one, "op_id": one, "fingerprint": found.fingerprints[one], "at": at}
        for one, row in found.people.items()
    )
    with ledger.writing() as connection:
        while some := list(islice(rows, 50_000)):
            connection.execute(acknowledged.insert(), some)


def difference(folder: Path, size: int) -> None:
    vips = sync(mapping={"mail": "email", "tier": "tier", "spent": "spent"}, key="mail")
    with open_ledger(f"sqlite:///{folder / 'first.sqlite'}") as ledger:
        found: list[SyncPlan] = []
        few, people = size // 20, members(0, size // 20, 0)
        timed(f"first plan of {few:,}", few, lambda: found.append(plan_sync(ledger, vips, people)))
        timed("enqueued, claimed and settled", few, lambda: carry_out(ledger, found.pop()))
    with open_ledger(f"sqlite:///{folder / 'diff.sqlite'}") as ledger:
        people = members(0, size, 0)
        put_there(ledger, vips, people)
        later = members(size // 200, size + size // 200, 1)
        for name, now in (("1 % changed, 0.5 % left, 0.5 % came", later), ("nobody changed", people)):
            wall, cpu = time.monotonic(), time.process_time()
            plan = plan_sync(ledger, vips, now)
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            kinds = dict(plan.counts)
            print(f"{size:,}, {name}: {wall:.2f} s, {cpu:.2f} CPU-s; {kinds}, {plan.unchanged:,} unchanged", flush=True)


def known_people(folder: Path, people: int) -> None:
    """A lake in which everybody has an address, a number and a country."""
    ids, at = [f"cdp_{n:022d}" for n in range(people)], NOW.replace(tzinfo=None)
    owned = {
        "type": ["email"] * people + ["phone"] * people,
        "value": [f"customer{n}@example.com" for n in range(people)] + [f"+44{n}" for n in range(people)],
        "person_id": ids * 2, "id": list(range(2 * people)), "first_seen": [at] * 2 * people,
        "last_seen": [at] * 2 * people, "status": ["ok"] * 2 * people,
    }  # fmt: skip
    known = {"person_id": ids, "kind": ["known"] * people, "created_at": [at] * people, "identifiers": [2] * people}
    lives = {"person_id": ids, "country": ["GB" if n % 4 else "US" for n in range(people)]}
    with open_lake(LakeLocation(path="lake"), base=folder) as lake:
        lake.publish(Mirror(PEOPLE, table(PEOPLE, known)), Mirror(IDENTIFIERS, table(IDENTIFIERS, owned)),
                     Mirror(CUSTOMERS, table(CUSTOMERS, lives)))  # fmt: skip


def table(declared: Table, given: dict[str, list[object]]) -> pa.Table:
    """Rows of a table of which only some columns are known."""
    rows = len(given["person_id"])
    return pa.table(
        {
            one.name: pa.array(given[one.name], one.type) if one.name in given else pa.nulls(rows, one.type)
            for one in declared.schema.to_pyarrow()
        }
    )


def permitting(url: str) -> Project:
    """Letters and members of a sync that may only be sent to who agreed, and letters not too often nor at night."""
    return project(
        webhook(url, name="letters", channel="email", batch=BATCH, rate=1e9),
        webhook(url, name="ads", batch=BATCH, rate=1e9),
        trigger(name="offer", purpose="marketing", do=[{"destination": "letters"}]),
        sync(
            name="vips", destination="ads", purpose="marketing", key="email",
            mapping={"email": "email", "tier": "tier", "revenue": "revenue", "orders": "orders"},
        ),
        EMAIL, PHONE, consent(jurisdiction="country"),
        policy(
            caps=[{"purposes": ["marketing"], "most": 3, "within": "7 days"}],
            quiet_hours=[{"from": "21:00", "to": "08:00", "zone": "country", "zones": ZONES}],
            controls=[{"name": "year", "share": 0.02, "triggers": ["offer"]}],
            budgets=[{"channel": "email", "most": 10_000_000, "within": "30 days"}],
        ),
    )  # fmt: skip


def worker(folder: Path, address: str, url: str, only: str, limit: int, now: datetime, line: Connection) -> None:
    """Delivers as a process of its own once it is told to."""
    whole = permitting(url)
    with (
        open_ledger(address) as ledger,
        open_lake(LakeLocation(path="lake"), base=folder, read_only=True) as lake,
    ):
        gates = ContactGates(ledger, whole, open_consents(ledger), LakeSubjects(lambda: everybody(lake, whole)))
        gates.barred(whole.syncs["vips"], members(0, 1, 0), whole.destinations["ads"], NOW)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTED_AFTER)
        line.send(None)
        line.recv()
        cpu = time.process_time()
        done = deliver(
            ledger, whole, now=now, connect=destination_for, limit=limit, budget=timedelta(minutes=9), only=[only],
            gates=gates,
        ).totals  # fmt: skip
        line.send((done, time.process_time() - cpu))


def permitted(folder: Path, people: int, address: str | None) -> None:
    """With consent and a contact policy declared: records delivered a second by one worker and by two."""
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    ready, theirs = multiprocessing.Pipe()
    receiver = context.Process(target=answer, args=(theirs,), daemon=True)
    receiver.start()
    url = f"http://127.0.0.1:{ready.recv()}/hook"
    known_people(folder, people)
    address = address or f"sqlite:///{folder / 'ledger.sqlite'}"
    with open_ledger(address) as ledger:
        consents = open_consents(ledger)
        consents.record((
            Said(f"{about}{n}", ("email", f"customer{n}@example.com"), about, "granted", NOW, "benchmark")
            for n in range(people) for about in ("purpose:marketing", "channel:email")
        ), NOW)  # fmt: skip
        try:
            for n, (workers, only) in enumerate([(1, "letters"), (2, "letters"), (1, "ads"), (2, "ads")]):
                now = NOW + n * timedelta(minutes=20)  # no earlier than the destination is free again
                ledger.send_once([of_person(workers, only, one) for one in range(people)], NOW)
                lines = []
                for _ in range(workers):
                    ours, its = context.Pipe()
                    args = (folder, address, url, only, people, now, its)
                    context.Process(target=worker, args=args, daemon=True).start()
                    ours.recv()
                    lines.append(ours)
                began = time.monotonic()
                for one in lines:
                    one.send(None)
                told = [one.recv() for one in lines]
                wall, cpu = time.monotonic() - began, sum(each for _, each in told)
                done = sum((each for each, _ in told), Counter[str]())
                assert done.total() == people, done
                print(
                    f"{only} with consent and a contact policy, batches of {BATCH}, workers: {workers}: "
                    f"{people / wall:,.0f} records/s, {people / cpu:,.0f} a CPU second of the workers; {dict(done)}",
                    flush=True,
                )
        finally:
            receiver.kill()
        with open_lake(LakeLocation(path="lake"), base=folder, read_only=True) as lake:
            whole = permitting(url)
            gates = ContactGates(ledger, whole, consents, LakeSubjects(lambda: everybody(lake, whole)))
            everyone, barred = members(0, people, 0), list[dict[str, str]]()
            sort, tool = whole.syncs["vips"], whole.destinations["ads"]
            timed("whom a sync is barred from", people, lambda: barred.append(gates.barred(sort, everyone, tool, NOW)))
            assert barred == [{}], len(barred[0])


def of_person(time_around: int, destination: str, n: int) -> Op:
    op_id, person, key = operation_id(time_around, destination, n), f"cdp_{n:022d}", f"{time_around}:{n}"
    if destination == "ads":
        return Op(op_id, "sync:vips", "ads", person, "add", body(n), key=key)
    payload = {"to": f"customer{n}@example.com", "data": body(n)["data"]}
    return Op(op_id, "trigger:offer", "letters", person, "act", payload, occasion=key, key=key)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--single", type=int, default=4_000)
    asked.add_argument("--batched", type=int, default=100_000)
    asked.add_argument("--members", type=int, default=1_000_000)
    asked.add_argument("--permitted", type=int, default=100_000)
    asked.add_argument("--postgres", action="store_true", help="The part with consent on Postgres too.")
    given = asked.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)
    with tempfile.TemporaryDirectory() as folder:
        for size, measure in (
            (given.batched, lambda: throughput(Path(folder), given.single, given.batched)),
            (given.members, lambda: difference(Path(folder), given.members)),
            (given.permitted, lambda: permitted(Path(folder) / "permitted", given.permitted, None)),
        ):
            if size:
                measure()
        if given.postgres:
            with running_postgres(fsync=True) as address:
                print("The same on Postgres, every commit on disk:", flush=True)
                permitted(Path(folder) / "on_postgres", given.permitted, address)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

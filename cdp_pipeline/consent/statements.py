"""What people say in the sources, carried into the consent ledger: once, in the order it was said, as it is loaded.

Which rows say what is declared (`said:` and `suppressed:` of the consent document).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, time
from typing import Any

import ibis
import sqlalchemy as sa

from cdp_pipeline.consent.ledger import ConsentLedger, Decision, Said, Suppression, consent_loads
from cdp_pipeline.lake.lake import Lake
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.consent import Consent, Exclusion, Statement
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.reach import WAYS
from cdp_pipeline.spec.source import Source


def catch_up(ledger: ConsentLedger, lake: Lake, project: Project, now: datetime) -> dict[str, int]:
    """Write down what the sources say and the ledger has not heard yet; how much was new, by source.

    Costs one query where the lake is the one that was listened to last.
    """
    consent, new = project.consent, dict[str, int]()
    if consent is None:
        return new
    listened = _listened(ledger)
    version = f"{lake.catalog}:{lake.snapshot}"
    parts: list[Statement | Exclusion] = [*consent.said, *consent.suppressed]
    for part in parts:
        source = project.sources[part.source]
        until, seen = listened.get(key := _key(ledger, part, consent, source), (None, ""))
        if seen == version or not lake.exists(source_table(source).name):
            continue
        rows = lake.local.read(source_table(source))
        newest = rows._loaded_at.max().to_pyarrow().as_py()
        if newest is not None and newest != until:
            found = _told(rows, part, source, until)
            if isinstance(part, Statement):
                count = ledger.record(_said(ledger, part, consent, source, found, project), now)
            else:
                count = ledger.suppress(_excluded(ledger, part, source, found))
            new[source.name] = new.get(source.name, 0) + count
        _note(ledger, key, newest, version)
    return new


def _key(ledger: ConsentLedger, part: Statement | Exclusion, consent: Consent, source: Source) -> str:
    """What is listened to: where that changes, all that was ever said is heard anew, and written down once."""
    of = [(name, source.identifier_columns[name]) for name in _columns(part, source)]
    about = _about(part, consent) if isinstance(part, Statement) else []
    return ledger.fingerprint(("statement", json.dumps([type(part).__name__, part.model_dump_json(), of, about])))


def _listened(ledger: ConsentLedger) -> dict[str, tuple[datetime | None, str]]:
    with ledger.database.reading() as connection:
        return {row.statement: (row.loaded_until, row.lake) for row in connection.execute(sa.select(consent_loads))}


def _note(ledger: ConsentLedger, key: str, until: datetime | None, version: str) -> None:
    with ledger.database.writing("consents") as connection:
        connection.execute(consent_loads.delete().where(consent_loads.c.statement == key))
        connection.execute(consent_loads.insert(), {"statement": key, "loaded_until": until, "lake": version})


def _told(rows: ibis.Table, part: Statement | Exclusion, source: Source, until: datetime | None) -> ibis.Table:
    """The rows that say something: record_id, at, decision, proof, first (no copy before), and of__<column>.

    Of a full copy, a row says something when it says something else than its copy before, or of somebody else.
    """
    scope = {name: rows[name] for name in source.columns}
    decision = expressions.compile(part.decision, scope) if isinstance(part, Statement) else ibis.literal(True)
    proof = getattr(part, "proof", None)
    snapshot = source.mode == "snapshot"
    counts = ibis.literal(True) if part.when is None else expressions.compile(part.when, scope)
    told = rows.select(
        record_id=rows["_record_id"],
        loaded_at=rows["_loaded_at"],
        at=rows["_valid_from"] if snapshot else ibis.coalesce(rows["_occurred_at"], rows["_loaded_at"]),
        decision=counts.ifelse(decision, ibis.null("boolean")),
        proof=ibis.null("string") if proof is None else expressions.compile(proof, scope).cast("string"),
        **{f"of__{name}": rows[name].cast("string") for name in _columns(part, source)},
    )
    told = told.mutate(first=ibis.literal(snapshot))
    if snapshot:
        before = ibis.window(group_by="record_id", order_by="at")
        names = ("decision", *(f"of__{name}" for name in _columns(part, source)))
        told = told.mutate(
            first=told.at.lag().over(before).isnull(),
            changed=ibis.or_(*(~told[name].identical_to(told[name].lag().over(before)) for name in names)),
        )
        told = told.filter(told["first"] | told.changed).drop("changed")
    told = told.filter(told.decision.notnull())
    return told if until is None else told.filter(told.loaded_at >= ibis.literal(until))


def _columns(part: Statement | Exclusion, source: Source) -> list[str]:
    """The columns whose identifiers it is about: those named, else a suppressed channel's addresses, else all."""
    if part.of:
        return part.of
    every = source.identifier_columns
    way = WAYS[part.channel] if isinstance(part, Exclusion) and part.channel is not None else None
    return [name for name, type_ in every.items() if way is not None and type_ in way.identifiers] or list(every)


def _each(part: Statement | Exclusion, source: Source, found: ibis.Table) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Type and value of an identifier, with the row that speaks of it."""
    for batch in found.to_pyarrow_batches(chunk_size=50_000):
        for row in batch.to_pylist():
            for name in _columns(part, source):
                if row[f"of__{name}"] is not None:
                    yield source.identifier_columns[name], row[f"of__{name}"], row


def _said(
    ledger: ConsentLedger, part: Statement, consent: Consent, source: Source, found: ibis.Table, project: Project
) -> Iterator[Said]:
    about = _about(part, consent)
    # A yes that was there when we first saw the row may be of any age: it outweighs nothing that was said elsewhere.
    beginning = datetime.combine(project.settings.first_day, time(), UTC)
    for type_, value, row in _each(part, source, found):
        decision: Decision = "granted" if row["decision"] else "denied"
        if part.signal == "gpc":
            if not row["decision"]:
                continue
            decision = "denied"
        at = row["at"].replace(tzinfo=UTC)
        at = min(at, beginning) if row["first"] and decision == "granted" else at
        for each in about:
            yield Said(
                _event(ledger, row, type_, value, each, decision), (type_, value), each, decision, at, source.name,
                row["proof"] if part.signal is None else "Sec-GPC",
            )  # fmt: skip


def _about(part: Statement, consent: Consent) -> list[str]:
    if part.signal == "gpc":
        return [f"purpose:{name}" for name, purpose in consent.purposes.items() if purpose.shares]
    return [f"purpose:{part.purpose}"] if part.purpose is not None else [f"channel:{part.channel}"]


def _excluded(ledger: ConsentLedger, part: Exclusion, source: Source, found: ibis.Table) -> Iterator[Suppression]:
    for type_, value, row in _each(part, source, found):
        event_id = _event(ledger, row, type_, value, part.channel or "", part.reason)
        at = row["at"].replace(tzinfo=UTC)
        yield Suppression(event_id, (type_, value), part.reason, at, source.name, part.channel)


def _event(ledger: ConsentLedger, row: dict[str, Any], *parts: str) -> str:
    """The same word of the same row has the same id, and tells nobody whose it is."""
    return ledger.fingerprint(("event", json.dumps([row["record_id"], str(row["at"]), *parts])))

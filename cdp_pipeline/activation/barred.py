"""Whom a sync must not put anywhere: what gates.py asks before something is sent, asked of a whole audience at once.

What everybody says is found in SQL, a million people in seconds; what follows from it is left to the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa

from cdp_pipeline.activation.controls import concerned
from cdp_pipeline.activation.turns import REFUSED
from cdp_pipeline.consent.ledger import ConsentLedger, Decision, Heard, Reason
from cdp_pipeline.consent.permissions import refusal
from cdp_pipeline.consent.subjects import Everybody
from cdp_pipeline.spec.contact_policy import Control
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.sync import Sync

GONE = f"{REFUSED}nobody has this id any more"
NOBODY, NO_GROUP = -1, -1
# What somebody says, a bit each, so that all their identifiers say is one number.
ABOUT = {("purpose", "granted"): 1, ("purpose", "denied"): 2, ("channel", "granted"): 4, ("channel", "denied"): 8}
EXCLUDED: dict[Reason, int] = {"erasure": 16, "manual": 32, "complaint": 64, "bounce": 128}


def barred_people(
    known: Everybody | None, consents: ConsentLedger, project: Project, sync: Sync, people: pa.Table,
    destination: Destination, now: datetime,
) -> dict[str, str]:  # fmt: skip
    """Of some people (`person_id` and what the mapping names) those who must not be sent there, by id, and why."""
    if known is None:
        return dict.fromkeys(people["person_id"].to_pylist(), GONE)
    connection, policy = known.connection, project.contact_policy
    groups = [] if policy is None else concerned(policy.controls, f"sync:{sync.name}", sync.purpose)
    inner, outer = consents.pads
    given: dict[str, object] = {"inner": inner, "outer": outer}
    for n, group in enumerate(groups):
        given |= {f"group{n}": group.name, f"share{n}": group.share}
    # Only text is an identifier: what a field of another type holds is nobody's address.
    texts = {one.name for one in people.schema if pa.types.is_string(one.type) or pa.types.is_large_string(one.type)}
    written = sorted(texts & set(sync.mapping.values()) & project.identifiers.keys())
    query = _facts(known, written, len(groups), None if project.consent is None else project.consent.jurisdiction)
    connection.register("_asked", people)
    connection.register("_voices", _voices(consents, sync.purpose, destination.channel, now))
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE _judged AS {query}", given)
        facts = connection.execute("SELECT DISTINCT said, place, held FROM _judged").fetchall()
        whys = [(*one, _reason(project, sync, destination, groups, *one)) for one in facts]
        refused = [one for one in whys if one[3] is not None]
        kinds = {"said": pa.int32(), "place": pa.string(), "held": pa.int32(), "why": pa.string()}
        columns = [pa.array([one[n] for one in refused], kind) for n, kind in enumerate(kinds.values())]
        connection.register("_refused", pa.table(columns, names=[*kinds]))
        found = connection.execute(
            """SELECT j.asked, r.why FROM _judged j
               JOIN _refused r ON r.said = j.said AND r.held = j.held AND r.place IS NOT DISTINCT FROM j.place"""
        ).to_arrow_table()
    finally:
        for name in ("_asked", "_voices", "_refused"):
            connection.unregister(name)
        connection.execute("DROP TABLE IF EXISTS _judged")
    return dict(zip(found["asked"].to_pylist(), found["why"].to_pylist(), strict=True))


def _facts(known: Everybody, written: Sequence[str], groups: int, jurisdiction: str | None) -> str:
    """Per person asked what all their identifiers say (`said`), where they live and which control group holds them.

    `written`: the columns that hold the addresses themselves, each called as its type is.
    """
    addresses = "".join(
        f"""
            UNION ALL SELECT person_id, '{name}', "{name}", true FROM _asked WHERE "{name}" <> ''"""
        for name in written
    )
    addressed = " OR ".join(["false", *(f"""coalesce("{name}", '') <> ''""" for name in written)])
    cases = " ".join(
        f"WHEN ('0x' || left(sha256($group{n} || ':' || l.person_id), 16))::UBIGINT::DOUBLE / pow(2.0, 64) < $share{n} "
        f"THEN {n}"
        for n in range(groups)
    )
    held = f"CASE {cases} ELSE {NO_GROUP} END" if cases else str(NO_GROUP)
    lives = jurisdiction in known.names
    place = f'SELECT person_id, "{jurisdiction}"::VARCHAR AS place FROM {known.attributes}'
    return f"""
        WITH living AS MATERIALIZED (
            SELECT a.person_id AS asked, coalesce(p.merged_into, p.person_id) AS person_id, {addressed} AS addressed
            FROM _asked a JOIN (SELECT person_id, merged_into FROM {known.people}) p ON p.person_id = a.person_id),
        owned AS MATERIALIZED (
            SELECT l.asked, i.type, i.value
            FROM living l JOIN (SELECT person_id, type, value FROM {known.identifiers}) i USING (person_id)),
        names AS (
            SELECT asked, type, value, false AS written FROM owned{addresses}),
        prints AS (
            SELECT asked, written, sha256($outer || unhex(sha256($inner || encode(type || ':' || value)))) AS subject
            FROM names),
        heard AS (
            SELECT asked, bit_or(
                CASE WHEN says = {EXCLUDED["bounce"]} AND addressed AND NOT written THEN 0 ELSE says END) AS said
            FROM prints JOIN _voices USING (subject) JOIN living USING (asked) GROUP BY asked)
        SELECT
            a.person_id AS asked, CASE WHEN o.asked IS NULL THEN {NOBODY} ELSE coalesce(h.said, 0) END AS said,
            {"place" if lives else "NULL::VARCHAR"} AS place, {held} AS held
        FROM _asked a
        LEFT JOIN living l ON l.asked = a.person_id
        LEFT JOIN (SELECT DISTINCT asked FROM owned) o ON o.asked = a.person_id
        LEFT JOIN heard h ON h.asked = a.person_id
        {f"LEFT JOIN ({place}) t ON t.person_id = l.person_id" if lives else ""}"""


def _voices(consents: ConsentLedger, purpose: str | None, channel: str | None, now: datetime) -> pa.Table:
    """`subject` and what is said under it about this purpose and this channel: `says`, one bit a row."""
    parts = [
        (subjects, ABOUT[about.partition(":")[0], decision])
        for about, decision, subjects in consents.all_words([f"purpose:{purpose}", f"channel:{channel}"], now)
    ]
    parts += [
        (subjects, EXCLUDED[reason])
        for reason, by, subjects in consents.all_suppressed(now)
        if by is None or by == channel
    ]
    empty = pa.table({"subject": pa.array([], pa.string()), "says": pa.array([], pa.int32())})
    tables = [
        pa.table({"subject": subjects, "says": pa.repeat(pa.scalar(bit, pa.int32()), len(subjects))})
        for subjects, bit in parts
    ]
    return pa.concat_tables([empty, *tables])


def _reason(
    project: Project, sync: Sync, destination: Destination, groups: Sequence[Control], said: int, place: str | None,
    held: int,
) -> str | None:  # fmt: skip
    """What follows for all of whom this holds: as if one identifier said all that theirs do."""
    if said == NOBODY:
        return GONE
    names = {"purpose": f"purpose:{sync.purpose}", "channel": f"channel:{destination.channel}"}
    words: tuple[Decision, ...] = ("granted", "denied")
    # The no is written over the yes: it outweighs it.
    decisions = {names[sort]: word for word in words for sort in names if said & ABOUT[sort, word]}
    heard = Heard(decisions, [(reason, None) for reason, bit in EXCLUDED.items() if said & bit])
    reason = refusal(project.consent, sync.purpose, destination.channel, [(True, heard)], place)
    if reason is None and held != NO_GROUP:
        reason = f"control group: {groups[held].name}"
    return None if reason is None else REFUSED + reason

"""Who said yes or no to what, and who must not be contacted: written down once, never changed, asked at any instant.

Identifiers are kept as salted hashes only, so that what was said survives merges and erasure. What follows from it is
permissions.py's; whose the identifiers are is subjects.py's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

Identifier = tuple[str, str]
"""Type and value."""
Decision = Literal["granted", "denied"]
Reason = Literal["erasure", "manual", "bounce", "complaint"]
PORTION = 5_000
HASH = 64
Item = TypeVar("Item")

metadata = sa.MetaData()
"""All tables of the database: activation/schema.py declares its own here too, and makes and migrates them all."""
WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""Numbers rows: SQLite does so by itself for its own kind of whole number only."""
consent_events = sa.Table(
    "consent_events",
    metadata,
    sa.Column("sequence", WHOLE, primary_key=True, autoincrement=True),
    sa.Column("event_id", sa.String(64), nullable=False, unique=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("subject", sa.String(64), nullable=False),
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("decision", sa.String(16), nullable=False),
    sa.Column("jurisdiction", sa.Text),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("proof", sa.Text),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("recorded_at", sa.DateTime, nullable=False),
    # All that is asked before something is sent: the answer is in the index itself.
    sa.Index("consent_events_words", "subject", "about", "at", "decision"),
)
suppressions = sa.Table(
    "suppressions",
    metadata,
    sa.Column("sequence", WHOLE, primary_key=True, autoincrement=True),
    sa.Column("event_id", sa.String(64), nullable=False, unique=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("subject", sa.String(64), nullable=False, index=True),
    sa.Column("channel", sa.Text),
    sa.Column("reason", sa.String(16), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("proof", sa.Text),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("lifted_at", sa.DateTime),
)
consent_salt = sa.Table(
    "consent_salt",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    # Empty where the salt is held elsewhere; the fingerprint then tells whether it is still the same.
    sa.Column("salt", sa.Text),
    sa.Column("fingerprint", sa.String(64), nullable=False),
)
consent_loads = sa.Table(
    "consent_loads",
    metadata,
    sa.Column("statement", sa.String(64), primary_key=True),
    sa.Column("loaded_until", sa.DateTime),
    sa.Column("lake", sa.Text, nullable=False),
)


class ConsentError(Exception):
    """The consent ledger cannot be used like this."""


class Database(Protocol):
    """The database the delivery ledger lives in."""

    def reading(self) -> AbstractContextManager[Connection]: ...

    def writing(self, lock: str | None = None) -> AbstractContextManager[Connection]: ...


@dataclass(frozen=True)
class Said:
    """One identifier's yes or no. `about` is purpose:<name> or channel:<name>; the same `event_id` counts once."""

    event_id: str
    identifier: Identifier
    about: str
    decision: Decision
    at: datetime
    source: str
    proof: str | None = None
    jurisdiction: str | None = None


@dataclass(frozen=True)
class Suppression:
    """One identifier that must not be used: by a channel, or by none at all. The same `event_id` counts once."""

    event_id: str
    identifier: Identifier
    reason: Reason
    at: datetime
    source: str
    channel: str | None = None
    proof: str | None = None


class Heard(NamedTuple):
    """What is known of one identifier at an instant: the latest decision about each thing, and its suppressions."""

    decisions: Mapping[str, Decision]
    suppressed: Sequence[tuple[Reason, str | None]]


@lru_cache(maxsize=10_000)
def understood(words: str) -> Heard:
    """What words (`ConsentLedger.words_of`) amount to: most people say the same."""
    decisions, suppressed = dict[str, Decision](), list[tuple[Reason, str | None]]()
    for word in words.split(" "):
        if word[0] == "!":
            reason, _, channel = word[1:].partition(":")
            suppressed.append((reason, channel or None))  # type: ignore[arg-type]
        else:
            decisions[word[1:]] = "denied" if word[0] == "-" else "granted"
    return Heard(decisions, suppressed)


def open_consents(database: Database, salt: str | None = None) -> ConsentLedger:
    """The consent ledger in this database; several processes may open it at once.

    With `salt` (of the environment) hashes are made with it, and it is not kept; without, one is made up and kept.
    """
    row = _salted(database)
    if row is None:
        with database.writing("schema") as connection:
            if connection.execute(sa.select(consent_salt)).first() is None:
                kept = None if salt else secrets.token_hex(32)
                values = {"name": "salt", "salt": kept, "fingerprint": _digest(salt or kept or "", "fingerprint", "")}
                connection.execute(consent_salt.insert(), values)
        row = _salted(database)
    used = salt or (row.salt if row is not None else None)
    if row is None or not used:
        raise ConsentError("consents were recorded with the salt of CDP_CONSENT_SALT, which is not set")
    if _digest(used, "fingerprint", "") != row.fingerprint:
        raise ConsentError("consents were recorded with another salt than CDP_CONSENT_SALT: nobody is found")
    return ConsentLedger(database, used)


def _salted(database: Database) -> sa.Row[Any] | None:
    """The salt that is in use, if any is yet; looking takes no lock."""
    with database.reading() as connection:
        return connection.execute(sa.select(consent_salt)).one_or_none()


def anything_suppressed(database: Database) -> bool:
    """Whether anybody must not be contacted."""
    with database.reading() as connection:
        return connection.execute(sa.select(suppressions.c.sequence).limit(1)).first() is not None


def _digest(salt: str, type_: str, value: str) -> str:
    return hmac.digest(salt.encode(), f"{type_}:{value}".encode(), hashlib.sha256).hex()


def hmac_pads(salt: str) -> tuple[bytes, bytes]:
    """What HMAC-SHA256 with this salt puts before a text, and before the hash of that (RFC 2104)."""
    key = salt.encode()
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    return moment.astimezone(UTC).replace(tzinfo=None)


class ConsentLedger:
    """What was said and who is suppressed; every method is one transaction."""

    def __init__(self, database: Database, salt: str) -> None:
        self.database = database
        self.pads = hmac_pads(salt)
        self._inner, self._outer = map(hashlib.sha256, self.pads)

    def fingerprint(self, identifier: Identifier) -> str:
        """The salted hash an identifier is kept under: HMAC-SHA256, the salt read in once for all of them."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(":".join(identifier).encode())
        outer.update(inner.digest())
        return outer.hexdigest()

    def record(self, said: Iterable[Said], now: datetime) -> int:
        """Write down what was said; how much of it was new."""
        rows = (
            {
                "event_id": one.event_id, "type": one.identifier[0], "subject": self.fingerprint(one.identifier),
                "about": one.about, "decision": one.decision, "jurisdiction": one.jurisdiction, "source": one.source,
                "proof": one.proof, "at": _utc(one.at), "recorded_at": _utc(now),
            }
            for one in said
        )  # fmt: skip
        return self._add(consent_events, rows)

    def suppress(self, suppressed: Iterable[Suppression]) -> int:
        """Write down who must not be contacted any more; how many of these are new."""
        rows = (
            {
                "event_id": one.event_id, "type": one.identifier[0], "subject": self.fingerprint(one.identifier),
                "channel": one.channel, "reason": one.reason, "source": one.source, "proof": one.proof,
                "at": _utc(one.at),
            }
            for one in suppressed
        )  # fmt: skip
        return self._add(suppressions, rows)

    def lift(
        self, identifiers: Collection[Identifier], reason: Reason, now: datetime, channel: str | None = None
    ) -> int:
        """Let identifiers be used again that were suppressed for this reason; nobody brings back who was erased.

        With a `channel`, only what was said of that one.
        """
        if reason == "erasure":
            raise ConsentError("an erasure is for good")
        lifted = 0
        with self.database.writing() as connection:
            for some in _portions(map(self.fingerprint, identifiers)):
                here = sa.and_(among(connection, suppressions.c.subject, some), suppressions.c.reason == reason)
                here = here if channel is None else sa.and_(here, suppressions.c.channel == channel)
                lifted += connection.execute(
                    suppressions.update().where(here, suppressions.c.lifted_at.is_(None)).values(lifted_at=_utc(now))
                ).rowcount
        return lifted

    def _add(self, table: sa.Table, rows: Iterable[dict[str, Any]]) -> int:
        with self.database.writing("consents") as connection:
            count = sa.select(sa.func.count()).select_from(table)
            before = connection.execute(count).scalar_one()
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            for some in _portions(rows):
                connection.execute(insert(table).on_conflict_do_nothing(), some)
            return connection.execute(count).scalar_one() - before

    def heard(
        self, identifiers: Collection[Identifier], about: Collection[str], now: datetime
    ) -> dict[Identifier, Heard]:
        """What each identifier says at this instant; those of which nothing is known are left out."""
        subjects = {self.fingerprint(identifier): identifier for identifier in identifiers}
        found = self.words_of(subjects, about, now)
        return {subjects[subject]: understood(words) for subject, words in found.items()}

    def words_of(self, subjects: Collection[str], about: Collection[str], now: datetime) -> dict[str, str]:
        """What is said at this instant under some hashes; those of which nothing is known are left out.

        Words apart by a space: +<about> is a yes, -<about> a no, !<reason> or !<reason>:<channel> a suppression. The
        latest word counts; of two of the same moment the no. Two queries for every 5,000 hashes.
        """
        known: dict[str, str] = {}
        at = _utc(now)
        with self.database.reading() as connection:
            words, suppressed = _ASKED[dialect := connection.dialect.name]
            # In the order of the index: what lies together is read together.
            for some in _portions(sorted(subjects)):
                given = {"at": at, "subjects": listed(dialect, some)}
                if about:
                    said = connection.execute(words, {**given, "about": sorted(about)}).all()
                    known.update(map(tuple, said))
                for subject, word in connection.execute(suppressed, given).all():
                    known[subject] = f"{known[subject]} {word}" if subject in known else word
        return known

    def all_words(self, about: Collection[str], now: datetime) -> Iterator[tuple[str, Decision, pa.StringArray]]:
        """What everybody says at this instant: about what, the word, and the hashes it is said under, in parts."""
        each = decided(_utc(now), sorted(about)).subquery()
        query = sa.select(each.c.about, each.c.denied, *_together(each.c.subject)).group_by(
            each.c.about, each.c.denied, sa.text("part")
        )
        with self.database.reading() as connection:
            for what, denied, subjects, _ in connection.execute(query):
                yield what, "denied" if denied else "granted", _apart(subjects)

    def all_suppressed(self, now: datetime) -> Iterator[tuple[Reason, str | None, pa.StringArray]]:
        """All suppressions in force at this instant: why, for which channel, and the hashes, in parts."""
        each = in_force(_utc(now)).subquery()
        query = sa.select(each.c.reason, each.c.channel, *_together(each.c.subject)).group_by(
            each.c.reason, each.c.channel, sa.text("part")
        )
        with self.database.reading() as connection:
            for reason, channel, subjects, _ in connection.execute(query):
                yield reason, channel, _apart(subjects)

    def history(self, identifiers: Collection[Identifier]) -> Iterator[dict[str, Any]]:
        """Everything that was ever said for these identifiers, oldest first, as plain rows."""
        subjects = {self.fingerprint(identifier): identifier for identifier in identifiers}
        said, refused = consent_events.c, suppressions.c
        with self.database.reading() as connection:
            rows = [
                {"at": row.at, "identifier": ":".join(subjects[row.subject]), "about": row.about,
                 "decision": row.decision, "jurisdiction": row.jurisdiction, "source": row.source, "proof": row.proof}
                for some in _portions(subjects)
                for row in connection.execute(sa.select(consent_events).where(among(connection, said.subject, some)))
            ]  # fmt: skip
            rows += [
                {"at": row.at, "identifier": ":".join(subjects[row.subject]), "about": row.channel or "everything",
                 "decision": f"suppressed: {row.reason}" + (", lifted" if row.lifted_at else ""),
                 "jurisdiction": None, "source": row.source, "proof": row.proof}
                for some in _portions(subjects)
                for row in connection.execute(sa.select(suppressions).where(among(connection, refused.subject, some)))
            ]  # fmt: skip
        yield from sorted(rows, key=lambda row: (row["at"], row["identifier"], row["about"]))


def _together(subject: sa.ColumnElement[str]) -> tuple[sa.ColumnElement[str], sa.ColumnElement[str]]:
    """All hashes of a group one after the other, and what to group by so that no text becomes too long."""
    return sa.func.aggregate_strings(subject, ""), sa.func.substr(subject, 1, 1).label("part")


def _apart(subjects: str) -> pa.StringArray:
    """The hashes again: a million of them are looked at nowhere in Python."""
    import numpy as np

    offsets = np.arange(0, len(subjects) + 1, HASH, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(subjects.encode())]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


def _portions(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in portions that every database takes as parameters."""
    rest = iter(items)
    while some := list(islice(rest, PORTION)):
        yield some


def among(connection: Connection, column: sa.Column[str], values: Collection[str]) -> sa.ColumnElement[bool]:
    """Whether a column is one of these texts, however many, as one parameter."""
    dialect = connection.dialect.name
    return one_of(dialect, column, sa.literal(listed(dialect, values), LISTED[dialect]))


def listed(dialect: str, texts: Collection[str]) -> list[str] | str:
    """Any number of texts as one parameter."""
    return list(texts) if dialect == "postgresql" else json.dumps(list(texts))


def each_of(dialect: str, values: sa.BindParameter[Any]) -> sa.TableValuedAlias:
    """The texts of such a parameter, a row each: `value`."""
    if dialect == "postgresql":
        return sa.func.unnest(values).table_valued("value").render_derived()
    return sa.func.json_each(values).table_valued("value")


def one_of(dialect: str, column: sa.Column[str], values: sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
    """Whether a column is one of the texts of such a parameter."""
    return (
        column == sa.any_(values)
        if dialect == "postgresql"
        else column.in_(sa.select(each_of(dialect, values).c.value))
    )


LISTED: dict[str, sa.types.TypeEngine[Any]] = {"postgresql": sa.ARRAY(sa.Text), "sqlite": sa.Text()}
"""What kind of parameter any number of texts is."""


def decided(at: datetime | sa.BindParameter[datetime], about: Collection[str] | sa.BindParameter[Any]) -> sa.Select:
    """By subject and what it is about, whether the latest word at a moment is a no: of two of the same moment it is."""
    said = consent_events.c
    # Written out, not bound: SQLite works out once only what it can read is the same.
    yes, no = (
        sa.func.max(sa.case((said.decision == sa.literal_column(f"'{word}'"), said.at)))
        for word in ("granted", "denied")
    )
    denied = sa.and_(no.is_not(None), sa.or_(yes.is_(None), no >= yes)).label("denied")
    counts = sa.and_(said.at <= at, said.about.in_(about))
    return sa.select(said.subject, said.about, denied).where(counts).group_by(said.subject, said.about)


def in_force(at: datetime | sa.BindParameter[datetime]) -> sa.Select:
    """The suppressions that hold at a moment: subject, reason and channel."""
    one = suppressions.c
    held = sa.and_(one.at <= at, sa.or_(one.lifted_at.is_(None), one.lifted_at > at))
    return sa.select(one.subject, one.reason, one.channel).where(held)


def _asked(dialect: str) -> tuple[sa.Select, sa.Select]:
    """What is asked before everything that is sent, put together once: that takes longer than to answer it."""
    at = sa.bindparam("at", type_=sa.DateTime)
    some = each_of(dialect, sa.bindparam("subjects", type_=LISTED[dialect]))
    each = (
        decided(at, sa.bindparam("about", expanding=True))
        .join_from(some, consent_events, some.c.value == consent_events.c.subject)
        .subquery()
    )
    word = sa.case((each.c.denied, "-"), else_="+") + each.c.about
    words = sa.select(each.c.subject, sa.func.aggregate_strings(word, " ")).group_by(each.c.subject)
    one = suppressions.c
    held = (
        in_force(at)
        .with_only_columns(one.subject, "!" + one.reason + sa.func.coalesce(":" + one.channel, ""))
        .join_from(some, suppressions, some.c.value == one.subject)
        .order_by(one.sequence)
    )
    return words, held


_ASKED = {dialect: _asked(dialect) for dialect in LISTED}

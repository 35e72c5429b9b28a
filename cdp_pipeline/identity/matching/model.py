"""A match's model: what its levels of agreement are worth, learned from the people alone, kept with its card.

Learning itself is learning.py; what becomes of scores is matches.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdp_pipeline.identity.matching.blocking import Rule, candidate_pairs, chosen_rules, declared_rules
from cdp_pipeline.identity.matching.comparisons import Compared, compared
from cdp_pipeline.identity.matching.evidence import GRADES, Worth, chance, grade
from cdp_pipeline.identity.matching.learning import Learned, frequencies, learned, refined
from cdp_pipeline.identity.matching.scores import engine, need_splink

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from cdp_pipeline.spec.match import Match

RECIPE = "splink5/1"
"""Part of every version: raise it when learning changes, so that models are learned anew."""
FEWEST = 100
"""People below which nothing is learned: what is rare among so few is chance."""
STRANGERS = 100_000
"""Pairs of different people that tell whether two comparisons go together."""


@dataclass(frozen=True)
class Model:
    """What was learned. `version` is a hash of all that scores depend on.

    settings: Splink's, with m and u of every level and the prior. rules: which pairs are compared. frequencies: column,
    value, share. card: what to know about it, for people; it holds no one's values.
    """

    match: str
    version: str
    definition: str
    learned_at: datetime
    people: int
    settings: Mapping[str, Any]
    rules: Sequence[Rule]
    frequencies: pa.Table
    card: Mapping[str, Any]

    @property
    def believed(self) -> bool:
        """Whether what it calls one person looks like one; else nothing it says joins anybody."""
        return not self.card["doubts"]


class MatchModelTamperedError(RuntimeError):
    """A saved match model is not the one that was learned."""


def definition(match: Match) -> str:
    """Fingerprint of what makes a model another one when it changes."""
    text = match.model_dump_json(include={"compare", "blocking"})
    return hashlib.sha256(f"{RECIPE} {text}".encode()).hexdigest()[:16]


def train(people: pa.Table, match: Match, now: datetime) -> Model | None:
    """Learn from the people to be compared, without labels; None where they are too few or agree on too little.

    First Splink: how often two different people agree (u) from random pairs, how often two rows of one person do (m) by
    expectation maximisation (Fellegi and Sunter 1969). Then again from whole clusters, see learning.refined. `people`
    comes in the order of its content (matches.in_order), so nothing depends on the order of arrival. Raises
    SplinkMissingError.
    """
    need_splink(match.name)
    if people.num_rows < FEWEST:
        return None
    found = compared(match)
    with engine(people, found) as connection:
        first = learned(connection, found, people.num_rows)
        rules = declared_rules(match) or chosen_rules(connection, found)
        if first is None or not rules or not (pairs := candidate_pairs(connection, rules, "pairs")):
            return None
        known = frequencies(connection, found)
        result = refined(connection, first, known, people.num_rows)
        about = _about(result, found) | {
            "doubts": _doubts(result, found),
            "correlated": _correlated(connection, found, people.num_rows),
        }
    same = definition(match)
    version = _version(same, result.settings, rules, known)
    card = {
        "match": match.name,
        "version": version,
        "definition": same,
        "learned_at": now.astimezone(UTC).isoformat(),
        "people": people.num_rows,
        "pairs_compared": pairs,
        "rules": [list(rule) for rule in rules],
        "splink": installed("splink"),
        **about,
    }
    return Model(match.name, version, same, now.astimezone(UTC), people.num_rows, result.settings, rules, known, card)


def needs_learning(model: Model | None, match: Match, people: int) -> bool:
    """Whether there is no model for what is declared now, or people became many more or fewer than it learned from."""
    if model is None or model.definition != definition(match):
        return True
    return abs(people / model.people - 1) > match.retrain_after


def save(model: Model, folder: Path) -> None:
    """Put it into `folder` (the lake's models), under matches/<match>/<version>, whole or not at all."""
    import pyarrow.parquet as pq

    place = folder / "matches" / model.match / model.version
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=place.parent))
    pq.write_table(model.frequencies, draft / "frequencies.parquet")
    text = {"settings": model.settings, "rules": [list(rule) for rule in model.rules], "card": model.card}
    (draft / "model.json").write_text(json.dumps(text, indent=1) + "\n")
    shutil.rmtree(place, ignore_errors=True)
    draft.replace(place)


def newest(folder: Path, match: Match) -> Model | None:
    """The model of what is declared now that was learned last; raises MatchModelTamperedError."""
    cards = [
        json.loads(path.read_text())["card"]
        for path in sorted((folder / "matches" / match.name).glob("[!.]*/model.json"))
    ]
    same = [card for card in cards if card["definition"] == definition(match)]
    if not same:
        return None
    return load(folder, match.name, max(same, key=lambda card: (card["learned_at"], card["version"]))["version"])


def load(folder: Path, match: str, version: str) -> Model:
    """A saved version; raises MatchModelTamperedError where its content is not what was saved."""
    import pyarrow.parquet as pq

    place = folder / "matches" / match / version
    try:
        content = json.loads((place / "model.json").read_text())
        known = pq.read_table(place / "frequencies.parquet")
    except FileNotFoundError:
        raise MatchModelTamperedError(
            f"match {match} {version}: its files are gone; remove {place} to learn anew"
        ) from None
    rules, card = [tuple(rule) for rule in content["rules"]], content["card"]
    if _version(card["definition"], content["settings"], rules, known) != version:
        raise MatchModelTamperedError(
            f"match {match} {version}: its files are not those that were learned; restore them, or remove {place} to "
            "learn anew"
        )
    learned_at = datetime.fromisoformat(card["learned_at"])
    return Model(
        match, version, card["definition"], learned_at, card["people"], content["settings"], rules, known, card
    )


def _version(same: str, settings: Mapping[str, Any], rules: Sequence[Rule], known: pa.Table) -> str:
    digest = hashlib.sha256(json.dumps([same, settings, rules], sort_keys=True).encode())
    for name in known.column_names:
        digest.update("\0".join(map(repr, known[name].to_pylist())).encode())
    return digest.hexdigest()[:16]


def _about(result: Learned, found: list[Compared]) -> dict[str, Any]:
    """What a card tells: what agreement is worth, and how sure each grade is.

    Of each grade: its pairs, how many of them are false by their own probability, and how many the clusters keep apart.
    """
    worth = Worth.of(result.settings)
    bits = {}
    for one, m, u in zip(found, worth.m, worth.u, strict=True):
        words = ["different", *(level.words for level in one.levels[::-1])]
        bits[one.about] = {
            word: {"bits": round(weight, 2), "m": m_, "u": u_}
            for word, weight, m_, u_ in zip(words, worth.bits(m, u), m.tolist(), u.tolist(), strict=True)
        }
    graded, false = grade(result.weight), 1 - chance(result.weight)
    grades = {}
    for one_grade in GRADES:
        of_it = graded == one_grade
        count = int(of_it.sum())
        grades[str(one_grade)] = {
            "pairs": count,
            "estimated_false": float(false[of_it].mean()) if count else None,
            "kept_apart": float((~result.together[of_it]).mean()) if count else None,
        }
    return {"one_pair_in": round(1 / worth.share), "worth": bits, "grades": grades}


def _doubts(result: Learned, found: list[Compared]) -> list[str]:
    """Why what was learned may not be persons: without labels, households or namesakes may stand out more than they do.

    Two rows of one person mostly agree, mistakes aside, on a date of birth, and on two things at least.
    """
    worth = Worth.of(result.settings)
    close = [float(m[-one.close :].sum()) for one, m in zip(found, worth.m, strict=True)]
    words = [
        f"only {share:.0%} of the pairs it takes for one person agree on {one.about}"
        for one, share in zip(found, close, strict=True)
        if one.once and share < 0.5
    ]
    most = [one.about for one, share in zip(found, close, strict=True) if share >= 0.5]
    if len(most) < 2:
        words.append(f"most pairs it takes for one person agree on {most[0] if most else 'nothing'} and no more")
    return words


def _correlated(connection: duckdb.DuckDBPyConnection, found: list[Compared], people: int) -> list[str]:
    """Comparisons that go together among different people: compared apart, what agrees counts twice.

    Different people are pairs that agree on one of the two and are unlike in every other comparison.
    """
    columns = sorted({column for one in found for column in one.columns})
    sides = ", ".join(f'{side}."{column}" as "{column}_{side}"' for column in columns for side in "lr")
    same = [" and ".join(f'"{column}_l" = "{column}_r"' for column in one.agree) for one in found]
    unlike = [" and ".join(f"not coalesce({level.condition}, false)" for level in one.levels) for one in found]
    alone = []
    for one in found:
        by = ", ".join(f'"{column}"' for column in one.agree)
        known = " and ".join(f'"{column}" is not null' for column in one.agree)
        groups = f"select count(*) as n from people where {known} group by {by}"
        pairs = connection.sql(f"select coalesce(sum(n * (n - 1) / 2), 0)::double from ({groups})").fetchall()
        alone.append(pairs[0][0])
    words = []
    for i, j in combinations(range(len(found)), 2):
        rarer, other = (i, j) if alone[i] <= alone[j] else (j, i)
        rest = [f"({unlike[place]})" for place in range(len(found)) if place not in (i, j)]
        if not rest:
            continue
        every = max(1, int(alone[rarer] // STRANGERS))
        on = " and ".join(f'l."{column}" = r."{column}"' for column in found[rarer].agree)
        strangers, both = connection.sql(
            f"select count(*), count(*) filter ({same[other]}) from (select {sides} from people l join people r "
            f"on {on} and l.unique_id < r.unique_id where l.unique_id % {every} = 0) "
            f"where ({same[other]}) is not null and {' and '.join(rest)}"
        ).fetchall()[0]
        by_chance = alone[other] / max(people * (people - 1) / 2, 1)
        if strangers >= 50 and both / strangers > max(0.3, 10 * by_chance):
            words.append(
                f"{found[i].about} and {found[j].about} go together: of different people who agree on "
                f"{found[rarer].about}, {both / strangers:.0%} agree on both; compare them as one place"
            )
    return words

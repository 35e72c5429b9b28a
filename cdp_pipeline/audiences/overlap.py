"""How much audiences have in common: people in both, the share of each, and Jaccard's index (both / either)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import ibis


@dataclass(frozen=True)
class Overlaps:
    """People by audience, and by pair of audiences (in alphabetical order) that share any."""

    sizes: Counter[str]
    shared: Counter[tuple[str, str]]

    def both(self, one: str, other: str) -> int:
        return self.sizes[one] if one == other else self.shared[min(one, other), max(one, other)]

    def jaccard(self, one: str, other: str) -> float:
        either = self.sizes[one] + self.sizes[other] - self.both(one, other)
        return self.both(one, other) / either if either and one != other else float(bool(either))

    def rows(self, name: str, others: Sequence[str]) -> list[dict[str, Any]]:
        """What an audience has in common with others, most alike first."""
        mine = self.sizes[name]
        found = [
            {
                "audience": other,
                "people": self.sizes[other],
                "in_both": (both := self.both(name, other)),
                "share_of_this": both / mine if mine else 0.0,
                "share_of_that": both / self.sizes[other] if self.sizes[other] else 0.0,
                "jaccard": self.jaccard(name, other),
            }
            for other in others
            if other != name
        ]
        return sorted(found, key=lambda row: (-row["jaccard"], row["audience"]))

    def matrix(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """How many people every two audiences share; an audience with itself is its size."""
        return [{"audience": name, **{other: self.both(name, other) for other in names}} for name in names]


def overlaps(members: ibis.Table) -> Overlaps:
    """Count what audiences share, from their members of one day (columns audience, person_id).

    People in the same audiences are counted together first: there are far fewer such groups than people.
    """
    groups = members.group_by("person_id").aggregate(audiences=members.audience.collect())
    groups = groups.mutate(audiences=groups.audiences.sort())
    groups = groups.group_by("audiences").aggregate(people=groups.count())
    sizes: Counter[str] = Counter()
    shared: Counter[tuple[str, str]] = Counter()
    for row in groups.to_pyarrow().to_pylist():
        names, people = row["audiences"], row["people"]
        sizes.update(dict.fromkeys(names, people))
        shared.update(dict.fromkeys(combinations(names, 2), people))
    return Overlaps(sizes, shared)

"""Every way of recommending against its definition written out in plain Python, and lists that keep their promises."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.predictions.recommend import chain
from cdp_pipeline.predictions.recommend.chain import VOICES, Lists, Wanted, fill
from cdp_pipeline.predictions.recommend.history import History, Rows, cells
from cdp_pipeline.predictions.recommend.learned import learn, learned
from cdp_pipeline.predictions.recommend.neighbours import bought_together, ease, gf_cf, session, viewed_together
from cdp_pipeline.predictions.recommend.offline import difference, judged
from cdp_pipeline.predictions.recommend.own import again, category_next, looked_at, replenishment
from cdp_pipeline.predictions.recommend.popularity import bestselling, new, popular, trending

Row = tuple[int, int, int]
TODAY = 1000
NAMES = pa.array([f"item {number}" for number in range(50)])


def rows(found: Iterable[Row]) -> Rows:
    """Rows of (person, item, days ago)."""
    person, item, ago = np.array(sorted(set(found)), dtype=int).reshape(-1, 3).T
    return Rows(person, item, TODAY - ago)


def history(had: Iterable[Row], looked: Iterable[Row] = (), items: int = 4, people: int = 4, **fields: Any) -> History:
    return History(TODAY, people, items, rows(had), rows(looked), **{"category": np.full(items, -1)} | fields)


def everybody(known: History) -> np.ndarray:
    return np.arange(known.people)


WHO_HAD = [(0, 0, 10), (0, 1, 10), (1, 0, 20), (1, 1, 20), (1, 2, 3), (2, 1, 5), (2, 2, 5), (3, 3, 40), (3, 0, 40)]


def test_ease_is_the_ridge_regression_of_each_item_on_all_others() -> None:
    known = history(WHO_HAD)
    had = np.zeros((4, 4))
    for person, item, _ in WHO_HAD:
        had[person, item] = 1
    found = np.asarray(ease(known, penalty=2.0).alike)
    for item in range(4):
        others = [other for other in range(4) if other != item]
        # Ridge as least squares on rows extended by sqrt(penalty) times the identity.
        extended = np.vstack([had[:, others], math.sqrt(2) * np.eye(3)])
        expected, *_ = np.linalg.lstsq(extended, np.r_[had[:, item], 0, 0, 0], rcond=None)
        assert found[others, item] == pytest.approx(expected, abs=1e-6)
        assert found[item, item] == 0


def test_what_was_had_half_a_year_ago_speaks_half_as_loud() -> None:
    known = history([(0, 0, 180), (1, 0, 0), *((2, item, 1) for item in (0, 1)), *((3, item, 1) for item in (0, 1))])
    scores = ease(known).scores(everybody(known))
    assert scores[0, 1] == pytest.approx(scores[1, 1] / 2, rel=1e-5)


def test_gf_cf_is_its_published_formula() -> None:
    known = history(WHO_HAD)
    had, taste = known.owned.toarray(), known.taste.toarray()
    by_person, by_item = 1 / np.sqrt(had.sum(axis=1)), 1 / np.sqrt(had.sum(axis=0))
    normal = by_person[:, None] * had * by_item
    strongest = np.linalg.svd(normal)[2][:2]
    low_pass = np.diag(by_item) @ strongest.T @ strongest @ np.diag(1 / by_item)
    expected = taste @ normal.T @ normal + 0.3 * taste @ low_pass
    assert gf_cf(known, factors=2).scores(everybody(known)) == pytest.approx(np.maximum(expected, 0), abs=1e-5)


def test_together_counts_days_on_which_one_person_had_both() -> None:
    known = history([(0, 0, 1), (0, 1, 1), (0, 0, 2), (0, 1, 2), (1, 0, 5), (1, 2, 5), (2, 1, 9), (3, 0, 9)])
    alike = cells(bought_together(known).alike, *np.indices((4, 4)).reshape(2, -1)).reshape(4, 4)
    # 0 was had on four days, 1 on three, both on two: cosine 2 / sqrt(12), shrunk by 2 / 12.
    assert alike[0, 1] == pytest.approx(2 / math.sqrt(12) * 2 / 12)
    assert alike[0, 2] == pytest.approx(1 / math.sqrt(4) * 1 / 11)
    assert alike[1, 2] == 0
    assert np.diag(alike).tolist() == [0, 0, 0, 0]


def test_an_anonymous_visitor_is_answered_from_the_visit_itself() -> None:
    looked = [(1, 0, 30), (1, 1, 30), (2, 0, 31), (2, 1, 31), (2, 2, 60), (2, 3, 60), (3, 2, 12), (3, 0, 0)]
    known = history([], looked)
    scores = session(known).scores(everybody(known))
    assert scores[3].argmax() == 1  # not 3, which goes with what they looked at twelve days ago
    assert scores[3, 3] == 0
    assert not scores[:3].any()  # no visit today or yesterday
    assert viewed_together(known).scores(everybody(known))[3, 3] > 0
    assert session(known).because(np.array([3]), np.array([1]), NAMES).to_pylist() == [
        "often looked at together with item 0"
    ]


def test_popularity_counts_people_not_purchases() -> None:
    known = history([(0, 0, day) for day in range(20)] + [(0, 1, 50), (1, 1, 50), (2, 1, 5), (3, 2, 100)])
    assert popular(known).scores(np.array([2]))[0].tolist() == [1, 3, 1, 0]
    assert bestselling(known).scores(np.array([2]))[0].tolist() == [1, 1, 0, 0]
    assert popular(known).because(np.array([0]), np.array([1]), NAMES).to_pylist() == ["popular: 3 people had it"]


def test_trending_is_what_more_people_had_than_the_days_before_promised() -> None:
    before = [(person, item, 40 + 30 * month) for person in range(6) for month in range(3) for item in (0, 1)]
    lately = [(person, 0, 3) for person in range(2)] + [(person, 1, 3) for person in range(6, 14)]
    known = history(before + lately, people=14)
    # 0: 6 people in 90 days promise 2, 2 came: no rise. 1: 2 promised, 8 came.
    assert trending(known).strength.tolist() == pytest.approx([0, 6 / math.sqrt(3), 0, 0])


def test_new_items_come_newest_first_and_leave_after_sixty_days() -> None:
    known = history([(0, 0, 5), (0, 2, 60), (0, 3, 3)], [(0, 1, 59), (1, 3, 9)])
    scores = new(known).scores(np.array([0]))[0]
    assert scores.argsort()[::-1].tolist() == [0, 3, 1, 2]  # 3 was looked at nine days ago
    assert scores[2] == 0
    assert np.isnan(known.at(TODAY - 10).since[0])  # not seen yet


def test_again_ranks_by_days_had_and_then_by_what_sells() -> None:
    known = history([(0, 0, 1), (0, 0, 9), (0, 1, 4), (0, 2, 200), (1, 2, 3), (2, 2, 4)])
    voice = again(known)
    assert (-voice.scores(np.array([0]))[0]).argsort(kind="stable")[:3].tolist() == [0, 2, 1]
    assert voice.scores(np.array([0]))[0, 3] == 0
    assert voice.because(np.array([0]), np.array([0]), NAMES).to_pylist() == ["had before (×2)"]


def test_replenishment_is_strongest_when_the_usual_interval_has_passed() -> None:
    every_30 = [(0, 0, ago) for ago in (30, 60, 90)]
    just = [(1, 0, ago) for ago in (1, 31, 61)]
    long_gone = [(2, 0, ago) for ago in (300, 330, 360)]
    known = history([*every_30, *just, *long_gone, (3, 0, 30), (3, 1, 30)])
    scores = replenishment(known).scores(everybody(known))
    assert scores[0, 0] == pytest.approx(1)
    assert scores[1, 0] == pytest.approx(math.exp(-29 / 30))
    assert scores[2, 0] == pytest.approx(math.exp(-270 / 30))
    assert not scores[3].any()  # bought once: no rhythm of their own
    assert replenishment(known).because(np.array([0]), np.array([0]), NAMES).to_pylist() == [
        "due: usually every 30 days"
    ]


def test_category_next_follows_what_people_turned_to() -> None:
    # Categories: 0 and 1 are tents, 2 is stoves, 3 is boots. After tents three people bought stoves.
    had = [(person, 0, 50) for person in range(3)] + [(person, 2, 10) for person in range(3)] + [(3, 1, 5), (4, 3, 5)]
    known = history(had, people=5, category=np.array([0, 0, 1, 2]))
    scores = category_next(known).scores(everybody(known))
    overall = {0: 4 / 8, 1: 3 / 8, 2: 1 / 8}
    stoves, tents = (3 + 10 * overall[1]) / 13, 10 * overall[0] / 13
    assert scores[3, 2] == pytest.approx(stoves)  # the only stove
    assert scores[3, 1] == pytest.approx(tents)  # of tents, only 1 sold lately
    assert scores[3, 0] == 0
    assert scores[3].argmax() == 2


def test_looked_at_forgets_within_weeks() -> None:
    known = history([], [(0, 0, 0), (0, 1, 14), (0, 1, 15)])
    assert looked_at(known).scores(np.array([0]))[0].tolist() == pytest.approx([1, 0.5 + 0.5 ** (15 / 14), 0, 0])
    assert looked_at(known).because(np.array([0]), np.array([1]), NAMES).to_pylist() == ["looked at 14 days ago"]


some_rows = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 200)), max_size=60)


@settings(max_examples=40)
@given(some_rows, some_rows, st.sampled_from(sorted(VOICES)), st.integers(0, 120))
def test_no_way_of_recommending_knows_what_came_later(had: list[Row], looked: list[Row], name: str, ago: int) -> None:
    category = np.array([0, 0, 1, 1, 2, 2, -1, -1])
    whole = history(had, looked, items=8, people=6, category=category)
    past = history(
        [row for row in had if row[2] >= ago], [row for row in looked if row[2] >= ago], items=8, people=6,
        category=category,
    )  # fmt: skip
    then = VOICES[name](whole.at(TODAY - ago)).scores(everybody(whole))
    truncated = VOICES[name](past.at(TODAY - ago)).scores(everybody(past))
    assert then == pytest.approx(truncated, abs=1e-6)
    assert np.isfinite(then).all()


@settings(max_examples=60)
@given(
    some_rows,
    st.sets(st.integers(0, 7)),
    st.sampled_from(["any", "again", "new"]),
    st.sampled_from([0, 20]),
    st.integers(1, 10),
    st.integers(1, 40),
)
def test_lists_are_filled_level_by_level_from_what_is_allowed(
    had: list[Row], allowed: set[int], wants: str, rest: int, top: int, cells: int
) -> None:
    """Against a list made person by person in plain Python."""
    known = history(had, items=8, people=6)
    wanted = Wanted(np.array([item in allowed for item in range(8)]), wants, rest)
    levels = {name: VOICES[name](known) for name in ("replenishment", "bought_together", "popular")}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chain, "CELLS", cells)
        lists = fill(levels, known, everybody(known), wanted, top)
    levels_of = list(levels.values())
    found: dict[int, list[tuple[int, int]]] = {person: [] for person in range(6)}
    for person, item, place, level in zip(lists.person, lists.item, lists.place, lists.level, strict=True):
        found[person].append((int(level), int(item)))
        assert place == len(found[person])
    for person in range(6):
        owned = {row[1] for row in had if row[0] == person}
        resting = {row[1] for row in had if row[0] == person and row[2] < rest}
        possible = {item for item in allowed if wants == "any" or (item in owned) == (wants == "again")} - resting
        expected: list[tuple[int, int]] = []
        for level, voice in enumerate(levels.values()):
            scores = voice.scores(np.array([person]))[0]
            left = possible - {item for _, item in expected}
            best = sorted((item for item in left if scores[item] > 0), key=lambda item: (-scores[item], item))
            expected += [(level, item) for item in best[: top - len(expected)]]
        # Of equals at the end of a list any may be taken: levels and strengths are the same.
        said = [(level, float(levels_of[level].scores(np.array([person]))[0, item])) for level, item in expected]
        got = [(level, float(levels_of[level].scores(np.array([person]))[0, item])) for level, item in found[person]]
        assert got == said
        assert {item for _, item in found[person]} <= possible
        assert len({item for _, item in found[person]}) == len(found[person])


def test_lists_are_judged_as_by_hand() -> None:
    after = history([(0, 0, 0), (0, 3, 0), (2, 1, 0)], people=3).owned
    lists = Lists(*np.array([[0, 1, 1, 0, 0], [0, 0, 2, 0, 0], [0, 3, 3, 0, 0], [1, 2, 1, 0, 0], [2, 3, 1, 0, 0]]).T)
    found = judged(lists, after, reach=np.array([1, 0, 2, 3]), allowed=np.array([True] * 4), top=3)
    ideal = 1 + 1 / math.log2(3)
    assert found.people.tolist() == [0, 2]
    assert found.ndcg.tolist() == pytest.approx([(1 / math.log2(3) + 1 / math.log2(4)) / ideal, 0])
    assert found.recall.tolist() == [1, 0]
    assert found.hit_rate == 0.5
    assert found.coverage == 3 / 4  # 2 is only on the list of person 1, who had nothing afterwards
    assert found.novelty == pytest.approx(-np.mean([math.log2(share / 3) for share in (1, 1, 3, 3)]))


def test_a_difference_that_is_chance_has_zero_within_its_interval() -> None:
    random = np.random.default_rng(5)
    same = random.random(400)
    _, low, high = difference(same + random.normal(0, 0.1, 400), same)
    assert low < 0 < high
    mean, low, _ = difference(same + 0.05, same)
    assert mean == pytest.approx(0.05) == low


def planted(people: int = 400, items: int = 30, seed: int = 3) -> History:
    """People who buy their three favourites again and again, look before they buy, and otherwise buy of one group."""
    random = np.random.default_rng(seed)
    had, looked = [], []
    for person in range(people):
        group = person % 3 * 10
        favourites = group + random.choice(10, 3, replace=False)
        for ago in range(int(random.integers(0, 12)), 240, 12):
            had += [(person, int(item), ago) for item in favourites if random.random() < 0.5]
            if random.random() < 0.4:
                other = group + int(random.integers(0, 10))
                had.append((person, other, ago))
                looked.append((person, other, ago + 2))
    return history(had, looked, items=items, people=people)


def test_what_is_learned_beats_each_way_alone_and_its_probabilities_come_true() -> None:
    known = planted()
    day, horizon = TODAY - 30, 30
    then, after = known.at(day), known.following(day, horizon)
    wanted = Wanted(np.ones(30, dtype=bool))
    weights = learn(known, [day - 60, day - 30], horizon, had="any")
    voice = learned(then, weights)

    def ndcg(one: Any) -> np.ndarray:
        lists = fill({"only": one}, then, then.seen, wanted, 10)
        return judged(lists, after, then.reach, wanted.allowed, 10).ndcg

    ours = ndcg(voice)
    for name in ("popular", "ease", "gf_cf", "bought_together", "looked_at", "replenishment"):
        assert difference(ours, ndcg(VOICES[name](then)))[1] > 0, name
    scores, happened = voice.scores(then.seen), after[then.seen].toarray()
    assert happened.sum() == pytest.approx(scores.sum(), rel=0.1)
    for low, high in ((0.01, 0.1), (0.1, 0.7), (0.7, 1.0)):
        within = (scores >= low) & (scores < high)
        assert happened[within].mean() == pytest.approx(scores[within].mean(), abs=0.08)
    assert learn(known, [day - 60, day - 30], horizon, had="any").weight.tolist() == weights.weight.tolist()


def test_what_is_learned_from_earlier_windows_does_not_see_the_one_it_is_judged_on() -> None:
    known = planted()
    day = TODAY - 30
    seen = learn(known, [day - 60, day - 30], 30, had="new")
    truncated = learn(known.at(day), [day - 60, day - 30], 30, had="new")
    assert seen.weight.tolist() == truncated.weight.tolist()

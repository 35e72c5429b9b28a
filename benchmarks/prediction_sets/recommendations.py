"""Recommendations for the next 30 days: lists of 20 items, of all items, of new ones only, of those had before.

Online Retail II (articles), Complete Journey (types of products). People are those with a past who had anything of the
kind in the window. Both sides know the same days. Rivals, the best of research, in plain numpy: own frequency with what
sold in the last 30 days breaking ties (and filling up); EASE and GF-CF on what people had, less for what is long ago,
times what sold in the last 30 days to the power of .3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds

from cdp_pipeline.predictions import ranking
from cdp_pipeline.predictions.kind import Champion
from cdp_pipeline.spec.prediction import Ranking
from prediction_sets.row import Row
from prediction_sets.shops import Shop, complete_journey, online_retail
from prediction_sets.windows import JOURNEY_RECOMMENDED_30D, RECOMMENDED_30D

TOP, DAYS = 20, 30
ARTICLES = {"event": ["product_sold"], "item": "product_id", "when": "regexp_matches(product_id, '^[0-9]{5}')"}
TYPES = {"event": ["product_bought"], "item": "product_type", "when": "product_type != 'NaN'"}
WANTS = {"anything": "repeats allowed", "discover": "new items only", "buy_again": "items had before"}
RIVALS = {
    "anything": ("own frequency",), "discover": ("EASE x trend", "GF-CF x trend"), "buy_again": ("own frequency",)
}  # fmt: skip


@dataclass(frozen=True)
class Past:
    """Who had what on how many days until the cut-off, and what they had after it."""

    times: csr_matrix
    recent: csr_matrix
    lately: np.ndarray
    after: csr_matrix
    people: list[str]
    items: list[str]


def past_of(rows: pa.Table, cut: date) -> Past:
    """From (person_id, day, item), written out by hand."""
    table = rows.filter(pa.compute.equal(rows["label"], 1))
    people, person = np.unique(table["person_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    items, item = np.unique(table["item"].to_numpy(zero_copy_only=False), return_inverse=True)
    ago = (np.datetime64(cut) - table["day"].to_numpy().astype("datetime64[D]")).astype(int)
    shape = (len(people), len(items))

    def counted(kept: np.ndarray, weight: np.ndarray | None = None) -> csr_matrix:
        values = np.ones(kept.sum()) if weight is None else weight[kept]
        return csr_matrix((values, (person[kept], item[kept])), shape=shape)

    known = ago >= 0
    lately = np.asarray(counted(known & (ago < DAYS)).sign().sum(axis=0)).ravel()
    recent = counted(known, 0.5 ** (ago / 180)).minimum(1).tocsr()
    return Past(counted(known), recent, lately, counted(~known).sign(), list(people), list(items))


def own_frequency(past: Past) -> np.ndarray:
    return past.times.toarray() + past.lately / (past.lately.max() + 1)


def ease_trend(past: Past) -> np.ndarray:
    had = past.times.sign()
    gram = (had.T @ had).toarray() + 200 * np.eye(len(past.items))
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return np.maximum(past.recent @ weights, 0) * past.lately**0.3


def gf_cf_trend(past: Past) -> np.ndarray:
    had = past.times.sign()
    by_person, by_item = (1 / np.sqrt(np.maximum(np.asarray(had.sum(axis=axis)).ravel(), 1)) for axis in (1, 0))
    normal = (diags(by_person) @ had @ diags(by_item)).tocsr()
    parts = svds(normal, k=64, random_state=0)[2]
    alike = (normal.T @ normal).toarray() + 0.3 * (by_item[:, None] * parts.T) @ (parts / by_item)
    return np.maximum(past.recent @ alike, 0) * past.lately**0.3


SCORES: dict[str, Callable[[Past], np.ndarray]] = {
    "own frequency": own_frequency, "EASE x trend": ease_trend, "GF-CF x trend": gf_cf_trend
}  # fmt: skip


def best(scores: np.ndarray, may: np.ndarray) -> list[list[int]]:
    """The TOP items of each person among those that may be listed."""
    order = np.argsort(-np.where(may, scores, -np.inf), axis=1, kind="stable")[:, :TOP]
    return [[int(item) for item in row if mine[item]] for row, mine in zip(order, may, strict=True)]


def measured(lists: list[list[int]], truth: np.ndarray) -> dict[str, np.ndarray]:
    """NDCG and recall per person, by the book."""
    ndcg, recall = [], []
    for listed, wanted in zip(lists, truth, strict=True):
        hits = [place for place, item in enumerate(listed) if wanted[item]]
        ideal = sum(1 / np.log2(place + 2) for place in range(min(int(wanted.sum()), TOP)))
        ndcg.append(sum(1 / np.log2(place + 2) for place in hits) / ideal)
        recall.append(len(hits) / wanted.sum())
    return {"NDCG@20": np.array(ndcg), "recall@20": np.array(recall)}


def ours(shop: Shop, prediction: Ranking, rows: pa.Table, cut: date, past: Past) -> list[list[int]]:
    """Lists by the product's own path: trained on windows before the cut-off, scored as of it."""
    trained = ranking.train(rows, prediction)
    champion = Champion("benchmark", trained.scorer, trained.missing, trained.prior)
    known = ranking.inputs(shop.known(prediction), prediction, shop.project, cut).to_pyarrow()
    scored = ranking.score(known, champion, prediction, shop.project, cut).sort_by(
        [("person_id", "ascending"), ("rank", "ascending")]
    )
    person, item = {name: n for n, name in enumerate(past.people)}, {name: n for n, name in enumerate(past.items)}
    lists: list[list[int]] = [[] for _ in past.people]
    for who, what in zip(scored["person_id"].to_pylist(), scored["item"].to_pylist(), strict=True):
        if who in person:
            lists[person[who]].append(item[what])
    return lists


def compared(
    name: str, shop: Shop, target: dict[str, Any], cuts: tuple[date, ...], wants: tuple[str, ...] = tuple(WANTS)
) -> Iterator[Row]:
    for want in wants:
        prediction = Ranking.model_validate(
            {"kind": "prediction", "type": "ranking", "name": want, "description": want, "target": target,
             "wants": want, "horizon": f"{DAYS} days", "top": TOP}
        )  # fmt: skip
        for cut in cuts:
            rows = shop.training_set(prediction, cut)
            past = past_of(rows, cut)
            had, after = past.times.toarray() > 0, past.after.toarray() > 0
            may = {"anything": np.ones_like(had), "discover": ~had, "buy_again": had}[want] & (had.any(axis=0))
            truth = after & may
            who = np.flatnonzero(truth.any(axis=1) & had.any(axis=1))
            lists = ours(shop, prediction, rows, cut, past)
            our = measured([lists[n] for n in who], truth[who])
            what, window = f"{name}, {WANTS[want]}", f"{cut} + {DAYS} d, {len(who):,} people"
            for rival in RIVALS[want]:
                their = measured(best(SCORES[rival](past)[who], may[who]), truth[who])
                for measure in our:
                    yield _row(what, window, measure, our[measure], rival, their[measure])
            shown = {item for n in who for item in lists[n]}
            reach = had[who].mean(axis=0)
            bits = [-np.log2(max(reach[item], 1 / len(who))) for n in who for item in lists[n]]
            yield Row(what, window, "coverage of items", len(shown) / int(may.any(axis=0).sum()))
            yield Row(what, window, "novelty in bits", float(np.mean(bits)))


def _row(what: str, window: str, measure: str, our: np.ndarray, rival: str, their: np.ndarray) -> Row:
    apart, random = our - their, np.random.default_rng(0)
    means = [apart[random.integers(0, len(apart), len(apart))].mean() for _ in range(1000)]
    low, high = (float(bound) for bound in np.percentile(means, [2.5, 97.5]))
    return Row(
        what, window, measure, float(our.mean()), rival, float(their.mean()), low, high,
        "at or above the rival", float(our.mean()) >= float(their.mean()),
    )  # fmt: skip


def rows(data: Path) -> Iterator[Row]:
    yield from compared("Online Retail II", online_retail(data), ARTICLES, RECOMMENDED_30D)
    yield from compared("Complete Journey", complete_journey(data), TYPES, JOURNEY_RECOMMENDED_30D)

"""The picture of a person: sound SVG whatever the values, everything in it, nothing on top of another."""

from __future__ import annotations

import random
import re
from datetime import datetime
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.profile.graph import DARK, LIGHT, draw
from cdp_pipeline_tests.identity.shop import IDENTIFIERS, Row, resolved

SVG = "{http://www.w3.org/2000/svg}"
ME = "p0ME"
WHEN = {"first_seen": datetime(2026, 1, 2), "last_seen": datetime(2026, 3, 4)}


def node(id_: int, type_: str, value: str, person: str | None = ME, why: str | None = None) -> dict[str, Any]:
    status = "ok" if why is None else "blocked"
    return {"id": id_, "type": type_, "value": value, "person_id": person, "status": status, "why": why, **WHEN}


def link(a: dict[str, Any], b: dict[str, Any], status: str = "accepted", **more: Any) -> dict[str, Any]:
    a, b = sorted((a, b), key=lambda one: one["id"])
    ends = {f"{name}_{end}": one[name] for end, one in (("a", a), ("b", b)) for name in ("id", "type", "value")}
    row = {"source": "web", "record_id": f"r{a['id']}-{b['id']}", "rule": "same_row", "score": 1.0, "why": None}
    return {**ends, **row, "status": status, **WHEN, **more}


def drawn(nodes: list[dict[str, Any]], links: list[dict[str, Any]]) -> ElementTree.Element:
    return ElementTree.fromstring(draw(ME, nodes, links, IDENTIFIERS))


def boxes(picture: ElementTree.Element) -> list[ElementTree.Element]:
    """The groups that hold a box, each with its title."""
    return [group for group in picture.iter(f"{SVG}g") if any("box" in _class(child) for child in group)]


def _class(element: ElementTree.Element) -> list[str]:
    return element.get("class", "").split()


def titles(picture: ElementTree.Element) -> list[str]:
    return [title.text or "" for title in picture.iter(f"{SVG}title")]


@settings(max_examples=60)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_value_makes_a_sound_picture_that_tells_it(one: str, other: str) -> None:
    a, b = node(1, "email", one), node(2, "unknown_type", f"<script>&{other}")
    picture = drawn([a, b], [link(a, b, source="<&'\">")])
    told = "\n".join(titles(picture))
    for value in (one, other):
        kept = re.sub(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", value)
        assert kept in told
    assert not list(picture.iter(f"{SVG}script"))


def test_every_identifier_and_link_of_a_person_is_in_it_with_its_evidence() -> None:
    rows = [
        Row("web", 1, 0, customer=1, mail="ann@example.com", cookie="k1"), Row("till", 2, 5, customer=1, cookie="k2"),
        Row("web", 3, 6, mail="ann@example.com", customer=2),
    ]  # fmt: skip
    result = resolved(rows)
    person = next(row["person_id"] for row in result.identifiers.to_pylist() if row["value"] == "1")
    links = result.edges.to_pylist()
    text = draw(person, result.identifiers.to_pylist(), links, IDENTIFIERS)
    picture = ElementTree.fromstring(text)
    told = titles(picture)
    own = {row["id"] for row in result.identifiers.to_pylist() if row["person_id"] == person}
    ours = [one for one in links if own & {one["id_a"], one["id_b"]}]
    beside = {end for one in ours for end in (one["id_a"], one["id_b"])}
    for row in result.identifiers.to_pylist():
        times = sum(title.startswith(f"{row['type']}:{row['value']},") for title in told)
        assert times == (row["id"] in own | beside)
    for one in ours:
        assert any(one["record_id"] in title and (one["why"] or "") in title for title in told)
    assert any("at most 1 customer_id" in title for title in told), "why the address is not this customer's any more"
    ghosts = [group for group in boxes(picture) if any("ghost" in _class(child) for child in group)]
    assert [next(ghost.iter(f"{SVG}title")).text.split(",")[0] for ghost in ghosts] == ["email:ann@example.com"]


def test_a_match_shows_its_score_and_a_verdict_that_somebody_said_so() -> None:
    a, b, c = node(1, "customer_id", "1"), node(2, "email", "ann@example.com"), node(3, "anonymous_id", "k")
    matched = link(a, b, rule="match:by_name", score=0.973, source="match")
    picture = drawn([a, b, c], [matched, link(b, c, rule="verdict", source="verdict")])
    words = [text.text for text in picture.iter(f"{SVG}text")]
    assert {"by_name", "score 0.97", "said by hand"} <= set(words)
    assert any("score 0.973" in title for title in titles(picture))


def test_what_does_not_count_says_why_where_it_hangs() -> None:
    ann, phone = node(1, "customer_id", "1"), node(2, "email", "ann@example.com")
    blocked, old = node(3, "email", "info@example.com", None, "mailbox of a role"), node(4, "anonymous_id", "k", "p0BO")
    links = [link(ann, phone), link(ann, blocked, "inactive", why="the email is blocked"), link(ann, old, "inactive")]
    picture = drawn([ann, phone, blocked, old], links)
    assert {"blocked", "expired"} <= {text.text for text in picture.iter(f"{SVG}text")}
    assert any("blocked: mailbox of a role" in title for title in titles(picture))
    assert any("of p0BO" in title for title in titles(picture))


def test_rows_come_before_matches_and_strong_links_before_weak_ones() -> None:
    a, b, c = node(1, "customer_id", "1"), node(2, "email", "ann@example.com"), node(3, "anonymous_id", "k")
    links = [link(a, b, rule="match:x", score=0.99), link(a, c), link(b, c)]
    picture = drawn([a, b, c], links)
    solid = [path for path in picture.iter(f"{SVG}path") if _class(path) == ["joined"]]
    assert len(solid) == 1 + 2, "the legend's and two of three links"
    thin = [group for group in picture.iter(f"{SVG}g") if any(_class(child) == ["extra"] for child in group)]
    assert sum("match x" in next(group.iter(f"{SVG}title"), group).text for group in thin if len(group) == 3) == 1


def crowd(chance: random.Random, devices: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A person of a few strong identifiers, many devices that hang on them, and strangers whose links were refused."""
    strong = [node(1, "customer_id", "1"), *(node(place, "email", f"ann{place}@example.com") for place in range(2, 6))]
    links = [link(strong[0], other) for other in strong[1:]]
    nodes = list(strong)
    for place in range(10, 10 + devices):
        nodes.append(node(place, "anonymous_id", f"device{place}"))
        links += [link(one, nodes[-1]) for one in chance.sample(strong, chance.choice([1, 1, 2]))]
    for place in range(1000, 1020):
        nodes.append(node(place, "customer_id", str(place), f"p{place}"))
        links.append(link(strong[1], nodes[-1], "refused_limit", why="a person has at most 1 customer_id"))
    return nodes, links


def test_two_hundred_identifiers_fit_a_page_and_no_box_lies_on_another() -> None:
    nodes, links = crowd(random.Random(1), 200)
    picture = drawn(nodes, links)
    assert len(boxes(picture)) < 40 and float(picture.get("height", 0)) < 1_600
    labels = [text.text or "" for text in picture.iter(f"{SVG}text")]
    devices = [label for label in labels if label.endswith(" × anonymous_id")]
    assert sum(int(label.split()[0]) for label in devices) == 200
    assert "20 × customer_id" in labels
    for size in (0, 3, 25, 200):
        shapes = []
        for group in boxes(drawn(*crowd(random.Random(size), size))):
            front = [child for child in group if "box" in _class(child)][-1]
            shapes.append([float(front.get(name, 0)) for name in ("x", "y", "width", "height")])
        for (x, y, width, height), (left, top, *_) in combinations(shapes, 2):
            assert abs(x - left) >= width or abs(y - top) >= height + 6


def test_the_picture_does_not_depend_on_the_order_of_rows() -> None:
    nodes, links = crowd(random.Random(2), 60)
    same = draw(ME, nodes, links, IDENTIFIERS)
    for seed in range(3):
        chance = random.Random(seed)
        assert draw(ME, chance.sample(nodes, len(nodes)), chance.sample(links, len(links)), IDENTIFIERS) == same


def test_somebody_of_one_identifier_and_nobody_at_all_have_a_picture() -> None:
    picture = drawn([node(1, "email", "ann@example.com")], [])
    assert len(boxes(picture)) == 1 and "nothing to join" in next(picture.iter(f"{SVG}desc")).text
    assert boxes(drawn([], [])) == []


def test_a_picture_has_a_title_and_a_summary_for_who_cannot_see_it() -> None:
    picture = drawn(*crowd(random.Random(3), 5))
    assert picture.get("role") == "img" and picture.get("aria-labelledby") == "title desc"
    assert next(picture.iter(f"{SVG}title")).text == f"Identity of person {ME}"
    assert next(picture.iter(f"{SVG}desc")).text.startswith("10 identifiers. 9 links that joined them")


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_stand_out_in_the_light_and_in_the_dark() -> None:
    text = draw(ME, [node(1, "email", "ann@example.com")], [], IDENTIFIERS)
    light, dark = text.split("@media (prefers-color-scheme:dark)")
    for theme, colours in ((light, LIGHT), (dark, DARK)):
        page = re.search(r"\.page\{fill:(#\w{6})", theme)[1]
        inks = re.findall(r"(?:text|under)\{fill:(#\w{6})|joined,\.extra\{stroke:(#\w{6})", theme)
        for colour in [*colours, *filter(None, (one for pair in inks for one in pair))]:
            brighter, darker = sorted((luminance(colour), luminance(page)), reverse=True)
            assert (brighter + 0.05) / (darker + 0.05) >= 4.5, (colour, page)

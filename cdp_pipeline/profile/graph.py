"""The identity graph of one person as an SVG picture: identifiers, the links that join them, and those that did not.

It draws what identity/ decided. The tree of links that join stands from left to right, the strongest identifier first;
the same person gives the same picture, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.people import IDENTIFIERS
from cdp_pipeline.spec.base import counted

if TYPE_CHECKING:
    from cdp_pipeline.lake import LakeView
    from cdp_pipeline.spec.identifier import Identifier
    from cdp_pipeline.spec.project import Project

BOX, HEIGHT, GAP, ROW, MARGIN = 236, 32, 186, 48, 28  # pixels: box, space between columns, between rows
ROWS = 40  # more leaves than this, and those of one type at one place are drawn as one
GROUP = 4  # as few as this are drawn one by one all the same
TOLD = 12  # lines in a tooltip
JOINING = ("accepted", "redundant")

# Fills with at least 4.5 : 1 against the letters on them, in the order of the project's types.
LIGHT = ("#0b5ea8", "#9a4a00", "#0a7350", "#86399b", "#ad1f3d", "#006d77", "#6b5d00", "#4f5b66")
DARK = ("#7ab8f5", "#f2a65a", "#63d2a1", "#d9a2ec", "#ff8fa3", "#5fd0da", "#d8c95a", "#b4c0cc")
ICONS = {
    "person": '<circle cx="0" cy="-3" r="3"/><path d="M-6 6a6 5.5 0 0 1 12 0"/>',
    "mail": '<rect x="-6" y="-4.5" width="12" height="9" rx="1"/><path d="M-6-3.5 0 1 6-3.5"/>',
    "phone": '<rect x="-3.5" y="-6" width="7" height="12" rx="1.5"/><path d="M-1 4h2"/>',
    "card": '<rect x="-6" y="-4.5" width="12" height="9" rx="1"/><path d="M-6-1.5h12"/>',
    "device": '<rect x="-6" y="-5" width="12" height="8" rx="1"/><path d="M-3 6h6M0 3v3"/>',
    "tag": '<path d="M-5-5h5l5.5 5.5-5 5L-5 0zM-2.5-2.5h.1"/>',
}


def graph_of(lake: LakeView, project: Project, person_id: str) -> str:
    """The picture of a living person from the published tables."""
    identifiers, edges = lake.read(IDENTIFIERS), lake.read(EDGES)
    own = identifiers.filter(identifiers["person_id"] == person_id).select("id").to_pyarrow()["id"].to_pylist()
    links = edges.filter(edges["id_a"].isin(own) | edges["id_b"].isin(own)).to_pyarrow().to_pylist() if own else []
    ends = sorted({*own, *(link[end] for link in links for end in ("id_a", "id_b"))})
    nodes = identifiers.filter(identifiers["id"].isin(ends)).to_pyarrow().to_pylist() if ends else []
    return draw(person_id, nodes, links, project.identifiers)


@dataclass
class _Item:
    """A box: one identifier, or several of one type that hang at the same place. `ghost`: they are not the person's."""

    nodes: list[Mapping[str, Any]]
    ghost: bool = False
    pairs: list[tuple[int, int]] = field(default_factory=list)  # what ties it to the box on its left
    children: list[_Item] = field(default_factory=list)
    column: int = 0
    y: float = 0.0

    @property
    def x(self) -> int:
        return MARGIN + self.column * (BOX + GAP)

    @property
    def type(self) -> str:
        return self.nodes[0]["type"]


def draw(
    person_id: str,
    identifiers: Sequence[Mapping[str, Any]],
    links: Sequence[Mapping[str, Any]],
    types: Mapping[str, Identifier],
) -> str:
    """The SVG of rows of identity.identifiers (the person's, and whatever else their links lead to) and identity.edges.

    Links that joined are solid, those that tie what was joined already are thin, refused and expired ones dashed; what
    they lead to has a dashed box. Pointing at a line or a box tells its source rows, times, rule, score and reason.
    """
    strongest_first = sorted(types, key=lambda name: (-types[name].priority, name))
    order = {name: place for place, name in enumerate(strongest_first)}
    picture = _Picture(person_id, {node["id"]: node for node in identifiers}, _by_pair(links), types, order)
    return "\n".join(picture.lines()) + "\n"


def _by_pair(links: Iterable[Mapping[str, Any]]) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    """Links by their two ends, what joined first; several sources may show one pair."""
    rank = {"accepted": 0, "redundant": 1}
    pairs: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for link in sorted(links, key=lambda one: (rank.get(one["status"], 2), one["source"], one["record_id"])):
        pairs.setdefault((link["id_a"], link["id_b"]), []).append(link)
    return pairs


class _Picture:
    def __init__(
        self,
        person_id: str,
        nodes: Mapping[int, Mapping[str, Any]],
        pairs: Mapping[tuple[int, int], list[Mapping[str, Any]]],
        types: Mapping[str, Identifier],
        order: Mapping[str, int],
    ) -> None:
        self.person_id, self.nodes, self.types, self.order = person_id, nodes, types, order
        self.own = {id_ for id_, node in nodes.items() if node["person_id"] == person_id}
        theirs = (ends for ends in pairs if nodes.keys() >= set(ends) and self.own.intersection(ends))
        self.pairs = {ends: pairs[ends] for ends in theirs}
        self.item_of: dict[int, _Item] = {}
        self.tree = self._strongest_tree()
        self.drawn: set[tuple[int, int]] = set()  # pairs that tie a box to the one on its left
        self.roots = self._trees()
        if sum(not item.children for item in self._items()) > ROWS:
            self._gather(ghosts=False)
        self._gather(ghosts=True)
        self._lay_out()

    def _rank(self, id_: int) -> tuple[Any, ...]:
        node = self.nodes[id_]
        return self.order.get(node["type"], len(self.order)), node["value"]

    def _strongest_tree(self) -> set[tuple[int, int]]:
        """The pairs that join the person's identifiers, the strongest first; the other links add nothing to them."""

        def weakest_last(ends: tuple[int, int]) -> tuple[Any, ...]:
            link, priorities = self.pairs[ends][0], sorted(self._priority(end) for end in ends)
            match = link["rule"].startswith("match:")
            standing = 0 if link["rule"] == "verdict" else 2 if match else 1
            weakest = [-priority for priority in priorities]
            return standing, -link["score"] if match else 0, weakest, -link["last_seen"].timestamp(), ends

        part = {id_: id_ for id_ in self.own}

        def root(id_: int) -> int:
            while part[id_] != id_:
                part[id_] = id_ = part[part[id_]]
            return id_

        tree = set()
        joining = [ends for ends, links in self.pairs.items() if links[0]["status"] in JOINING]
        for ends in sorted((ends for ends in joining if self.own.issuperset(ends)), key=weakest_last):
            one, other = map(root, ends)
            if one != other:
                part[one] = other
                tree.add(ends)
        return tree

    def _priority(self, id_: int) -> int:
        spec = self.types.get(self.nodes[id_]["type"])
        return 0 if spec is None else spec.priority

    def _kind(self, ends: tuple[int, int]) -> str:
        """How a pair is drawn."""
        status = self.pairs[ends][0]["status"]
        if status in JOINING:
            return "joined" if ends in self.tree else "extra"
        return "inactive" if status == "inactive" else "refused"

    def _trees(self) -> list[_Item]:
        """Boxes in trees over the links that joined, each from its strongest identifier; ghosts hang where refused."""
        neighbours: dict[int, list[tuple[int, tuple[int, int]]]] = {id_: [] for id_ in self.nodes}
        for ends in self.pairs:
            if ends in self.tree or len(self.own.intersection(ends)) == 1:
                neighbours[ends[0]].append((ends[1], ends))
                neighbours[ends[1]].append((ends[0], ends))
        roots = []
        for start in sorted(self.own, key=self._rank):
            if start in self.item_of:
                continue
            roots.append(self._box(start))
            queue = [start]
            for here in queue:
                for there, ends in sorted(
                    neighbours[here], key=lambda one: (one[0] not in self.own, self._rank(one[0]))
                ):
                    if there not in self.item_of:
                        self.item_of[here].children.append(self._box(there, ends))
                        if there in self.own:
                            queue.append(there)
        return roots

    def _box(self, id_: int, ends: tuple[int, int] | None = None) -> _Item:
        item = _Item([self.nodes[id_]], ghost=id_ not in self.own)
        if ends is not None:
            item.pairs.append(ends)
            self.drawn.add(ends)
        self.item_of[id_] = item
        return item

    def _items(self) -> Iterator[_Item]:
        """Every box, from top to bottom as a reader goes: a box before those on its right."""
        waiting = self.roots[::-1]
        while waiting:
            item = waiting.pop()
            yield item
            waiting.extend(item.children[::-1])

    def _gather(self, *, ghosts: bool) -> None:
        """Make one box of many leaves of a type that hang at one place, and for ghosts also for one reason."""
        for item in list(self._items()):
            groups: dict[tuple[Any, ...], list[_Item]] = {}
            for child in item.children:
                alone = child.children or child.ghost != ghosts
                why = self.pairs[child.pairs[0]][0]["why"] if child.ghost else None
                groups.setdefault((id(child),) if alone else (child.type, why), []).append(child)
            item.children = []
            for group in groups.values():
                if len(group) <= GROUP:
                    item.children += group
                    continue
                together = _Item(
                    [node for one in group for node in one.nodes], ghosts, [pair for one in group for pair in one.pairs]
                )
                self.item_of |= {node["id"]: together for node in together.nodes}
                item.children.append(together)

    def _lay_out(self) -> None:
        items = list(self._items())
        row = 0
        for item in items:
            for child in item.children:
                child.column = item.column + 1
            if not item.children:
                item.y = row
                row += 1
        for item in reversed(items):
            if item.children:
                item.y = (item.children[0].y + item.children[-1].y) / 2
        self.columns, self.rows = 1 + max((item.column for item in items), default=0), max(row, 1)

    def lines(self) -> Iterator[str]:
        head, legend = self._head()
        top = 84 + 24 * len(legend)
        width = max(2 * MARGIN + self.columns * BOX + (self.columns - 1) * GAP, 760)
        height = top + self.rows * ROW + MARGIN
        for item in self._items():
            item.y = top + item.y * ROW + ROW / 2
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            'role="img" aria-labelledby="title desc">'
        )
        yield f'<title id="title">{_text(f"Identity of person {self.person_id}")}</title>'
        yield f'<desc id="desc">{_text(". ".join(head) + ".")}</desc>'
        yield f"<style>{_style(len(self.order))}</style>"
        yield f'<rect class="page" width="{width}" height="{height}"/>'
        yield f'<text class="head" x="{MARGIN}" y="40">{_text(self.person_id)}</text>'
        yield f'<text class="soft" x="{MARGIN}" y="62">{_text(" · ".join(head))}</text>'
        for place, row in enumerate(legend):
            yield f'<g transform="translate({MARGIN} {88 + 24 * place})">{row}</g>'
        yield from self._across()
        for item in self._items():
            for child in item.children:
                yield self._tie(item, child)
        for item in self._items():
            yield self._draw_box(item)
        yield "</svg>"

    def _head(self) -> tuple[list[str], list[str]]:
        kinds = {"joined": 0, "extra": 0, "refused": 0, "inactive": 0}
        for ends in self.pairs:
            kinds[self._kind(ends)] += 1
        said = [
            counted(len(self.own), "identifier"),
            counted(kinds["joined"], "link") + " that joined them" if kinds["joined"] else "nothing to join",
            f"{kinds['extra']:,} more between them" if kinds["extra"] else "",
            f"{kinds['refused']:,} refused" if kinds["refused"] else "",
            f"{kinds['inactive']:,} that do not count" if kinds["inactive"] else "",
        ]
        types: dict[str, int] = {}
        for id_ in self.item_of:
            name = self.nodes[id_]["type"]
            types[name] = types.get(name, 0) + (id_ in self.own)
        rows: list[str] = []
        row, x = "", 0.0
        for name in sorted(types, key=lambda name: (self.order.get(name, 99), name)):
            label = f"{name} ({types[name]:,})"
            if row and x + 30 + _width(label) > 900:
                rows, row, x = [*rows, row], "", 0.0
            words = f'<text class="soft" x="15" y="4">{_text(label)}</text>'
            row += f'<g transform="translate({_n(x + 10)} 0)">{self._icon(name)}{words}</g>'
            x += 44 + _width(label)
        strokes, x = "", 0.0
        for kind, label in LINES.items():
            if kinds[kind]:
                strokes += (
                    f'<path class="{kind}" d="M{_n(x)} 0h34"/><text class="soft" x="{_n(x + 42)}" y="4">{label}</text>'
                )
                x += 66 + _width(label)
        return [words for words in said if words], [*rows, row, *([strokes] if strokes else [])]

    def _across(self) -> Iterator[str]:
        """The links beside the tree, thin or dashed, under everything else; one line for all between two boxes."""
        lines: dict[tuple[int, int, str], tuple[_Item, _Item, list[Mapping[str, Any]]]] = {}
        for ends, links in self.pairs.items():
            if ends in self.drawn:
                continue
            one, other = sorted((self.item_of[end] for end in ends), key=lambda item: (item.column, item.y))
            if one is not other:
                key = id(one), id(other), self._kind(ends)
                lines.setdefault(key, (one, other, []))[2].extend(links)
        for (_, _, kind), (one, other, links) in lines.items():
            if one.column == other.column:
                x, reach = one.x + BOX, 26 + min(abs(one.y - other.y) / 6, 60)
                path = f"M{x} {_n(one.y)}C{_n(x + reach)} {_n(one.y)} {_n(x + reach)} {_n(other.y)} {x} {_n(other.y)}"
            else:
                x, end = one.x + BOX, other.x
                path = f"M{x} {_n(one.y)}C{x + 60} {_n(one.y)} {end - 60} {_n(other.y)} {end} {_n(other.y)}"
            yield _line(kind, path, links)

    def _tie(self, item: _Item, child: _Item) -> str:
        """The line from a box to one on its right, with the source above it and when it was last seen below."""
        links = [link for ends in child.pairs for link in self.pairs[ends]]
        first, x, end = links[0], item.x + BOX, child.x
        path = f"M{x} {_n(item.y)}C{x + 40} {_n(item.y)} {x + 28} {_n(child.y)} {x + 64} {_n(child.y)}H{end}"
        kind = self._kind(child.pairs[0])
        sources = {link["source"] for link in links}
        above = "said by hand" if first["rule"] == "verdict" else first["source"]
        above += f" +{len(sources) - 1}" if len(sources) > 1 else ""
        below = _day(max(link["last_seen"] for link in links))
        if first["rule"].startswith("match:"):
            above, below = first["rule"].removeprefix("match:"), f"score {first['score']:.2f}"
        if kind == "refused":
            below = "refused" if first["status"] != "refused_verdict" else "kept apart by hand"
        elif kind == "inactive":
            unfit = [one.nodes[0]["status"] for one in (child, item) if one.nodes[0]["status"] != "ok"]
            below = unfit[0] if unfit else "expired"
        labels = "".join(
            f'<text class="{name}" x="{end - 8}" y="{_n(child.y + move)}">{_text(_cut(words, GAP - 74, 6.2))}</text>'
            for name, words, move in (("over", above, -5), ("under", below, 14))
        )
        return _line(kind, path, links) + labels

    def _draw_box(self, item: _Item) -> str:
        node, many = item.nodes[0], len(item.nodes)
        label = f"{many:,} × {item.type}" if many > 1 else node["value"]
        names = ["box", f"c{self.order.get(item.type, 0) % len(LIGHT)}", "ghost" if item.ghost else ""]
        x, y = item.x, item.y - HEIGHT / 2
        stack = "".join(
            f'<rect class="{" ".join(filter(None, names))}" x="{x + move}" y="{_n(y + move)}" width="{BOX}" '
            f'height="{HEIGHT}" rx="8"/>' for move in ((6, 3, 0) if many > 1 else (0,))
        )  # fmt: skip
        words = [self._said_of(one) for one in item.nodes[:TOLD]]
        if many > TOLD:
            words.append(f"and {many - TOLD:,} more")
        return (
            f"<g><title>{_text(chr(10).join(words))}</title>{stack}"
            f'<g transform="translate({x + 19} {_n(item.y)})">{self._icon(item.type)}</g>'
            f'<text class="{"value soft" if item.ghost else "value"}" x="{x + 36}" y="{_n(item.y + 4.5)}">'
            f"{_text(_cut(label, BOX - 46, 7.6))}</text></g>"
        )

    def _said_of(self, node: Mapping[str, Any]) -> str:
        said = f"{node['type']}:{node['value']}, seen {_day(node['first_seen'])} to {_day(node['last_seen'])}"
        if node["status"] != "ok":
            said += f", {node['status']}: {node['why']}"
        if node["person_id"] not in (None, self.person_id):
            said += f", of {node['person_id']}"
        return said

    def _icon(self, name: str) -> str:
        colour = self.order.get(name, 0) % len(LIGHT)
        return (
            f'<circle class="disc c{colour}" r="10"/><g class="icon">{ICONS[_icon_of(name, self.types.get(name))]}</g>'
        )


LINES = {
    "joined": "joined them",
    "extra": "ties what was joined already",
    "refused": "refused",
    "inactive": "does not count",
}


def _line(kind: str, path: str, links: Sequence[Mapping[str, Any]]) -> str:
    """A line with its evidence, wide enough to point at."""
    return f'<g><title>{_told(links)}</title><path class="{kind}" d="{path}"/><path class="hit" d="{path}"/></g>'


def _icon_of(name: str, spec: Identifier | None) -> str:
    words = {"mail": "mail", "phone": "phone", "mobile": "phone", "card": "card", "loyalty": "card"}
    found = next((icon for word, icon in words.items() if word in name), None)
    if found is not None or spec is None:
        return found or "tag"
    return "device" if not spec.known else "person" if spec.unique else "tag"


def _told(links: Sequence[Mapping[str, Any]]) -> str:
    """The evidence of a line, as a tooltip."""
    words = []
    for link in links[:TOLD]:
        rule = {"same_row": "on one row", "verdict": "said by hand"}.get(link["rule"], link["rule"].replace(":", " "))
        said = (
            f"{link['type_a']}:{link['value_a']} and {link['type_b']}:{link['value_b']}: {rule} of {link['source']} "
            f"({link['record_id']}), {_day(link['first_seen'])} to {_day(link['last_seen'])}"
        )
        if link["rule"].startswith("match:"):
            said += f", score {link['score']:.3f}"
        status = link["status"].replace("_", " ")
        words.append(f"{said}, {status}" + (f": {link['why']}" if link["why"] else ""))
    if len(links) > TOLD:
        words.append(f"and {len(links) - TOLD:,} more")
    return _text("\n".join(words))


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%b %Y}"


def _text(words: str) -> str:
    """Escaped; what XML cannot hold becomes a question mark."""
    return escape("".join(letter if _is_xml(ord(letter)) else "?" for letter in words))


def _is_xml(code: int) -> bool:
    return code in (9, 10) or 0x20 <= code < 0x7F or 0xA0 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or code >= 0x10000


def _width(words: str, letter: float = 6.6) -> float:
    return sum(letter * (1.8 if east_asian_width(one) in "WF" else 1) for one in words)


def _cut(words: str, room: float, letter: float) -> str:
    """The words, without their middle where they are too wide: both ends of an address tell it from others."""
    if _width(words, letter) <= room:
        return words
    keep = len(words) - 1
    while keep > 2 and _width(words[: (keep + 1) // 2] + "…" + words[-(keep // 2) :], letter) > room:
        keep -= 1
    return words[: (keep + 1) // 2] + "…" + words[-(keep // 2) :]


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _style(types: int) -> str:
    """Both themes, for screens that ask for the dark one."""
    common = (
        "text{font-family:system-ui,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;font-size:12px}"
        ".head{font-size:19px;font-weight:600}.value{font-size:13px}.over,.under{font-size:10.5px;text-anchor:end;paint-order:stroke;"
        "stroke-width:3}"
        "path{fill:none}.joined{stroke-width:2}.extra{stroke-width:1;opacity:.8}"
        ".refused,.inactive{stroke-width:1.4;stroke-dasharray:5 4}.hit{stroke:transparent;stroke-width:12}"
        ".box{stroke-width:1.5}.ghost{stroke-dasharray:4 3}.icon *{fill:none;stroke-width:1.4;stroke-linecap:round;"
        "stroke-linejoin:round}"
    )

    def theme(page: str, box: str, ink: str, soft: str, line: str, refused: str, colours: Sequence[str]) -> str:
        each = "".join(
            f".disc.c{place}{{fill:{colour}}}.box.c{place}{{stroke:{colour}}}"
            for place, colour in enumerate(colours[: max(types, 1)])
        )
        return (
            f".page{{fill:{page}}}.box{{fill:{box}}}text{{fill:{ink}}}.soft,.over,.under{{fill:{soft}}}{each}"
            f".over,.under{{stroke:{page}}}"
            f".joined,.extra{{stroke:{line}}}.refused{{stroke:{refused}}}.inactive,.box.ghost{{stroke:{soft}}}"
            f".icon *{{stroke:{box}}}"
        )

    light = theme("#ffffff", "#ffffff", "#16202b", "#55616e", "#55616e", "#b3261e", LIGHT)
    dark = theme("#12171d", "#1b232c", "#eef2f6", "#a9b4c0", "#93a1af", "#ff9d94", DARK)
    return f"{common}{light}@media (prefers-color-scheme:dark){{{dark}}}"

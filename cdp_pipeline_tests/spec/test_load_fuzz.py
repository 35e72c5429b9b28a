"""Whatever is in a project folder, only a ProjectError comes out, and its every line can be printed."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_pipeline.spec.documents import read_documents
from cdp_pipeline.spec.load import ProjectError, load_project

SOUND = Path(__file__).parent / "golden" / "sound"
DOCUMENTS = [
    document.data
    for path in sorted(SOUND.glob("*.yaml"))
    for document in read_documents(path.read_text(), {"HOOK_SECRET": "x"})
]
LINE = re.compile(r"\S.*:\d+: .+")
fuzzing = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def expect_nothing_but_problems(folder: Path) -> None:
    try:
        load_project(folder, {"HOOK_SECRET": "x", "NAME": "value"})
    except ProjectError as error:
        lines = str(error).split("\n")
        assert len(lines) == len(error.problems)
        assert all(LINE.fullmatch(line) and line.isprintable() for line in lines), lines
        str(error).encode()


YAML_BITS = """
kind: name: trait source audience - [ ] { } , : ? & * &a *a ! !!str !!binary | > --- ... % # " ' \n \t \r \\ ${NAME} ${X
$${ null ~ true 1 0x1 .inf 2024-01-01 1:30 << @ ` \x00 \ufeff \u2028 \U0001f600 é %YAML rules columns
"""
yaml_text = st.lists(st.sampled_from([*YAML_BITS.split(" "), " ", "  ", "\n", "\n- ", ": ", "a"]), max_size=40).map(
    "".join
)


@settings(fuzzing, max_examples=400)
@given(st.text() | yaml_text | st.binary())
def test_any_text(tmp_path, content):
    path = tmp_path / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    expect_nothing_but_problems(tmp_path)


scalars = st.sampled_from([
    "", "x", "revenue", "orders_90d", "loyal", "hook", "order_completed", "amount > 1", "amount +", "lower(1)",
    "é", "a\nb",
    "${NAME}", "${GONE}", "${", "email", "_x", "a__b", "lifetime", "last 5 days", "0 days", "5 minutes", "(",
    "a" * 5000,
    "* * * * *", "webhook", "smtp", "trait", "members", "../..", "\x1b[31m", "person_id", "date '2025-01-01'", "https://a:b@[",
    None, True, False, 0, -1, 1, 10**30, 1.5, -0.0, 1e308,
])  # fmt: skip
keys = st.sampled_from(
    [*sorted({key for data in DOCUMENTS for key in data}), "", "on", "x", "is", "all", "1", "é", "a b"]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)


@settings(fuzzing, max_examples=100)
@given(st.lists(st.dictionaries(keys, values, max_size=8) | values, max_size=4), st.booleans())
def test_any_structure(tmp_path, documents, flow):
    text = yaml.safe_dump_all(documents, allow_unicode=True, default_flow_style=flow)
    (tmp_path / "any.yaml").write_text(text)
    expect_nothing_but_problems(tmp_path)


def mutate(data: Any, draw: Any) -> Any:
    """The data with one thing somewhere in it replaced, removed, renamed or added."""
    data = copy.deepcopy(data)
    place: Any = data
    while True:
        inside = place if isinstance(place, dict) else range(len(place))
        key = draw(st.sampled_from(sorted(inside))) if inside else None
        if key is None or not isinstance(place[key], dict | list) or draw(st.booleans()):
            break
        place = place[key]
    change = draw(st.sampled_from(["replace", "remove", "rename", "add"]))
    if isinstance(place, list):
        place.append(draw(values))
    elif change in ("remove", "rename") and key is not None:
        removed = place.pop(key)
        if change == "rename":
            place[draw(keys)] = removed
    else:
        place[key if change == "replace" and key is not None else draw(keys)] = draw(values)
    return data


@settings(fuzzing, max_examples=100)
@given(st.data())
def test_a_sound_project_with_something_changed(tmp_path, data):
    documents = list(DOCUMENTS)
    for _ in range(data.draw(st.integers(1, 3))):
        chosen = data.draw(st.integers(0, len(documents) - 1))
        documents[chosen] = mutate(documents[chosen], data.draw)
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(documents, allow_unicode=True))
    expect_nothing_but_problems(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 300_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "\n".join(" " * i + "a:" for i in range(1000)),
        "&a [*a]",
        "a: &a {b: *a}",
        "kind: trait\nname: " + "a" * 1_000_000,
        "kind: trait\n" + "".join(f"field_{i}: 1\n" for i in range(2_000)),
        "kind: " + "9" * 10_000,
        "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'ha'}]\n" for i in range(50)),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_made_to_hang_or_overflow_a_loader_does_not(tmp_path, text):
    (tmp_path / "bomb.yaml").write_text(text)
    with pytest.raises(ProjectError):
        load_project(tmp_path, {})


def test_a_long_chain_of_references_does_not_overflow(tmp_path):
    ratio = "---\nkind: trait\nname: t{}\ndescription: x\nevaluation: expression\nexpression: t{} + 1\n"
    member = "---\nkind: audience\nname: a{}\ndescription: x\nrules: [{{audience: a{}}}]\n"
    chain = "".join(text.format(i, (i + 1) % 2000) for text in (ratio, member) for i in range(2000))
    (tmp_path / "chain.yaml").write_text(chain)
    with pytest.raises(ProjectError) as raised:
        load_project(tmp_path, {})
    assert [problem.message[:30] for problem in raised.value.problems] == [
        "traits go round in a circle: t",
        "audiences go round in a circle",
        "there is no document of kind '",
    ]

"""A template says what it should, and cannot use up the machine."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp_pipeline.activation.messages import message
from cdp_pipeline.activation.templates import render
from cdp_pipeline.spec.template import TemplateError, problems
from cdp_pipeline.spec.trigger import Act
from cdp_pipeline_tests.activation.projects import DAY, mail


def test_mapped_fields_and_the_person_are_filled_in_and_unknown_ones_stay_empty() -> None:
    text = "Hello {{ name }}, {{ person.tier | upcase }}, {{ value | round: 2 }}{{ person.nothing }}!"
    assert render(text, {"name": "Ann", "value": Decimal("12.3456")}, {"tier": "gold"}) == "Hello Ann, GOLD, 12.35!"


def test_a_missing_name_can_be_provided_for() -> None:
    assert render("Hello{% if name %} {{ name }}{% endif %},", {"name": None}, {}) == "Hello,"


def test_values_are_values_and_never_templates() -> None:
    assert render("{{ name }}", {"name": "{{ person.email }}"}, {"email": "ann@example.com"}) == "{{ person.email }}"


def test_in_html_a_value_is_shown_and_never_markup_while_the_templates_own_markup_stays() -> None:
    name = "<script>alert('x')</script> & Söhne"
    shown = "<b>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; Söhne</b>"
    assert render("<b>{{ name }}</b>", {"name": name}, {}, html=True) == shown
    assert render("<b>{{ person.name | upcase }}</b>", {}, {"name": "<i>"}, html=True) == "<b>&lt;I&gt;</b>"
    assert render("<b>{{ name }}</b>", {"name": name}, {}) == f"<b>{name}</b>"


def test_a_letters_html_escapes_what_its_subject_and_text_say_plainly() -> None:
    act = Act.model_validate(
        {"destination": "mail", "to": "email", "mapping": {"name": "given_name"}, "subject": "{{ name }}",
         "body": "Dear {{ name }}", "html": "<p>Dear {{ name }}, {{ person.city }}</p>"}
    )  # fmt: skip
    person = {"person_id": "p1", "email": "ann@example.com", "given_name": "A & <b>", "city": "Köln >"}
    made = message("hello", act, mail(25), person, "2026-03-09", DAY)
    assert made.payload == {
        "to": "ann@example.com",
        "subject": "A & <b>",
        "body": "Dear A & <b>",
        "html": "<p>Dear A &amp; &lt;b&gt;, Köln &gt;</p>",
    }


@pytest.mark.parametrize(
    "text", ["{{ name", "{% if %}", "{% for x in y %}", "{{ x | nosuchfilter }}", "{% include 'a' %}"]
)
def test_a_broken_template_is_an_error_of_its_own(text: str) -> None:
    with pytest.raises(TemplateError):
        render(text, {}, {})


@pytest.mark.parametrize(
    "text",
    [
        "{% for i in (1..100000000) %}x{% endfor %}",
        "{% for i in (1..900) %}{% for j in (1..900) %}xxxxxxxxxx{% endfor %}{% endfor %}",
        "{% assign a = 'xxxxxxxxxx' %}{% for i in (1..900) %}{% assign a = a | append: a %}{% endfor %}",
        "{% capture a %}xxxxxxxxxx{% endcapture %}"
        "{% for i in (1..60) %}{% capture a %}{{ a }}{{ a }}{% endcapture %}{% endfor %}{{ a }}",
        "{% for i in (1..999) %}" + "x" * 1000 + "{% endfor %}",
    ],
)
def test_a_greedy_template_is_stopped(text: str) -> None:
    with pytest.raises(TemplateError):
        render(text, {}, {})


def test_a_template_reaches_nothing_but_the_words_it_is_given() -> None:
    for text in ("{{ person.__class__ }}", "{{ person.keys }}", "{{ name.__class__.__mro__ }}", "{{ name.format }}"):
        assert render(text, {"name": "Ann"}, {"x": 1}) == ""


def test_checking_names_every_mistake_and_is_silent_about_a_sound_template() -> None:
    sound = "{% if name %}{{ name | upcase }}{% endif %} {{ person.tier }} {% assign n = name %}{{ n }}"
    assert list(problems(sound, ["name"], ["tier"])) == []
    assert list(problems("{{ nam | upcas }} {{ person.teir }}", ["name"], ["tier"])) == [
        "template: unknown filter 'upcas', did you mean 'upcase'?",
        "template: unknown field of the mapping 'nam', did you mean 'name'?",
        "template: unknown attribute, trait or prediction 'teir', did you mean 'tier'?",
    ]
    assert list(problems("{% nosuchtag %}", [], [])) == ["template: unexpected tag 'nosuchtag'"]


@given(st.text(alphabet="{}%|.x '\"1", max_size=40))
def test_no_text_whatsoever_raises_anything_else(text: str) -> None:
    with suppress(TemplateError):
        render(text, {"x": "1"}, {})
    list(problems(text, ["x"], []))

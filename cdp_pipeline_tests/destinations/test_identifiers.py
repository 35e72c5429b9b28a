"""Identifiers hash to what the platforms publish, and to nothing where they could never match."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp_pipeline.destinations.identifiers import google_identifiers, hashed, meta_row, trimmed


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("field", "column", "value", "published"),
    [
        ("email", "EMAIL", "John_Smith@gmail.com ", "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f"),
        ("phone", "PHONE", "+1 (650)555-1212", "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176"),
        ("phone", "PHONE", "001 650 555 1212", "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176"),
        ("first_name", "FN", "Mary", "6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec"),
        ("first_name", "FN", "정", "8fa8cd9c440be61d0151429310034083132b35975c4bea67fdd74158eb51db14"),
        ("last_name", "LN", "Valéry", "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c"),
        ("country", "COUNTRY", "US", "79adb2a2fce5c6ba215fe5f27f532d4e7edbac4b6a5e09e1ef3a08084a904621"),
    ],
)
def test_meta_gets_the_hashes_of_its_own_examples(field: str, column: str, value: str, published: str) -> None:
    assert meta_row({field: value}) == {column: published}


@pytest.mark.parametrize(
    ("field", "value", "column", "normal"),
    [
        ("city", "New York", "CT", "newyork"), ("city", "Sankt-Gallen", "CT", "sanktgallen"),
        ("last_name", "O'Neil", "LN", "oneil"), ("state", "CA", "ST", "ca"), ("gender", "Female", "GEN", "f"),
        ("postal_code", "M1 1AE", "ZIP", "m11ae"), ("postal_code", "1010", "ZIP", "1010"),
        ("postal_code", "94035-1234", "ZIP", "94035"),
    ],
)  # fmt: skip
def test_meta_gets_each_field_in_its_normal_form(field: str, value: str, column: str, normal: str) -> None:
    assert meta_row({field: value}) == {column: sha(normal)}


def test_a_date_of_birth_becomes_metas_three_columns_and_ids_stay_as_they_are() -> None:
    row = meta_row({"date_of_birth": "1997-02-16", "external_id": "C-17", "mobile_id": "AB-12"})
    assert row == {
        "DOBY": sha("1997"), "DOBM": sha("02"), "DOBD": sha("16"), "EXTERN_ID": "C-17", "MADID": "ab-12",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("email", "published"),
    [
        ("dana@example.com", "07e2f1394b0ea80e2adca010ea8318df697001a005ba7452720edda4b0ce57b3"),
        ("DanaM@example.com", "1df6b43bc68dd38eca94e6a65b4f466ae537b796c81a526918b40ac4a7b906c7"),
        ("ALEXJ@example.com", "2ef46c4214c3fc1b277a2d976d55194e12b899aa50d721f28da858c7689756e3"),
    ],
)
def test_google_gets_the_hashes_of_its_own_examples(email: str, published: str) -> None:
    assert google_identifiers({"email": email}) == [{"emailAddress": published}]


@pytest.mark.parametrize(
    ("given_as", "normal"),
    # The first two are the examples of its page "Format user data".
    [("cloudy.sanfrancisco+shopping@gmail.com", "cloudysanfrancisco@gmail.com"),
     ("user.name+NYC@Example.com", "user.name+nyc@example.com"), ("a.b+c@googlemail.com", "ab@googlemail.com"),
     ("a. b@example.com", "a.b@example.com"),
     ("Cloudy.San.Francisco@GMAIL.com ", "cloudysanfrancisco@gmail.com")],
)  # fmt: skip
def test_google_drops_white_space_and_of_its_own_mail_dots_and_what_follows_a_plus(given_as: str, normal: str) -> None:
    assert google_identifiers({"email": given_as}) == [{"emailAddress": sha(normal)}]


@pytest.mark.parametrize(
    ("given_as", "normal"), [("+1 (800)555-0100", "+18005550100"), ("0041 44 668 18 00", "+41446681800")]
)
def test_the_plus_of_a_phone_number_is_googles_and_never_metas(given_as: str, normal: str) -> None:
    assert google_identifiers({"phone": given_as}) == [{"phoneNumber": sha(normal)}]
    assert meta_row({"phone": given_as}) == {"PHONE": sha(normal[1:])}


def test_google_takes_no_phone_without_its_country_and_no_address_in_parts() -> None:
    assert google_identifiers({"phone": "044 668 18 00", "first_name": "Ann", "country": "CH"}) == []
    whole = {"first_name": "Ann", "last_name": "Frei", "country": "Switzerland", "postal_code": "8004"}
    assert google_identifiers(whole) == google_identifiers({"email": "+@gmail.com"}) == []
    address = {"first_name": " Ann ", "last_name": "O'Neil", "country": "ch", "postal_code": "8004"}
    assert google_identifiers(address) == [
        {"address": {"givenName": sha("ann"), "familyName": sha("oneil"), "regionCode": "CH", "postalCode": "8004"}}
    ]


@given(st.text(min_size=1, max_size=40))
def test_what_is_hashed_already_is_not_hashed_again(text: str) -> None:
    once = hashed(text, trimmed)
    assert hashed(once.upper(), trimmed) == once
    assert once == "" or len(once) == 64


@pytest.mark.parametrize("nothing", [None, "", "   "])
def test_nothing_has_no_hash(nothing: object) -> None:
    assert meta_row(dict.fromkeys(("email", "phone", "first_name", "city", "date_of_birth"), nothing)) == {}
    assert google_identifiers({"email": nothing, "phone": nothing}) == []

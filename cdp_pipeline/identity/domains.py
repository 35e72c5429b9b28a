"""Domains of e-mail addresses: at which of them anybody may have one, and which lies below which.

The shipped list is data, freemail.txt; what people at one domain have in common is decided in groups.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib.resources import files


@lru_cache
def free_mail() -> frozenset[str]:
    """The shipped domains of free mail, internet providers and throw-away addresses."""
    lines = files(__package__).joinpath("freemail.txt").read_text("utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def above(domain: str) -> Iterator[str]:
    """The domains a domain lies below, the nearest first: b.example.com, example.com, com of a.b.example.com."""
    while "." in domain:
        domain = domain.partition(".")[2]
        yield domain


def is_nobodys(domain: str, exclude: Collection[str], shipped: bool) -> bool:
    """Whether a domain says nothing about a company: it, or one above it, is a free-mail provider's or excluded.

    An excluded name means itself only, `*.example.com` all below it. No dot in it, and it is no domain at all.
    """
    if "." not in domain or domain in exclude:
        return True
    higher = list(above(domain))
    if any(f"*.{name}" in exclude for name in higher):
        return True
    return shipped and not free_mail().isdisjoint((domain, *higher))

"""`kind: group`: people who belong together: the household at one address, the account of one company.

How people are put into groups is in identity/groups.py, what a group's people add up to in traits/rollup.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from cdp_pipeline.spec.base import Document, Name, Part

HOUSEHOLD_MOST = 12
WAYS = ("same", "email_domain", "identifier", "column")


def _domain(text: str) -> str:
    if not re.fullmatch(r"(\*\.)?([a-z0-9-]+\.)+[a-z0-9-]{2,}", text):
        raise ValueError("should be a domain in small letters, such as example.com, or *.example.com for all below it")
    return text


Domain = Annotated[str, AfterValidator(_domain)]


class Directory(Part):
    """The source that lists the groups themselves, with and without people: their number, name, and parent's number."""

    source: Name
    key: Name
    name: Name | None = None
    parent: Name | None = Field(default=None, description="The column with the number of the group above.")


class Way(Part):
    """One way people belong together. Exactly one of `same`, `email_domain`, `identifier` and `column` is given.

    same: these attributes of the profile are all there and alike. email_domain: the attribute's e-mail addresses are
    at one domain, which is neither a free-mail provider's (`shipped`) nor one of `exclude`. identifier: they were seen
    with one value of this type, also one that is shared. column: rows of `source` about them hold the same number.
    """

    same: Annotated[list[Name], Field(min_length=1)] | None = None
    email_domain: Name | None = None
    exclude: list[Domain] = Field(default=[], description="Domains that are no company: example.com, *.example.com.")
    shipped: bool = Field(default=True, description="False: free-mail providers are companies too.")
    identifier: Name | None = None
    source: Name | None = None
    column: Name | None = None
    directory: Directory | None = None

    @property
    def rule(self) -> str:
        """What tables call this way: `same:family_name+postcode`, `column:crm_contacts.account_id`."""
        if self.same is not None:
            return "same:" + "+".join(self.same)
        if self.column is not None:
            return f"column:{self.source}.{self.column}"
        return f"email_domain:{self.email_domain}" if self.email_domain else f"identifier:{self.identifier}"

    @property
    def words(self) -> str:
        """Why people are together, for a marketer."""
        if self.same is not None:
            return "same " + " and ".join(name.replace("_", " ") for name in self.same)
        if self.column is not None:
            return f"{self.column.replace('_', ' ')} in {self.source}"
        if self.email_domain is not None:
            return "e-mail address at the same domain"
        return f"seen with the same {str(self.identifier).replace('_', ' ')}"

    @model_validator(mode="after")
    def _is_one_way(self) -> Way:
        given = [way for way in WAYS if getattr(self, way) is not None]
        if len(given) != 1:
            got = f", got {' and '.join(given)}" if given else ""
            raise ValueError(f"needs exactly one of {', '.join(WAYS)}{got}")
        if (self.column is None) != (self.source is None):
            raise ValueError("'column' and 'source' go together")
        stray = self.model_fields_set & {"exclude", "shipped"} if self.email_domain is None else set()
        if stray:
            raise ValueError(f"only 'email_domain' has a use for {' and '.join(sorted(stray))}")
        if self.directory is not None and self.column is None and self.identifier is None:
            raise ValueError("only 'column' and 'identifier' are numbers a directory lists")
        return self


class RollUp(Part):
    """One figure of a group: what its people's values of a trait or an attribute come to.

    `count` counts people with a value (of a yes or no, those with a yes), or all of them where nothing is named. Of a
    yes or no, among the people whose answer is known: `any`, `all`, `none`, `at_least` (as many as `least`) have a yes,
    or the `share` (0 to 1) of them that has. over: the group's own people, or those of all groups below it too, each
    once.
    """

    name: Name
    description: Annotated[str, Field(min_length=1, description="What it is, in a marketer's words.")]
    evaluation: Literal["sum", "average", "min", "max", "any", "all", "none", "at_least", "share", "count"]
    least: Annotated[int, Field(ge=1)] | None = Field(default=None, description="How many people `at_least` asks for.")
    trait: Name | None = None
    attribute: Name | None = None
    over: Literal["members", "hierarchy"] = "members"

    @model_validator(mode="after")
    def _of_one_thing(self) -> RollUp:
        if self.trait is not None and self.attribute is not None:
            raise ValueError("needs one of 'trait' and 'attribute', got both")
        if self.trait is None and self.attribute is None and self.evaluation != "count":
            raise ValueError(f"evaluation '{self.evaluation}' needs 'trait' or 'attribute'")
        if (self.evaluation == "at_least") != (self.least is not None):
            raise ValueError("evaluation 'at_least' and its number of people 'least' go together")
        return self


class Group(Document):
    """People joined by one or more ways, the most trusted first: where ways contradict each other, the last gives way.

    What is shared by more than `max_members` people (default: 12 in a household, any number in an account) is kept,
    marked too large, and joins nobody. An account has one number (`column`, `identifier`) of a way; two are two.
    """

    kind: Literal["group"]
    type: Literal["household", "account"]
    by: Annotated[list[Way], Field(min_length=1, max_length=20)]
    max_members: Annotated[int, Field(ge=2)] | None = None
    rollup: list[RollUp] = []

    @property
    def most(self) -> int | None:
        """How many people one group may have."""
        return self.max_members or (HOUSEHOLD_MOST if self.type == "household" else None)

    def names_it(self, way: Way) -> bool:
        """Whether the way's values are numbers of the groups themselves, so that two of them are two groups."""
        return self.type == "account" and (way.column is not None or way.identifier is not None)

    @model_validator(mode="after")
    def _fits_its_type(self) -> Group:
        if len({way.rule for way in self.by}) != len(self.by):
            raise ValueError("two of its ways are the same")
        if self.type == "household" and any(way.email_domain is not None for way in self.by):
            raise ValueError("people with one e-mail domain are an account, not a household")
        if self.type == "household" and any(way.directory is not None for way in self.by):
            raise ValueError("only an account has a directory")
        if len({figure.name for figure in self.rollup}) != len(self.rollup):
            raise ValueError("two figures have the same name")
        return self

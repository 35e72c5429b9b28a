"""What traits a project has, for people to read: its own and those that come with the house."""

from __future__ import annotations

from cdp_pipeline.shipped.catalogue import lacking
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.types import UNION, WORDS, traits_read
from cdp_pipeline.traits.daily import trait_types


def listed(project: Project) -> list[dict[str, str]]:
    """Each trait in the order of traits.daily: name, description, type, unit, of (events or traits), window, declared.

    `declared` is the file and line; that of a trait that comes with the house begins with `shipped/`.
    """
    types = trait_types(project)
    return [
        {
            "name": name,
            "description": trait.description,
            "type": "list" if types[name] == UNION else WORDS[types[name]],
            "unit": trait.unit or "",
            "of": ", ".join(trait.event or sorted(traits_read(trait))),
            "window": str(trait.window) if trait.event else "",
            "declared": project.places["trait", name],
        }
        for name, trait in project.traits.items()
    ]


def missing(project: Project) -> list[dict[str, str]]:
    """The traits that come with the house and this project cannot have: name, description and what lacks."""
    return [
        {"name": offer.name, "description": str(offer.data["description"]), "lacks": why}
        for offer, why in lacking(project)
        if offer.line.kind == "trait"
    ]

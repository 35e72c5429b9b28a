"""A folder of YAML becomes a Project, or a ProjectError that names every problem in it at once.

What documents may say is in the other modules of spec/; this one reads files, tries each document's model, and puts
file and line to what was found.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cdp_pipeline.shipped.catalogue import offers, settings_findings, shipped
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.spec.audience import Audience
from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.consent import Consent
from cdp_pipeline.spec.contact_policy import ContactPolicy
from cdp_pipeline.spec.destination import DESTINATIONS
from cdp_pipeline.spec.documents import MAX_BYTES, DataPath, Document, UnreadableError, read_documents
from cdp_pipeline.spec.group import Group
from cdp_pipeline.spec.guard import Guard
from cdp_pipeline.spec.identifier import Identifier
from cdp_pipeline.spec.match import Match
from cdp_pipeline.spec.prediction import PREDICTIONS
from cdp_pipeline.spec.project import Project, ProjectSettings
from cdp_pipeline.spec.references import Declared, findings
from cdp_pipeline.spec.secrets import secret_findings
from cdp_pipeline.spec.source import Source
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.spec.trigger import Trigger
from cdp_pipeline.spec.verdict import Verdict
from cdp_pipeline.spec.wording import explained

SHIPPED = "shipped/"
DEMO = Path(__file__).parents[1] / "demo"
MODELS: dict[str, tuple[type[BaseModel], ...]] = {
    "project": (ProjectSettings,),
    "source": (Source,),
    "identifier": (Identifier,),
    "match": (Match,),
    "attribute": (Attribute,),
    "trait": (Trait,),
    "prediction": PREDICTIONS,
    "audience": (Audience,),
    "trigger": (Trigger,),
    "guard": (Guard,),
    "destination": DESTINATIONS,
    "sync": (Sync,),
    "verdict": (Verdict,),
    "group": (Group,),
    "consent": (Consent,),
    "contact_policy": (ContactPolicy,),
}
"""The models of each kind; where there are several, the document's `type` chooses."""
IRREGULAR = {"match": "matches", "contact_policy": "contact_policies"}


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong: `audiences/churn.yaml:12: rules[0].trait: unknown trait 'orders_90', did you mean …`."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        """Always one printable line, whatever was in the file."""
        text = ": ".join(part for part in (f"{self.file}:{self.line}", self.path, self.message) if part)
        return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


class ProjectError(Exception):
    """Everything wrong with a project folder, one line per problem."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))


def project_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The project in use: CDP_PROJECT, or the packaged demo."""
    return Path(environment.get("CDP_PROJECT") or DEMO)


def load_project(folder: Path | str, environment: Mapping[str, str] = os.environ) -> Project:
    """Read a project folder; raises ProjectError with every problem in it."""
    folder = Path(folder)
    reading = _Reading()
    for file, text in reading.texts(folder):
        for document in reading.documents(file, text, environment):
            reading.document(_Place(file, document))
    reading.ship()
    declared = Declared(reading.sound, reading.broken, reading.strays)
    for kind, name, path, message in findings(declared):
        place = reading.places[kind, name]
        if place.file.startswith(SHIPPED):
            way_out = f"name yours otherwise or drop this one (shipped: {{drop: [{name}]}})"
            message = f"shipped {kind} '{name}': {message}: {way_out}"
        reading.report(place, path, message)
    if declared.settings is not None and declared.all_sources_known:
        place = reading.places["project", declared.settings.name]
        for path, message in settings_findings(declared.settings, declared.events, declared.event_columns):
            reading.report(place, path, message)
    if not (declared.of("project") or declared.broken.get("project") or declared.strays):
        reading.problems.append(Problem("project.yaml", 1, "kind", "there is no document of kind 'project'"))
    if reading.problems:
        raise ProjectError(reading.problems)
    (settings,) = declared.of("project").values()
    plurals = {kind: IRREGULAR.get(kind, f"{kind}s") for kind in MODELS if kind != "project"}
    named = {plural: dict(declared.of(kind)) for kind, plural in plurals.items()}
    return Project(folder, settings, **named, places={key: str(place) for key, place in reading.places.items()})


@dataclass
class _Place:
    """A document in a file, and the paths in it that YAML or the environment already made a problem of."""

    file: str
    document: Document
    reported: set[DataPath] = field(default_factory=set)

    def __str__(self) -> str:
        return f"{self.file}:{self.document.line_of(('name',))}"


@dataclass
class _Reading:
    """What has been read, and what was wrong with it. For sound, broken and strays see references.Declared."""

    problems: list[Problem] = field(default_factory=list)
    places: dict[tuple[str, str], _Place] = field(default_factory=dict)
    sound: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: dict[str, set[str]] = field(default_factory=dict)
    strays: set[str] = field(default_factory=set)

    def report(self, place: _Place, path: DataPath, message: str, line: int | None = None) -> None:
        line = place.document.line_of(path) if line is None else line
        place.reported.add(path)
        self.problems.append(Problem(place.file, line, _path_text(path) or str(place.document), message))

    def texts(self, folder: Path) -> Iterator[tuple[str, str]]:
        """Name and text of every YAML file, hidden folders and Dagster's own files left out."""
        if not folder.is_dir():
            self.unreadable(str(folder), 1, "there is no such folder")
            return
        for path in sorted(self.files(folder)):
            file = path.relative_to(folder).as_posix()
            try:
                if path.exists() and (not path.is_file() or path.stat().st_size > MAX_BYTES):
                    self.unreadable(file, 1, f"is not a file of at most {MAX_BYTES // 1_000_000} MB")
                else:
                    yield file, path.read_text("utf-8-sig")
            except OSError as error:
                self.unreadable(file, 1, f"cannot be read: {error.strerror}")
            except UnicodeDecodeError as error:
                self.unreadable(file, error.object.count(b"\n", 0, error.start) + 1, "is not UTF-8 text")

    def files(self, folder: Path) -> Iterator[Path]:
        def refused(error: OSError) -> None:
            self.unreadable(os.path.relpath(error.filename, folder), 1, f"cannot be read: {error.strerror}")

        for parent, folders, files in os.walk(folder, onerror=refused):
            folders[:] = [name for name in folders if not name.startswith(".")]
            theirs = {"dagster.yaml", "workspace.yaml"}  # the lake, and Dagster's home with it, may lie in the project
            yield from (Path(parent, name) for name in files if name.endswith((".yaml", ".yml")) and name not in theirs)

    def documents(self, file: str, text: str, environment: Mapping[str, str]) -> Iterator[Document]:
        try:
            yield from read_documents(text, environment)
        except UnreadableError as error:
            self.unreadable(file, error.line, f"cannot be read as YAML: {error.reason}", text)

    def unreadable(self, file: str, line: int, message: str, text: str = "") -> None:
        self.problems.append(Problem(file, line, "", message))
        self.strays |= {"", *re.findall(r"\bname:\s*(\w+)", text)}

    def document(self, place: _Place) -> None:
        document, data = place.document, place.document.data
        for line, path, message in document.findings:
            self.report(place, path, message, line)
        if data is None:
            return
        if not isinstance(data, dict):
            self.report(place, (), "a document should be names with values, beginning with 'kind'")
            return
        kind, name = data.get("kind"), data.get("name")
        if not isinstance(kind, str) or kind not in MODELS:
            missing = f"is missing, there are {', '.join(sorted(MODELS))}"
            self.report(place, ("kind",), missing if kind is None else unknown("kind", kind, MODELS))
            self.strays.add(str(name))
            return
        for path, message in secret_findings(document, _secret_fields(kind)):
            self.report(place, path, message)
        types, type_ = types_of(kind), data.get("type", default_type(kind))
        model = MODELS[kind][0] if not types else types.get(type_) if isinstance(type_, str) else None
        if model is None:
            self.report(place, ("type",), "is missing" if type_ is None else unknown("type", type_, types))
            self.broken.setdefault(kind, set()).add(str(name))
            return
        try:
            spec = model.model_validate(data)
        except ValidationError as error:
            for path, message in explained(error.errors(include_url=False), model, document):
                if path not in place.reported:
                    self.report(place, path, message)
            self.broken.setdefault(kind, set()).add(str(name))
            return
        self.declare(kind, spec, place)

    def ship(self) -> None:
        """Add what comes with the house and the project does not declare itself.

        Where a source or the settings cannot be read, nobody knows what that is, and nothing is said of its names.
        """
        settings = next(iter(self.sound.get("project", {}).values()), None)
        taken = {
            kind: {*self.sound.get(kind, ()), *self.broken.get(kind, ()), *self.strays}
            for kind in ("trait", "audience")
        }
        if settings is None or self.broken.get("project") or self.broken.get("source") or self.strays:
            for offer in offers():
                if offer.name not in taken[offer.line.kind]:
                    self.broken.setdefault(offer.line.kind, set()).add(offer.name)
            return
        for offer, data in shipped(settings, self.sound, taken).documents:
            kind, document = offer.line.kind, Document({"kind": offer.line.kind, "name": offer.name}, offer.line.line)
            self.declare(kind, MODELS[kind][0].model_validate(data), _Place(offer.line.file, document))

    def declare(self, kind: str, spec: Any, place: _Place) -> None:
        others = self.sound.setdefault(kind, {})
        if kind == "project" and others:
            (first,) = others
            self.report(place, ("kind",), f"a folder is one project, which {self.places[kind, first]} declares")
            self.broken.setdefault(kind, set()).add(spec.name)
        elif spec.name in others:
            first_place = self.places[kind, spec.name]
            self.report(place, ("name",), f"{kind} '{spec.name}' is already declared in {first_place}")
        else:
            others[spec.name] = spec
            self.places[kind, spec.name] = place


def types_of(kind: str) -> dict[str, type[BaseModel]]:
    """The models of a kind by the word in `type:`; none where a kind is one model."""
    models = MODELS[kind]
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in models} if models[1:] else {}


def default_type(kind: str) -> str | None:
    """The type of a document that names none."""
    fields = (model.model_fields["type"] for model in types_of(kind).values())
    return next((field.default for field in fields if not field.is_required()), None)


def _secret_fields(kind: str) -> set[str]:
    fields = [(name, field.json_schema_extra) for model in MODELS[kind] for name, field in model.model_fields.items()]
    return {name for name, extra in fields if isinstance(extra, dict) and extra.get("secret")}


def _path_text(path: DataPath) -> str:
    """`rules[0].trait`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")

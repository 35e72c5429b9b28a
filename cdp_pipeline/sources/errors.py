"""What can go wrong with a source: one class per cause, each message saying where, what and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """', did you mean …?' for the nearest known word, or nothing."""
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f", did you mean '{lowered[near[0]]}'?" if near else ""


class SourceError(Exception):
    """A source could not be loaded. What could be loaded has been: `sources.loads` says what."""


class FileMissingError(SourceError):
    """No file is where the source says, and none has been loaded before."""


class FileUnreadableError(SourceError):
    """One or more files could not be read; the others were loaded."""


class ColumnMissingError(SourceError):
    """A column that rows cannot do without is not in the file or table."""


class SourceUnreachableError(SourceError):
    """The database of a source does not answer."""


class ReferenceNotLoadedError(SourceError):
    """A column refers to a source that has not been loaded yet."""


class ContractError(SourceError):
    """A check with the action `reject` failed, so a file was refused as a whole."""

"""A folder of this machine (or one that is mounted): files appear there whole, one for each batch."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

from cdp_pipeline.destinations.drop import DropConnection, Parcel, Trouble
from cdp_pipeline.spec.destination import File


def put_whole(path: Path, content: bytes) -> None:
    """A file that is there whole or not at all, and lasts once this has returned."""
    unfinished = path.with_name(f".{path.name}.part")
    # Not for everybody on this machine: it is people's data.
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def connect(spec: File) -> FileConnection:
    return FileConnection(spec)


class FileConnection(DropConnection):
    """Writes beside, makes it last, and renames. The folder is not made: one that is not mounted must not be filled."""

    def __init__(self, spec: File) -> None:
        super().__init__(spec)
        self._folder = Path(spec.folder)

    def _put(self, parcel: Parcel, timeout: timedelta, now: datetime) -> Trouble | None:
        try:
            put_whole(self._folder / parcel.name, parcel.content)
        except OSError as error:
            return Trouble(f"the folder cannot be written to ({type(error).__name__})")
        return None

    def close(self) -> None:
        """Nothing is open between two files."""

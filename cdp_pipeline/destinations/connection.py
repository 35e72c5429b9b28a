"""What every open line to a destination does alike: it is a context that closes itself. How to deliver is theirs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Connection(ABC):
    """The base of connectors; see activation/protocol.py for what they promise."""

    @abstractmethod
    def close(self) -> None:
        """Hang up; a second time is no mistake."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

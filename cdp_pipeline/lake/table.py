"""How a published table is declared: its name, grain, columns and their words. No I/O and no rows here."""

from __future__ import annotations

from dataclasses import dataclass

import ibis


@dataclass(frozen=True)
class Column:
    """One column: an Ibis type such as 'string', 'decimal(18, 4)' or 'timestamp', and what it says, for a marketer."""

    type: str
    description: str = ""
    pii: bool = False


@dataclass(frozen=True)
class Table:
    """A published table `schema.name`, one row per `key`, filed by the month of the date column `month_of` if given.

    The values of a `derived` table can be computed again: where the declared type of a column (not of the key)
    changes in a way that would lose values, the column starts anew as null instead of stopping the publish.
    """

    name: str
    description: str
    columns: dict[str, Column]
    key: tuple[str, ...]
    month_of: str | None = None
    derived: bool = False

    @property
    def schema(self) -> ibis.Schema:
        return ibis.schema({name: column.type for name, column in self.columns.items()})

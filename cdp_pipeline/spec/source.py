"""`kind: source`: one table that comes in, where it is read, what its columns promise and what its rows mean."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from cdp_pipeline.spec.base import Document, Duration, Name, Part, Pattern, SqlFragment, TimeZone

ColumnType = Literal["string", "integer", "number", "money", "boolean", "date", "timestamp"]
IBIS_TYPES: dict[str, str] = {
    "string": "string",
    "integer": "int64",
    "number": "float64",
    "money": "decimal(18, 4)",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp(6)",
}
Action = Literal["allow", "coerce", "omit", "quarantine", "reject"]
Normaliser = Literal["trim", "lower", "upper", "email", "phone", "name", "country", "currency", "postcode"]


class Files(Part):
    """Files to read; `{day}` in the path stands for the partition (YYYY-MM-DD), `*` for any text."""

    path: Annotated[str, Field(min_length=1)]
    format: Literal["csv", "jsonl", "parquet"] | None = Field(default=None, description="Default: from the suffix.")
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"


class Sql(Part):
    """A table or query of any database SQLAlchemy reaches; `cursor` makes loads incremental, re-reading `overlap`."""

    url: Annotated[str, Field(min_length=1)]
    table: str | None = None
    query: str | None = None
    cursor: str | None = None
    overlap: Duration | None = None

    @model_validator(mode="after")
    def _one_of_table_and_query(self) -> Sql:
        if (self.table is None) == (self.query is None):
            raise ValueError("needs exactly one of 'table' and 'query'")
        return self


class Collector(Part):
    """Events received over HTTP under a write key (the collector writes them; this source reads its log)."""

    write_key: Annotated[str, Field(min_length=1)]


class Check(Part):
    """One promise about a column's values and what happens to a row that breaks it. Exactly one rule is given."""

    accepted: list[str | int | float | bool] | None = None
    range: tuple[float | None, float | None] | None = Field(
        default=None, description="[lowest, highest], both included."
    )
    pattern: Pattern | None = Field(default=None, description="A regular expression the whole value matches.")
    references: str | None = Field(default=None, description="source.column that must hold the value.")
    expression: SqlFragment | None = Field(default=None, description="A condition over the row that must be true.")
    action: Action = "quarantine"

    @model_validator(mode="after")
    def _exactly_one_rule(self) -> Check:
        rules = ("accepted", "range", "pattern", "references", "expression")
        if sum(getattr(self, rule) is not None for rule in rules) != 1:
            raise ValueError(f"needs exactly one of {', '.join(rules)}")
        return self


class Column(Part):
    """One declared column: its type, how it is normalised, whether it identifies a person, and its checks."""

    type: ColumnType
    source_name: str | None = Field(
        default=None, alias="from", description="The column's name in the source, if other."
    )
    description: str = ""
    required: bool = False
    unit: str | None = None
    currency: str | None = Field(default=None, description="For money: a currency code, or the column that holds it.")
    normalise: Normaliser | None = None
    identifier: Name | None = Field(default=None, description="The identifier type this column holds.")
    pii: bool = False
    purpose: str | None = None
    nulls: list[str] = Field(default=[], description="Further spellings that mean 'no value', such as '-1'.")
    format: str | None = Field(default=None, description="For dates and times: a strptime format, such as '%d/%m/%Y'.")
    invalid: Action = Field(default="quarantine", description="What happens when the value is not of the type.")
    checks: list[Check] = []


class EventMapping(Part):
    """What rows of a source mean on a person's timeline.

    `event` names one event; or `column` holds the event's name and `names` lists those that count.
    amount, currency, channel, product_id and category are expressions over the declared columns.
    """

    event: Name | None = None
    column: Name | None = None
    names: list[Name] | None = None
    when: SqlFragment | None = None
    channel: SqlFragment | None = None
    amount: SqlFragment | None = None
    currency: SqlFragment | None = None
    product_id: SqlFragment | None = None
    category: SqlFragment | None = None
    properties: list[Name] = Field(default=[], description="Columns kept beside the event, under their own names.")

    @model_validator(mode="after")
    def _named_one_way(self) -> EventMapping:
        if (self.event is None) == (self.column is None) or (self.column is None) != (self.names is None):
            raise ValueError("needs either 'event', or 'column' together with 'names'")
        return self

    @property
    def event_names(self) -> list[str]:
        return [self.event] if self.event is not None else list(self.names or [])


class Freshness(Part):
    """How old the newest load may be before people are warned, and before it counts as failed."""

    warn: Duration | None = None
    fail: Duration


def _files_from_text(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


class Source(Document):
    """One table that comes in, in mode `events` (append by day) or `snapshot` (full copies, kept as history)."""

    kind: Literal["source"]
    files: Annotated[Files, BeforeValidator(_files_from_text, json_schema_input_type=Files | str)] | None = None
    sql: Sql | None = None
    collector: Collector | None = None
    party: Literal["first", "second", "third"] = "first"
    mode: Literal["events", "snapshot"] = "events"
    grain: Annotated[list[Name], Field(min_length=1)]
    repeatable: bool = Field(
        default=False,
        description="Rows have no key of their own: equal grains are numbered as they come, and each is a row.",
    )
    occurred_at: Name | None = Field(default=None, description="The column that says when; required for events.")
    timezone: TimeZone | None = Field(default=None, description="The zone of times without one; default: project's.")
    region: Annotated[str, Field(pattern="^[A-Z]{2}$")] | None = Field(
        default=None, description="Default phone region."
    )
    channel: str | None = Field(default=None, description="The channel of this source's events, such as web or store.")
    on_conflict: Literal["latest_occurred", "latest_loaded"] = "latest_loaded"
    columns: Annotated[dict[Name, Column], Field(min_length=1)]
    events: list[EventMapping] = []
    freshness: Freshness | None = None

    @model_validator(mode="after")
    def _one_place_and_a_time(self) -> Source:
        if sum(place is not None for place in (self.files, self.sql, self.collector)) != 1:
            raise ValueError("needs exactly one of 'files', 'sql' and 'collector'")
        if self.mode == "events" and self.occurred_at is None:
            raise ValueError("mode 'events' needs 'occurred_at'")
        return self

    @property
    def identifier_columns(self) -> dict[str, str]:
        """Column name to identifier type, in declared order."""
        return {name: column.identifier for name, column in self.columns.items() if column.identifier}

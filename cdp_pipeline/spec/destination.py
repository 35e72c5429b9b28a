"""`kind: destination`: a place to deliver to, how fast, and whether for real (dry run is the default).

One class per type; what it does with a delivery is the module of the same name in destinations/.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from cdp_pipeline.spec.base import Document, Duration


def _flag(value: object) -> object:
    """Environment variables are text: 'false', '0' and 'no' mean False."""
    if isinstance(value, str) and value.strip().lower() in ("true", "1", "yes", "on"):
        return True
    if isinstance(value, str) and value.strip().lower() in ("false", "0", "no", "off"):
        return False
    return value


Channel = Literal["email", "phone", "sms", "push", "whatsapp"]
Flag = Annotated[bool, BeforeValidator(_flag, json_schema_input_type=bool)]


UNSUBSCRIBE_PLACEHOLDER = "%unsubscribe_url%"
"""Stands in a letter's text or HTML where the link is to be; the template's own words do not know the operation yet."""


class Destination(Document):
    """What destinations of all types have in common.

    `words`: the templates an act fills in for it, `needed` those it cannot do without. A destination without words is
    sent the fields of the mapping, one with `fields` as well. `takes`: the only fields it knows, if it knows but some.
    `found_by`: the fields it can find people by; `keyed_by`: which word of its declaration names that field;
    `removes_by`: which one it needs to take somebody out again. `alerts`: it can tell the project's own people that
    something failed.
    """

    words: ClassVar[tuple[str, ...]] = ()
    needed: ClassVar[tuple[str, ...]] = ()
    fields: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ()
    found_by: ClassVar[tuple[str, ...]] = ()
    keyed_by: ClassVar[str | None] = None
    removes_by: ClassVar[str | None] = None
    alerts: ClassVar[bool] = False
    kind: Literal["destination"]
    type: str
    channel: Channel | None = Field(
        default=None, description="By which channel it reaches people; none: it is a tool of our own, no contact."
    )
    dry_run: Flag = Field(default=True, description="True: show what would be sent, send nothing.")
    rate: Annotated[float, Field(gt=0)] = Field(default=20, description="Deliveries a second at most.")
    timeout: Duration = timedelta(minutes=1)
    max_attempts: Annotated[int, Field(gt=0, le=20)] = 5


class Webhook(Destination):
    """An HTTP endpoint that receives signed JSON (Standard Webhooks)."""

    alerts: ClassVar[bool] = True
    type: Literal["webhook"]
    url: Annotated[str, Field(pattern="^https?://")]
    secret: Annotated[str, Field(min_length=1, json_schema_extra={"secret": True})]
    allow_private: Flag = Field(default=False, description="True: addresses inside the own network are allowed.")
    batch: Annotated[int, Field(gt=0, le=1000)] = Field(
        default=1, description="Operations in one request; more than one: a list of items, each with its own id."
    )


class Smtp(Destination):
    """A mail server."""

    words: ClassVar[tuple[str, ...]] = ("subject", "body", "html")
    needed: ClassVar[tuple[str, ...]] = ("to", "subject", "body")
    alerts: ClassVar[bool] = True
    type: Literal["smtp"]
    channel: Channel | None = "email"
    host: str
    port: Annotated[int, Field(gt=0, lt=65536)] = 587
    sender: str
    username: str | None = None
    password: str | None = Field(default=None, json_schema_extra={"secret": True})
    security: Literal["starttls", "tls", "none"] = "starttls"
    return_path: str | None = Field(default=None, description="Where bounces go; none: to the sender.")
    returned: str | None = Field(
        default=None,
        description="Where mail to the return path lies: a Maildir, or imaps://user:password@host/folder.",
        json_schema_extra={"secret": True},
    )
    unsubscribe_url: Annotated[str, Field(pattern="^https://")] | None = Field(
        default=None, description="The page that takes one-click unsubscribes; '%unsubscribe_url%' in a letter is it."
    )
    unsubscribe_secret: Annotated[str, Field(min_length=16)] | None = Field(
        default=None, description="What the links are signed with.", json_schema_extra={"secret": True}
    )
    provider: Literal["mailgun", "postmark", "sendgrid", "ses"] | None = Field(
        default=None, description="Whose mail server it is, if they tell `cdp receive` what becomes of letters."
    )
    provider_key: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="What their calls are known by: a signing key, name:password, a topic's ARN.",
        json_schema_extra={"secret": True},
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Smtp:
        for one, other in (("unsubscribe_url", "unsubscribe_secret"), ("provider", "provider_key")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"'{one}' and '{other}' are given together or not at all")
        return self


class Api(Destination):
    """A service that is spoken to over HTTP. `url` is where it answers: its region, a proxy, a test server."""

    url: Annotated[str, Field(pattern="^https?://")]
    allow_private: Flag = Field(default=False, description="True: addresses inside the own network are allowed.")


class Slack(Api):
    """A Slack channel or member, written to by a bot."""

    words: ClassVar[tuple[str, ...]] = ("title", "body")
    needed: ClassVar[tuple[str, ...]] = ("body",)
    alerts: ClassVar[bool] = True
    type: Literal["slack"]
    url: Annotated[str, Field(pattern="^https?://")] = "https://slack.com/api"
    token: Annotated[str, Field(min_length=1, json_schema_extra={"secret": True})]
    to: Annotated[str, Field(min_length=1, description="The channel ('#service') or the id of one or of a member.")]
    rate: Annotated[float, Field(gt=0)] = Field(default=1, description="Messages a second; Slack allows a channel one.")


class Drop(Destination):
    """Files that somebody picks up: one for each batch of a sync or trigger."""

    format: Literal["csv", "jsonl"] = "csv"
    rate: Annotated[float, Field(gt=0)] = Field(default=10_000, description="Rows a second at most.")


class File(Drop):
    """A folder of this machine, or one that is mounted."""

    type: Literal["file"]
    folder: Annotated[str, Field(pattern="^/", description="The whole path of a folder that is there already.")]


class Sftp(Drop):
    """A folder of an SFTP server."""

    type: Literal["sftp"]
    host: str
    port: Annotated[int, Field(gt=0, lt=65536)] = 22
    host_key: Annotated[str, Field(pattern="^(ssh|ecdsa|sk)-", description="As `ssh-keyscan` prints it: type and key.")]
    username: str
    password: str | None = Field(default=None, json_schema_extra={"secret": True})
    private_key: str | None = Field(default=None, description="In PEM.", json_schema_extra={"secret": True})
    folder: str = "."

    @model_validator(mode="after")
    def _can_log_in(self) -> Sftp:
        if self.password is None and self.private_key is None:
            raise ValueError("needs 'password' or 'private_key'")
        return self


class S3(Drop):
    """A bucket behind the S3 API."""

    type: Literal["s3"]
    bucket: Annotated[str, Field(min_length=3)]
    prefix: str = Field(default="", description="What object names begin with, such as 'from-cdp/'.")
    region: str | None = None
    url: Annotated[str, Field(pattern="^https?://")] | None = Field(default=None, description="None: Amazon's own.")
    allow_private: Flag = Field(default=False, description="True: addresses inside the own network are allowed.")
    key_id: str | None = Field(default=None, description="None: as the AWS tools find it (environment, role).")
    secret: str | None = Field(default=None, json_schema_extra={"secret": True})


class Sql(Destination):
    """A table in a database (Postgres, SQLite): members are upserted, and deleted when they leave."""

    keyed_by: ClassVar[str | None] = "key"
    type: Literal["sql"]
    url: Annotated[str, Field(min_length=1, examples=["postgresql://crm:${CRM_PASSWORD}@db.example.com/crm"])]
    table: Annotated[str, Field(pattern=r"^\w+(\.\w+)?$", description="The table, with its schema where it has one.")]
    key: Annotated[str, Field(min_length=1, description="The table's unique column that people are found again by.")]
    rate: Annotated[float, Field(gt=0)] = Field(default=1000, description="Rows a second at most.")


class Twilio(Api):
    """Text messages by Twilio."""

    words: ClassVar[tuple[str, ...]] = ("body",)
    needed: ClassVar[tuple[str, ...]] = ("to", "body")
    type: Literal["twilio"]
    channel: Channel | None = "sms"
    url: Annotated[str, Field(pattern="^https?://")] = "https://api.twilio.com"
    account: Annotated[str, Field(pattern="^AC[0-9a-zA-Z]+$", description="The account's SID.")]
    key: str | None = Field(
        default=None, description="An API key's SID (SK…); none: the secret is the account's token."
    )
    secret: Annotated[str, Field(min_length=1, json_schema_extra={"secret": True})]
    sender: Annotated[str, Field(min_length=1, description="A number, a name or a messaging service's SID (MG…).")]
    callback_url: Annotated[str, Field(pattern="^https://")] | None = Field(
        default=None, description="Where `cdp receive` is reached from outside: …/receipts/<this destination>."
    )
    callback_token: str | None = Field(
        default=None,
        description="The account's auth token, which callbacks are signed with; none: the secret.",
        json_schema_extra={"secret": True},
    )


class Fcm(Api):
    """Push notifications by Firebase Cloud Messaging."""

    words: ClassVar[tuple[str, ...]] = ("title", "body")
    needed: ClassVar[tuple[str, ...]] = ("to", "title", "body")
    type: Literal["fcm"]
    channel: Channel | None = "push"
    url: Annotated[str, Field(pattern="^https?://")] = "https://fcm.googleapis.com"
    credentials: Annotated[
        str, Field(min_length=1, description="A service account's key (JSON).", json_schema_extra={"secret": True})
    ]


Secret = Annotated[str, Field(min_length=1, json_schema_extra={"secret": True})]
Url = Annotated[str, Field(pattern="^https?://")]
ADVERTISING_FIELDS = (
    "email", "phone", "first_name", "last_name", "country", "postal_code",
)  # fmt: skip


class Segment(Api):
    """A Segment source, or any server that takes Segment's calls, such as RudderStack's."""

    type: Literal["segment"]
    url: Url = Field(default="https://api.segment.io", description="For RudderStack: the data plane.")
    write_key: Secret
    rate: Annotated[float, Field(gt=0)] = 500


class Crm(Api):
    """A tool that holds people, and tasks for those responsible for them."""

    words: ClassVar[tuple[str, ...]] = ("subject", "body")
    needed: ClassVar[tuple[str, ...]] = ("subject",)
    fields: ClassVar[bool] = True
    keyed_by: ClassVar[str | None] = "key"
    key: str


class Hubspot(Crm):
    """HubSpot: contacts, and tasks for those responsible for them."""

    removes_by: ClassVar[str | None] = "member_property"
    type: Literal["hubspot"]
    url: Url = "https://api.hubapi.com"
    token: Secret
    key: str = Field(default="email", description="The unique property of contacts that people are found by.")
    member_property: str | None = Field(default=None, description="The yes/no property that says who is a member.")
    operation_property: str | None = Field(
        default=None, description="A unique property of tasks for the operation's id: no task is made twice."
    )
    rate: Annotated[float, Field(gt=0)] = 200


class Salesforce(Crm):
    """Salesforce: contacts, leads or other objects, and tasks for those responsible for them."""

    removes_by: ClassVar[str | None] = "member_field"
    type: Literal["salesforce"]
    url: Annotated[Url, Field(description="The org's My Domain.", examples=["https://acme.my.salesforce.com"])]
    client_id: Secret
    client_secret: Secret
    version: Annotated[str, Field(pattern=r"^v\d+\.0$")] = "v62.0"
    object: Annotated[str, Field(pattern=r"^\w+$")] = "Contact"
    key: Annotated[str, Field(pattern=r"^\w+$", description="The external id field people are found by.")]
    member_field: str | None = Field(default=None, description="The checkbox that says who is a member.")
    operation_field: Annotated[str, Field(pattern=r"^\w+$")] | None = Field(
        default=None, description="An external id field of tasks for the operation's id: no task is made twice."
    )
    rate: Annotated[float, Field(gt=0)] = 200


class MetaAudience(Api):
    """A Custom Audience of Meta (Facebook, Instagram), made of customers."""

    takes: ClassVar[tuple[str, ...]] = (
        *ADVERTISING_FIELDS, "city", "state", "gender", "date_of_birth", "external_id", "mobile_id",
    )  # fmt: skip
    found_by: ClassVar[tuple[str, ...]] = ("email", "phone", "external_id", "mobile_id")
    type: Literal["meta_audience"]
    url: Url = "https://graph.facebook.com"
    version: Annotated[str, Field(pattern=r"^v\d+\.0$")] = "v26.0"
    token: Secret
    audience_id: Annotated[str, Field(pattern=r"^\d+$")]
    limited_data_use: Flag = Field(
        default=False, description="True: Meta processes the people as a service provider only (US state laws)."
    )
    rate: Annotated[float, Field(gt=0)] = 2000


class GoogleCustomerMatch(Api):
    """A Customer Match list of Google Ads, filled through the Data Manager API."""

    takes: ClassVar[tuple[str, ...]] = ADVERTISING_FIELDS
    found_by: ClassVar[tuple[str, ...]] = ("email", "phone")
    type: Literal["google_customer_match"]
    url: Url = "https://datamanager.googleapis.com"
    token_url: Url = "https://oauth2.googleapis.com/token"
    client_id: Secret
    client_secret: Secret
    refresh_token: Secret
    account_id: Annotated[str, Field(pattern=r"^\d+$", description="The Google Ads account, without dashes.")]
    login_account_id: Annotated[str, Field(pattern=r"^\d+$")] | None = Field(
        default=None, description="The manager account the access goes through."
    )
    list_id: Annotated[str, Field(pattern=r"^\d+$")]
    ad_user_data: Literal["granted", "denied"] | None = Field(
        default=None, description="What the people on this list have consented to; none: not told."
    )
    ad_personalization: Literal["granted", "denied"] | None = None
    rate: Annotated[float, Field(gt=0)] = 2000


class Klaviyo(Api):
    """Klaviyo: profiles, a list of them, and events that flows start from."""

    found_by: ClassVar[tuple[str, ...]] = ("email", "phone_number", "external_id")
    removes_by: ClassVar[str | None] = "list_id"
    type: Literal["klaviyo"]
    url: Url = "https://a.klaviyo.com"
    api_key: Secret
    revision: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")] = "2026-10-15"
    list_id: Annotated[str, Field(pattern=r"^\w+$")] | None = Field(
        default=None, description="The list members are on."
    )
    rate: Annotated[float, Field(gt=0)] = 500


class Braze(Api):
    """Braze: attributes of users, and events that canvases and campaigns start from."""

    found_by: ClassVar[tuple[str, ...]] = ("external_id", "braze_id", "email", "phone")
    type: Literal["braze"]
    url: Annotated[Url, Field(description="The instance's REST endpoint.", examples=["https://rest.fra-01.braze.eu"])]
    api_key: Secret
    rate: Annotated[float, Field(gt=0)] = 500


DESTINATIONS: tuple[type[Destination], ...] = (
    Braze,
    Fcm,
    File,
    GoogleCustomerMatch,
    Hubspot,
    Klaviyo,
    MetaAudience,
    S3,
    Salesforce,
    Segment,
    Sftp,
    Slack,
    Smtp,
    Sql,
    Twilio,
    Webhook,
)

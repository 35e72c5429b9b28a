"""What requests may hold, by the vendors' own client libraries: read out of these, and not out of our connectors.

google-ads-datamanager 0.9.4, klaviyo-api 25.0.0, hubspot-api-client 12.0.0, firebase-admin 7.7.0,
segment-analytics-python 2.4.0, facebook-business 26.0.3.
"""

from __future__ import annotations

from typing import Any

ANY: Any = None
"""Any value; a dict: these names alone; a list: a list of such."""

_ACCOUNT = {"accountType": ANY, "accountId": ANY, "product": ANY}
_DESTINATION = {
    "reference": ANY, "loginAccount": _ACCOUNT, "linkedAccount": _ACCOUNT, "operatingAccount": _ACCOUNT,
    "productDestinationId": ANY,
}  # fmt: skip
_CONSENT = {"adUserData": ANY, "adPersonalization": ANY}
_ADDRESS = {
    "givenName": ANY, "familyName": ANY, "regionCode": ANY, "postalCode": ANY, "addressLine": ANY, "city": ANY,
    "administrativeArea": ANY,
}  # fmt: skip
_MEMBER = {
    "destinationReferences": ANY, "consent": _CONSENT,
    "userData": {"userIdentifiers": [{"emailAddress": ANY, "phoneNumber": ANY, "address": _ADDRESS}]},
}  # fmt: skip
GOOGLE_REMOVE = {
    "destinations": [_DESTINATION], "audienceMembers": [_MEMBER], "validateOnly": ANY, "encoding": ANY,
    "encryptionInfo": ANY,
}  # fmt: skip
GOOGLE_INGEST = {
    **GOOGLE_REMOVE, "consent": _CONSENT, "termsOfService": {"customerMatchTermsOfServiceStatus": ANY},
}  # fmt: skip

_LOCATION = dict.fromkeys(
    ("address1", "address2", "city", "country", "latitude", "longitude", "region", "zip", "timezone", "ip")
)
_PROFILE = {
    **dict.fromkeys(("email", "phone_number", "external_id", "_kx", "first_name", "last_name", "organization",
                     "locale", "title", "image", "properties")),
    "location": _LOCATION,
}  # fmt: skip
_ID = {"type": ANY, "id": ANY}
KLAVIYO_IMPORT = {"data": {
    "type": ANY, "relationships": {"lists": {"data": [_ID]}},
    "attributes": {"profiles": {"data": [{"type": ANY, "id": ANY, "attributes": _PROFILE, "meta": ANY}]}},
}}  # fmt: skip
KLAVIYO_EVENT = {"data": {"type": ANY, "attributes": {
    **dict.fromkeys(("properties", "time", "value", "value_currency", "unique_id", "backfill")),
    "metric": {"data": {"type": ANY, "attributes": {"name": ANY, "service": ANY}}},
    "profile": {"data": {**_ID, "attributes": {**_PROFILE, "anonymous_id": ANY}, "meta": ANY}},
}}}  # fmt: skip
KLAVIYO_LEAVERS = {"data": [_ID]}

_KEPT = {"idProperty": ANY, "objectWriteTraceId": ANY, "id": ANY, "properties": ANY}
HUBSPOT: dict[str, Any] = {
    "upsert": {"inputs": [_KEPT]}, "update": {"inputs": [_KEPT]},
    "create": {"inputs": [{"objectWriteTraceId": ANY, "properties": ANY, "associations": [
        {"to": {"id": ANY}, "types": [{"associationCategory": ANY, "associationTypeId": ANY}]}]}]},
    "read": {"idProperty": ANY, "properties": ANY, "propertiesWithHistory": ANY, "inputs": [{"id": ANY}]},
    "default": {"inputs": [{"from": {"id": ANY}, "to": {"id": ANY}}]},
}  # fmt: skip

_TAGGED = {"notification": {**dict.fromkeys(("title", "body", "tag"))}}
FCM = {"validate_only": ANY, "message": {
    **dict.fromkeys(("token", "fid", "topic", "condition", "data", "fcm_options")),
    "notification": {"title": ANY, "body": ANY, "image": ANY}, "android": _TAGGED, "webpush": _TAGGED,
    "apns": {"headers": ANY, "payload": ANY},
}}  # fmt: skip

_SAID = dict.fromkeys(
    ("type", "messageId", "userId", "anonymousId", "timestamp", "context", "integrations", "traits", "event",
     "properties")
)  # fmt: skip
SEGMENT = {"batch": [_SAID], "sentAt": ANY, "writeKey": ANY}

META = {"session": ANY, "payload": dict.fromkeys(("schema", "data", "is_raw", "app_ids", "page_ids", "data_source"))}


def unknown(said: Any, shape: Any, where: str = "") -> str:
    """The path of something in a request that its vendor knows no name for; empty where all is known."""
    if shape is ANY:
        return ""
    if isinstance(shape, list):
        if not isinstance(said, list):
            return f"{where} is no list"
        return next((found for i, each in enumerate(said) if (found := unknown(each, shape[0], f"{where}[{i}]"))), "")
    if not isinstance(said, dict):
        return f"{where} is no object"
    if strange := sorted(said.keys() - shape.keys()):
        return f"{where}.{strange[0]}"
    return next((found for name, each in said.items() if (found := unknown(each, shape[name], f"{where}.{name}"))), "")

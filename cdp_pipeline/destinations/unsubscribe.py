"""The link with which a letter can be unsubscribed from in one click (RFC 8058), and the proof that we made it.

What follows from a click (a purpose revoked) is consent's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import parse_qs, urlencode, urlsplit


def _proof(secret: str, op_id: str) -> str:
    made = hmac.new(secret.encode(), b"unsubscribe:" + op_id.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made[:18]).decode()


def unsubscribe_link(url: str, secret: str, op_id: str) -> str:
    """The link of one letter: it names the operation, nobody's address, and cannot be made for another."""
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode({'op': op_id, 'proof': _proof(secret, op_id)})}"


def unsubscribed(link: str, secret: str) -> str | None:
    """The operation that a clicked link belongs to; None where it is none of ours.

    Only a POST is a wish to unsubscribe: mail scanners follow links with GET.
    """
    query = parse_qs(urlsplit(link).query)
    [op_id], [proof] = query.get("op", [""])[-1:], query.get("proof", [""])[-1:]
    return op_id if hmac.compare_digest(proof.encode(), _proof(secret, op_id).encode()) else None

"""Connectors, one file each, behind the protocol of activation/protocol.py. What to send is decided before here."""

from __future__ import annotations

from cdp_pipeline.activation.protocol import DestinationConnection
from cdp_pipeline.spec.destination import Smtp, Webhook


def destination_for(spec: Webhook | Smtp) -> DestinationConnection:
    """The connector of a declared destination; nothing is dialled before the first delivery."""
    if isinstance(spec, Webhook):
        from cdp_pipeline.destinations.webhook import WebhookConnection

        return WebhookConnection(spec)
    from cdp_pipeline.destinations.smtp import SmtpConnection

    return SmtpConnection(spec)

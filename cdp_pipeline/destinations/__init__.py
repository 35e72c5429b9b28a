"""Connectors, one file each, behind the protocol of activation/protocol.py. What to send is decided before here."""

from __future__ import annotations

from importlib import import_module

from cdp_pipeline.activation.protocol import DestinationConnection
from cdp_pipeline.spec.destination import Destination


def destination_for(spec: Destination) -> DestinationConnection:
    """The connector of a declared destination, `connect` of the module named like its type.

    Nothing is dialled before the first delivery.
    """
    connection: DestinationConnection = import_module(f"{__name__}.{spec.type}").connect(spec)
    return connection

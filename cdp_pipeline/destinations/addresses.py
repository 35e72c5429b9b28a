"""Which network addresses a user-given URL may reach. The address that was checked is the one to dial."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from cdp_pipeline.activation.protocol import DestinationError

Resolve = Callable[[str, int], list[str]]
_NAT64 = ip_network("64:ff9b::/96")


class AddressRefusedError(DestinationError):
    """A URL leads to an address that deliveries must not reach."""


def resolve(host: str, port: int) -> list[str]:
    """Every address a host name stands for, as the system resolves it."""
    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def _reached(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside a mapped, 6to4, Teredo or NAT64 IPv6 address: that is where packets end up."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)


def allowed_address(host: str, port: int, *, allow_private: bool, resolve: Resolve = resolve) -> str:
    """The address to dial for a host; AddressRefusedError if any of its addresses is out of bounds.

    `allow_private` opens the own network and this machine, never link-local addresses: cloud metadata lives there.
    """
    addresses = resolve(host.strip("[]"), port)
    for text in addresses:
        address = _reached(ip_address(text.partition("%")[0]))
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            raise AddressRefusedError(f"'{host}' leads to a link-local, multicast or unspecified address")
        if not address.is_global and not allow_private:
            raise AddressRefusedError(f"'{host}' leads into a private network; 'allow_private: true' permits that")
    return addresses[0]

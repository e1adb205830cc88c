"""Which network addresses buckets, webhooks and token servers may be at.

Somebody who may enter an endpoint could otherwise have this host talk to what only it can reach:
its own services, its network, or a cloud's metadata service. An address counts by where it leads,
however it is written: ``0x7f.1``, ``2130706433`` and ``::ffff:127.0.0.1`` are all 127.0.0.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Nobody's bucket: Azure's host, Alibaba's metadata, Oracle's, AWS's and Google's by IPv6. None is
# link-local, and allow_private_endpoints would let some of them through.
_METADATA = tuple(
    ip_network(text)
    for text in (
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
    )
)
_METADATA_NAMES = (
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
)
# Not global by IANA's registries or RFC 3879, and global to some of the Pythons that we run on:
# IETF's own, site-local, NAT64 of a site, documentation, segment routing, a dummy prefix.
_PRIVATE = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",
        "fec0::/10",
        "64:ff9b:1::/48",
        "3fff::/20",
        "5f00::/16",
        "100:0:0:1::/64",
    )
)
# NAT64, and the translation of RFC 2765: an IPv4 address is in the last four bytes.
_TRANSLATED = tuple(ip_network(text) for text in ("64:ff9b::/96", "::ffff:0:0:0/96"))
_COMPATIBLE = ip_network("::/96")
_PART = re.compile(r"0x[0-9a-f]*|0[0-7]*|[1-9][0-9]*")
_MOST_PARTS = 4


LOOPBACK, PRIVATE = "a loopback address", "a private address"


@dataclass(frozen=True, slots=True)
class AddressRules:
    """``networks`` are allowed whatever they are; ``allow_private`` allows loopback and private.

    Link-local, unspecified, multicast and metadata addresses are never merely private.
    """

    allow_private: bool = False
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, *, allow_private: bool, networks: str) -> Self:
        """Parse ``networks`` as the configuration has them."""
        return cls(allow_private, networks_in(networks))

    def problem_with_host(self, host: str) -> str:
        """Explain why a host may not be called, "" if it may as far as its text tells."""
        address = parse(host)
        if address is not None:
            return self.problem_with(address)
        name = host.rstrip(".").lower()
        if name in _METADATA_NAMES:
            return "the name of a cloud metadata service"
        if name == "localhost" or name.endswith(".localhost"):
            return self.problem_with(IPv4Address("127.0.0.1"))
        return ""

    def problem_with(self, address: Address) -> str:
        """Name the kind of refused address that this is, "" if it is allowed."""
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        kinds = (self._kind(one) for one in (address, *_inside(address)))
        return next(filter(None, kinds), "")

    def _kind(self, address: Address) -> str:
        if any(address in network for network in self.networks):
            return ""
        found = next((kind for kind, applies in _NEVER.items() if applies(address)), "")
        is_private = not address.is_global or any(address in network for network in _PRIVATE)
        if found or self.allow_private or not is_private:
            return found
        return LOOPBACK if address.is_loopback else PRIVATE


# What is never merely private.
_NEVER: dict[str, Callable[[Address], bool]] = {
    "a cloud metadata address": lambda one: any(one in network for network in _METADATA),
    "an unspecified address": lambda one: one.is_unspecified,
    "a multicast address": lambda one: one.is_multicast,
    "a link-local address (cloud metadata services are there)": lambda one: one.is_link_local,
    "a reserved address": lambda one: isinstance(one, IPv4Address) and one.is_reserved,
}


def how_to_allow(problem: str) -> str:
    """Tell what to do about a refused address, for the end of a message."""
    allow = "or allow it with security.allowed_networks (SECURITY_ALLOWED_NETWORKS)"
    if problem in {LOOPBACK, PRIVATE}:
        allow += " or security.allow_private_endpoints (SECURITY_ALLOW_PRIVATE_ENDPOINTS)"
    return allow


def networks_in(text: str) -> tuple[Network, ...]:
    """Parse networks with commas between. Raises ValueError if one is none."""
    return tuple(map(ip_network, filter(None, map(str.strip, text.split(",")))))


def parse(host: str) -> Address | None:
    """Read the address that a host is, in any form that systems accept; None for a name."""
    text = host.strip("[]").rstrip(".").lower()
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return _parse_like_inet_aton(text)


def _parse_like_inet_aton(text: str) -> IPv4Address | None:
    """Follow C's old rules: 1 to 4 parts, decimal, octal or hex; the last fills what is left."""
    parts = text.split(".")
    if len(parts) > _MOST_PARTS or not all(_PART.fullmatch(part) for part in parts):
        return None
    numbers = [_number(part) for part in parts]
    *first, last = numbers
    if any(number > 255 for number in first) or last >= 256 ** (5 - len(parts)):
        return None
    head = sum(number << (24 - 8 * place) for place, number in enumerate(first))
    return IPv4Address(head + last)


def _number(part: str) -> int:
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)


def _inside(address: Address) -> tuple[Address, ...]:
    """Find the IPv4 addresses that an IPv6 one leads to through a translation or a tunnel."""
    if isinstance(address, IPv4Address):
        return ()
    found = [address.sixtofour, *(address.teredo or ())]
    is_compatible = address in _COMPATIBLE and int(address) > 1
    if is_compatible or any(address in network for network in _TRANSLATED):
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(one for one in found if one is not None)

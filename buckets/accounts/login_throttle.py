"""A throttle for guesses at log-ins, of people and of programs.

Failures are counted for each name and address together, so that a stranger stops himself and not
the owner of the name; and for each address, whatever names it tries. Counted in Django's default
cache, which lives in this process and needs no Redis. What was typed is kept as a digest only.
"""

from __future__ import annotations

import hashlib
import logging
from ipaddress import IPv6Address, ip_address, ip_network

from django.core.cache import cache

logger = logging.getLogger(__name__)

WINDOW_S = 60
FAILURES_PER_NAME = 10
# Sites behind one proxy share its address, so this only brakes guessing over many names.
FAILURES_PER_ADDRESS = 100


class TooManyFailures(Exception):
    """Log-ins from there wait until the failures are ``WINDOW_S`` seconds old."""


class LoginThrottle:
    """One log-in. It counts as failed from the start, so that guesses in parallel count as well."""

    def __init__(self, *, name: str, address: str) -> None:
        origin = _origin(address)
        self._from = origin
        self._limits = {
            _key(name, origin): FAILURES_PER_NAME,
            _key("", origin): FAILURES_PER_ADDRESS,
        }

    @classmethod
    def of_known_browser(cls, *, name: str, browser: str) -> LoginThrottle:
        """Count a known browser's failures apart, so that no stranger uses them up."""
        attempt = cls(name=name, address="")
        attempt._from = "a known browser"
        attempt._limits = {_key(name, f"browser {browser}"): FAILURES_PER_NAME}
        return attempt

    def begin(self) -> None:
        """Raise TooManyFailures when there were too many within the last minute."""
        over = {key: _count(key, 1) - limit for key, limit in self._limits.items()}
        if any(number > 0 for number in over.values()):
            if 1 in over.values():  # once, not for each of a million
                logger.warning("too many failed log-ins from %s: it has to wait", self._from)
            raise TooManyFailures

    def succeeded(self) -> None:
        for key in self._limits:
            _count(key, -1)


def _origin(address: str) -> str:
    """Return the address; of IPv6, the network of one subscriber."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))


def _key(name: str, origin: str) -> str:
    return f"login:{hashlib.sha256(f'{origin} {name}'.encode()).hexdigest()}"


def _count(key: str, step: int) -> int:
    cache.add(key, 0, timeout=WINDOW_S)
    try:
        return int(cache.incr(key, step))
    except ValueError:  # it expired between the two commands
        return 0

"""What the entries of the vault are called: as the older monitor calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core.types import KeyPair

if TYPE_CHECKING:
    from collections.abc import Mapping

_ACCESS_KEY = "_ACCESS_KEY"
_SECRET_KEY = "_SECRET_KEY"  # noqa: S105 - the ending of a name


def prefix_of(name: str) -> str:
    """Derive a credential's or a bucket's vault prefix: ``media-in`` gives ``MEDIA_IN``.

    ``Media_In`` and ``media:in`` give the same.
    """
    return name.upper().replace("-", "_").replace(":", "_")


def halves_of(prefix: str) -> tuple[str, str]:
    """Name a key pair's two entries: access key, secret key."""
    return prefix + _ACCESS_KEY, prefix + _SECRET_KEY


def entries_of(prefix: str, pair: KeyPair) -> dict[str, str]:
    return dict(zip(halves_of(prefix), (pair.access_key, pair.secret_key), strict=True))


def pairs_in(entries: Mapping[str, str]) -> dict[str, KeyPair]:
    """Find every complete key pair among some entries, by vault prefix."""
    prefixes = [n.removesuffix(_ACCESS_KEY) for n in entries if n.endswith(_ACCESS_KEY)]
    return {
        prefix: KeyPair(*(entries[name] for name in halves_of(prefix)))
        for prefix in prefixes
        if prefix + _SECRET_KEY in entries
    }

"""How commands write keys and events for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def event_line(event: Mapping[str, Any]) -> str:
    """One notification as a line."""
    return (
        f"{event['event_type']:<8}  {event['bucket']}  {printable(event['key'])}  "
        f"{event['size']} bytes"
    )


def printable(text: str) -> str:
    """A key as a terminal may show it: keys may hold control characters, and half ones."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )

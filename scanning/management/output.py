"""How commands write keys and events for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanning.core.texts import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


def event_line(event: Mapping[str, Any]) -> str:
    """One notification as a line."""
    return (
        f"{event['event_type']:<8}  {event['bucket']}  {printable(event['key'])}  "
        f"{event['size']} bytes"
    )

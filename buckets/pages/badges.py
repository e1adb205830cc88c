"""Words with a symbol and a colour, none of which is alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils import timezone
from django.utils.html import format_html

from buckets.formatting import format_ago

if TYPE_CHECKING:
    from datetime import datetime

    from django.utils.safestring import SafeString

    from buckets import selectors


def symbol(name: str) -> SafeString:
    """Draw a small symbol beside a word (`templates/buckets/symbols.html`)."""
    return format_html('<svg class="symbol" aria-hidden="true"><use href="#s-{}"/></svg>', name)


def badge(kind: str, text: str) -> SafeString:
    return format_html('<span class="badge is-{}">{}{}</span>', kind, symbol(kind), text)


def state(of: selectors.State) -> SafeString:
    return badge(of.name.lower(), of.value)


def moment(at: datetime | None) -> SafeString | str:
    """Say how long ago, with the exact time for whoever points at it."""
    if at is None:
        return format_ago(None)
    exactly = timezone.localtime(at)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        exactly.isoformat(timespec="seconds"),
        f"{exactly:%Y-%m-%d %H:%M:%S %Z}",
        format_ago(at),
    )

"""Numbers and times as operators read them; every page uses the same words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.utils import timezone

from scanning.core.request_costs import RequestKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.request_costs import Requests

NOTHING = "—"

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
# Beyond so many of a unit, the next smaller one says nothing any more.
_ALONE = 10
_THOUSAND = 1000
_KIB = 1024


def format_ago(moment: datetime | None) -> str:
    """Round down to one unit; pages show the exact time beside it."""
    if moment is None:
        return "never"
    seconds = max(0, int((timezone.now() - moment).total_seconds()))
    size, unit = next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
    return f"{seconds // size} {unit} ago"


def format_duration(seconds: float | None) -> str:
    """Write "48 s", "3 min 5 s", "4 d"; less than a second in milliseconds."""
    if seconds is None:
        return NOTHING
    if 0 < seconds < 0.9995:  # more is 1 s, not 1000 ms
        return f"{seconds * 1000:.0f} ms"
    left = max(0, round(seconds))
    for place, (size, unit) in enumerate(_UNITS):
        number, rest = divmod(left, size)
        if not number:
            continue
        if number >= _ALONE or size == 1:
            return f"{number} {unit}"
        smaller, name = _UNITS[place + 1]
        more = f" {rest // smaller} {name}" if rest >= smaller else ""
        return f"{number} {unit}{more}"
    return "0 s"


def format_timestamp(epoch_s: float) -> str:
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def format_time_of_day(epoch_s: float) -> str:
    """Write the time of day, UTC."""
    return f"{datetime.fromtimestamp(epoch_s, UTC):%H:%M}"


def format_number(value: float | None) -> str:
    """Put separators in; keep fractions only of small numbers."""
    if value is None:
        return NOTHING
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}".removesuffix(".0")


def format_compact(value: float) -> str:
    """Write 12.3 k, for axes and narrow places."""
    if _THOUSAND <= value < 10 * _THOUSAND:
        return f"{value:,.0f}"
    for unit in ("", " k", " M", " G"):
        if value < _THOUSAND or unit == " G":
            break
        value /= _THOUSAND
    return f"{value:.1f}".removesuffix(".0") + unit if value < 100 else f"{value:.0f}{unit}"


def format_size(number_of_bytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if number_of_bytes < _KIB or unit == "TiB":
            break
        number_of_bytes /= _KIB
    if unit == "bytes":
        return "1 byte" if number_of_bytes == 1 else f"{number_of_bytes:.0f} bytes"
    return f"{number_of_bytes:.1f} {unit}"


def join_some(names: Sequence[str], *, limit: int) -> str:
    """Join the first names, with a sign that there are more."""
    return ", ".join(names[:limit]) + (" …" if len(names) > limit else "")


def as_sentence(text: str) -> str:
    """End a text with one full stop; "" stays."""
    return f"{text.rstrip('. ')}." if text else ""


def pluralize(value: int, noun: str) -> str:
    """Write "1 bucket", "5,000 buckets"."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


_LEAST_MONEY = 0.0001
_REQUESTS = {
    RequestKind.LIST: "LIST",
    RequestKind.METADATA: "HEAD for metadata",
    RequestKind.WITNESS: "HEAD of missing objects",
    RequestKind.BUCKET: "HEAD of buckets",
}


def format_requests(sent: Requests) -> str:
    """Write "1,440 LIST, 17,280 HEAD of buckets"."""
    shown = (f"{sent[kind]:,} {text}" for kind, text in _REQUESTS.items() if sent.get(kind))
    return ", ".join(shown) or "none"


def format_money(amount: float, currency: str) -> str:
    """Write "7.20 USD", as exactly as small amounts need it."""
    if 0 < amount < _LEAST_MONEY:
        return f"less than {_LEAST_MONEY} {currency}".rstrip()
    number = f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.2g}"
    return f"{number} {currency}".rstrip()

"""Text from outside: keys, and what servers write into their answers."""

from __future__ import annotations

from typing import Final

MOST_TEXT: Final = 300
# Of a whole message, which holds several texts and what bucketwatch says of them.
MOST_MESSAGE: Final = 2000


def printable(text: str) -> str:
    """Escape what a terminal or a log would obey: control characters, bidi marks, surrogates."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def clean(text: str, most: int = MOST_TEXT) -> str:
    """Make a server's text printable and at most so many characters long, where it is taken in."""
    shown = printable(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"

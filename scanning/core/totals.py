"""What a server says of a bucket as a whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Totals:
    """Objects and bytes of a bucket's index: only the difference of two of them means anything.

    Old versions and the parts of unfinished uploads count, which no listing shows.
    """

    objects: int
    size_bytes: int

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

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.objects + other.objects, self.size_bytes + other.size_bytes)

    def __sub__(self, other: Totals) -> Totals:
        return Totals(self.objects - other.objects, self.size_bytes - other.size_bytes)

    def __str__(self) -> str:
        """Write them as Redis keeps them."""
        return f"{self.objects}:{self.size_bytes}"

    @classmethod
    def read(cls, text: str | None) -> Totals | None:
        """Read what ``str`` wrote; None for anything else."""
        objects, _, size_bytes = (text or "").partition(":")
        try:
            return cls(int(objects), int(size_bytes))
        except ValueError:
            return None


NO_CHANGE = Totals(0, 0)


@dataclass(frozen=True, slots=True)
class SeenTotals:
    """What a scan that asked for its bucket's totals saw of them; None where it was told none.

    The scan covers what changed up to ``last``. Of a pass, ``before`` is what they were before its
    first request, and ``apart`` what they and the rows listed differed by after its last one, if
    they were the same then.
    """

    last: Totals | None
    before: Totals | None = None
    apart: Totals | None = None

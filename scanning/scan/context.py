"""What a scan or a verification of a bucket is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scanning.core.deletions import Confirm
from scanning.core.scan_warnings import ScanWarnings
from scanning.scan.prefetch import SLOW_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanning.core.types import ScanCounts
    from scanning.ports import StateStore, Storage


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """``page_size`` is also the most rows of a segment; ``slice_s`` is when a scan pauses.

    ``strings``: the documented JSON strings are written, and live ``ttl_s``. A listing that lacks
    more than ``mass_share``, or all, of at least ``mass_minimum`` known objects is a mass deletion:
    held, until somebody confirms it or ``second_look_s`` (0: never) have passed. So are times, if
    of as many objects only the time moved.
    A missing key counts as deleted once what ``confirm`` names says so too: the next listing does
    if it comes ``interval_s`` later.
    So many objects may be known, ``most_objects``, or any number (0); others are left out.
    A baseline announces multipart uploads that began up to ``baseline_margin_s`` before it.
    Listing runs ahead, in lanes, from the first page on that took ``slow_page_s`` of waiting.
    ``asks_totals``: somebody goes by the bucket's totals. A look that does not explain them asks
    for a pass ``look_pass_gap_s`` after the last one began.
    """

    page_size: int = 1000
    lanes: int = 4
    slice_s: float = 20.0
    strings: bool = True
    ttl_s: float = 2_592_000.0
    mass_share: float = 0.5
    mass_minimum: int = 1000
    second_look_s: float = 0.0
    confirm: Confirm = Confirm.HEAD
    interval_s: float = 60.0
    baseline_margin_s: float = 86_400.0
    slow_page_s: float = SLOW_S
    most_objects: int = 0
    asks_totals: bool = False
    look_pass_gap_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ScanContext:
    """``keep_going`` is called at every page and commit, and raises to end it early.

    ``counts`` and ``warnings`` grow as it goes on.
    """

    storage: Storage
    states: StateStore
    clock: Callable[[], float]
    keep_going: Callable[[], None]
    settings: ScanSettings
    counts: ScanCounts
    warnings: ScanWarnings = field(default_factory=ScanWarnings)

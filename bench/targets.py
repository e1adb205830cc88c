"""What each figure must reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Target:
    bound: float
    at_least: bool

    def met_by(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


def _at_least(bound: float) -> Target:
    return Target(bound, at_least=True)


def _at_most(bound: float) -> Target:
    return Target(bound, at_least=False)


TARGETS: Final = {
    "unchanged_vs_boto3": _at_least(70),
    "unchanged_vs_obstore": _at_least(2.5),
    "unchanged_vs_floor": _at_least(0.2),
    "first_scan_vs_boto3": _at_least(7.5),
    "first_scan_vs_per_object": _at_least(25),
    "first_scan_compact_vs_per_object": _at_least(60),
    "scattered_1pct_vs_boto3": _at_least(15),
    "clustered_1pct_vs_boto3": _at_least(45),
    "redis_bytes_per_object": _at_most(60),
    "redis_bytes_per_object_with_strings": _at_most(400),
    "rss_growth_mb_10k_to_2m": _at_most(20),
    "lanes_10_speedup_at_100ms": _at_least(8),
    "first_pass_lanes_10_speedup_at_100ms": _at_least(6),
    "probe_requests_vs_scan": _at_most(0.03),
    "probe_and_pass_requests_vs_scan": _at_most(0.05),
    "probe_announced_p95_s": _at_most(7),
    "look_without_totals": _at_most(0.12),
    "adaptive_requests": _at_most(0.2),
    "adaptive_busy_lag_p95": _at_most(1.05),
    "probe_cpu_share_1000_buckets_5s": _at_most(0.25),
    "hint_to_queue_p95_s": _at_most(2.0),
    "fleet_5000_lateness_p99_s": _at_most(1.0),
    "fleet_rss_mb": _at_most(1200),
}


def line(name: str, value: float, target: Target | None) -> str:
    """``name value``, and what it must reach where there is a target."""
    digits = 3 if value < 1 else 2 if value < 1000 else 0
    text = f"{name} {value:.{digits}f}"
    if target is None:
        return text
    return f"{text}  target {target}: {'met' if target.met_by(value) else 'MISSED'}"

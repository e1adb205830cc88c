"""Write `docs/performance.md` from what `make bench` printed.

make bench > figures.txt; .venv/bin/python -m bench.report figures.txt
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.targets import TARGETS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"

WHAT = {
    "unchanged_vs_boto3": "scan of an unchanged bucket / boto3's paginator, listing only",
    "unchanged_vs_obstore": "the same / obstore (Rust), listing only, into Arrow",
    "unchanged_vs_floor": "the same / reading the same bytes with http.client",
    "scattered_1pct_vs_boto3": "scan with 1 % overwritten anywhere / boto3's paginator",
    "clustered_1pct_vs_boto3": "scan with 1 % overwritten in 4 runs / boto3's paginator",
    "first_scan_vs_boto3": "first scan, events and strings / boto3's paginator, listing only",
    "first_scan_vs_per_object": "first scan, events and strings / a loop over objects",
    "first_scan_compact_vs_per_object": "first scan without the strings / the same loop",
    "redis_bytes_per_object": "bytes in Redis for each known object",
    "redis_bytes_per_object_with_strings": "the same with the documented strings",
    "rss_growth_mb_10k_to_2m": "MiB more at the peak for 2 million objects than for 10 thousand",
    "lanes_10_speedup_at_100ms": "ten lanes / one, by the clock, at 100 ms a page",
    "first_pass_lanes_10_speedup_at_100ms": "the same of a first scan, prefixed or flat keys",
    "probe_requests_vs_scan": "requests for 1 M objects, probed every 5 s / listed every 60 s",
    "probe_and_pass_requests_vs_scan": "the same with a pass an hour",
    "probe_announced_p95_s": "seconds until a change of that bucket is announced, p95",
    "look_without_totals": "the same where no totals are told, with a pass every 15 minutes",
    "adaptive_requests": "requests of 1,000 buckets, 5 % busy, at 1 to 15 min / at 1 min",
    "adaptive_busy_lag_p95": "the lag of the busy ones, p95 / at 1 min",
    "probe_cpu_share_1000_buckets_5s": "share of a core that 1,000 probes every 5 s take",
    "hint_to_queue_p95_s": "seconds from a hint over HTTP to its change in the queue, p95",
    "fleet_5000_lateness_p99_s": "seconds that a scan begins after its scheduled start, p99",
    "fleet_rss_mb": "MiB of web, monitor and workers together, shared pages counted once",
}

HEAD = """# Performance

What `make bench` says on one machine: {machine}.

It starts a Redis server and an S3 server that sends listing pages rendered before, so that what is
measured is the scanner. The numbers to compare are ratios: measured in turns within one run, the
median of several rounds each.

Rates of scans are objects per CPU second of the measured process, all its threads together: what
one core can do. First scans are compared by the clock, as the loop they are compared with spends
much of its time waiting for answers. Ours is the whole scan as a worker does it: lease, listing,
comparing, commits. HEAD requests are off. Pages have the elements that Ceph RGW sends to
ListObjectsV2, without Owner.

The fleet is a whole installation: web, monitor and workers with 5,000 buckets of 100 objects in 25
regions, each with an endpoint of its own, scanned once a minute, watched for three minutes. The S3
server and Redis share the machine with it.

| figure | what | value | target |
|---|---|---|---|
"""

MIDDLE = """
The loop asks and tells Redis about each object that boto3's paginator lists (GET, SET with an
expiry, RPUSH, EXPIRE), and writes the same documented JSON as we do. Its rate, and both ratios
with it, depend on how fast the machine wakes a process that waits; `unchanged_vs_floor` on how fast
it runs Python beside how fast it copies memory. Virtual machines differ in both from hour to hour:
runs on machines of one kind gave 27 to 42, 37 to 67 and 0.14 to 0.23.

This server answers at once, so pages are listed when they are wanted. From a server that lets us
wait they are listed ahead, which takes up to three more pages of memory in each lane.

## What the ratios are made of

`…_per_cpu_s` is per CPU second, `…_per_s` by the clock.

| figure | value |
|---|---|
"""


def main() -> None:
    printed = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    PAGE.write_text(page(printed), encoding="utf-8")


def page(printed: list[str]) -> str:
    """The whole page. Raises ValueError for figures of a quick run, which say nothing."""
    machine = printed[0].removeprefix("# ")
    if "QUICK" in machine:
        raise ValueError("a quick run's figures are not worth writing down")
    figures = dict(line.split()[:2] for line in printed[1:] if line.strip())
    ratios = "".join(
        f"| `{name}` | {what} | {_shown(figures[name])}{_missed(name, figures[name])} "
        f"| {TARGETS[name]} |\n"
        for name, what in WHAT.items()
    )
    rates = "".join(
        f"| `{name}` | {_shown(value)} |\n" for name, value in figures.items() if name not in WHAT
    )
    return HEAD.format(machine=machine) + ratios + MIDDLE + rates


def _missed(name: str, value: str) -> str:
    return "" if TARGETS[name].met_by(float(value)) else " (missed)"


def _shown(value: str) -> str:
    number = float(value)
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


if __name__ == "__main__":
    main()

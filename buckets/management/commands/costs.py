"""What buckets cost in requests, and what other intervals would cost."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from buckets import selectors
from buckets.formatting import NOTHING, format_duration, format_money
from buckets.health.costs import costs_of
from scanning import wiring
from scanning.core.request_costs import (
    MOST_REQUESTS,
    RequestKind,
    WatchPlan,
    forecast,
    parse_prices,
)
from scanning.core.types import LONGEST_INTERVAL_S
from scanning.management.base import UNKNOWN, EngineCommand

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterator

    from buckets.health.costs import Costs
    from buckets.models import Bucket
    from scanning.core.request_costs import RequestPrices, Requests

POLLING_S = (60, 300, 900, 3600, 21_600, 86_400)
PROBES_S = (0, 60, 5)
_NAME = 36


class Command(EngineCommand):
    help = (
        "Show how many requests a day watched buckets are expected to take, and how many they were "
        "sent today, those that take most first; or, with --objects, what a bucket would take with "
        "various intervals. Exit status: 0 told, 2 an unknown bucket."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="only these buckets")
        parser.add_argument(
            "--objects", type=_whole(0, MOST_REQUESTS), metavar="N", help="of a bucket to be"
        )
        parser.add_argument(
            "--polling",
            type=_several(1),
            metavar="S,S",
            default=POLLING_S,
            help="with --objects: polling intervals to compare",
        )
        parser.add_argument(
            "--probes",
            type=_several(0),
            metavar="S,S",
            default=PROBES_S,
            help="with --objects: probe intervals to compare, 0 for none",
        )
        parser.add_argument(
            "--price",
            type=_prices,
            metavar="P",
            help="of 1,000 requests, as REQUEST_PRICE_PER_1000",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["objects"] is not None:
            prices = options["price"] or wiring.conf().requests.prices("")
            for line in _choices(options["objects"], options["polling"], options["probes"], prices):
                self.stdout.write(line)
            return
        buckets = list(selectors.all_buckets())
        if unknown := set(options["names"]) - {bucket.name for bucket in buckets}:
            raise CommandError(f"unknown bucket: {min(unknown)}", returncode=UNKNOWN)
        chosen = [b for b in buckets if b.name in options["names"] or not options["names"]]
        for line in _watched(chosen, options["price"]):
            self.stdout.write(line)


def _choices(
    objects: int, polling_s: tuple[int, ...], probes_s: tuple[int, ...], prices: RequestPrices
) -> Iterator[str]:
    page_size = wiring.conf().page_size
    yield f"{objects:,} objects, requests a day"
    yield ""
    yield _row(f"{'polling':<10}{'probes':<10}", "LIST", "HEAD of bucket", "price a day")
    for interval_s in polling_s:
        for probe_s in probes_s:
            if probe_s >= interval_s:
                continue
            plan = WatchPlan(objects, interval_s, probe_s, page_size=page_size)
            requests = forecast(plan)
            probes = format_duration(probe_s) if probe_s else "none"
            yield _row(
                f"{format_duration(interval_s):<10}{probes:<10}",
                f"{requests[RequestKind.LIST]:,}",
                f"{requests[RequestKind.BUCKET]:,}",
                _price(prices, requests),
            )


def _watched(buckets: list[Bucket], prices: RequestPrices | None) -> Iterator[str]:
    costs = costs_of(buckets)
    yield _row(f"{'BUCKET':<{_NAME}}", "sent today", "a day", "price a day")
    for bucket in sorted(buckets, key=lambda bucket: -_total(costs[bucket.name])):
        of = costs[bucket.name]
        yield _row(
            f"{bucket.name[: _NAME - 1]:<{_NAME}}",
            NOTHING if of.total_today is None else f"{of.total_today:,}",
            f"{of.forecast.total:,}" if of.forecast else NOTHING,
            _price(prices or of.prices, of.forecast.requests) if of.forecast else NOTHING,
        )


def _total(costs: Costs) -> int:
    return costs.forecast.total if costs.forecast else 0


def _row(first: str, *cells: str) -> str:
    return first + "".join(f"{cell:>16}" for cell in cells)


def _price(prices: RequestPrices, requests: Requests) -> str:
    return format_money(prices.of(requests), wiring.conf().requests.currency) if prices else NOTHING


def _prices(text: str) -> RequestPrices:
    try:
        return parse_prices(text)
    except ValueError as exc:
        raise ArgumentTypeError(str(exc)) from None


def _several(least: int) -> Callable[[str], tuple[int, ...]]:
    one = _whole(least, LONGEST_INTERVAL_S)
    return lambda text: tuple(map(one, text.split(",")))


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.strip().isdecimal() or not least <= int(text) <= most:
            raise ArgumentTypeError(f"whole numbers from {least} to {most:,}")
        return int(text)

    return read

"""The dashboard in a terminal: what is going on, and what needs attention."""

from __future__ import annotations

import json
import sys
import threading
from argparse import ArgumentTypeError
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError
from django.db import Error as DatabaseError
from django.db import close_old_connections

from buckets.health.overview import overview
from buckets.management import status_report
from scanning.core.request_costs import RequestKind
from scanning.management.base import EngineCommand
from scanning.runtime.database import UNMIGRATED, is_unmigrated

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from buckets.health.overview import Overview

ATTENTION, UNKNOWN = 1, 2
_LONGEST_S = 86400
_CLEAR = "\x1b[H\x1b[2J"


class Command(EngineCommand):
    help = (
        "Show what the dashboard shows: buckets, queue, regions, and what needs attention, with "
        "the reason and the next step. "
        "Exit status: 0 all is well, 1 something needs attention, 2 the database does not answer."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object")
        parser.add_argument(
            "--watch", type=_seconds, metavar="S", help="again every S seconds, until Ctrl-C"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        show = self._show_json if options["json"] else self._show
        if options["watch"]:
            self._watch(show, options["watch"])
        elif show(_read_overview()).attention:
            sys.exit(ATTENTION)

    def _watch(self, show: Callable[[Overview], Overview], every_s: float) -> None:
        pause = threading.Event()
        while True:
            close_old_connections()
            if self.stdout.isatty():
                self.stdout.write(_CLEAR, ending="")
            try:
                show(_read_overview())
            except CommandError as exc:
                self.stderr.write(str(exc))
            self.stdout.flush()
            pause.wait(every_s)

    def _show(self, seen: Overview) -> Overview:
        bad, good = self.style.ERROR, self.style.SUCCESS
        for line in status_report.lines(seen, datetime.now(UTC), bad=bad, good=good):
            self.stdout.write(line)
        return seen

    def _show_json(self, seen: Overview) -> Overview:
        self.stdout.write(json.dumps(_as_json(seen)))
        return seen


def _read_overview() -> Overview:
    try:
        return overview()
    except DatabaseError as exc:
        reason = str(exc).splitlines()[0]
        problem = UNMIGRATED if is_unmigrated(exc) else f"The database does not answer: {reason}"
        raise CommandError(problem, returncode=UNKNOWN) from exc


def _as_json(seen: Overview) -> dict[str, Any]:
    states = {state.name.lower(): number for state, number in seen.buckets.items()}
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "ok": not seen.attention,
        "buckets": {"total": seen.total, **states},
        "attention": [asdict(one) | {"kind": one.kind.name.lower()} for one in seen.attention],
        "endpoints": [asdict(one) for one in seen.endpoints],
        "requests_today": {kind.value: seen.sent_today.get(kind, 0) for kind in RequestKind},
        "cost_today": seen.cost_today,
        "telemetry": asdict(seen.telemetry) if seen.telemetry else None,
    }


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= _LONGEST_S:
        raise ArgumentTypeError(f"1 to {_LONGEST_S} seconds")
    return seconds

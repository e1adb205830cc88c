"""Compare database, Redis and vault, and repair what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from buckets.sync import reconcile
from buckets.sync.reconcile import DifferenceKind
from scanning.management.base import EngineCommand

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

    from buckets.sync.reconcile import Difference


class Command(EngineCommand):
    help = (
        "Compare the database with Redis and the vault, and repair what differs from it. Deletes "
        "only what was deleted here; what others keep in Redis and the vault is listed and left "
        "alone. Exit status: 0 nothing is left to do, 1 something is."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="compare only; write nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        found = reconcile.compare()
        self._show(found)
        is_repaired = options["dry_run"] or reconcile.repair(found)
        if not is_repaired:
            raise CommandError("Not everything could be repaired now: run this again.")
        if any(one.kind is DifferenceKind.BY_HAND for one in found):
            raise CommandError("Some of it only you can repair: see above.")

    def _show(self, found: Sequence[Difference]) -> None:
        for one in found:
            self.stdout.write(f"{one.kind.value:<12} {one.where:<6} {one.name}: {one.what}")
        numbers = {kind: sum(one.kind is kind for one in found) for kind in DifferenceKind}
        self.stdout.write(
            f"{numbers[DifferenceKind.REPAIRED]} to repair, "
            f"{numbers[DifferenceKind.BY_HAND]} to do yourself, "
            f"{numbers[DifferenceKind.UNMANAGED]} unmanaged."
        )

"""Write key pairs under the names that the older monitor looks for, or remove those again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from buckets.importing import legacy_aliases
from scanning.core.vault_names import halves_of
from scanning.management.base import EngineCommand

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

    from buckets.importing.legacy_aliases import Alias


class Command(EngineCommand):
    help = (
        "Write the keys of buckets that share a credential into the vault under each bucket's own "
        "name, where the older monitor looks for them. Exit status: 0 done, 1 not for all buckets."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="show only; write nothing")
        parser.add_argument("--remove", action="store_true", help="remove what was written so")

    def handle(self, *args: Any, **options: Any) -> None:
        found = legacy_aliases.wanted()
        usable = [alias for alias in found if not alias.problem]
        lacking = [] if options["dry_run"] else self._carry_out(usable, options["remove"])
        self._show(found)
        for source in lacking:
            problem = f"The vault lacks {' or '.join(halves_of(source))}."
            self.stderr.write(self.style.ERROR(problem))
        if lacking or len(usable) < len(found):
            raise CommandError("Not all buckets have their keys under their own name: see above.")

    def _carry_out(self, usable: Sequence[Alias], remove: bool) -> list[str]:  # noqa: FBT001
        if remove:
            legacy_aliases.remove(usable)
            return []
        return legacy_aliases.write(usable)

    def _show(self, found: Sequence[Alias]) -> None:
        for alias in found:
            what = alias.problem or ", ".join(halves_of(alias.prefix))
            self.stdout.write(f"{alias.bucket}: {what}")
        self.stdout.write(f"{len(found)} buckets use a credential that is not named after them.")

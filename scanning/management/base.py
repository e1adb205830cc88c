"""What our commands have in common: how they end."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from scanning import wiring
from scanning.core.errors import BucketwatchError, UnknownBucket

FAILED, UNKNOWN, INTERRUPTED, NOBODY_READS = 1, 2, 130, 141


class EngineCommand(BaseCommand):
    """Ends with a line and an exit status (`docs/commands.md`), never with a traceback."""

    # What is wrong with models and pages is for `check`; so is what the file has beside.
    requires_system_checks = ("configuration",)

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except UnknownBucket as exc:
            raise CommandError(str(exc), returncode=UNKNOWN) from exc
        except BucketwatchError as exc:
            raise CommandError(str(exc), returncode=FAILED) from exc
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # Whoever read has enough (`| head`); Python would complain again when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(NOBODY_READS)
        finally:
            wiring.report_requests()

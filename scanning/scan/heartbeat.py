"""Keeps the leases of running scans alive: one thread, however many scans run, and none without."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from scanning import logs
from scanning.core.errors import BucketwatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scanning.core.types import Claim
    from scanning.ports import Leases

logger = logging.getLogger(__name__)

RENEW_S = 5.0  # a third of the lease: two renewals may fail


class LeaseHeartbeat:
    def __init__(self, leases: Leases, *, every_s: float = RENEW_S) -> None:
        self._leases = leases
        self._every_s = every_s
        self._held: set[Claim] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def keeping(self, claim: Claim) -> Iterator[None]:
        """Renew ``claim`` until the block ends. A lost lease shows at the next commit."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._beat, name="leases", daemon=True)
                thread.start()  # may fail: then the next scan tries again
                self._thread = thread
            self._held.add(claim)
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(claim)

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._every_s):
            with self._lock:
                held = list(self._held)
                if not held:
                    self._thread = None
                    return
            for claim in held:
                with logs.about(claim):
                    self._renew(claim)

    def _renew(self, claim: Claim) -> None:
        try:
            if not self._leases.renew(claim) and claim in self._held:
                logger.warning(
                    "%s: the lease is lost; the scan ends at its next commit", claim.bucket
                )
        except BucketwatchError as exc:
            logger.warning("%s: could not renew the lease: %s", claim.bucket, exc)
        except Exception:
            # Without this thread every lease of the process would be lost.
            logger.exception("%s: an error in bucketwatch while renewing the lease", claim.bucket)

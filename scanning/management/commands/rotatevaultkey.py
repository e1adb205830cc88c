"""Encrypt the embedded vault with a new key."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from scanning import engine
from scanning.management.base import EngineCommand

_SET_IT = """\
The vault has a new key, which is in {key}. Now:
  1. Set VAULT_KEY to what is in that file, wherever bucketwatch uses this vault.
  2. Restart bucketwatch. Until then it scans with the S3 keys in its memory, and saves none.
  3. Keep the new key in a safe place, and delete the file.
Backups of the vault that were made before need the old key."""
_FOUND = """\
The vault has a new key, which is in {key}. Now:
  1. Restart bucketwatch. Until then it scans with the S3 keys in its memory, and saves none.
  2. Back up the file, and not together with the vault.
Backups of the vault that were made before need the old key."""


class Command(EngineCommand):
    help = (
        "Encrypt the embedded vault with a new key, and say what to do with it. "
        "The key itself is never printed. May be interrupted at any moment."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        key = engine.rotate_vault_key()
        self.stdout.write((_SET_IT if settings.SITE.vault_key else _FOUND).format(key=key))

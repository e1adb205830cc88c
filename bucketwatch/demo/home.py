"""Where the demo lives: its files, its secrets (made once) and its environment.

    var/demo.json   what a person or a program needs to go on from here (mode 0600)
    var/demo.env    the product's settings: ENV_FILE=var/demo.env manage.py … works beside the demo
    var/demo/       databases, logs, secrets, and how far notifications were printed

Deleting var/demo* starts over.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet

from bucketwatch.local.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

POLLING_INTERVAL_S = 5


@dataclass(slots=True)
class Secrets:
    """Made at the first start. ``s3_port`` is one of them: buckets are registered with it."""

    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(50))
    vault_key: str = field(default_factory=lambda: Fernet.generate_key().decode())
    username: str = "operator"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    client_id: str = "demo"
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    s3_access_key: str = field(default_factory=lambda: secrets.token_hex(10).upper())
    s3_secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    s3_port: int = field(default_factory=free_port)
    redis_port: int = field(default_factory=free_port)


class Home:
    """The files of one demo under ``var``."""

    def __init__(self, var: Path) -> None:
        self.var = var.resolve()
        self.directory = self.var / "demo"
        self.env_file = self.var / "demo.env"
        self.json_file = self.var / "demo.json"
        self.s3_directory = self.directory / "s3"
        self.redis_directory = self.directory / "redis"
        self.cursor_file = self.directory / "printed.json"
        self._registered = self.directory / "registered.json"
        # As settings.py makes it, which takes a `var` that is there for `make run` as it is.
        self.var.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Keep other demos out; False if one runs here already."""
        with (self.directory / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def secrets(self) -> Secrets:
        path = self.directory / "secrets.json"
        if path.exists():
            return Secrets(**json.loads(path.read_text(encoding="utf-8")))
        made = Secrets()
        write_private(path, json.dumps(asdict(made), indent=2))
        return made

    @property
    def registered(self) -> list[str]:
        """Buckets registered so far: one that the operator deleted stays deleted."""
        if not self._registered.exists():
            return []
        names: list[str] = json.loads(self._registered.read_text(encoding="utf-8"))
        return names

    def add_registered(self, name: str) -> None:
        write_private(self._registered, json.dumps([*self.registered, name]))

    def write_env(self, made: Secrets, serving: Mapping[str, str]) -> None:
        """Write the settings of every process of this demo; ``serving`` says where and how."""
        settings = {
            "SECRET_KEY": made.secret_key,
            "VAULT_KEY": made.vault_key,
            "DATA_DIR": str(self.directory),
            "POLLING_INTERVAL": str(POLLING_INTERVAL_S),
            "READY_REQUIRE_WEBHOOK": "false",
            "SECURITY_ALLOW_PRIVATE_ENDPOINTS": "true",  # the demo's S3 server is on this host
            **serving,
        }
        write_private(self.env_file, "".join(f"{k}={_quoted(v)}\n" for k, v in settings.items()))

    def write_json(self, document: dict[str, Any]) -> None:
        write_private(self.json_file, json.dumps(document, indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner only."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

"""The product installed and running, as `manage.py runmonitor` starts it."""

from __future__ import annotations

import json
import os
import secrets
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bucketwatch.local.environment import without_product_variables
from bucketwatch.local.servers import LOOPBACK, ServerProcess, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Installation:
    """``pid`` of `runmonitor`, and the port of its web server."""

    pid: int
    port: int


@contextmanager
def installed(
    home: Path, redis_url: str, buckets: Sequence[Mapping[str, Any]], **more: str
) -> Iterator[Installation]:
    """Web, monitor and workers over a new database that watches ``buckets``.

    Buckets are as `importbuckets` takes them, but for the credential, which all share. ``more`` are
    environment variables.
    """
    environ = _environment(home, redis_url) | more
    credential = {"name": "bench", "access_key": "bench", "secret_key": secrets.token_hex()}
    rows = [{**bucket, "credential": "bench"} for bucket in buckets]
    file = home / "buckets.yaml"  # JSON is YAML too
    file.write_text(json.dumps({"credentials": [credential], "buckets": rows}), encoding="utf-8")
    for command in (["migrate"], ["importbuckets", str(file)]):
        _manage(command, home, environ)
    product = ServerProcess(_command("runmonitor"), log=home / "product.log", environ=environ)
    try:
        yield Installation(product.process.pid, int(environ["PORT"]))
    finally:
        product.stop(timeout_s=20)


def _environment(home: Path, redis_url: str) -> dict[str, str]:
    return without_product_variables(os.environ) | {
        "DJANGO_SETTINGS_MODULE": "bucketwatch.settings",
        "ENV_FILE": os.devnull,
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATA_DIR": str(home),
        "REDIS_URL": redis_url,
        "SECURITY_ALLOWED_NETWORKS": "127.0.0.0/8",
        "HOST": LOOPBACK,
        "PORT": str(free_port()),
    }


def _command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "manage.py"), *arguments]


def _manage(arguments: list[str], home: Path, environ: Mapping[str, str]) -> None:
    log = home / f"{arguments[0]}.log"
    child = ServerProcess(_command(*arguments), log=log, environ=environ)
    if child.process.wait() != 0:
        raise RuntimeError(f"manage.py {arguments[0]} failed: {child.last_words()}")

"""Ask the web server on this host whether it answers: `python -m bucketwatch.healthcheck`.

Exit status 0 if it does. Loads neither Django nor the settings: containers ask every few seconds.
"""

from __future__ import annotations

import http.client
import os
import sys

_WAIT_S = 4


def main() -> int:
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(os.environ.get("PORT") or 8080), timeout=_WAIT_S
    )
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except OSError as exc:
        print(f"no answer: {exc}", file=sys.stderr)  # noqa: T201 - `docker inspect` shows it
        return 1
    return int(status != http.HTTPStatus.OK)


if __name__ == "__main__":
    sys.exit(main())

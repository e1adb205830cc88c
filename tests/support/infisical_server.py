"""A stand-in for an Infisical server, in a process of its own, with faults to switch on.

It speaks the protocol that `infisical-python` 2.3.5 uses, answers as the real server does, and
remembers what it was asked. Tests talk to `InfisicalServer`; the process is
`python -m tests.support.infisical_server`. A server in our own process would deadlock: the client
keeps the GIL while it waits.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from bucketwatch.env import Site, load_site
from bucketwatch.local.servers import ServerProcess, listen
from scanning.adapters.vault.infisical import InfisicalSite

HIDDEN = "<hidden-by-infisical>"
_SECRETS = "/api/v3/secrets/raw"
_CONTROL = "/for-tests"

Answer = tuple[int, Any]


def refusal(status: int, error: str, message: Any) -> Answer:
    return status, {"statusCode": status, "message": message, "error": error}


# Answers to everything but the tests' own questions, by fault. `hang`, `drop` and the faults of
# single requests are in the code below.
WHOLESALE: dict[str, Answer] = {
    "rate limit": refusal(500, "InternalServerError", "Something went wrong"),
    "rate limit (newer)": refusal(429, "RateLimitError", "Rate limit exceeded"),
    "unavailable": refusal(503, "ServiceUnavailable", "Service unavailable"),
    "bad gateway": (502, b"<html><body>502 Bad Gateway</body></html>"),
    "not JSON": (200, b"<html><body>Please log in to the Wi-Fi</body></html>"),
    "moved": (404, b"404 page not found"),
}
AT_LOGIN: dict[str, Answer] = {
    "locked": refusal(
        401, "UnauthorizedError", "This identity auth method is temporarily locked, try again later"
    ),
    "unknown client (newer)": refusal(401, "UnauthorizedError", "Invalid credentials"),
}
AT_SECRETS: dict[str, Answer] = {
    "expired": refusal(403, "TokenError", "Your token has expired. Please re-authenticate."),
    "forbidden": refusal(403, "PermissionDenied", "You are not allowed to read on secrets"),
    "invalid": refusal(401, "ValidationFailure", [{"path": ["workspaceId"], "message": "Bad"}]),
    "invalid (newer)": refusal(422, "ValidationFailure", [{"path": ["workspaceId"]}]),
    "bad token": refusal(401, "UnauthorizedError", "Token missing"),
}
AT_WRITES: dict[str, Answer] = {
    "read-only": refusal(403, "PermissionDenied", "You are not allowed to edit on secrets"),
    "approval": (200, {"approval": {"id": "1", "slug": "abc", "status": "open"}}),
    "name taken elsewhere": refusal(400, "BadRequest", "Secret name is reserved"),
}
NOT_FOUND = refusal(404, "NotFound", "Secret not found")
EXISTS = refusal(400, "BadRequest", "Secret already exist")


class Vault:
    """What the server knows; one lock around every answer but a hanging one."""

    def __init__(self, about: dict[str, str]) -> None:
        self.about = about
        self.lock = threading.Lock()
        self.tokens = {about["token"]}
        self.reset()

    def reset(self) -> None:
        self.values: dict[str, str] = {}
        self.faults: list[str] = []
        self.asked: list[str] = []

    def login(self, body: dict[str, str]) -> Answer:
        for fault in self.faults:
            if fault in AT_LOGIN:
                return AT_LOGIN[fault]
        if body.get("clientId") != self.about["client_id"]:
            return refusal(404, "NotFound", "No identity with specified client ID was found")
        if body.get("clientSecret") != self.about["client_secret"]:
            return refusal(401, "UnauthorizedError", "Invalid credentials")
        token = secrets.token_urlsafe(20)
        self.tokens.add(token)
        return 200, {
            "accessToken": token,
            "expiresIn": 7200,
            "accessTokenMaxTTL": 7200,
            "tokenType": "Bearer",
        }

    def list(self, where: dict[str, str]) -> Answer:
        known = self._exists(where)
        found = [self._secret(name) | {"secretPath": "/"} for name in self.values if known]
        return 200, {"secrets": found, "imports": []}

    def write(self, method: str, name: str, body: dict[str, str]) -> Answer:
        for fault in self.faults:
            if fault in AT_WRITES:
                return AT_WRITES[fault]
        if method == "PATCH" and "patch misses once" in self.faults:
            self.faults.remove("patch misses once")
            return NOT_FOUND
        if not self._exists(body) or (method != "POST" and name not in self.values):
            return NOT_FOUND
        if method == "POST" and name in self.values:
            return EXISTS
        if method == "DELETE":
            answer = 200, {"secret": self._secret(name)}
            del self.values[name]
            return answer
        stored = body["secretValue"].strip()
        answer = 200, {"secret": self._secret(name, stored)}
        if "forgets" not in self.faults:
            self.values[name] = stored
        return answer

    def _exists(self, where: dict[str, str]) -> bool:
        return (
            where.get("environment") == self.about["environment"]
            and where.get("workspaceId") == self.about["project_id"]
            and where.get("secretPath") == "/"
        )

    def _secret(self, name: str, value: str | None = None) -> dict[str, Any]:
        hidden = "hidden" in self.faults
        return {
            "id": name.lower(),
            "_id": name.lower(),
            "workspace": self.about["project_id"],
            "environment": self.about["environment"],
            "version": 1,
            "type": "shared",
            "secretKey": name,
            "secretValue": HIDDEN if hidden else self.values.get(name, value),
            "secretComment": "",
        }


class Handler(BaseHTTPRequestHandler):
    site: Vault

    def do(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length)
        # `self.path` has lost a second slash in front, which the real server does not forgive.
        url = urlsplit("http://here" + self.requestline.split()[1])
        if url.path == _CONTROL:
            self._send(self._control(json.loads(raw or b"{}")))
            return
        faults = list(self.site.faults)
        self.site.asked.append(f"{self.command} {url.path}")
        if "hang" in faults or ("hang after login" in faults and url.path.startswith(_SECRETS)):
            time.sleep(600)  # killed long before
        if "drop" in faults:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        wholesale = [WHOLESALE[fault] for fault in faults if fault in WHOLESALE]
        with self.site.lock:
            self._send(wholesale[0] if wholesale else self._answer(url.path, url.query, raw))

    do_GET = do_POST = do_PATCH = do_DELETE = do  # noqa: N815 - the names are the server's

    def _answer(self, path: str, query: str, raw: bytes) -> Answer:
        body = json.loads(raw or b"{}")
        if path == "/api/v1/auth/universal-auth/login" and self.command == "POST":
            return self.site.login(body)
        if not path.startswith(_SECRETS):
            return 404, {"message": f"Route {self.command}:{path} not found"}
        if self.headers.get("authorization", "").removeprefix("Bearer ") not in self.site.tokens:
            return refusal(401, "UnauthorizedError", "Token missing")
        for fault in self.site.faults:
            if fault in AT_SECRETS:
                return AT_SECRETS[fault]
        if path == _SECRETS and self.command == "GET":
            return self.site.list({key: values[0] for key, values in parse_qs(query).items()})
        return self.site.write(self.command, unquote(path.removeprefix(_SECRETS + "/")), body)

    def _control(self, body: dict[str, Any]) -> Answer:
        with self.site.lock:
            if body.get("reset"):
                self.site.reset()
            self.site.values |= body.get("put", {})
            for name in body.get("drop", []):
                self.site.values.pop(name, None)
            self.site.faults = body.get("faults", self.site.faults)
            return 200, {"values": self.site.values, "asked": self.site.asked}

    def _send(self, answer: Answer) -> None:
        status, content = answer
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        with contextlib.suppress(OSError):  # whoever asked may have been killed
            self.send_response(status)
            kind = "text/html" if isinstance(content, bytes) else "application/json"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: headers and bodies hold secrets."""


class InfisicalServer:
    """The stand-in, as a test sees it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.client_id = secrets.token_hex(8)
        self.client_secret = "infisical-client-secret-" + secrets.token_hex(16)
        self.token = "infisical-access-token-" + secrets.token_hex(16)
        self.project_id = secrets.token_hex(8)
        self.environment = "prod"
        self.port = 0
        self._child: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self._child is not None and self._child.is_running:
            return
        about = {
            key: getattr(self, key)
            for key in ("client_id", "client_secret", "token", "project_id", "environment")
        }
        with listen(self.port) as listener:
            self.port = listener.getsockname()[1]
            self._child = ServerProcess(
                [sys.executable, "-m", "tests.support.infisical_server", str(listener.fileno())],
                log=self.directory / "infisical.log",
                environ=os.environ
                | {
                    "STAND_IN": json.dumps(about),
                    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
                },
                pass_fds=[listener.fileno()],
            )
        self._child.wait_until(self._answers, what="The stand-in for Infisical")

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()

    def reset(self) -> None:
        self._ask({"reset": True})

    def put(self, **values: str) -> None:
        """Have secrets there that we did not write."""
        self._ask({"put": values})

    def drop(self, *names: str) -> None:
        self._ask({"drop": names})

    def fail(self, *faults: str) -> None:
        """Have these faults from now on, and no other; no faults given heals the server."""
        self._ask({"faults": faults})

    @property
    def values(self) -> dict[str, str]:
        found: dict[str, str] = self._ask({})["values"]
        return found

    @property
    def asked(self) -> list[str]:
        """Method and path of every request since the reset."""
        found: list[str] = self._ask({})["asked"]
        return found

    @property
    def logins(self) -> int:
        return sum(request.endswith("/login") for request in self.asked)

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(self.url + _CONTROL, json.dumps(question).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self._ask({})
            return True
        return False


def site_of(server: InfisicalServer) -> InfisicalSite:
    return InfisicalSite(
        server.url,
        server.project_id,
        server.environment,
        client_id=server.client_id,
        client_secret=server.client_secret,
    )


def configured(server: InfisicalServer, **more: str) -> Site:
    """Load the settings of a site that uses this server."""
    return load_site(
        {
            "SECRET_KEY": "x" * 50,
            "INFISICAL_CLIENT_ID": server.client_id,
            "INFISICAL_CLIENT_SECRET": server.client_secret,
            "INFISICAL_PROJECT_ID": server.project_id,
            "INFISICAL_API_URL": server.url,
            **more,
        }
    )


def main() -> None:
    Handler.site = Vault(json.loads(os.environ["STAND_IN"]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=int(sys.argv[1]))
    server.serve_forever()


if __name__ == "__main__":
    main()

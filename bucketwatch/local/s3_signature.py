"""Refuse S3 requests that are not signed with the right keys, in S3's own words.

AWS signature version 4 in the Authorization header, as every S3 client sends it; the algorithm is
in the "Authenticating Requests" chapter of the Amazon S3 API reference. Moto checks nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ALGORITHM = "AWS4-HMAC-SHA256"


class KeyCheck:
    """WSGI middleware: on to ``app`` with the right signature, else 403."""

    def __init__(self, app: WSGIApplication, access_key: str, secret_key: str) -> None:
        self.app = app
        self.access_key = access_key
        self.secret_key = secret_key

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        refused = self.refusal(environ)
        if refused is None:
            return self.app(environ, start_response)
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<Error><Code>{refused}</Code><Message></Message></Error>"
        ).encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def refusal(self, environ: WSGIEnvironment) -> str | None:
        """Return S3's error code for this request; None if its signature is right."""
        scheme, _, rest = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        given = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
        if scheme != ALGORITHM or not given.keys() >= {"Credential", "SignedHeaders", "Signature"}:
            return "AccessDenied"
        access_key, _, scope = given["Credential"].partition("/")
        if access_key != self.access_key:
            return "InvalidAccessKeyId"
        expected = signature(environ, self.secret_key, scope, given["SignedHeaders"])
        if not hmac.compare_digest(expected, given["Signature"]):
            return "SignatureDoesNotMatch"
        return None


def signature(environ: WSGIEnvironment, secret_key: str, scope: str, signed_headers: str) -> str:
    """Compute the signature to expect; ``scope`` is date/region/service/aws4_request."""
    path, _, query = environ["REQUEST_URI"].partition("?")
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
    )
    request = "\n".join(
        [
            environ["REQUEST_METHOD"],
            path,
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{_header(environ, name)}" for name in signed_headers.split(";")),
            "",
            signed_headers,
            environ.get("HTTP_X_AMZ_CONTENT_SHA256", ""),
        ]
    )
    text = "\n".join(
        [
            ALGORITHM,
            environ.get("HTTP_X_AMZ_DATE", ""),
            scope,
            hashlib.sha256(request.encode()).hexdigest(),
        ]
    )
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    return _hmac(key, text).hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _header(environ: dict[str, Any], name: str) -> str:
    variable = name.upper().replace("-", "_")
    if variable not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
        variable = f"HTTP_{variable}"
    sent = str(environ.get(variable, "")).encode("latin-1", "replace").decode("utf-8", "replace")
    return " ".join(sent.split())

"""What is accepted of a bucket, in one place: models, services, admin and API ask here.

Every function takes text, raises Django's ``ValidationError`` with a message that says the fix,
and (where it is not a plain check) returns the text as it is stored.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

from scanning.core import endpoints, redis_keys
from scanning.core.addresses import how_to_allow
from scanning.core.bucket_names import is_bucket_name
from scanning.core.endpoint_profile import BUNDLED, SYSTEM
from scanning.core.request_costs import parse_prices

if TYPE_CHECKING:
    from scanning.core.addresses import AddressRules

# AWS's rules for general purpose buckets: the documentation's "Bucket naming rules".
_AWS_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# A watch's is a part of keys in Redis, of routes, and of names in the vault.
WATCH_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]*:)?[A-Za-z0-9._-]*[A-Za-z0-9]$"
_IPV4 = re.compile(r"^\d+\.\d+\.\d+\.\d+$")
_RESERVED_STARTS = ("xn--", "sthree-")
_RESERVED_ENDS = ("-s3alias", "--ol-s3")

# Vault entries are named after the credential; the vault takes 100 characters in all, of which
# the longest ending (_WEBHOOK_CLIENT_SECRET) needs 22.
_CREDENTIAL_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,62}$")
VAULT_PREFIX = r"^[A-Z0-9][A-Z0-9._]{0,62}$"

_HOST = re.compile(r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")
_IPV6 = re.compile(r"^[0-9a-f:]+[0-9.]*$")
_REGION = re.compile(r"^[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{0,254}$")
_PRINTABLE = re.compile(r"^[!-~]+$")
_DEFAULT_PORTS = {"https": 443, "http": 80}

LONGEST_SECRET = 1024  # far above any real one
ALL_OF_OAUTH2 = (
    "Webhook OAuth2 needs client id, client secret and token URL: enter all three, or none."
)


def watch_name(name: str) -> None:
    """Refuse what cannot be the name of a watch, though S3 may have a bucket of it."""
    if not re.fullmatch(WATCH_NAME, name) or name.rpartition(":")[2] == redis_keys.FLAG:
        raise ValidationError(
            "A watch's name begins and ends with a letter or a digit, has one colon at most and is "
            f"not {redis_keys.FLAG}: "
            "give the watch a name of its own, and enter the bucket's as its name in S3."
        )


def bucket_name(name: str, endpoint: str) -> None:
    """Refuse what the S3 server would never have created."""
    if _IPV4.match(name):
        raise ValidationError(
            "A bucket name is not an IP address: enter the bucket here, the server at endpoint."
        )
    (_aws_bucket_name if endpoints.is_aws(endpoint) else _other_bucket_name)(name)


def _other_bucket_name(name: str) -> None:
    if name.startswith("arn:"):
        raise ValidationError("This is an ARN: enter the bucket's own name, its last part.")
    if not is_bucket_name(name):
        raise ValidationError(
            "A bucket name has 3 to 255 letters, digits, dots, hyphens and underscores, and before "
            "them, if the server has tenants, tenant and colon: enter the name as S3 knows it, "
            "without s3:// and without a path."
        )


def _aws_bucket_name(name: str) -> None:
    if not 3 <= len(name) <= 63:  # the numbers are of S3
        raise ValidationError(
            "A bucket name has 3 to 63 characters: enter the name as S3 knows it."
        )
    if not re.fullmatch(r"[a-z0-9.-]+", name):
        raise ValidationError(
            "A bucket name holds only lower-case letters, digits, dots and hyphens: "
            "enter the name as S3 knows it, without s3:// and without a path."
        )
    if not _AWS_NAME.fullmatch(name):
        raise ValidationError("A bucket name begins and ends with a letter or a digit.")
    if ".." in name:
        raise ValidationError("A bucket name has no two dots in a row.")
    if name.startswith(_RESERVED_STARTS) or name.endswith(_RESERVED_ENDS):
        raise ValidationError(
            "S3 reserves names that begin with xn-- or sthree-, or end with -s3alias or --ol-s3: "
            "enter the bucket's own name, not an alias."
        )


def credential_name(name: str) -> None:
    if not _CREDENTIAL_NAME.match(name):
        raise ValidationError(
            "A credential name has at most 63 letters, digits, dots, hyphens, underscores and "
            "colons, and begins with a letter or a digit: its vault entries are named after it."
        )


def endpoint(text: str, region_name: str = "") -> str:
    """Return an endpoint as stored: ``host[:port]`` for https, an ``http://`` URL otherwise.

    A provider's pattern, with ``{region}`` in it, takes the region in.
    """
    if endpoints.REGION in text:
        if not region_name:
            raise ValidationError(
                "Enter the region too: it takes the place of {region} in the endpoint."
            )
        text = endpoints.endpoint_of(region_name, text)
    parts = _split(text.strip())
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValidationError("An endpoint URL begins with https:// or http://.")
    if parts.username is not None or parts.password is not None:
        raise ValidationError(
            "An endpoint has no user name or password in it: enter keys as the credential."
        )
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValidationError(
            "An endpoint has no path: enter host or host:port only, the bucket goes under name."
        )
    host = _host_and_port(parts)
    return host if parts.scheme == "https" else f"http://{host}"


def _split(text: str) -> SplitResult:
    if not text or not _PRINTABLE.match(text):
        raise ValidationError(_NOT_A_HOST)
    try:
        return urlsplit(text if "://" in text else f"https://{text}")
    except ValueError:
        raise ValidationError(_NOT_A_HOST) from None


_NOT_A_HOST = (
    "An endpoint is a host name such as us-iad-1.linodeobjects.com, host:port, "
    "or a URL such as http://localhost:9000."
)


def _host_and_port(parts: SplitResult) -> str:
    host = _host_of(parts).lower()
    if not _is_host(host):
        raise ValidationError(_NOT_A_HOST)
    shown = f"[{host}]" if ":" in host else host
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        raise ValidationError("An endpoint's port is a number from 1 to 65535.")
    return shown if port in {None, _DEFAULT_PORTS[parts.scheme]} else f"{shown}:{port}"


def _host_of(parts: SplitResult) -> str:
    """Return the host, "" for no address in brackets: ``hostname`` takes ``[v1.x]`` for a name."""
    host = parts.hostname or ""
    return host if ":" in host or "[" not in parts.netloc else ""


def _is_host(text: str) -> bool:
    """Tell if this is a name or an address, and the same one to every reader of the URL.

    A ``%2e`` in it, for one, is a dot to some programs.
    """
    if ":" in text:
        return bool(_IPV6.match(text))
    return bool(_HOST.match(text)) and ".." not in text and len(text) <= 253  # as DNS says


def region(text: str) -> None:
    if not _REGION.match(text):
        raise ValidationError(
            "A region is a short name such as us-iad-1, or an endpoint's host: letters, digits, "
            "dots, hyphens, underscores."
        )


def authorities(text: str) -> None:
    """Require a word, or a path of certificates that hosts have: whose signatures are trusted."""
    is_path = text.startswith("/") and text.isprintable()
    if text and text not in {BUNDLED, SYSTEM} and not is_path:
        raise ValidationError("Enter bundled, system, or the path of a file, beginning with /.")


def request_price(text: str) -> None:
    """Require what `request_costs.parse_prices` reads."""
    try:
        parse_prices(text)
    except ValueError as exc:
        raise ValidationError(f"It {exc}.") from None


def endpoint_of(region_name: str) -> str:
    """Derive the endpoint, when the operator names only the region."""
    looks_like_a_host = "." in region_name or ":" in region_name
    if looks_like_a_host:
        return endpoint(region_name)
    pattern = settings.SCANNING.defaults.region_endpoint
    return endpoint(endpoints.endpoint_of(region_name, pattern))


def region_of(endpoint_text: str) -> str:
    """Derive the region from an endpoint that stands alone: its host, and port if it has one."""
    return endpoint_text.split("://", 1)[-1]


def reachable(text: str, rules: AddressRules) -> None:
    """Refuse an endpoint or a URL whose host is an address that the configuration forbids.

    Names are not resolved here: what they mean is looked at when a connection is made.
    """
    host = urlsplit(text if "://" in text else f"https://{text}").hostname or ""
    if problem := rules.problem_with_host(host):
        raise ValidationError(f"{host} is {problem}: enter another one, {how_to_allow(problem)}.")


def url(text: str) -> None:
    """Check an http(s) URL of a service that we call: no credentials in it, any path."""
    try:
        parts = urlsplit(text)
        port_is_wrong = parts.port == 0
    except ValueError:
        port_is_wrong, parts = True, urlsplit("")
    if (
        port_is_wrong
        or parts.scheme not in _DEFAULT_PORTS
        or not _is_host(_host_of(parts).removesuffix("."))
        or not _PRINTABLE.match(text)
    ):
        raise ValidationError("Enter a URL that begins with https:// or http:// and names a host.")
    if parts.username is not None or parts.password is not None:
        raise ValidationError(
            "A URL stored here must not hold a user name or password: use the OAuth2 client fields."
        )


def secret(text: str) -> str:
    """Return an S3 key or client secret as stored; never shown in the message."""
    stripped = text.strip()
    if not _PRINTABLE.match(stripped) or len(stripped) > LONGEST_SECRET:
        raise ValidationError(
            "Enter the value as the provider shows it: one line of at most "
            f"{LONGEST_SECRET} characters, "
            "no spaces or control characters."
        )
    return stripped

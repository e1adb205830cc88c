"""Who may use the API: clients with a token, which they get for their id and secret.

A token names its client by primary key, and the client is looked up at each request: disabled or
deleted, its tokens stop working at once, and a client made again under the same id gets none of
them. It also carries a fingerprint of the secret's hash, so that a new secret ends them too.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from django.contrib.auth.hashers import check_password
from django.core.cache import cache as django_cache
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac
from rest_framework.authentication import BasicAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken

from buckets import selectors, services
from buckets.accounts import login_throttle
from buckets.models import ApiClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr
    from rest_framework.request import Request
    from rest_framework.views import APIView
    from rest_framework_simplejwt.tokens import Token

REALM = "bucketwatch"
CHALLENGE = f'Bearer realm="{REALM}"'
BAD_TOKEN = "The token is not valid or has expired: get a new one from POST /api/auth/token."  # noqa: S105
REFUSED_TOKEN = (
    "The token's client is disabled, deleted or has a new secret: ask the operator, "  # noqa: S105
    "or get a new token from POST /api/auth/token."
)

BAD_LOGIN = "client_id or client_secret is wrong, or disabled."

_CLIENT = "client"
_FINGERPRINT = "secret"
_USED_EVERY = timedelta(minutes=1)
_REMEMBERED_S = 300


def client_of_login(*, client_id: str, client_secret: str) -> ApiClient | None:
    """Find the enabled client of an id and secret; always one hash of work, even if there is none.

    The configured client is made here rather than after migrations: so it is also right when the
    variables change later, and no process needs the database to start.
    """
    site = settings.SITE
    if client_id == site.api_client_id:
        _make_configured_client(client_id, site.api_client_secret)
    client = selectors.find_api_client(client_id)
    is_right = check_password(client_secret, client.secret_hash if client else "")
    return client if client and is_right and client.enabled else None


@cache
def _make_configured_client(_client_id: str, _secret: SecretStr | None) -> None:
    # Once per process: the environment does not change while it runs. A failure is not cached.
    services.ensure_bootstrap_client()


def token_for(client: ApiClient) -> AccessToken:
    token = AccessToken()
    token[_CLIENT] = client.pk
    token[_FINGERPRINT] = _fingerprint(client)
    return token


def _fingerprint(client: ApiClient) -> str:
    return salted_hmac("buckets.api.auth", client.secret_hash).hexdigest()[:16]


class ApiClientAuthentication(JWTAuthentication):
    """``Authorization: Bearer TOKEN``; ``request.user`` is then the ``ApiClient``."""

    www_authenticate_realm = REALM

    def get_raw_token(self, header: bytes) -> bytes | None:
        try:
            return super().get_raw_token(header)
        except AuthenticationFailed:  # simplejwt's names no fix
            raise NotAuthenticated from None

    def get_validated_token(self, raw_token: bytes) -> Token:
        try:
            return AccessToken(cast("Any", raw_token))
        except (TokenError, ValueError, ArithmeticError):  # the last ones: a time of no calendar
            raise AuthenticationFailed(BAD_TOKEN) from None

    def get_user(self, validated_token: Token) -> Any:
        pk = validated_token.get(_CLIENT)
        if not isinstance(pk, int):  # another program signs its tokens with the same key
            raise AuthenticationFailed(REFUSED_TOKEN)
        client = ApiClient.objects.filter(pk=pk, enabled=True).first()
        given = str(validated_token.get(_FINGERPRINT))
        if client is None or not constant_time_compare(given, _fingerprint(client)):
            raise AuthenticationFailed(REFUSED_TOKEN)
        _note_use(client)
        return client


class ClientSecretAuthentication(BasicAuthentication):
    """``Authorization: Basic``, for S3 servers that send hints: they cannot ask for tokens.

    A secret that was right is remembered for minutes, as a digest, because checking it takes long.
    """

    www_authenticate_realm = REALM

    def authenticate_credentials(
        self, userid: str, password: str, request: Request | None = None
    ) -> tuple[Any, None]:
        digest = salted_hmac("buckets.api.auth.secret", f"{userid}\0{password}").hexdigest()
        known = django_cache.get(f"client:{digest}")
        client = selectors.find_api_client(userid) if known else None
        if client is None or not client.enabled or known != _fingerprint(client):
            client = log_in(userid, password, request)
            django_cache.set(f"client:{digest}", _fingerprint(client), timeout=_REMEMBERED_S)
        _note_use(client)
        return client, None


def log_in(client_id: str, client_secret: str, request: Request | None) -> ApiClient:
    """Check a secret. Raises AuthenticationFailed and TooManyFailures."""
    address = request.META.get("REMOTE_ADDR", "") if request else ""
    attempt = login_throttle.LoginThrottle(name=f"client {client_id}", address=address)
    attempt.begin()
    # PostgreSQL refuses to be asked for a text with NUL in it.
    is_text = "\0" not in client_id
    client = client_of_login(client_id=client_id, client_secret=client_secret) if is_text else None
    if client is None:
        raise AuthenticationFailed(BAD_LOGIN)
    attempt.succeeded()
    return client


def client_of(request: Request) -> ApiClient:
    """Return the client whose token the request carries; only for views that require a token."""
    return cast("ApiClient", request.user)


def _note_use(client: ApiClient) -> None:
    """Keep ``last_used_at`` right to the minute: a status poll must not be a write each time."""
    now = timezone.now()
    if client.last_used_at is None or now - client.last_used_at >= _USED_EVERY:
        ApiClient.objects.filter(pk=client.pk).update(last_used_at=now)


class IsApiClient(BasePermission):
    """Reading takes a client whose scope is ``read`` or ``manage``, changing one of ``manage``."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        client: Any = request.user
        if not isinstance(client, ApiClient):
            return False
        scopes = self.scopes(is_safe=request.method in SAFE_METHODS)
        needed = " or ".join(f"'{scope.value}'" for scope in scopes)
        self.message = (
            f"This needs an API client with the scope {needed}, and this one's is "
            f"'{client.scope}': ask the operator for another client."
        )
        return client.scope in scopes

    @staticmethod
    def scopes(*, is_safe: bool) -> Sequence[ApiClient.Scope]:
        scope = ApiClient.Scope
        return (scope.READ, scope.MANAGE) if is_safe else (scope.MANAGE,)


class MayGiveHints(IsApiClient):
    @staticmethod
    def scopes(*, is_safe: bool) -> Sequence[ApiClient.Scope]:  # noqa: ARG004 - there is only POST
        return (ApiClient.Scope.HINT, ApiClient.Scope.MANAGE)

"""Logging in to the admin: with a brake on guessing that nobody can turn against an operator.

Failures count for a name and address. Where many share an address (a proxy that does not say for
whom it asks) a stranger could use up an operator's failures; therefore a browser in which somebody
has logged in before has a signed cookie that says so, and failures of its own.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core import signing
from django.core.exceptions import ValidationError

from buckets.accounts import login_throttle

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

TOO_MANY_FAILURES = "Too many failed log-ins. Wait a minute, and try again."
_COOKIE = "known_browser"
_KNOWN_FOR_S = 180 * 24 * 3600
_SALT = "buckets.login"


class LoginForm(AdminAuthenticationForm):
    def clean(self) -> dict[str, Any]:
        request = self.request
        assert request is not None  # noqa: S101 - the log-in view always passes it
        attempt = _attempt(request, str(self.cleaned_data.get("username", "")))
        try:
            attempt.begin()
        except login_throttle.TooManyFailures:
            raise ValidationError(TOO_MANY_FAILURES, code="too_many_failures") from None
        cleaned = super().clean()
        attempt.succeeded()
        return cleaned


def remember_browser(request: HttpRequest, response: HttpResponse) -> None:
    """Have this browser known as one in which ``request.user`` has logged in."""
    known = {"name": request.user.get_username(), "browser": secrets.token_hex(16)}
    response.set_cookie(
        _COOKIE,
        signing.dumps(known, salt=_SALT),
        max_age=_KNOWN_FOR_S,
        path=request.path,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _attempt(request: HttpRequest, username: str) -> login_throttle.LoginThrottle:
    name = f"user {username}"
    try:
        known = signing.loads(request.COOKIES.get(_COOKIE, ""), salt=_SALT, max_age=_KNOWN_FOR_S)
    except signing.BadSignature:
        known = {}
    if known.get("name") == username:
        return login_throttle.LoginThrottle.of_known_browser(name=name, browser=known["browser"])
    return login_throttle.LoginThrottle(name=name, address=request.META.get("REMOTE_ADDR", ""))

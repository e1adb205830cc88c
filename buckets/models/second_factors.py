"""The authenticator apps of people who log in to the admin."""

from __future__ import annotations

import hmac
import secrets
import time
from base64 import b32encode
from urllib.parse import quote, urlencode

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models
from django_otp.models import Device, ThrottlingMixin, TimestampMixin
from django_otp.oath import TOTP

_ISSUER = "bucketwatch"
_MOST_FAILURES = 9  # the pause is then 256 s: years of guessing


def new_salt() -> str:
    return secrets.token_hex(16)


class SecondFactor(TimestampMixin, ThrottlingMixin, Device):  # type: ignore[misc]  # has no types
    """An app that shows codes for one person (TOTP, RFC 6238).

    Its key is not stored: it follows from SECRET_KEY, the person and a salt, so that the database
    alone makes nobody a code. A new SECRET_KEY therefore ends all second factors.
    """

    name = None  # there is one for each person
    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="second_factor")
    salt = models.CharField(max_length=32, default=new_salt, editable=False)
    # A code is good for one log-in: only later steps count.
    last_step = models.BigIntegerField(default=-1, editable=False)

    throttling_failure_count: int

    class Meta:
        verbose_name = "second factor"

    def __str__(self) -> str:
        return f"the second factor of {self.user}"

    @property
    def key(self) -> bytes:
        what = f"second factor:{self.user_id}:{self.salt}"
        return hmac.digest(settings.SECRET_KEY.encode(), what.encode(), "sha256")[:20]

    @property
    def key_to_type(self) -> str:
        """The key as authenticator apps take it, for those that see no picture."""
        return b32encode(self.key).decode()

    @property
    def url(self) -> str:
        """What the picture says."""
        label = quote(f"{_ISSUER}:{self.user.get_username()}")
        query = urlencode({"secret": self.key_to_type, "issuer": _ISSUER})
        return f"otpauth://totp/{label}?{query}"

    def verify_token(self, token: str) -> bool:
        """Use up a code; inside a transaction that has locked the row, if there is one yet."""
        allowed, _ = self.verify_is_allowed()
        if not allowed:
            return False
        now = TOTP(self.key)
        now.time = time.time()
        code = token.replace(" ", "")
        is_right = (
            code.isascii()
            and code.isdecimal()
            and now.verify(int(code), tolerance=1, min_t=self.last_step + 1)
        )
        if is_right:
            self.last_step = now.t()
            self.throttle_reset(commit=False)
            self.set_last_used_timestamp(commit=False)
        else:
            self.throttle_increment(commit=False)
            # Somebody who knows the password must not lock its owner out for years.
            self.throttling_failure_count = min(self.throttling_failure_count, _MOST_FAILURES)
        self.save()
        return bool(is_right)

    def get_throttle_factor(self) -> int:
        """Return the seconds to wait after a wrong code, doubled with each further one."""
        return 1

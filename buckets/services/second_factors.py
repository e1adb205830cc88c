"""Second factors of people who log in to the admin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import django_otp
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from buckets import audit, selectors
from buckets.models import SecondFactor

if TYPE_CHECKING:
    from buckets.audit import Actor

WRONG = "That is not the code. Enter the one that the app shows now; is the device's clock right?"
ANOTHER = "There is a second factor already. Remove it before you set up another."


def set_up_second_factor(*, user: Any, salt: str, code: str) -> SecondFactor:
    """Store an app whose first code is right; raises ValidationError if it is not."""
    with transaction.atomic():
        if selectors.second_factor_of(user):
            raise ValidationError({"code": [ANOTHER]})
        factor = SecondFactor(user=user, salt=salt)
        if not factor.verify_token(code):
            raise ValidationError({"code": [WRONG]})
        audit.performed(user, "Second factor set up", by=user)
    return factor


def verify_second_factor(*, factor: SecondFactor, code: str) -> SecondFactor:
    """Use up a code; raises ValidationError for a wrong one, and while wrong ones cost a pause."""
    allowed, why_not = factor.verify_is_allowed()
    if not allowed:
        wait_s = math.ceil((why_not["locked_until"] - timezone.now()).total_seconds())
        raise ValidationError({"code": [f"Too many wrong codes. Try again in {wait_s} s."]})
    verified: SecondFactor | None = django_otp.verify_token(factor.user, factor.persistent_id, code)
    if verified is None:
        raise ValidationError({"code": [WRONG]})
    return verified


def remove_second_factor(*, user: Any, by: Actor = None) -> bool:
    """Have this person log in with the password alone; False if that was so before."""
    with transaction.atomic():
        removed, _ = SecondFactor.objects.filter(user_id=user.pk).delete()
        if removed:
            audit.performed(user, "Second factor removed", by=by)
    return bool(removed)

"""The roles that come with bucketwatch: Django groups, made and kept by each migration.

They are what this module says, so that an upgrade can give them what is new. Whoever needs
something else makes a group of his own, which nothing here touches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import Group, Permission
from django.db import DEFAULT_DB_ALIAS, transaction
from django.db.models import Q
from django.db.models.signals import post_migrate

if TYPE_CHECKING:
    from django.apps import AppConfig

VIEWER = frozenset({f"buckets.view_{model}" for model in ("bucket", "credential", "endpoint")})
OPERATOR = VIEWER | {
    "buckets.change_endpoint",
    *(
        f"buckets.{action}_{model}"
        for model in ("bucket", "credential")
        for action in ("add", "change", "delete")
    ),
}
# Groups only to be looked at: who may change them could give himself anything.
ADMIN = OPERATOR | {
    "auth.view_group",
    *(f"auth.{action}_user" for action in ("view", "add", "change", "delete")),
    *(f"buckets.{action}_apiclient" for action in ("view", "add", "change", "delete")),
}
ROLES = {"viewer": VIEWER, "operator": OPERATOR, "admin": ADMIN}


def keep_roles(*, using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    """Make the roles that are missing, and give each exactly its permissions."""
    with transaction.atomic(using=using):
        for name, permissions in ROLES.items():
            group = Group.objects.using(using).get_or_create(name=name)[0]
            group.permissions.set(_rows(permissions, using))


def connect(app: AppConfig) -> None:
    """Keep the roles after each migration; permissions are made by then."""
    post_migrate.connect(keep_roles, sender=app, dispatch_uid="buckets.accounts.roles")


def _rows(permissions: frozenset[str], using: str) -> list[Permission]:
    wanted = Q(pk__in=())
    for permission in permissions:
        app, codename = permission.split(".")
        wanted |= Q(content_type__app_label=app, codename=codename)
    return list(Permission.objects.using(using).filter(wanted))

"""Who changed what, when: Django's own log, written by the services, in the change's transaction.

So admin, API and commands leave the same trail, a change and its entry exist both or neither, and
the admin's *History* pages show all of it. An entry names the fields that changed, never a value.

Django's log wants a user. Programs and commands are none, so each API client has an inactive user
of its own, and all commands share one: made when first needed, without a password, and kept when
the client is deleted. A table of our own would have left the admin's pages half empty. Their names
hold a space, which no user form accepts: nobody can take one.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType

from buckets.models import ApiClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from django.db.models import Model

logger = logging.getLogger(__name__)

Actor = AbstractBaseUser | ApiClient | None

COMMAND_LINE = "command line"
_LONGEST_NAME = 150
_LONGEST_REPR = 200


def added(rows: Sequence[Model], *, by: Actor) -> None:
    """Log new rows of one model; call it in the transaction that writes them."""
    if not rows:
        return
    _record(rows, ADDITION, lambda _: [{"added": {}}], by)
    _log("added", rows, by)


def changed(row: Model, fields: Iterable[str], *, by: Actor) -> None:
    """Log which fields of a row changed, in the words of the admin's forms."""
    changed_alike([row], fields, by=by)


def changed_alike(rows: Sequence[Model], fields: Iterable[str], *, by: Actor) -> None:
    """Log that the same fields of several rows of one model changed."""
    names = sorted(fields)
    if not names or not rows:
        return
    _record(rows, CHANGE, lambda _: [{"changed": {"fields": names}}], by)
    _log("changed", rows, by)


def performed(row: Model, action: str, *, by: Actor) -> None:
    """Log an action that changes no field; ``action`` is a short sentence."""
    performed_alike([row], action, by=by)


def performed_alike(rows: Sequence[Model], action: str, *, by: Actor) -> None:
    """Log the same action on several rows of one model."""
    if not rows:
        return
    _record(rows, CHANGE, lambda _: action, by)
    _log(action[:1].lower() + action[1:] + ":", rows, by)


def deleted(row: Model, *, by: Actor) -> None:
    """Log a row's end; call it while the row still has its primary key."""
    deleted_alike([row], by=by)


def deleted_alike(rows: Sequence[Model], *, by: Actor) -> None:
    """Log the end of several rows of one model."""
    if not rows:
        return
    kind = _kind(rows[0])
    _record(rows, DELETION, lambda row: [{"deleted": {"name": kind, "object": str(row)}}], by)
    _log("deleted", rows, by)


def fields_changed(row: Model, before: Model) -> list[str]:
    """List the verbose names of the editable fields in which two versions of a row differ."""
    return [
        str(field.verbose_name)
        for field in row._meta.concrete_fields  # noqa: SLF001 - Django's documented way
        if field.editable and getattr(row, field.attname) != getattr(before, field.attname)
    ]


def actor_name(by: Actor) -> str:
    match by:
        case None:
            return f"the {COMMAND_LINE}"
        case ApiClient():
            return f"API client {by.name}"
        case _:
            return f"user {by.get_username()}"


def _record(
    rows: Sequence[Model],
    flag: int,
    message: Callable[[Model], str | list[Mapping[str, object]]],
    by: Actor,
) -> None:
    user_id = _user_id(by)
    content_type = ContentType.objects.get_for_model(rows[0])
    LogEntry.objects.bulk_create(
        LogEntry(
            user_id=user_id,
            content_type=content_type,
            object_id=str(row.pk),
            object_repr=str(row)[:_LONGEST_REPR],
            action_flag=flag,
            change_message=text if isinstance(text := message(row), str) else json.dumps(text),
        )
        for row in rows
    )


def _user_id(by: Actor) -> int:
    match by:
        case None:
            return _stand_in(COMMAND_LINE, "")
        case ApiClient():
            return _stand_in(f"API client {by.client_id}", by.name)
        case _:
            return int(by.pk)


def _stand_in(username: str, shown: str) -> int:
    user, _ = User.objects.get_or_create(
        username=username[:_LONGEST_NAME],
        defaults={"is_active": False, "password": "!", "last_name": shown[:_LONGEST_NAME]},
    )
    return int(user.pk)


def _log(what: str, rows: Sequence[Model], by: Actor) -> None:
    kind = _kind(rows[0])
    names = str(rows[0]) if len(rows) == 1 else f"{rows[0]} and {len(rows) - 1} more"
    logger.info("%s: %s %s %s", actor_name(by), what, kind, names)


def _kind(row: Model) -> str:
    return str(row._meta.verbose_name)  # noqa: SLF001 - as above

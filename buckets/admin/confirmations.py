"""Asking once more before what cannot be taken back is done to several buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.template.response import TemplateResponse

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.db.models import QuerySet
    from django.http import HttpRequest

    from buckets.models import Bucket

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Question:
    """``consequences`` are sentences; ``button`` is what it says when it is meant so."""

    action: str
    title: str
    consequences: tuple[str, ...]
    button: str
    is_deletion: bool = False


RELEASE = Question(
    "release_holds",
    "Announce the held deletions?",
    (
        "The next scan announces each of these objects as deleted and forgets it.",
        "If they are in the buckets again by then, nothing is announced.",
    ),
    "Yes, announce the deletions",
)
ANNOUNCE_UPDATES = Question(
    "announce_updates",
    "Announce the held updates?",
    (
        "The next scan announces each of these objects as updated, with its new time.",
        "If their times are back by then, nothing is announced.",
    ),
    "Yes, announce the updates",
)
TAKE_TIMES = Question(
    "take_times",
    "Take the new times silently?",
    (
        "The next scan takes the new times for known, and announces nothing of them.",
        "An object among them that was written again with the same bytes is never announced.",
    ),
    "Yes, take the times",
)
REBASELINE = Question(
    "rebaseline",
    "Start over silently?",
    (
        "What is known of the objects is forgotten; the next scan announces none of those there.",
        "What changed since the last scan is never announced; nor is what is held.",
        "From then on, the first scan of these buckets is a baseline.",
    ),
    "Yes, start over",
)
ANNOUNCE_LOST = Question(
    "announce_after_loss",
    "Announce what Redis forgot?",
    (
        "What Redis does not know is announced: every object, if it knows nothing any more.",
        "What was announced before comes again, with the same event_id.",
    ),
    "Yes, announce it",
)
REMEMBER_LOST = Question(
    "remember_after_loss",
    "Only remember what Redis forgot?",
    (
        "What is in the forgotten ones now is remembered, and none of it is announced.",
        "What changed since Redis was lost is never announced.",
    ),
    "Yes, only remember it",
)
DELETE = Question(
    "delete_buckets",
    "Stop watching these buckets?",
    (
        "Their settings, what is known of their objects, and keys that nobody else uses are gone.",
        "Nothing in S3 is touched, and no deletion is announced.",
    ),
    "Yes, delete them here",
    is_deletion=True,
)


def is_confirmed(request: HttpRequest) -> bool:
    return "confirmed" in request.POST


def page(
    request: HttpRequest, admin: ModelAdmin[Any], chosen: QuerySet[Bucket], question: Question
) -> TemplateResponse:
    """Ask, with the choice as it was posted: thousands of names would be too many fields."""
    number = chosen.count()
    context = {
        **admin.admin_site.each_context(request),
        "title": question.title,
        "question": question,
        "opts": admin.opts,
        "shown": chosen[:_SHOWN],
        "number": number,
        "more": max(0, number - _SHOWN),
        "chosen": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "checkbox": ACTION_CHECKBOX_NAME,
        "across": request.POST.get("select_across", "0"),
        "back": request.get_full_path(),
    }
    return TemplateResponse(request, "admin/buckets/bucket/confirm.html", context)

"""Request bodies that are about no bucket (those that are: `buckets/members.py`)."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from buckets.members import Text


class Login(serializers.Serializer[Any]):
    client_id = Text()
    client_secret = Text(trim_whitespace=False)

"""The settings of this process, of the YAML file and the environment (`bucketwatch/env.py`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.conf import settings

from scanning.config.settings import EngineSettings

if TYPE_CHECKING:
    from collections.abc import Mapping


def ensure_django() -> None:
    """Make the documented classes usable from a plain Python shell, as the documentation shows."""
    _name_the_settings()
    if not apps.ready:
        django.setup()


def conf() -> EngineSettings:
    _name_the_settings()
    result: EngineSettings = settings.SCANNING
    return result


def conf_of(given: EngineSettings | Mapping[str, Any]) -> EngineSettings:
    """Read a program's own configuration; of a mapping, what it leaves out is as in force.

    A mapping is the documented YAML. Raises pydantic's ValidationError, which shows no values.
    """
    if isinstance(given, EngineSettings):
        return given
    in_force = conf()
    sections = {
        name: dict(getattr(in_force, name)) | dict(given.get(name) or {})
        for name in EngineSettings.model_fields
    }
    return EngineSettings.model_validate(sections)


def _name_the_settings() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bucketwatch.settings")

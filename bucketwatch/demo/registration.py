"""What an operator would do in a new installation, done through the same functions.

Import this after the demo's environment is set, never before: it starts Django.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import django

from bucketwatch.demo.world import BUCKETS

if TYPE_CHECKING:
    from bucketwatch.demo.home import Home, Secrets
    from bucketwatch.local.servers import S3Server


def prepare(home: Home, made: Secrets, s3: S3Server) -> None:
    """Migrate, create operator and API client, register the buckets; what is there stays."""
    django.setup()
    # The terminal is for notifications.
    logging.basicConfig(filename=home.directory / "demo.log", level="INFO", force=True)
    from django.core.management import call_command  # noqa: PLC0415 - needs Django
    from django.db import connections  # noqa: PLC0415

    from scanning import wiring  # noqa: PLC0415

    call_command("migrate", interactive=False, verbosity=0)
    _create_operator(made)
    _create_api_client(made)
    _register_buckets(home, s3)
    connections.close_all()
    wiring.reset()


def _create_operator(made: Secrets) -> None:
    from django.contrib.auth.models import User  # noqa: PLC0415

    operator = User.objects.filter(username=made.username).first()
    if operator is None:
        User.objects.create_superuser(made.username, password=made.password)
    elif not operator.check_password(made.password):  # what we print must let you in
        operator.set_password(made.password)
        operator.save()


def _create_api_client(made: Secrets) -> None:
    from buckets import services  # noqa: PLC0415
    from buckets.models import ApiClient  # noqa: PLC0415

    if not ApiClient.objects.filter(client_id=made.client_id).exists():
        services.create_api_client(name="Demo", client_id=made.client_id, secret=made.client_secret)


def _register_buckets(home: Home, s3: S3Server) -> None:
    from buckets import services  # noqa: PLC0415

    registered = set(home.registered)
    for bucket in BUCKETS:
        if bucket.name in registered:
            continue
        # It exists if we were killed between adding and remembering.
        with suppress(services.BucketExists):
            services.add_bucket(
                name=bucket.name,
                endpoint=s3.url,
                region=bucket.region,
                access_key=s3.access_key,
                secret_key=s3.secret_key,
                announce_deleted=True,
            )
        home.add_registered(bucket.name)

"""Let somebody in again who has lost the app of his second factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from buckets import services

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    help = (
        "Remove the second factor of people who have lost their app. "
        "All of them need a new one after SECRET_KEY has changed: --all."
    )
    requires_system_checks = ("configuration",)

    def add_arguments(self, parser: ArgumentParser) -> None:
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("names", nargs="*", default=[], metavar="USER", help="names of users")
        who.add_argument("--all", action="store_true", help="everybody's")

    def handle(self, *args: Any, **options: Any) -> None:
        names = options["names"]
        people = User.objects.all() if options["all"] else User.objects.filter(username__in=names)
        unknown = set(names) - {person.get_username() for person in people}
        if unknown:
            raise CommandError(f"There is no user {', '.join(sorted(unknown))}; nothing was done.")
        for person in people:
            if services.remove_second_factor(user=person):
                self.stdout.write(f"{person.get_username()}: the second factor is removed")

"""Run the web server alone, where the monitor runs without one."""

import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from scanning.runtime import processes


class Command(BaseCommand):
    help = "Serve the admin, the API and the probes until SIGTERM or Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        command = processes.web_command()
        self.stdout.write(f"serving http://{settings.WEB_BIND}/admin/")
        self.stdout.flush()
        os.chdir(settings.BASE_DIR)
        os.execv(command[0], command)  # noqa: S606 - this process becomes gunicorn

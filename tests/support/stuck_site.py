"""The product's settings with two other routes, for tests of the web server: settings and URLs.

`/stuck/` holds the interpreter's lock for ever, `/worker/` says which process answers.
"""

import os
import re
from pathlib import Path

from django.http import HttpRequest, HttpResponse
from django.urls import path

from bucketwatch.settings import *  # noqa: F403

ROOT_URLCONF = __name__
BEGUN = "STUCK_FILE"  # names the variable with the file that says when the worker is stuck


def hold_the_interpreter(request: HttpRequest) -> HttpResponse:
    """Search as no time limit in this process can end: exponentially, and in C."""
    Path(os.environ[BEGUN]).touch()
    re.match(rb"(a+)+$", b"a" * 60 + b"b")
    return HttpResponse("never")


def name_worker(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("stuck/", hold_the_interpreter), path("worker/", name_worker)]

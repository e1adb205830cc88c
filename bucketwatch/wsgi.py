"""WSGI entry point, for gunicorn (`manage.py runmonitor` starts one) or any other server."""

import os

from django.core.wsgi import get_wsgi_application

from scanning.runtime.processes import share_heaps

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bucketwatch.settings")

share_heaps()
application = get_wsgi_application()

"""WSGI entry point, for gunicorn (`manage.py runmonitor` starts one) or any other server."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bucketwatch.settings")

application = get_wsgi_application()

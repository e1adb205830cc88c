"""The operator's pages: every write goes through ``services``, and none needs Redis to be there."""

from django.apps import apps
from django.contrib import admin

from buckets.admin import api_client, bucket, credential, endpoint, users

__all__ = ["api_client", "bucket", "credential", "endpoint", "users"]

# Wake-ups leave no results and schedules are not used: django-q2's pages would always be empty.
for _model in apps.get_app_config("django_q").get_models():
    if admin.site.is_registered(_model):
        admin.site.unregister(_model)

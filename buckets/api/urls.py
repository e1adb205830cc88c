"""The /api routes; each with or without a slash at its end."""

from django.urls import re_path

from buckets.api import views
from buckets.api.errors import no_such_route

urlpatterns = [
    re_path(r"^auth/token/?$", views.Token.as_view(), name="token"),
    re_path(
        r"^bucket-notifications/status/?$",
        views.NotificationStatus.as_view(),
        name="notification-status",
    ),
    re_path(
        r"^bucket-notifications/enable/?$",
        views.EnableNotifications.as_view(),
        name="enable-notifications",
    ),
    re_path(
        r"^bucket-notifications/disable/?$",
        views.DisableNotifications.as_view(),
        name="disable-notifications",
    ),
    re_path(r"^buckets/add/?$", views.AddBucket.as_view(), name="add-bucket"),
    re_path(r"^buckets/update/?$", views.UpdateBucket.as_view(), name="update-bucket"),
    re_path(r"^buckets/delete/?$", views.DeleteBucket.as_view(), name="delete-bucket"),
    re_path(r"", no_such_route),
]

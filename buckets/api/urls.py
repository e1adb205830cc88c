"""The /api routes; each with or without a slash at its end."""

from django.urls import re_path

from buckets.api.errors import no_such_route
from buckets.api.legacy import views
from buckets.api.openapi import views as openapi_views
from buckets.api.v1 import buckets, credentials, endpoints, events, hints

NAME = r"(?P<name>[^/]+)"

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
    re_path(r"^v1/buckets/?$", buckets.Buckets.as_view(), name="v1-buckets"),
    re_path(rf"^v1/buckets/{NAME}/?$", buckets.OneBucket.as_view(), name="v1-bucket"),
    re_path(rf"^v1/buckets/{NAME}/scan/?$", buckets.ScanBucket.as_view(), name="v1-scan"),
    re_path(rf"^v1/buckets/{NAME}/test/?$", buckets.TestBucket.as_view(), name="v1-test"),
    re_path(rf"^v1/buckets/{NAME}/held/?$", buckets.HeldObjects.as_view(), name="v1-held"),
    re_path(rf"^v1/buckets/{NAME}/explain/?$", buckets.ExplainKey.as_view(), name="v1-explain"),
    re_path(rf"^v1/buckets/{NAME}/release/?$", buckets.ReleaseBucket.as_view(), name="v1-release"),
    re_path(rf"^v1/buckets/{NAME}/resume/?$", buckets.ResumeBucket.as_view(), name="v1-resume"),
    re_path(r"^v1/resume/?$", buckets.ResumeBuckets.as_view(), name="v1-resume-all"),
    re_path(r"^v1/credentials/?$", credentials.Credentials.as_view(), name="v1-credentials"),
    re_path(
        rf"^v1/credentials/{NAME}/?$", credentials.OneCredential.as_view(), name="v1-credential"
    ),
    re_path(r"^v1/endpoints/?$", endpoints.Endpoints.as_view(), name="v1-endpoints"),
    re_path(rf"^v1/endpoints/{NAME}/?$", endpoints.OneEndpoint.as_view(), name="v1-endpoint"),
    re_path(r"^v1/events/?$", events.Events.as_view(), name="v1-events"),
    re_path(r"^v1/hints/?$", hints.Hints.as_view(), name="v1-hints"),
    re_path(r"^schema/?$", openapi_views.Schema.as_view(), name="schema"),
    re_path(r"^docs/?$", openapi_views.ApiDocsPage.as_view(), name="docs"),
    re_path(r"", no_such_route),
]
